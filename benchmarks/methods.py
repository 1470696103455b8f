"""What each method's steps cost, per gradient of an example, beside plain steps of SGD.

    OMP_NUM_THREADS=1 python benchmarks/methods.py [--members 50] [--rounds 3] [--methods scrub salun ...]

digits, MLP 64-128-10, 70 random rows forgotten, default options but for 5 epochs of batches of 64, one thread.
`us/gradient` is the processor time of a run over the examples that its ledger says went through forward and backward,
and beside it the same in units of fine-tuning's, measured in turn, the median of the rounds; `cost` is what the ledger
says, relative to retraining. With `EXPUNGE_COMPILED=0` like is compared with like: only cross-entropy and a few other
losses are written in compiled kernels, and fine-tuning is what they serve best. Few gradients (ascent) leave what every
run costs once.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time

import torch

import expunge as ex
from expunge.methods import METHODS, FineTune
from expunge.methods.method import lacking

GOAL = 1.3


def once(pretrained, task, forget, method, targets):
    began = time.process_time()
    given = {"targets": targets} if "targets" in method.needs else {}
    done = ex.unlearn(pretrained, task, forget, method, workers=1, **given)
    spent = time.process_time() - began
    return spent, done.trace.cost


def small(kind):
    """Five epochs of batches of 64, whatever the method's own defaults are."""
    fields = {field.name for field in dataclasses.fields(kind)}
    wanted = {"epochs": 5, "repair_epochs": 5, "batch_size": 64, "forget_batch_size": 64}
    return kind(**{name: value for name, value in wanted.items() if name in fields})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = ex.tasks.digits()
    forget = ex.tasks.random_forget_set(task, size=70)
    pretrained = ex.train(task, members=options.members, seed=0, device="cpu")
    targets = pretrained.margins(task.train.x, task.train.y)
    examples = options.members * len(forget.retain) * task.recipe.epochs
    lacks = lacking(task)
    kinds = {name: kind for name, kind in METHODS.items() if not kind.needs & lacks.keys()}
    names = options.methods or [name for name, kind in kinds.items() if name not in ("do_nothing", "fine_tune")]
    print(f"{'method':26} {'cost':>7} {'us/gradient':>12} {'per gradient of fine-tuning':>28}")
    for name in names:
        try:
            method = small(kinds[name])
            found = []
            for _ in range(options.rounds):
                plain, plain_cost = once(pretrained, task, forget, small(FineTune), None)
                own, cost = once(pretrained, task, forget, method, targets)
                if cost:
                    found.append((own / (cost * examples), plain / (plain_cost * examples)))
        except ex.core.InputError as error:
            print(f"{name:26} refused: {str(error)[:80]}")
            continue
        if not found:
            print(f"{name:26} {cost:7.3f}   no gradients")
            continue
        ratio = statistics.median(own / plain for own, plain in found)
        mine = statistics.median(own for own, _ in found)
        print(
            f"{name:26} {cost:7.3f} {1e6 * mine:12.2f} {ratio:28.2f}{'' if ratio <= GOAL else '  above 1.3'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
