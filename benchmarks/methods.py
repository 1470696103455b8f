"""What each method's steps cost, per gradient of an example, beside plain steps of SGD.

    OMP_NUM_THREADS=1 python benchmarks/methods.py [--members 50] [--rounds 3] [--methods scrub salun ...]

digits, MLP 64-128-10, 128 random rows forgotten, default options but for 5 epochs (20 of those that visit F alone) of
batches of 64, one thread. `gradients` are those of examples that went through forward and backward, in thousands a
member: what the ledger says, and besides a third for every example that went forward to be read only (losses of F
before and after a pass, margins for the checks). `us/gradient` is the processor time of a run over them, less that of
a run with the same stopping times and no steps, which stands for what is not a step. Beside it is the same in units of
fine-tuning's, measured in turn, the median of the rounds; above 1.3, the line ends in what it is that a step computes
besides gradients, if one is known. `cost` is what the ledger says, relative to retraining. With `EXPUNGE_COMPILED=0`
like is compared with like: only some losses are written in compiled kernels, and fine-tuning is what they serve best.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Iterator

import torch

import expunge as ex
from expunge.core import Ensemble
from expunge.methods import METHODS, Checkpoint, FineTune, Problem
from expunge.methods.method import lacking
from expunge.methods.problem import FORWARD_SHARE

GOAL = 1.3
BESIDES = {
    "clipped_noisy": "a normal number (double precision) for every weight and step",
    "evidential_repair": "the evidential loss: polygammas of every class in 3 of 8 epochs",
    "recall_inputs": "steps on inputs, differentiated by autograd",
    "fisher_noise": "squares of slopes and inputs, a batch of all members at a time",
    "gradient_ascent": "two readings and a stopping time for two steps",
    "replay": "the choice of rows is a large part of the run",
    "rfe": "gradients of single examples, once, by autograd, and a projection in double precision at every step",
    "ssd": "squares of slopes and inputs, a batch of all members at a time",
}
"""What takes time that is no gradient, by profiles of runs."""


class Counted:
    """How many examples went forward to be read, and how many of these the ledger has already, by members."""

    def __init__(self):
        self.read = self.entered = 0.0
        logits, enter = Ensemble.logits, Problem.forward_only

        def counted(ensemble, x, *options, **named):
            self.read += len(ensemble) * len(x)
            return logits(ensemble, x, *options, **named)

        def entered(problem, examples):
            self.entered += len(problem.start) * examples
            enter(problem, examples)

        Ensemble.logits, Problem.forward_only = counted, entered

    def taken(self):
        """Return the gradients that readings outside the ledger are worth, and begin again."""
        found = FORWARD_SHARE * max(0.0, self.read - self.entered)
        self.read = self.entered = 0.0
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bare(FineTune):
    """All that a run does but its steps."""

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint for every epoch."""
        descent = self.descent(problem)
        for epoch in range(1, self.epochs + 1):
            yield problem.checkpoint(epoch, descent, self.statistics)


class BareWithMargins(Bare):
    """The same, with the margins that methods are checked by which have to move enough."""

    checks = (*FineTune.checks, "enough")


def bare(method):
    kind = BareWithMargins if "enough" in method.checks else Bare
    return kind(epochs=method.planned_stops)


def once(pretrained, task, forget, method, targets, counted):
    counted.taken()
    began = time.process_time()
    given = {"targets": targets} if "targets" in method.needs else {}
    done = ex.unlearn(pretrained, task, forget, method, workers=1, **given)
    spent = time.process_time() - began
    return spent, done.trace.cost, counted.taken()


def small(kind):
    """Some epochs of batches of 64, whatever the method's own defaults are."""
    fields = {field.name for field in dataclasses.fields(kind)}
    epochs = 5 if "retain" in kind.needs else 20
    wanted = {"epochs": epochs, "repair_epochs": 5, "batch_size": 64, "forget_batch_size": 64}
    return kind(**{name: value for name, value in wanted.items() if name in fields})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = ex.tasks.digits()
    forget = ex.tasks.random_forget_set(task, size=128)
    pretrained = ex.train(task, members=options.members, seed=0, device="cpu")
    targets = pretrained.margins(task.train.x, task.train.y)
    examples = options.members * len(forget.retain) * task.recipe.epochs
    lacks, counted = lacking(task), Counted()
    kinds = {name: kind for name, kind in METHODS.items() if not kind.needs & lacks.keys()}
    names = options.methods or [name for name, kind in kinds.items() if name not in ("do_nothing", "fine_tune")]

    def per_gradient(method):
        """Return microseconds a gradient, gradients, and the cost."""
        nothing, _, spared = once(pretrained, task, forget, bare(method), targets, counted)
        spent, cost, readings = once(pretrained, task, forget, method, targets, counted)
        gradients = cost * examples + readings - spared
        return 1e6 * (spent - nothing) / max(gradients, 1.0), gradients, cost

    print(f"{'method':24} {'cost':>7} {'gradients':>10} {'us/gradient':>12} {'per gradient of fine-tuning':>28}")
    for name in names:
        try:
            method = small(kinds[name])
            found = [(per_gradient(small(FineTune))[0], *per_gradient(method)) for _ in range(options.rounds)]
        except ex.core.InputError as error:
            print(f"{name:24} refused: {str(error)[:80]}")
            continue
        _, own, gradients, cost = sorted(found, key=lambda round: round[1])[len(found) // 2]
        if not cost:
            print(f"{name:24} {cost:7.3f}   no gradients")
            continue
        ratio = statistics.median(round[1] / round[0] for round in found)
        above = f"  above {GOAL}: {BESIDES.get(name, 'unexplained')}" if ratio > GOAL else ""
        print(
            f"{name:24} {cost:7.3f} {gradients / options.members / 1000:10.1f} {own:12.2f} {ratio:28.2f}{above}",
            flush=True,
        )


if __name__ == "__main__":
    main()
