"""One model among oracles: the rank is exact, power is shown, and what is no retrained model does not pass."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from expunge.core import InputError
from expunge.metrics import one_model
from expunge.metrics.oddness import leave_one_out, oddness
from expunge.metrics.one_model import fewest_oracles
from reference.one_model_slow import p_value, statistics

SIZES = {"forget": 30, "retain": 60, "validation": 40}
SHIFT = 2.0
"""What pretrained models have more on forget examples, in standard deviations of one example."""


def models(seed, count, shift=0.0):
    """Margins of models that err together: skill and sharpness of a model are common to all of its examples."""
    rng = np.random.default_rng(seed)
    skill, sharpness = rng.normal(0, 0.7, (count, 1)), rng.normal(0, 0.1, (count, 1))
    out = {}
    for place, (split, size) in enumerate(SIZES.items()):
        mean = np.random.default_rng([99, place]).normal(3, 2, size)
        out[split] = mean * (1 + sharpness) + skill + rng.standard_t(5, (count, size)) + shift * (split == "forget")
    return out


def one(margins, place):
    return {split: values[place] for split, values in margins.items()}


def some(margins, rows):
    return {split: values[rows] for split, values in margins.items()}


@pytest.fixture(scope="module")
def oracle():
    return models(0, 50)


@pytest.fixture(scope="module")
def pretrained():
    return models(1, 30, SHIFT)


@pytest.mark.parametrize("splits", [("forget",), ("forget", "retain"), tuple(SIZES)])
@pytest.mark.parametrize("given", [True, False])
def test_oddness_is_the_slow_twins(splits, given):
    margins = {split: models(3, 9)[split][:, :7] for split in splits}
    towards = {split: values.mean(0) + 0.4 for split, values in margins.items()} if given else None
    slow, parts = p_value(margins, towards)
    fast = oddness(margins, towards)
    assert set(fast.names) == set(parts)
    for name, row in zip(fast.names, fast.parts, strict=True):
        weight = 1.5 if name == "direction" else 1.0
        np.testing.assert_allclose(row, weight * leave_one_out(parts[name][:, None])[:, 0], rtol=1e-7, atol=1e-9)
    assert fast.p_value() == pytest.approx(slow)
    assert [fast.p_value(model) for model in range(9)] == pytest.approx(
        [p_value(margins, towards, model)[0] for model in range(9)]
    )


@pytest.mark.parametrize("members", [20, 39])
def test_level_is_exact_for_models_that_err_together(members):
    """Of T retrained models as many are told as a coin of floor(a (N + 1)) / (N + 1) says, at both ends."""
    trials, told = 400, 0
    towards = one(models(5, 1, SHIFT), 0)
    for trial in range(trials):
        told += oddness(models([6, members, trial], members + 1), towards).p_value() <= 0.05
    chance = int(0.05 * (members + 1)) / (members + 1)
    # Outside these with a chance of 1e-6 at most.
    assert stats.binom.ppf(5e-7, trials, chance) <= told <= stats.binom.isf(5e-7, trials, chance)


def test_order_of_models_and_examples_does_not_matter(oracle):
    rng = np.random.default_rng(0)
    rows = rng.permutation(50)
    columns = {split: rng.permutation(size) for split, size in SIZES.items()}
    plain = oddness(oracle)
    moved = oddness({split: values[rows][:, columns[split]] for split, values in oracle.items()})
    np.testing.assert_allclose(moved.total, plain.total[rows], rtol=1e-8)


def test_scale_and_shift_of_an_example_do_not_matter(oracle):
    rng = np.random.default_rng(1)
    moved = {split: rng.uniform(0.1, 9, v.shape[1]) * v + rng.normal(size=v.shape[1]) for split, v in oracle.items()}
    np.testing.assert_allclose(oddness(moved).total, oddness(oracle).total, rtol=1e-6)


def test_power_grows_with_the_shift():
    """Told: 4, 41 and 99 % by 2,000 trials; of 100 each, the order is wrong with a chance below 1e-10."""
    towards = {split: values.mean(0) for split, values in models(7, 60, SHIFT).items()}
    told = np.zeros(3)
    for trial in range(100):
        for place, shift in enumerate((0.0, 0.7, 1.6)):
            stack = models([8, trial], 51)
            stack["forget"][0] += shift
            told[place] += oddness(stack, towards).p_value() <= 0.05
    assert told[0] < told[1] < told[2]


def test_retrained_is_compatible_and_pretrained_is_told(oracle, pretrained):
    others = models(2, 3)
    found = one_model(one(others, 0), oracle, pretrained)
    assert (found.name, found.oracles, found.pretrained) == ("compatible", 50, 30)
    assert found.power == 1.0
    assert found.power_low > 0.8
    assert found.sees <= 0.75
    assert "level 0.05, power 1.00" in found.sentence
    told = one_model(one(models(4, 1, SHIFT), 0), oracle, pretrained)
    assert told.name == "told"
    assert told.p_value == pytest.approx(1 / 51)
    assert told.reason in ("direction", "forget beside rest")
    assert "its " in told.sentence
    assert told.result.value > told.result.floor_high > told.result.floor
    assert told.shifts["forget"] > 0.5


def test_a_row_that_is_far_out_is_named(oracle, pretrained):
    model = one(models(2, 1), 0)
    model["forget"] = model["forget"].copy()
    model["forget"][7] += 25
    found = one_model(model, oracle, pretrained)
    assert found.name == "told"
    assert [row.position for row in found.rows if row.p_value <= 0.05] == [7]
    assert "rows 7 (+" in found.sentence


FAKES = {
    "a copy of an oracle": lambda o: one(o, 3),
    "a copy but for rounding": lambda o: {s: v[3].astype(np.float32) * (1 + 1e-7) for s, v in o.items()},
    "nearly a copy": lambda o: {s: v[3] + np.random.default_rng(0).normal(0, 0.1, v.shape[1]) for s, v in o.items()},
    "an average of oracles": lambda o: {s: v.mean(0) for s, v in o.items()},
    "an average of five": lambda o: {s: v[:5].mean(0) for s, v in o.items()},
    "a constant": lambda o: {s: np.full(v.shape[1], v.mean()) for s, v in o.items()},
    "margins times 3": lambda o: {s: 3 * v[3] for s, v in o.items()},
    "margins times 0.5": lambda o: {s: 0.5 * v[3] for s, v in o.items()},
    "margins times -1": lambda o: {s: -v[3] for s, v in o.items()},
    "one NaN": lambda o: {s: np.where(np.arange(v.shape[1]) == 2, np.nan, v[3]) for s, v in o.items()},
    "all infinite": lambda o: {s: np.full(v.shape[1], np.inf) for s, v in o.items()},
    "huge": lambda o: {s: 1e12 * v[3] for s, v in o.items()},
    "examples in another order": lambda o: {s: v[3][::-1] for s, v in o.items()},
    "retain ruined": lambda o: {s: v[3] - 3 * (s == "retain") for s, v in o.items()},
}


@pytest.mark.parametrize("fake", FAKES)
@pytest.mark.parametrize("given", [True, False])
def test_what_is_no_retrained_model_is_told(fake, given, oracle, pretrained):
    found = one_model(FAKES[fake](oracle), oracle, pretrained if given else None)
    assert found.name == "told"
    assert found.p_value <= 2 / 51 or found.outright


def test_too_few_oracles_cannot_tell_but_see_failures_and_copies(oracle, pretrained):
    few = some(oracle, slice(18))
    found = one_model(one(models(4, 1, SHIFT), 0), few, pretrained)
    assert (found.name, found.oracles_needed, found.power) == ("cannot tell", 19, None)
    assert "at least 19" in found.sentence
    assert one_model(FAKES["one NaN"](few), few).name == "told"
    assert one_model(FAKES["a copy of an oracle"](few), few).name == "told"
    assert fewest_oracles(0.1) == 9
    assert one_model(one(models(2, 1), 0), few, pretrained, level=0.1).name == "compatible"


def test_without_shown_power_nothing_is_compatible(oracle, pretrained):
    model = one(models(2, 1), 0)
    alone = one_model(model, oracle)
    assert (alone.name, alone.power) == ("cannot tell", None)
    assert "without pretrained models" in alone.sentence
    few = one_model(model, oracle, some(pretrained, slice(4)))
    assert (few.name, few.power, few.oracles_needed) == ("cannot tell", 1.0, None)
    assert "More pretrained models" in few.sentence
    single = one_model(model, oracle, some(pretrained, slice(1)))
    assert single.name == "cannot tell"
    assert single.pretrained == 1


def test_weak_power_asks_for_more_oracles_or_says_that_none_would_do(pretrained):
    oracle, model = models(0, 60), one(models(2, 1), 0)
    found = one_model(model, oracle, models(1, 100, 0.35))
    assert found.name == "cannot tell"
    assert 0.05 < found.power < 0.8
    assert found.oracles_needed is None or found.oracles_needed > 60
    none = one_model(model, oracle, models(3, 60))
    assert none.name == "cannot tell"
    assert none.power < 0.3
    assert "No number of oracles" in none.sentence or none.oracles_needed > 60


def test_oracles_that_are_copies_say_nothing(oracle):
    double = {split: np.concatenate([values[:15], values[:15]]) for split, values in oracle.items()}
    found = one_model(one(models(2, 1), 0), double)
    assert found.name == "cannot tell"
    assert "15 of them are copies" in found.sentence


def test_failed_pretrained_models_are_left_out(oracle, pretrained):
    broken = {
        split: np.concatenate([values, np.full((2, values.shape[1]), np.nan)]) for split, values in pretrained.items()
    }
    assert one_model(one(models(2, 1), 0), oracle, broken).pretrained == 30


def test_forget_alone_and_examples_on_which_oracles_do_not_vary(oracle):
    flat = {"forget": np.concatenate([oracle["forget"], np.ones((50, 2))], axis=1)}
    same = one_model(np.concatenate([models(2, 1)["forget"][0], [1.0, 1.0]]), flat)
    assert same.name == "cannot tell"
    assert np.isfinite(same.result.value)
    other = one_model(np.concatenate([models(2, 1)["forget"][0], [1.0, 2.0]]), flat["forget"])
    assert other.name == "told"


@pytest.mark.parametrize(
    ("model", "oracle", "match"),
    [
        (np.zeros((2, 30)), np.zeros((20, 30)), "margins of one model"),
        (np.zeros(30), np.zeros((4, 30)), "at least 5"),
        (np.zeros(29), np.zeros((20, 30)), "same number|expected the same"),
        (np.zeros(30), np.full((20, 30), np.nan), "finite"),
        ({"forget": np.zeros(30)}, {"forget": np.zeros((20, 30)), "retain": np.zeros((20, 3))}, "splits"),
        ({"retain": np.zeros(30)}, np.zeros((20, 30)), "expected forget"),
        (None, np.zeros((20, 30)), "model is None"),
    ],
)
def test_what_cannot_be_used_is_refused(model, oracle, match):
    with pytest.raises(InputError, match=match):
        one_model(model, oracle)


@pytest.mark.parametrize("options", [{"level": 0.0}, {"level": 0.9}, {"power": 1.0}, {"level": "high"}])
def test_options_are_checked(options, oracle):
    with pytest.raises(InputError):
        one_model(one(oracle, 0), oracle, **options)


def test_the_slow_twin_sees_a_shift_itself():
    margins = {split: values[:, :5] for split, values in models(3, 12).items()}
    margins["forget"][0] += 30
    assert np.argmax(statistics(margins)["forget"]) == 0
