"""Runs of certified methods on small logistic regressions, and what an attack measures of them.

Members of such a task differ by their noise alone. They are made here one after another in this process, by the task's
own `fit` and with the seeds that `ex.train` gives them, so that hundreds of runs take minutes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

import expunge as ex
from expunge.core import Ensemble
from expunge.core.claim import Claim
from expunge.core.convex import ConvexFit
from expunge.core.seeds import derive
from expunge.ensembles.own_loop import fit_seed, member_seeds
from expunge.methods import Method, unlearn
from expunge.metrics.privacy import audit_margins

ROWS, FEATURES, FORGET = 120, 4, 8


@dataclass(frozen=True)
class QuietFit(ConvexFit):
    """It says that it publishes with noise, and publishes with a ten-thousandth of it."""

    def drawn(self, seed, like):
        linear, noise = super().drawn(seed, like)
        return linear / 1e4, noise / 1e4


@dataclass(frozen=True)
class Run:
    """One run: what was claimed of its members, and what an attack measured at least."""

    claim: Claim
    measured: float


def one_task(number: int, *, fit: type[ConvexFit] = ConvexFit, scale: float = 1.0, **options) -> ex.Task:
    """A table of its own with two overlapping classes."""
    rng = np.random.default_rng([number, 7])
    x = rng.normal(size=(ROWS, FEATURES))
    y = (x[:, 0] + rng.normal(size=ROWS) > 0).astype(int)
    made = ex.tasks.logistic((x, y), validation=40, seed=number, **{"l2": 0.05, **options})
    own = fit(**dataclasses.asdict(made.fit))
    return ex.Task(
        name=made.name,
        train=(scale * made.train.x, made.train.y),
        validation=(made.validation.x, made.validation.y),
        model=made.model,
        recipe=made.recipe,
        fit=own,
    )


def odd_rows(task: ex.Task) -> ex.ForgetSet:
    """The rows that a model fits worst: those that leave most behind."""
    start = torch.zeros(2, task.train.x.shape[1], dtype=torch.float64)
    w = task.fit.solve(start, task.train.x, task.train.y, start)
    margin = (task.train.x @ w.T).gather(1, task.train.y[:, None])[:, 0]
    return ex.ForgetSet.of(task, margin.argsort()[:FORGET].numpy(), name="odd", how="least margin")


def members_of(task: ex.Task, rows: torch.Tensor, members: int, seed: int) -> Ensemble:
    """What `ex.train` would make of some rows."""
    ids = tuple(range(members))
    found = []
    for own in member_seeds(seed, [rows] * members, ids):
        module = task.build(derive(own, "initialisation"))
        task.fit(module, task.train[rows], fit_seed(own))
        found.append(module.weight.detach())
    return Ensemble(task.network, {"weight": torch.stack(found)}, {}, ids, seed)


def run(task: ex.Task, method: Method, *, members: int, seed: int, significance: float) -> Run:
    """Train, unlearn the oddest rows, retrain, and attack the margins of the forgotten rows."""
    forget = odd_rows(task)
    pretrained = members_of(task, torch.arange(len(task.train)), members, seed)
    oracles = members_of(task, torch.from_numpy(forget.retain), members, seed + 1)
    done = unlearn(pretrained, task, forget, method, seed=seed, workers=1)
    gone = torch.from_numpy(forget.indices)
    ours, theirs = (e.margins(task.train.x[gone], task.train.y[gone]).numpy() for e in (done, oracles))
    bound = audit_margins(ours, theirs, delta=done.trace.claim.delta, significance=significance)
    return Run(done.trace.claim, bound.epsilon)
