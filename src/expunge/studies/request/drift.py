"""How far a model has drifted after several requests: a rule from one measured case, to say when to retrain.

    predicted excess of KLoM over the floor after k runs = a * k^b nats,   largest over the methods used

k is the number of runs since the model was last trained from nothing, or the rows removed since then in units of
`BLOCK` of the training data, whichever is more. a and b are fitted to `expunge reproduce sequential-drift --preset
cpu`: digits, 50 models, 20 requests of 20 of 1,437 rows each, all kept labels real (docs/sequential_drift.md). The
rule speaks of that case. It says when to look or retrain, and measures nothing of the model at hand.
"""

from __future__ import annotations

from collections.abc import Collection

BLOCK = 20 / 1437
"""Share of the training rows that one request of the study removed."""

MEASURED: dict[str, tuple[float, float]] = {
    "fine_tune": (0.06, 0.65),
    "gradient_descent_ascent": (0.06, 0.7),
    "scrub": (0.06, 0.65),
}
"""a and b by method; another method is taken for the worst of these."""


def predicted_drift(methods: Collection[str], runs: int, removed: float) -> float:
    """Return the predicted excess of KLoM over the floor in nats, P95 over rows that were not removed.

    Args:
        methods: Names of the methods that were used since the model was last trained from nothing.
        runs: How many runs they made.
        removed: Rows removed in these runs, as a share of the training rows.

    >>> predicted_drift([], 0, 0.0)
    0.0
    """
    if runs == 0:
        return 0.0
    k = max(float(runs), removed / BLOCK)
    chosen = [MEASURED[name] for name in methods if name in MEASURED]
    if any(name not in MEASURED for name in methods):
        chosen = list(MEASURED.values())
    return max(float(a * k**b) for a, b in chosen)
