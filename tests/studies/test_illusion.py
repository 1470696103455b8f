"""The illusion gap is 0 on average where settings do not differ, and is found where one is better."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from expunge.core.objective import objective
from expunge.core.record import SPLITS
from expunge.metrics import klom
from expunge.studies.audit.illusion import Halves

SIZES = {"forget": 30, "retain": 40, "validation": 40}
MEMBERS, SETTINGS = 20, 12


def draw(noise: np.random.Generator, shift: float = 0.0, members: int = MEMBERS) -> dict[str, Any]:
    """Return Gaussian margins, `shift` standard deviations from the oracles'."""
    return {split: noise.standard_normal((members, size)) + shift for split, size in SIZES.items()}


def settings(noise: np.random.Generator, chosen: float, best: float) -> dict[str, dict[str, Any]]:
    """Return margins of a chosen setting and one more of that law, and of others of another law."""
    return {str(i): draw(noise, chosen if i < SETTINGS // 2 else best) for i in range(SETTINGS)}


def p95_excess(ours: Any, oracle: Any, held_out: Any) -> float:
    """Return the objective as its definition says."""
    read = {
        s: np.percentile(klom(ours[s], oracle[s]), 95) - np.percentile(klom(held_out[s], oracle[s]), 95) for s in SPLITS
    }
    return objective(read)


def slow_gap(oracle: Any, held_out: Any, margins: Any, chosen: str) -> float:
    """Return the gap, half by half."""
    found = []
    for pick, read in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):

        def on(half: slice, name: str) -> float:
            return p95_excess(*({s: side[s][half] for s in SPLITS} for side in (margins[name], oracle, held_out)))

        best = min(margins, key=lambda name: on(pick, name))
        found.append(on(read, chosen) - on(read, best))
    return sum(found) / 2


@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_it_is_the_mean_over_both_halves_of_what_the_best_on_the_other_gains(shift):
    noise = np.random.default_rng(1)
    oracle, held_out = draw(noise), draw(noise)
    margins = settings(noise, shift, 0.0)
    gap = Halves(oracle, held_out, margins).gap("0", list(margins))
    assert gap.value == pytest.approx(slow_gap(oracle, held_out, margins, "0"), abs=1e-12)
    assert gap.low < gap.value < gap.high


def test_without_a_difference_it_is_zero_on_average_and_called_noise():
    """Its mean over 25 trials is within 7 of its standard errors of 0 (chance of failure 3e-7 by Student's t), where
    the gap on the oracles that the best was picked on is 0.02 nats and more; and few intervals lie above 0: at their
    level the chance of 8 of 25 is 2e-7."""
    noise = np.random.default_rng(2)
    gaps, naive = [], []
    for _ in range(25):
        oracle, held_out = draw(noise), draw(noise)
        margins = settings(noise, 0.0, 0.0)
        gaps.append(Halves(oracle, held_out, margins).gap("0", list(margins)))
        read = {name: p95_excess(margins[name], oracle, held_out) for name in margins}
        naive.append(read["0"] - min(read.values()))
    values = np.array([gap.value for gap in gaps])
    assert abs(values.mean()) < 7 * values.std(ddof=1) / np.sqrt(len(values))
    assert np.mean(naive) > 0.02
    assert sum(gap.low > 0 for gap in gaps) < 8


def test_a_real_gap_is_found():
    """The chosen setting is 1.5 standard deviations off, half of the others are not: far beyond any noise."""
    noise = np.random.default_rng(3)
    for _ in range(5):
        margins = settings(noise, 1.5, 0.0)
        gap = Halves(draw(noise), draw(noise), margins).gap("0", list(margins))
        assert gap.low > 0


def test_failed_members_do_not_close_it_and_what_was_chosen_may_be_the_best():
    noise = np.random.default_rng(4)
    oracle, held_out = draw(noise), draw(noise)
    margins = {"sound": draw(noise), "broken": draw(noise)}
    margins["broken"]["retain"][:10] = np.nan
    halves = Halves(oracle, held_out, margins)
    assert (halves.gap("sound", ["sound", "broken"]).value, halves.gap("sound", ["sound"]).high) == (0.0, 0.0)
    gap = halves.gap("broken", ["sound", "broken"])
    assert gap.value > 0.2
    assert np.isfinite([gap.low, gap.high]).all()
