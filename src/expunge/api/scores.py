"""Score what any models said."""

from __future__ import annotations

from typing import Any

from expunge.core import ForgetSet, Task
from expunge.core.checks import plain_arguments
from expunge.core.scoring import ScoreResult
from expunge.report.score_table import score_text
from expunge.studies.score import score_arrays


class Scores(ScoreResult):
    """What `score` found; printed, it is the table of `expunge score`."""

    def __str__(self) -> str:
        """Return the table."""
        return score_text(self)


@plain_arguments
def score(
    unlearned: Any,
    oracle: Any,
    *,
    held_out: Any = None,
    pretrained: Any = None,
    task: Task | None = None,
    forget: ForgetSet | None = None,
    labels: Any = None,
    tolerance: float | None = None,
    row_tolerance: float | None = None,
    seed: int = 0,
) -> Scores:
    """Score unlearned members against oracles: all metrics that what is given allows, and a verdict.

    Each side is an array on the forget examples, numpy or torch: margins (members, examples) or, with `labels`, logits
    (members, examples, classes); or a mapping of such arrays by split (`forget`, `retain`, `validation`), which a
    verdict needs; or an ensemble, with `task` and `forget`.

    Args:
        unlearned: The unlearned members, at least 5.
        oracle: Members retrained without the forget set, on the same examples in the same order, at least 5.
        held_out: Other retrained members, for an honest floor.
        pretrained: The members before unlearning, for the side of a verdict.
        task: The task of ensembles; all forget examples are scored, and a sample of retain and validation examples.
        forget: The forget set of ensembles.
        labels: Labels of the forget examples (examples,), or a mapping by split; needed with logits.
        tolerance: Largest excess over the floor, in nats, that the verdict counts as indistinguishable; None for the
            default.
        row_tolerance: Shift of a single forget row, in oracle standard deviations, that must not be missed; None for
            the default, 1.
        seed: Seed of everything random.

    Returns:
        What `expunge score` says: `lines`, `verdict`, `missing`, `notes`; `result["KLoM, p95"]` is one line, and
        `print(result)` the table.

    Raises:
        InputError: If shapes disagree, an oracle is not finite, a side has fewer than 5 members, or an ensemble comes
            without task and forget set.

    >>> import numpy as np
    >>> draw = np.random.default_rng(0)
    >>> result = score(draw.normal(2, 1, (30, 40)), oracle=draw.normal(0, 1, (30, 40)))
    >>> line = result["wasserstein"]
    >>> print(f"{line.value:.1f} {line.unit}, floor {line.floor:.1f}: {line.side}")
    2.0 oracle sd, floor 0.4: off the oracle
    """
    found = score_arrays(
        unlearned,
        oracle,
        held_out=held_out,
        pretrained=pretrained,
        task=task,
        forget=forget,
        labels=labels,
        tolerance=tolerance,
        row_tolerance=row_tolerance,
        seed=seed,
    )
    return Scores(**dict(found))
