"""One table of metrics; every row passes the same properties. A new metric is a new row.

A row reads an unlearned ensemble against oracles, both (members, examples) of margins, as one number; larger is worse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from expunge.metrics import Ruler, klom
from expunge.metrics.distances import energy, wasserstein
from metrics.gaming import EXAMPLES, MANIPULATIONS, MEMBERS, honest, oracles


@dataclass(frozen=True)
class Row:
    """A metric, and what it cannot do by its nature."""

    name: str
    read: Callable[[np.ndarray, np.ndarray], float]
    cannot: dict[str, str] = field(default_factory=dict)
    """Manipulations that lower it although they should not, with the reason; shown in the docs."""
    same: float = 0.0
    """What it reads when unlearned members are the oracles themselves."""


def p95(values):
    return float(np.percentile(values, 95))


METRICS = [
    Row("klom p95", lambda u, o: p95(klom(u, o))),
    Row("klom mean", lambda u, o: klom(u, o).mean()),
    Row("klom mean, unlearned to oracle", lambda u, o: klom(u, o, direction="unlearned_oracle").mean()),
    Row("klom mean, oracle to unlearned", lambda u, o: klom(u, o, direction="oracle_unlearned").mean()),
    Row("klom p95, 20 cells", lambda u, o: p95(klom(u, o, bins=20))),
    Row("ruler p95", lambda u, o: Ruler(o, replicates=2).score(u, intervals=False).value),
    Row("wasserstein mean", lambda u, o: wasserstein(u, o).mean()),
    Row("energy mean", lambda u, o: energy(u, o).mean()),
]

rows = pytest.mark.parametrize("row", METRICS, ids=lambda row: row.name)


@rows
@pytest.mark.parametrize("name", MANIPULATIONS)
def test_no_manipulation_improves_a_score(row, name):
    lower = []
    for seed in range(3):
        oracle, members = oracles(seed), honest(seed)
        before, after = row.read(members, oracle), row.read(MANIPULATIONS[name](members, oracle), oracle)
        assert not np.isnan(after)
        lower.append(after < before - 1e-12)
    if name in row.cannot:
        assert any(lower), "the row says that it can be fooled here, and it is not: remove the note"
    else:
        assert not any(lower)


@rows
def test_order_of_members_and_examples_does_not_matter(row):
    rng = np.random.default_rng(0)
    oracle, members = oracles(), honest()
    columns = rng.permutation(EXAMPLES)
    again = row.read(members[rng.permutation(MEMBERS)][:, columns], oracle[rng.permutation(MEMBERS)][:, columns])
    assert again == pytest.approx(row.read(members, oracle), rel=1e-9)


@rows
def test_oracles_against_oracles_read_the_floor_and_pretrained_read_more(row):
    floors = [row.read(oracles(seed + 100), oracles(seed)) for seed in range(8)]
    again = [row.read(oracles(seed + 300), oracles(seed + 200)) for seed in range(8)]
    spread = np.hypot(np.std(floors, ddof=1), np.std(again, ddof=1)) / np.sqrt(8)
    assert abs(np.mean(floors) - np.mean(again)) < 4 * spread
    assert row.read(honest(), oracles()) > np.mean(floors) + 10 * np.std(floors, ddof=1)


@rows
def test_oracles_themselves_read_zero(row):
    assert row.read(oracles(), oracles()) == pytest.approx(row.same, abs=1e-9)


@rows
def test_tensors_and_arrays_read_the_same(row):
    oracle, members = oracles(), honest()
    assert row.read(torch.tensor(members), torch.tensor(oracle)) == pytest.approx(row.read(members, oracle), rel=1e-12)


@rows
def test_it_rises_with_the_shift(row):
    oracle = oracles()
    readings = [row.read(oracles(7) + d, oracle) for d in (0, 0.5, 1, 2)]
    assert np.diff(readings).min() > 0


@rows
def test_members_may_differ_in_number(row):
    assert np.isfinite(row.read(honest(members=30), oracles(members=50)))


PUBLIC_FOOLED = [
    ("easydub", "logits times 1e8"),
    ("easydub", "constant above all oracles"),
    ("easydub", "one NaN margin"),
    ("easydub", "all members NaN"),
    ("easydub", "two members at +-100"),
    ("easydub", "shift hidden by heavy tails"),
    ("dub", "two members at +-100"),
    ("a2d", "two members at +-100"),
]


@pytest.mark.parametrize(("variant", "name"), PUBLIC_FOOLED)
def test_the_suite_catches_public_codes(variant, name):
    oracle, members = oracles(), honest()
    before = klom(members, oracle, variant).mean()
    assert klom(MANIPULATIONS[name](members, oracle), oracle, variant).mean() < before
