"""Failed members: each kind is found, sound members never are."""

import numpy as np
import pytest

from expunge.core import InputError
from expunge.metrics import failed_members


@pytest.fixture
def oracle():
    return np.random.default_rng(0).normal(4, 1, (50, 200))


def test_sound_members_are_not_failed(oracle):
    rng = np.random.default_rng(1)
    for members in (
        rng.normal(4, 1, (50, 200)),
        rng.normal(9, 1, (50, 200)),  # pretrained
        rng.normal(-5, 3, (50, 200)),  # over-forgotten
        rng.standard_t(2, (50, 200)),  # heavy tails
        rng.normal(4, 1, (50, 200)) * 1.5,
    ):
        assert not failed_members(members, oracle).any()
        assert not failed_members(members).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_margin_is_enough(oracle, bad):
    members = oracle.copy()
    members[3, 7] = bad
    assert np.flatnonzero(failed_members(members, oracle)).tolist() == [3]
    assert np.flatnonzero(failed_members(members)).tolist() == [3]


def test_a_member_that_ignores_its_input_has_collapsed(oracle):
    labels = np.random.default_rng(2).integers(0, 10, 200)
    members = oracle.copy()
    members[2] = np.linspace(-3, 1, 10)[labels] + np.random.default_rng(3).normal(0, 1e-8, 200)
    members[4] = 1.5
    assert np.flatnonzero(failed_members(members, oracle)).tolist() == [2, 4]


def test_oracles_that_look_collapsed_themselves_accuse_nobody():
    few = np.random.default_rng(4).integers(0, 3, (30, 100)).astype(float)
    assert not failed_members(few, few).any()


def test_few_examples_cannot_show_a_collapse():
    assert not failed_members(np.ones((5, 10)), np.random.default_rng(5).normal(size=(5, 10))).any()


def test_absurd_margins_have_exploded(oracle):
    members = oracle.copy()
    members[1] *= 1e8
    members[5] = oracle[5] + 1000
    assert np.flatnonzero(failed_members(members, oracle)).tolist() == [1, 5]
    assert np.flatnonzero(failed_members(members)).tolist() == [1]


def test_the_scale_of_the_oracles_does_not_matter(oracle):
    members = oracle.copy()
    members[5] += 1000
    for scale in (1e-6, 1, 1e9):
        assert np.flatnonzero(failed_members(members * scale, oracle * scale)).tolist() == [5]


def test_examples_must_agree(oracle):
    with pytest.raises(InputError, match="same examples on both sides"):
        failed_members(oracle[:, :5], oracle)
    with pytest.raises(InputError, match="no member of reference is finite"):
        failed_members(oracle, oracle * np.nan)


def test_sharp_oracles_do_not_make_sound_members_explode():
    """Convex models trained to the end differ by 0.001; a member 0.5 away still remembers, and is no ruin."""
    draw = np.random.default_rng(0)
    centre = draw.normal(1, 1, 40)
    oracle = centre + 1e-3 * draw.normal(size=(30, 40))
    assert not failed_members(centre + 0.5 + 1e-3 * draw.normal(size=(30, 40)), oracle).any()
    assert failed_members(centre + 50 + draw.normal(size=(3, 40)), oracle).all()
