"""What changed in one model: its weights, and how it behaves on the forget, retain and validation examples."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from expunge.core import Ensemble
from expunge.core.record import SPLITS, SplitName
from expunge.core.unlearning import BeforeAfter, ChangeRecord
from expunge.studies.run.measure import Parts


def weight_changes(before: Mapping[str, Tensor], after: Mapping[str, Tensor], trained: set[str]) -> list[ChangeRecord]:
    """Return what changed in each tensor.

    Args:
        before: Tensors of the model by name.
        after: The same of the unlearned one.
        trained: Names of those that are parameters.
    """
    return [_change(name, before[name], after[name], name in trained) for name in before]


def _change(name: str, before: Tensor, after: Tensor, trained: bool) -> ChangeRecord:
    was, now = before.double().flatten(), after.double().flatten()
    return ChangeRecord(
        name=name,
        numbers=len(was),
        changed=float((was != now).double().mean()) if len(was) else 0.0,
        distance=float((now - was).norm()),
        norm=float(was.norm()),
        trained=trained,
    )


def behaviour(parts: Parts, before: Ensemble, after: Ensemble) -> dict[SplitName, BeforeAfter]:
    """Return how two models behave on each split.

    Args:
        parts: The examples.
        before: An ensemble of one.
        after: The same.
    """
    found: dict[SplitName, BeforeAfter] = {}
    outcome = before.network.outcome
    for name in SPLITS:
        x, y = parts.splits[name].x, parts.splits[name].y
        was, now = before.logits(x), after.logits(x)
        numbers = [outcome.statistic(each, y)[0] for each in (was, now)]
        found[name] = BeforeAfter(
            examples=len(x),
            loss=(_mean(outcome.loss(was, y)), _mean(outcome.loss(now, y))),
            utility=(float(outcome.utility(was, y)), float(outcome.utility(now, y))),
            statistic=(_mean(numbers[0]), _mean(numbers[1])),
            moved=float((numbers[1] - numbers[0]).square().mean().sqrt()),
            agreement=float(outcome.agreement(was, now, y)),
        )
    return found


def no_better(parts: Parts, model: Ensemble, other: Ensemble) -> tuple[float, float] | None:
    """Return the mean losses of two models on the retain set if the first is no better in loss and in utility."""
    x, y, outcome = parts.splits["retain"].x, parts.splits["retain"].y, model.network.outcome
    ours, theirs = model.logits(x), other.logits(x)
    losses = _mean(outcome.loss(ours, y)), _mean(outcome.loss(theirs, y))
    worse = losses[0] >= losses[1] and bool((outcome.utility(ours, y) <= outcome.utility(theirs, y)).all())
    return losses if worse else None


def unlike(parts: Parts, model: Ensemble, pretrained: Mapping[str, object]) -> list[SplitName]:
    """Return the splits on which a model behaves like none of the pretrained models of an audit.

    Its mean statistic is then outside of theirs by more than their whole range.

    Args:
        parts: The examples that the audit scored.
        model: An ensemble of one.
        pretrained: Margins (members, examples) as an audit keeps them, under `pretrained/<split>`.
    """
    found: list[SplitName] = []
    for name in SPLITS:
        split = parts.splits[name]
        theirs = torch.as_tensor(pretrained[f"pretrained/{name}"]).double().mean(1)
        theirs = theirs[theirs.isfinite()]
        own = _mean(model.network.outcome.statistic(model.logits(split.x), split.y))
        room = float(theirs.max() - theirs.min()) if len(theirs) else float("inf")
        if not float(theirs.min()) - room <= own <= float(theirs.max()) + room:
            found.append(name)
    return found


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
