"""The ruler: agrees with klom, its floor is the floor, its shift is the shift."""

import numpy as np
import pytest

from expunge.core import InputError
from expunge.metrics import Ruler, klom


def draw(seed, members=60, examples=80, shift=0.0, shared=0.0):
    rng = np.random.default_rng(seed)
    own, common = rng.normal(size=(members, examples)), rng.normal(size=(members, 1))
    return np.sqrt(1 - shared) * own + np.sqrt(shared) * common + shift


def test_it_reads_what_klom_reads():
    oracle, unlearned = draw(0), draw(1, members=40, shift=0.7)
    unlearned[3] = np.nan
    for direction in ("jeffreys", "unlearned_oracle", "oracle_unlearned"):
        ruler = Ruler(oracle, direction=direction)
        np.testing.assert_array_equal(ruler.klom(unlearned), klom(unlearned, oracle, direction=direction))
    np.testing.assert_array_equal(Ruler(oracle, bins=5).klom(unlearned), klom(unlearned, oracle, bins=5))


def test_the_score_says_everything():
    ruler = Ruler(draw(0), draw(1))
    unlearned = draw(2, members=50, shift=1.0)
    unlearned[7] = np.inf
    score = ruler.score(unlearned)
    assert (score.metric, score.summary, score.unit) == ("klom", "p95", "nats")
    assert (score.members, score.oracles, score.examples, score.failed) == (50, 60, 80, 1)
    assert score.value == np.percentile(ruler.klom(unlearned), 95)
    assert score.low < score.value < score.high
    assert score.floor_low < score.floor < score.floor_high < score.low
    mean = ruler.score(unlearned, "mean")
    assert mean.value == ruler.klom(unlearned).mean()
    quick = ruler.score(unlearned, intervals=False)
    assert quick.value == score.value
    assert np.isnan([quick.low, quick.high]).all()


def test_the_same_question_has_the_same_answer():
    first, second = (Ruler(draw(0), draw(1), seed=3).score(draw(2)) for _ in range(2))
    assert first == second
    assert Ruler(draw(0), draw(1), seed=4).score(draw(2)).low != first.low


def test_held_out_oracles_are_the_floor():
    ruler = Ruler(draw(0), draw(1))
    floor, _, _ = ruler.floor(60)
    assert floor == np.percentile(klom(draw(1), draw(0)), 95)


@pytest.mark.slow
@pytest.mark.parametrize("members", [20, 50, 100])
@pytest.mark.parametrize("summary", ["p95", "mean"])
def test_the_resampled_floor_is_the_floor(members, summary):
    """Without held-out oracles: the average over data sets against the average reading of independent oracles."""
    resampled, real = [], []
    for seed in range(40):
        oracle, other = draw([seed, 0], members, 100), draw([seed, 1], members, 100)
        resampled.append(Ruler(oracle, resample_examples=False, replicates=40).floor(members, summary)[0])
        real.append(Ruler(oracle, replicates=2).score(other, summary, intervals=False).value)
    # It trusts a bootstrap, so it is a floor with a known small error: at most 10 % of itself.
    assert np.mean(resampled) == pytest.approx(np.mean(real), rel=0.10)


@pytest.mark.parametrize("members", [30, 100])
def test_a_held_out_floor_is_moved_to_the_number_of_members(members):
    moved, real = [], []
    for seed in range(25):
        oracle = draw([seed, 0], 60, 100)
        ruler = Ruler(oracle, draw([seed, 1], 60, 100), replicates=50, resample_examples=False)
        moved.append(ruler.floor(members)[0])
        real.append(np.percentile(klom(draw([seed, 2], members, 100), oracle), 95))
    assert np.mean(moved) == pytest.approx(np.mean(real), rel=0.08)


def test_the_floor_falls_with_members():
    floors = [
        np.mean([Ruler(draw([s, 0], n, 60), draw([s, 1], n, 60)).floor(n)[0] for s in range(6)])
        for n in (20, 50, 100, 200)
    ]
    assert np.diff(floors).max() < 0


def test_the_shift_is_in_oracle_standard_deviations():
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.1, 10, 300)
    oracle, unlearned = rng.normal(size=(2, 100, 300)) * scale
    for d in (-2, 0.3, 5):
        assert Ruler(oracle).shift(unlearned + d * scale) == pytest.approx(d, abs=0.06)


