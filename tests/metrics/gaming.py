"""Manipulations that make a bad ensemble look good to somebody's ruler; no metric of ours may score one better.

The honest ensemble is a pretrained one: margins 1.5 oracle standard deviations too high. Each manipulation takes it and
returns what would be handed in instead. None brings the margins closer to the oracles', so none may lower a score.
"""

from __future__ import annotations

import numpy as np

MEMBERS, EXAMPLES = 100, 60


def oracles(seed=0, members=MEMBERS):
    return np.random.default_rng([seed, 0]).normal(3, 1, (members, EXAMPLES))


def honest(seed=0, members=MEMBERS):
    return np.random.default_rng([seed, 1]).normal(4.5, 1, (members, EXAMPLES))


def _members(rows, value):
    def change(margins, oracle):
        changed = margins.copy()
        changed[rows] = value
        return changed

    return change


def _tails(margins, oracle):
    """Every 20th member errs wildly, in both directions, around the same centre."""
    changed = margins.copy()
    changed[::20] = 4.5 + 50 * np.sign(margins[::20] - 4.5)
    return changed


def _collapsed(margins, oracle):
    """A tenth of the members predict one class whatever the input."""
    changed = margins.copy()
    changed[::10] = np.linspace(-4, 4, 10)[np.arange(margins.shape[1]) % 4]
    return changed


MANIPULATIONS = {
    "logits times 30": lambda margins, oracle: margins * 30,
    "logits divided by 30": lambda margins, oracle: margins / 30,
    "logits times 1e8": lambda margins, oracle: margins * 1e8,
    "constant above all oracles": lambda margins, oracle: np.full_like(margins, oracle.max() + 1),
    "constant far above": lambda margins, oracle: np.full_like(margins, 1000.0),
    "constant below all oracles": lambda margins, oracle: np.full_like(margins, oracle.min() - 1),
    "one NaN margin": lambda margins, oracle: np.where(
        np.arange(margins.size).reshape(margins.shape) == 7, np.nan, margins
    ),
    "one NaN member": _members(slice(4, 5), np.nan),
    "half the members NaN": _members(slice(0, None, 2), np.nan),
    "all members NaN": _members(slice(None), np.nan),
    "a member at infinity": _members(slice(4, 5), np.inf),
    "a member at minus infinity": _members(slice(4, 5), -np.inf),
    "two members at +-100": lambda m, o: _members(slice(1, 2), -100.0)(_members(slice(0, 1), 100.0)(m, o), o),
    "two members at -100": _members(slice(0, 2), -100.0),
    "shift hidden by heavy tails": _tails,
    "some members collapsed": _collapsed,
    "label-swapped predictions": lambda margins, oracle: -margins,
    "copies of one model": lambda margins, oracle: np.repeat(margins[:1], len(margins), axis=0),
}
