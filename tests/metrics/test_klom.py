"""KLoM: golden values of public codes, our own estimator against plain loops, invariances, endpoints, errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.core import InputError
from expunge.metrics import default_bins, failed_members, klom
from expunge.metrics.klom import Cells
from reference.klom_slow import SLOW, klom_slow, worst_placement

NAN = float("nan")
A = np.arange(10.0)[:, None]
DIRECTIONS = ["jeffreys", "unlearned_oracle", "oracle_unlearned"]

# Unlearned margins; KL(u|o) by easydub, KL(u|o) after scipy's renormalisation, KL(o|u) as dub's run calls it.
GOLDEN = {
    "same": (A, 0, 0, 0),
    "moved by 5": (A + 5, 4.198845, 4.198885, 4.552540),
    "moved by 100": (A + 100, 0, NAN, 0),
    "constant above": (np.full((10, 1), 20.0), 0, NAN, 0),
    "constant below": (np.full((10, 1), -20.0), 11.512925, 11.512935, 9.623836),
    "two ends": (np.array([0.0] * 5 + [9.0] * 5)[:, None], 2.197225, 2.197225, 8.036567),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_published_variants_give_the_numbers_of_their_code(case):
    unlearned, easydub, renormalised, dub = GOLDEN[case]
    assert klom(unlearned, A, "easydub")[0] == pytest.approx(easydub, abs=2e-6)
    assert klom(unlearned, A, "dub", "unlearned_oracle")[0] == pytest.approx(renormalised, abs=2e-6, nan_ok=True)
    assert klom(unlearned, A, "dub")[0] == pytest.approx(dub, abs=2e-6)


@pytest.mark.parametrize(
    ("unlearned", "value"),
    [
        (A, 0),
        (A + 5, 0),
        (A + 80, 0),
        (A * 7 - 3, 0),
        (np.full((10, 1), 20.0), 11.512925),  # no oracle lies in the middle one of its 20 cells
        (np.array([0.0] * 5 + [9.0] * 5)[:, None], 1.609438),
    ],
    ids=["same", "moved by 5", "moved by 80", "stretched", "constant", "two ends"],
)
def test_golden_values_of_own_ranges(unlearned, value):
    assert klom(unlearned, A, "own-ranges")[0] == pytest.approx(value, abs=2e-6)


def test_own_ranges_is_blind_to_a_shift():
    rng = np.random.default_rng(4)
    u, o, other = rng.normal(9, 1, (100, 2000)), rng.normal(3, 1, (100, 2000)), rng.normal(3, 1, (100, 2000))
    # What the first release of EasyDUB read for a move by six standard deviations, and what it should have read.
    assert klom(u, o, "own-ranges").mean() == pytest.approx(0.47, abs=0.02)
    assert klom(u, o, "own-ranges").mean() == pytest.approx(klom(other, o, "own-ranges").mean(), rel=0.05)
    assert klom(u, o, "easydub").mean() > 9
    assert klom(u, o).mean() > 20 * klom(other, o).mean()
    u[3, 7] = NAN
    assert np.flatnonzero(np.isnan(klom(u, o, "own-ranges"))).tolist() == [7]


@pytest.mark.parametrize("variant", SLOW)
@pytest.mark.parametrize("scale", [0.1, 1, 60])
def test_published_variants_equal_plain_loops(variant, scale):
    rng = np.random.default_rng(3)
    oracle, unlearned = rng.normal(2, 1, (40, 60)) * scale, rng.normal(3, 2, (30, 60)) * scale
    oracle[:, 0], unlearned[:, 0] = 1.0, 1.0
    oracle[:, 1], unlearned[:, 1] = np.round(oracle[:, 1]), np.round(unlearned[:, 1])
    fast, slow = klom(unlearned, oracle, variant), SLOW[variant](unlearned, oracle)
    np.testing.assert_allclose(fast, slow, atol=1e-12)
    assert np.isfinite(fast[2:]).all()


def test_one_nan_makes_public_codes_say_perfect_or_nothing():
    unlearned = np.random.default_rng(0).normal(9, 1, (100, 1))
    oracle = np.random.default_rng(1).normal(3, 1, (100, 1))
    honest = klom(unlearned, oracle)[0]
    unlearned[5] = NAN
    assert klom(unlearned, oracle, "easydub")[0] == 0
    assert np.isnan(klom(unlearned, oracle, "dub")[0])
    assert klom(unlearned, oracle)[0] >= honest


@pytest.mark.parametrize("members", [(100, 100), (30, 100), (100, 23), (7, 5), (3, 2)])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_ours_equals_plain_loops(members, direction):
    rng = np.random.default_rng(5)
    unlearned, oracle = rng.normal(0.5, 1.5, (members[0], 12)), rng.normal(size=(members[1], 12))
    unlearned[0, :4] = [NAN, np.inf, -np.inf, 1e4]
    oracle[:, 5] = 2.0  # constant
    unlearned[: members[0] // 2, 5] = 2.0
    oracle[:, 6], unlearned[:, 6] = np.round(oracle[:, 6]), np.round(unlearned[:, 6])  # heavy ties
    oracle[: members[1] // 2, 7] = -1.0  # an atom
    failed = failed_members(unlearned, oracle)
    np.testing.assert_allclose(
        klom(unlearned, oracle, direction=direction), klom_slow(unlearned, oracle, direction, failed), atol=1e-12
    )


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ours_equals_plain_loops_on_anything(data):
    few = st.integers(-3, 3).map(float)
    many = st.floats(-1e3, 1e3)
    value = data.draw(st.sampled_from([few, many]))
    oracle = np.array(data.draw(st.lists(value, min_size=3, max_size=30)))[:, None]
    unlearned = np.array(data.draw(st.lists(st.one_of(value, st.just(NAN)), min_size=1, max_size=20)))[:, None]
    failed = failed_members(unlearned, oracle)
    np.testing.assert_allclose(klom(unlearned, oracle), klom_slow(unlearned, oracle, failed=failed), atol=1e-9)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_three_directions_belong_together(direction):
    rng = np.random.default_rng(6)
    u, o = rng.normal(1, 1, (50, 9)), rng.normal(size=(60, 9))
    both = klom(u, o, direction="unlearned_oracle"), klom(u, o, direction="oracle_unlearned")
    np.testing.assert_allclose(klom(u, o), (both[0] + both[1]) / 2)
    assert (klom(u, o, direction=direction) > 0).all()


@pytest.mark.parametrize("variant", ["expunge", *SLOW])
def test_permutations_change_nothing(variant):
    rng = np.random.default_rng(7)
    u, o = rng.normal(1, 1, (40, 30)), rng.normal(size=(50, 30))
    rows, others, columns = rng.permutation(40), rng.permutation(50), rng.permutation(30)
    first, second = klom(u, o, variant), klom(u[rows][:, columns], o[others][:, columns], variant)
    np.testing.assert_allclose(second, first[columns], rtol=1e-12)


@pytest.mark.parametrize(
    "transform",
    [lambda x: np.exp(x / 2), np.arctan, lambda x: 3 * x - 7, lambda x: x**3],
    ids=["exp", "atan", "line", "cube"],
)
def test_a_rising_function_of_the_margins_changes_nothing(transform):
    rng = np.random.default_rng(8)
    u, o = rng.normal(0.8, 1.3, (40, 30)), rng.normal(size=(50, 30))
    cells = Cells.of(transform(o))
    inside = ((transform(u) >= cells.lowest) & (transform(u) <= cells.highest)).all(0)
    assert inside.sum() >= 15  # beyond three ranges a margin is absurd, and that does depend on the scale
    np.testing.assert_allclose(klom(u, o)[inside], klom(transform(u), transform(o))[inside], rtol=1e-12)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, torch.float32, torch.bfloat16])
def test_any_float_type_is_read(kind):
    u, o = np.round(np.random.default_rng(9).normal(size=(2, 30, 5)), 1)
    if isinstance(kind, torch.dtype):
        got = klom(torch.tensor(u).to(kind), torch.tensor(o).to(kind))
        want = klom(torch.tensor(u).to(kind).double().numpy(), torch.tensor(o).to(kind).double().numpy())
    else:
        got, want = (
            klom(u.astype(kind), o.astype(kind)),
            klom(u.astype(kind).astype(float), o.astype(kind).astype(float)),
        )
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, want)


def test_chunks_change_nothing(monkeypatch):
    u, o = np.random.default_rng(10).normal(size=(2, 20, 101))
    u[0, ::7] = NAN
    whole = {variant: klom(u, o, variant) for variant in ("expunge", *SLOW)}
    monkeypatch.setattr("expunge.metrics.arrays.CHUNK", 300)
    for variant, values in whole.items():
        np.testing.assert_array_equal(klom(u, o, variant), values)


def test_it_rises_with_a_shift_and_with_a_spread():
    rng = np.random.default_rng(11)
    u, o = rng.normal(size=(2, 100, 2000))
    shifts = [klom(u + d, o).mean() for d in (0, 0.25, 0.5, 1, 2, 4)]
    spreads = [klom(u * s, o).mean() for s in (1, 1.3, 1.7, 2.5)]
    narrow = [klom(u * s, o).mean() for s in (1, 0.7, 0.4, 0.1)]
    assert all(np.diff(values).min() > 0 for values in (shifts, spreads, narrow))


def test_with_many_members_it_is_half_the_squared_shift():
    rng = np.random.default_rng(12)
    u, o = rng.normal(size=(2, 20000, 6))
    for d in (0.3, 0.5):
        # Jeffreys of two unit Gaussians is d^2 / 2; twenty cells lose about 2 % of it.
        assert klom(u + d, o).mean() == pytest.approx(d**2 / 2, rel=0.06)


@pytest.mark.parametrize(
    ("members", "mean", "p95"),
    [
        (10, 5.6, 8.4),
        (20, 3.0, 5.0),
        (50, 0.866, 1.72),
        (80, 0.452, 0.898),
        (100, 0.339, 0.664),
        (200, 0.144, 0.278),
        (500, 0.051, 0.092),
    ],
)
def test_the_floor_of_the_public_histogram(members, mean, p95):
    u, o = np.random.default_rng(members).normal(size=(2, members, 3000))
    values = klom(u, o, "easydub")
    assert values.mean() == pytest.approx(mean, rel=0.04)
    assert np.percentile(values, 95) == pytest.approx(p95, rel=0.06)


def test_constant_oracles_are_met_only_exactly():
    oracle = np.full((50, 1), 3.0)
    assert klom(oracle, oracle)[0] == 0
    above, below, far = (klom(np.full((50, 1), v), oracle)[0] for v in (np.nextafter(3, 4), np.nextafter(3, 2), 99))
    assert min(above, below, far) > 2
    half = np.where(np.arange(50)[:, None] < 25, 3.0, 4.0)
    assert 0.2 < klom(half, oracle)[0] < above


def test_a_heavy_atom_cannot_be_hidden_beside():
    rng = np.random.default_rng(13)
    oracle = np.where(rng.random((100, 1)) < 0.6, 0.0, rng.normal(size=(100, 1)))
    honest = np.where(rng.random((100, 1)) < 0.6, 0.0, rng.normal(size=(100, 1)))
    beside = np.where(honest == 0, -1e-9, honest)
    assert klom(honest, oracle)[0] < 0.3
    assert klom(beside, oracle)[0] > 1


@pytest.mark.parametrize("law", ["same", "moved", "narrow"])
def test_a_failure_is_worse_than_any_sound_margin_in_its_place(law):
    rng = np.random.default_rng(14)
    oracle = rng.normal(size=9)
    unlearned = {"same": rng.normal(size=8), "moved": rng.normal(2, 1, 8), "narrow": np.full(8, 0.1)}[law]
    broken = unlearned.copy()
    broken[[1, 5]] = NAN
    assert klom(broken[:, None], oracle[:, None])[0] >= worst_placement(unlearned, oracle, [1, 5]) - 1e-12


def test_more_failures_are_never_better():
    rng = np.random.default_rng(15)
    oracle = rng.normal(size=(60, 20))
    for unlearned in (rng.normal(size=(40, 20)), rng.normal(3, 1, (40, 20)), rng.normal(0, 0.1, (40, 20))):
        readings = []
        for number in range(0, 41, 4):
            broken = unlearned.copy()
            broken[:number] = NAN
            readings.append(klom(broken, oracle))
        assert (np.diff(readings, axis=0) >= -1e-12).all()


def test_the_number_of_cells():
    assert [default_bins(n) for n in (2, 9, 20, 50, 100, 200, 400, 10**6)] == [3, 3, 4, 7, 10, 14, 20, 20]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unlearned": np.zeros((5, 4)), "oracle": np.zeros((5, 3))}, r"\(5, 4\).*\(5, 3\).*same examples"),
        ({"unlearned": np.zeros(5), "oracle": np.zeros((5, 3))}, r"shape \(5,\).*2 axes"),
        ({"unlearned": np.zeros((5, 3)), "oracle": np.zeros((1, 3))}, "1 members, expected at least 2"),
        ({"unlearned": np.zeros((5, 3)), "oracle": np.full((4, 3), NAN)}, "non-finite values in 4 of 4 members"),
        ({"unlearned": A, "oracle": A, "variant": "klom"}, "variant = 'klom', expected one of: a2d"),
        ({"unlearned": A, "oracle": A, "direction": "up"}, "direction = 'up', expected one of"),
        ({"unlearned": A, "oracle": A, "bins": 2}, "bins = 2, expected a whole number of at least 3"),
        ({"unlearned": A, "oracle": A, "bins": 300}, "bins = 300, expected 3 to 200"),
        ({"unlearned": A, "oracle": A, "variant": "dub", "bins": 10}, "bins = 10 with variant = 'dub'"),
    ],
)
def test_errors_say_what_came_and_what_was_expected(arguments, message):
    with pytest.raises(InputError, match=message):
        klom(**arguments)


@pytest.mark.parametrize("law", ["normal", "standard_exponential"])
@pytest.mark.parametrize("members", [20, 100])
def test_a_larger_shift_never_reads_less(law, members):
    """Moved as a whole, margins saturate twice: outside the oracles' range, and where they are absurd."""
    rng = np.random.default_rng(3)
    o, u = (getattr(rng, law)(size=(members, 60)) for _ in range(2))
    readings = np.array([klom(u + shift, o).mean() for shift in [*np.arange(0, 40, 0.5), 1000]])
    assert (np.diff(readings) >= -1e-12).all()
    if members == 100:
        assert readings[16] == pytest.approx(2.26, abs=0.005)
        assert readings[-1] == pytest.approx(3.96, abs=0.005)


def test_absurd_margins_do_not_pass_for_the_oracles_tails():
    """Each member errs wildly on a fifth of the examples, so no member has failed, and outer cells hold a fifth."""
    rng = np.random.default_rng(4)
    o, u = (rng.normal(size=(100, 70)) for _ in range(2))
    floor = np.percentile(klom(u, o), 95)
    wild = rng.permuted(np.arange(100)[:, None] + np.zeros((1, 70), int), axis=0)
    u = np.where(wild < 10, -1e4, np.where(wild < 20, 1e4, u.clip(*np.percentile(o, [10, 90], axis=0))))
    assert not failed_members(u, o).any()
    assert np.percentile(klom(u, o), 95) > 3 * floor
    endless = replace(Cells.of(o), lowest=np.full(70, -np.inf), highest=np.full(70, np.inf))
    counts = endless.counts(endless.digitise(u, np.zeros(100, bool)))
    assert np.percentile(endless.divergence(counts, 100, "jeffreys"), 95) < 2 * floor
