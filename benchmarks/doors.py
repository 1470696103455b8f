"""The doors, each walked through once: the verdict on doing nothing, on retraining and on methods, from data to report.

    python benchmarks/doors.py [--members 20] [--out runs/doors] [--only text forest ...]

    text        a text classifier of `transformers` (BERT from a config, attention masks); its own loop:
                AdamW, warm-up, clipping, dropout; gradient ascent starts from its weights
    files       pretrained models and oracles as files that something else has trained (here: the same task, exported)
    functions   three unlearning functions with the usual four arguments, as people publish them
    forest      a random forest of scikit-learn, judged against itself fitted again without the rows
    regression  a network with one output and a real target

Data are made up, small and seeded, but for the forest's (scikit-learn's breast-cancer table). Each
goes from data to a verdict; with 20 members verdicts are coarse.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import expunge as ex

EPOCHS = 8


def bert() -> nn.Module:
    """Return a BERT of one layer with two labels and its usual dropout."""
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return BertForSequenceClassification(BertConfig(vocab_size=40, max_position_embeddings=16, **sizes))


def fit(model: nn.Module, dataset: Dataset[Any], seed: int) -> None:
    """AdamW with warm-up, a falling rate and clipping."""
    loader = DataLoader(dataset, batch_size=32, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    steps = EPOCHS * len(loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 8, (steps - step) / steps))
    model.train()
    for _ in range(EPOCHS):
        for batch, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(**batch).logits, y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()


def text() -> ex.Task:
    """Sequences of up to 12 words; the label says which half of the vocabulary is more common, 10 % of labels wrong."""
    draw = torch.Generator().manual_seed(0)
    words = torch.randint(5, 40, (260, 12), generator=draw)
    lengths = torch.randint(4, 13, (260,), generator=draw)
    mask = (torch.arange(12) < lengths[:, None]).long()
    words = words * mask
    y = (((words > 0) & (words < 22)).sum(1) * 2 > lengths).long()
    y = torch.where(torch.rand(260, generator=draw) < 0.1, 1 - y, y)
    train, validation = slice(0, 200), slice(200, None)
    return ex.Task(
        name="text",
        train=({"input_ids": words[train], "attention_mask": mask[train]}, y[train]),
        validation=({"input_ids": words[validation], "attention_mask": mask[validation]}, y[validation]),
        model=bert,
        fit=fit,
    )


def table(outcome: str = "classes") -> ex.Task:
    """A network on 400 rows of 10 numbers: two classes, or a real target."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(600, 10, generator=draw)
    y = x[:, 0] + x[:, 1] * x[:, 2] + 0.5 * torch.randn(600, generator=draw)
    y = (y > 0).long() if outcome == "classes" else y
    return ex.Task(
        name=outcome,
        train=(x[:400], y[:400]),
        validation=(x[400:], y[400:]),
        model=lambda: nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 2 if outcome == "classes" else 1)),
        outcome=outcome,
        recipe=ex.Recipe(epochs=30, batch_size=50, lr=0.05, peak_epoch=3),
    )


def fine_tune(model: nn.Module, retain: Any, forget: Any, validation: Any) -> nn.Module:
    """Descend on the retain set for three epochs."""
    return _descend(model, retain, 3, lambda loss, _: loss)


def ascend(model: nn.Module, retain: Any, forget: Any, validation: Any) -> None:
    """Climb the loss of the forget set for two epochs, in place."""
    _descend(model, forget, 2, lambda loss, _: -loss)


def random_labels(model: nn.Module, retain: Any, forget: Any, validation: Any) -> nn.Module:
    """Learn the other label on the forget set, then repair on the retain set."""
    _descend(model, forget, 2, lambda _, wrong: wrong)
    return _descend(model, retain, 1, lambda loss, _: loss)


def refit_half(forest: Any, retain: Any, forget: Any, validation: Any) -> None:
    """Keep every second tree, and grow the others again on the retain set."""
    forest.estimators_ = forest.estimators_[::2]
    forest.set_params(warm_start=True).fit(*retain)


def _descend(model: nn.Module, loader: Any, epochs: int, objective: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            outputs = model(x)
            objective(F.cross_entropy(outputs, y), F.cross_entropy(outputs, 1 - y)).backward()
            optimizer.step()
    return model


def doors(members: int, out: Path) -> Iterator[tuple[str, Callable[[], ex.Run]]]:
    """Yield each door's name and what walks through it."""

    def audit(name: str, task: ex.Task, methods: Any, **given: Any) -> ex.Run:
        forget = given.pop("forget", None) or ex.tasks.random_forget_set(task, size=12, seed=0)
        return ex.audit(task, forget=forget, methods=methods, members=members, out=out / name, forecast=False, **given)

    yield "text", lambda: audit("text", text(), ex.methods.GradientAscent(lr=0.01, epochs=3))

    def files() -> ex.Run:
        task = table()
        forget = ex.tasks.random_forget_set(task, size=12, seed=0)
        for folder, without, seed in (("pretrained", None, 1), ("oracles", forget, 2), ("held-out", forget, 3)):
            (out / folder).mkdir(parents=True, exist_ok=True)
            trained = ex.train(task, without=without, members=members, seed=seed)
            for member in range(members):
                trained.export(member, out / folder / f"{member}.{'pt' if seed == 1 else 'safetensors'}")
        return audit(
            "files",
            task,
            "gradient_ascent",
            forget=forget,
            pretrained=str(out / "pretrained" / "*.pt"),
            oracles=str(out / "oracles" / "*.safetensors"),
            held_out=str(out / "held-out" / "*.safetensors"),
        )

    yield "files", files
    functions = [ex.methods.from_function(function) for function in (fine_tune, ascend, random_labels)]
    yield "functions", lambda: audit("functions", table(), functions)

    def forest() -> ex.Run:
        x, y = load_breast_cancer(return_X_y=True)
        task = ex.tasks.from_estimator(RandomForestClassifier(50), x[:400], y[:400], validation=(x[400:], y[400:]))
        return audit("forest", task, ["retrain", ex.methods.from_function(refit_half)])

    yield "forest", forest
    yield "regression", lambda: audit("regression", table("regression"), "gradient_ascent")


def main() -> None:
    """Print one line for each configuration that was chosen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/doors"))
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args()
    print(f"{'door':12}{'configuration':44}{'verdict':20}{'excess F':>9}{'R':>7}{'V':>7}{'checks':>8}")
    for name, walk in doors(options.members, options.out):
        if options.only and name not in options.only:
            continue
        begin = time.perf_counter()
        run = walk()
        found = run.record.forget_sets[0]
        chosen = {selection.chosen for selection in found.selections}
        for configuration in found.configurations:
            if configuration.id not in chosen and configuration.method not in ("do_nothing", "retrain"):
                continue
            excess = [configuration.scores[split].excess for split in ("forget", "retain", "validation")]
            verdict = configuration.verdict.name
            failed = sum(not check.passed for check in configuration.checks)
            numbers = f"{excess[0]:9.2f}{excess[1]:7.2f}{excess[2]:7.2f}{failed:>5} bad"
            print(f"{name:12}{configuration.id[:43]:44}{verdict:20}{numbers}")
        print(f"{name:12}{time.perf_counter() - begin:.0f} s; {run.report}")


if __name__ == "__main__":
    main()