def test_the_shift_survives_constant_oracles_and_failed_members():
    oracle, unlearned = draw(0), draw(1, shift=1.0)
    oracle[:, 0] = 2.0
    assert abs(Ruler(oracle).shift(unlearned) - 1.0) < 0.15
    reference = Ruler(oracle).shift(unlearned[1:])
    for bad in (np.nan, np.inf, 1e9):
        unlearned[0] = bad
        assert Ruler(oracle).shift(unlearned) == pytest.approx(reference)
    unlearned[:] = np.nan
    assert np.isnan(Ruler(oracle).shift(unlearned))
    assert np.isnan(Ruler(oracle).shift_by_example(unlearned)).all()


def test_failures_count_as_the_worst_outcome_in_the_score():
    oracle = draw(0)
    ruler = Ruler(oracle, draw(1))
    values = []
    for number in (0, 1, 6, 30, 60):
        broken = draw(2)
        broken[:number] = np.nan
        score = ruler.score(broken)
        assert score.failed == number
        values.append(score.value)
    assert np.diff(values).min() > 0
    assert values[-1] > ruler.score(draw(2, shift=8.0)).value  # worse than sound members far away


def test_chunks_change_nothing(monkeypatch):
    oracle, other, unlearned = draw(0), draw(1), draw(2, shift=0.5)
    before = Ruler(oracle, other, replicates=30).score(unlearned)
    monkeypatch.setattr("expunge.metrics.arrays.CHUNK", 20_000)
    after = Ruler(oracle, other, replicates=30).score(unlearned)
    for name in ("value", "low", "high", "floor", "floor_low", "floor_high"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), rel=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ruler(np.zeros((5, 3)), np.zeros((5, 4))), r"held_out has shape \(5, 4\) and oracle \(5, 3\)"),
        (lambda: Ruler(np.full((5, 3), np.nan)), "oracle has non-finite values in 5 of 5"),
        (lambda: Ruler(draw(0)).score(draw(1), "p99"), "summary = 'p99', expected one of: mean, p95"),
        (lambda: Ruler(draw(0)).score(draw(1)[:, :5]), "expected the same number of examples"),
        (lambda: Ruler(draw(0), replicates=1), "replicates = 1, expected a whole number of at least 2"),
        (lambda: Ruler(draw(0), direction="both"), "direction = 'both', expected one of"),
    ],
)
def test_errors(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_held_out_oracles_must_be_other_sound_oracles():
    """A broken one raises the floor, and a copy lowers it to 0: either way the floor says nothing."""
    rng = np.random.default_rng(0)
    oracle, held_out = rng.normal(size=(40, 30)), rng.normal(size=(40, 30))
    broken = held_out.copy()
    broken[3, 2] = np.nan
    copied = held_out.copy()
    copied[5] = oracle[1]
    exploded = held_out.copy()
    exploded[7] *= 1e6
    cases = [
        (broken, "held_out has non-finite, collapsed or exploded margins in 1 of 40 members .first 3."),
        (exploded, "in 1 of 40 members .first 7."),
        (copied, "held_out holds 1 of the oracles again .first 5."),
        (oracle, "held_out holds 40 of the oracles again"),
        (held_out[:1], "held_out has 1 member, expected at least 2"),
    ]
    for given, message in cases:
        with pytest.raises(InputError, match=message):
            Ruler(oracle, given)


def test_one_unlearned_model_is_no_ensemble():
    rng = np.random.default_rng(0)
    ruler = Ruler(rng.normal(size=(40, 30)))
    with pytest.raises(InputError, match="unlearned has 1 member, expected at least 2"):
        ruler.score(rng.normal(size=(1, 30)))


def test_many_examples_read_the_same_in_threads_and_without_kept_edges(monkeypatch):
    rng = np.random.default_rng(5)
    oracle, held_out, unlearned = rng.normal(size=(30, 400)), rng.normal(size=(30, 400)), rng.normal(0.5, 1, (30, 400))
    usual = Ruler(oracle, held_out, replicates=30)
    monkeypatch.setattr("expunge.metrics.bootstrap.KEPT", 0)
    monkeypatch.setattr("expunge.metrics.bootstrap.SHARED", 0)
    shared = Ruler(oracle, held_out, replicates=30)
    for summary in ("p95", "mean"):
        assert shared.score(unlearned, summary) == usual.score(unlearned, summary)
        assert shared.excess_interval(unlearned, summary) == usual.excess_interval(unlearned, summary)
