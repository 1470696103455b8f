"""How well a forecast sees with a sample of the retained examples in place of all of them.

    python benchmarks/forecast_sample.py                          digits: 128, 256, 512 of 1,400 examples
    python benchmarks/forecast_sample.py --data DIR --train 8000  Fashion-MNIST: 1,024 and 2,048 of 8,000

For each sample the predicted change of every margin on F, R and V is held against that with all examples (correlation
over examples and slope of one on the other), and both against what retraining did; processor seconds beside.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import expunge as ex
from expunge.dependence import representatives
from expunge.dependence.linearised import Linearised
from expunge.studies.run.measure import Parts
from expunge.studies.run.prediction import Subject


def main() -> None:
    """Print a line a sample and forget set."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--data", type=Path, help="folder with Fashion-MNIST; digits without")
    ask.add_argument("--train", type=int, default=8000, help="training images of Fashion-MNIST")
    ask.add_argument("--members", type=int, default=40)
    ask.add_argument("--followed", type=int, default=8)
    given = ask.parse_args()
    if given.data is None:
        task, samples = ex.tasks.digits(), (128, 256, 512)
    else:
        task, samples = ex.tasks.fashion_mnist(given.data, train=given.train, epochs=5), (1024, 2048)
    pretrained = ex.train(task, members=given.members, seed=0)
    subject = Subject.of(task, pretrained, followed=given.followed)
    size = round(0.01 * len(task.train))
    for forget in (ex.tasks.random_forget_set(task, size, seed=0), ex.tasks.cluster(task, size, seed=0)):
        oracles = ex.train(task, members=given.members, without=forget, seed=1)
        parts = Parts.of(task, forget, 0)
        true = {
            name: (oracles.margins(s.x, s.y).double().mean(0) - pretrained.margins(s.x, s.y).double().mean(0)).numpy()
            for name, s in parts.splits.items()
        }
        whole: dict[str, np.ndarray] = {}
        for sample in (None, *samples):
            representatives.LARGE = len(task.train) if sample is None else 0
            representatives.SAMPLE = sample or 1
            began = time.process_time()
            removal = subject.removal(forget)
            spent = time.process_time() - began
            linearised = Linearised(subject.followed)
            moved = {
                n: linearised.margins(s.x, s.y, removal)[1].double().mean(0).numpy() for n, s in parts.splits.items()
            }
            whole = whole or moved
            words = [
                f"{name} r {_r(moved[name], true[name]):.2f} slope {_slope(moved[name], true[name]):.2f}, with all "
                f"r {_r(moved[name], whole[name]):.2f} slope {_slope(moved[name], whole[name]):.2f}"
                for name in moved
            ]
            print(f"{forget.name:12} {sample or 'all':>5}: {'; '.join(words)}; {spent:.1f} s", flush=True)


def _r(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def _slope(predicted: np.ndarray, found: np.ndarray) -> float:
    """Least-squares slope of what was found on what was predicted; below 1 the prediction is too large."""
    return float(predicted @ found / (predicted @ predicted))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
