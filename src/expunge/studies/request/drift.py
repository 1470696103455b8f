"""How far a model has drifted after several requests: a rule from one measured case, to say when to retrain.

    predicted excess of KLoM over the floor = a * k^b nats,   largest over the methods used

k is the share of the training rows that was removed since the model was last trained from nothing, in units of `BLOCK`.
a and b are fitted to `expunge reproduce sequential-drift --preset cpu`: digits, 50 models, 20 requests of 20 of 1,437
rows each, all kept labels real (docs/sequential_drift.md), where models that were left as they are read about the
same: it is what the methods leave undone. Below k = 1 the rule goes beyond what was measured. It speaks of that case;
it says when to look or to retrain, and measures nothing of the model at hand.
"""

from __future__ import annotations

from collections.abc import Collection

BLOCK = 20 / 1437
"""Share of the training rows that one request of the study removed."""

MEASURED: dict[str, tuple[float, float]] = {
    "fine_tune": (0.32, 0.59),
    "gradient_descent_ascent": (0.29, 0.62),
    "scrub": (0.32, 0.60),
}
"""a and b by method; another method is taken for the worst of these."""


def predicted_drift(methods: Collection[str], removed: float) -> float:
    """Return the predicted excess of KLoM over the floor in nats, P95 over rows that were not removed.

    Args:
        methods: Names of the methods that were used since the model was last trained from nothing.
        removed: Rows removed since then, as a share of the training rows, 0 to 1.

    >>> predicted_drift(["scrub"], 0.0)
    0.0
    """
    chosen = [MEASURED[name] for name in methods if name in MEASURED]
    if any(name not in MEASURED for name in methods):
        chosen = list(MEASURED.values())
    return max((float(a * (removed / BLOCK) ** b) for a, b in chosen), default=0.0)
