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


FAR = 5.0
"""How far above the oracles' the pretrained margins of a trace lie, in oracle standard deviations."""


def _rows_left(share=None, rows=None):
    """Leave some rows as pretrained: one, a share of all (rounded down), or a group of neighbours."""

    def leave(fresh, pretrained):
        count = rows or int(share * fresh.shape[1])
        changed = fresh.copy()
        changed[:, :count] = pretrained[:, :count]
        return changed

    return leave


def _wrong_in_one_way(fresh, pretrained):
    """A few rows are "forgotten" by answering one wrong class, with the same certainty in every model."""
    changed = fresh.copy()
    count = int(0.049 * fresh.shape[1])
    changed[:, :count] = 3 - FAR + 0.1 * (fresh[:, :count] - 3)
    return changed


def _half_untouched(fresh, pretrained):
    changed = fresh.copy()
    changed[::2] = pretrained[::2]
    return changed


def _copies(fresh, pretrained, noise):
    """Ten models, each handed in ten times: every row's law is right, and no sample."""
    return fresh[np.arange(len(fresh)) // 10] + noise * (fresh - 3)


def _in_step(fresh, pretrained):
    """Every row's law is right, and a member that is high on one row is high on all: one model at many temperatures."""
    return np.sort(fresh, axis=0)


TRACES = {
    "one row remembered": _rows_left(rows=1),
    "1 % of the rows remembered": _rows_left(share=0.0143),
    "4.9 % of the rows remembered": _rows_left(share=0.049),
    "the rows of one group remembered": _rows_left(share=0.1),
    "4.9 % of the rows wrong in one way": _wrong_in_one_way,
    "half of the members untouched": _half_untouched,
    "copies": lambda fresh, pretrained: _copies(fresh, pretrained, 0.0),
    "copies with a little noise": lambda fresh, pretrained: _copies(fresh, pretrained, 0.05),
    "right row by row, all in step": _in_step,
}
"""What is handed in for a perfectly unlearned ensemble (`fresh`, margins of other oracles) with a trace in it."""
