import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from expunge.core import InputError
from expunge.papers.ascent_fails_to_forget.theory import random_forget_sets as lemma
from expunge.papers.ascent_fails_to_forget.theory.alternating import Alternating
from expunge.papers.ascent_fails_to_forget.theory.lambert import EDGE, principal, real_solutions
from expunge.papers.ascent_fails_to_forget.theory.one_direction import (
    OneDirection,
    corollary,
    distance_bound,
    harm_bound,
)
from reference.theory_slow import one_direction as slow


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((90, 10, 20, 0.1, 0.01), (2.27088, 2.27786, 0.90183)),
        ((90, 10, 20, 0.05, 0.01), (2.23865, 2.27786, 1.87477)),
        ((900, 100, 50, 0.1, 0.1), (0.37718, 0.37994, 0.0527)),
        ((80, 20, 10, 0.25, 0.001), (3.55887, 3.55887, 0.0)),
    ],
)
def test_golden_table(sizes, expected):
    problem = OneDirection(*sizes)
    found = (problem.pretrained, problem.oracle, problem.descent_ascent.minimum)
    assert found == pytest.approx(expected, abs=6e-6)


@given(st.floats(-0.3678, 50))
@example(-5e-324)
@example(-1e-310)
def test_both_branches_solve_the_equation(argument):
    solutions = real_solutions(argument)
    assert len(solutions) == (1 if argument >= 0 else 2)
    for w in solutions:
        assert w * math.exp(w) == pytest.approx(argument, abs=1e-12 * (1 + abs(argument)))
    assert solutions[0] >= -1
    assert all(w <= -1 for w in solutions[1:])


@pytest.mark.parametrize("argument", [-1e-300, -1e-307, -1e-310])
def test_the_lower_branch_is_continuous_where_scipy_gives_up(argument):
    lower = real_solutions(argument)[1]
    assert lower + math.log(-lower) == pytest.approx(math.log(-argument), rel=1e-12)


def test_no_stationary_point_is_an_answer():
    assert real_solutions(EDGE - 1e-6) == ()
    problem = OneDirection(90, 10, 20, 0.4, 0.05)
    assert problem.alpha > problem.breakdown
    assert problem.descent_ascent.minimum is None
    assert problem.outcome() == "infinity"
    assert problem.distance_ratio() == math.inf
    with pytest.raises(InputError, match="no real solution"):
        principal(-1.0)


sizes = st.tuples(st.floats(0.002, 0.8), st.floats(0.01, 1), st.floats(0.001, 1), st.floats(-4, 0), st.floats(0.0, 3.0))


def made(draw):
    forget, share, fraction, ridge, scale = draw
    retain = 1 - forget
    group = share * retain
    return OneDirection(retain, forget, group, min(scale * forget / retain, fraction * forget / group), 10**ridge)


@given(sizes)
@settings(max_examples=300)
def test_lemmas_3_4_and_5(draw):
    problem = made(draw)
    after = problem.descent_ascent.minimum
    if problem.harm_from <= problem.alpha <= problem.harm_to and after is not None:
        assert after <= problem.pretrained + 1e-9
        assert problem.pretrained <= problem.oracle + 1e-9
    if problem.alpha < problem.harm_from * (1 - 1e-6):
        assert problem.outcome() in ("towards", "same")
    assert abs(problem.oracle - problem.pretrained) <= distance_bound(problem) + 1e-9
    bound = harm_bound(problem)
    if bound is not None and after is not None:
        assert abs(problem.oracle - after) >= bound - 1e-9


@given(sizes)
@settings(max_examples=200)
def test_helpful_weights_are_where_the_distance_ratio_is_below_one(draw):
    problem = made(draw)
    low, high = problem.helpful_weights()
    if not math.isfinite(low) or abs(problem.pretrained - problem.oracle) < 1e-6:
        return
    assert high == 1.0
    inside = low + (1 - low) * np.array([0.01, 0.5, 0.99])
    assert all(problem.distance_ratio(float(a)) < 1 + 1e-7 for a in inside)
    assert problem.distance_ratio(low - 1e-3 * (1 + abs(low))) > 1


def test_minimisers_against_brute_force():
    for alpha, ridge in ((0.05, 0.01), (0.1, 0.3)):
        problem = OneDirection(90, 10, 20, alpha, ridge)
        assert problem.oracle == pytest.approx(slow(problem.mass(0.0), ridge), abs=1e-6)
        assert problem.pretrained == pytest.approx(slow(problem.mass(1.0), ridge), abs=1e-6)


def test_corollary():
    near, far = corollary(0.9, 0.1, 0.1, 1e-12)
    assert near == pytest.approx(0, abs=1e-12)
    assert far > 20


def test_alternating_orders():
    problem = Alternating(0.3, 0.1, 0.05)
    errors = [abs(problem.step(0.5, eta) - problem.predicted_step(0.5, eta)) for eta in (1e-3, 1e-4)]
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.02)
    target = problem.predicted_fixed_point()
    rest = [abs(problem.fixed_point(eta) - target) for eta in (1e-2, 1e-3)]
    assert rest[0] / rest[1] == pytest.approx(10, rel=0.05)
    assert problem.run(0.01, 20_000)[-1] == pytest.approx(problem.fixed_point(0.01), abs=1e-9)


def test_alternating_rests_where_the_simultaneous_objective_has_no_minimum():
    strong = Alternating(0.1, 0.3, 0.05)
    assert strong.predicted_fixed_point() is None
    rest = strong.fixed_point(0.1)
    assert rest is not None
    assert strong.step(rest, 0.1) == pytest.approx(rest, abs=1e-9)


def test_lemma_1_inverts():
    assert lemma.smallest_gap(500) == pytest.approx(0.061, abs=5e-4)
    for gap in (0.02, 0.1):
        size = lemma.smallest_size(gap)
        assert lemma.population_bound(size, gap) <= 0.05 < lemma.population_bound(size - 1, gap)
        size = lemma.smallest_size(gap, test=20_000)
        assert lemma.finite_test_bound(size, 20_000, gap) <= 0.05 < lemma.finite_test_bound(size - 1, 20_000, gap)
    gap = lemma.smallest_gap(70, test=360)
    assert lemma.finite_test_bound(70, 360, gap) == pytest.approx(0.05, rel=1e-4)
    assert lemma.finite_test_bound(70, 360, gap) <= lemma.finite_test_bound(70, 360, gap, split=0.5)
    with pytest.raises(InputError, match="test = 100"):
        lemma.smallest_size(0.05, test=100)


def test_lemma_1_covers():
    """Accuracy of a fixed classifier on random forget and test samples: the bound must hold."""
    rng = np.random.default_rng(0)
    gap = lemma.smallest_gap(60, test=200)
    for accuracy in (0.5, 0.9):
        gaps = np.abs(rng.binomial(60, accuracy, 20_000) / 60 - rng.binomial(200, accuracy, 20_000) / 200)
        assert (gaps >= gap).mean() <= 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((90, 10, 20, -0.1, 0.01), "alpha = -0.1, expected .* at least 0"),
        ((90, 10, 20, 0.1, 0.0), "ridge = 0.0, expected .* above 0"),
        ((0, 100, 20, 0.1, 0.1), "retain = 0"),
        ((90, 10, 20, 5.0, 0.1), "alpha from 0 to 0.5"),
        ((90, 10, 95, 0.1, 0.1), "at most retain"),
    ],
)
def test_bad_parameters_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        OneDirection(*arguments)
