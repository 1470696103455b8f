import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.core import InputError
from expunge.papers.ascent_fails_to_forget.theory import two_directions as two
from expunge.papers.ascent_fails_to_forget.theory.lambert import principal
from reference.theory_slow import all_roots

problems = st.tuples(
    st.floats(-2.5, -0.4), st.floats(0.02, 0.99), st.floats(-2, 0), st.floats(-3, 0), st.floats(-3, 0.3)
)


def made(draw):
    forget = 10 ** draw[0]
    retain = 1 - forget
    group = retain * 10 ** draw[2]
    alpha = min(10 ** draw[4], forget / group)
    return two.TwoDirections(retain, forget, group, alpha, 10 ** draw[3], draw[1])


def residual(problem, point, a, b):
    ex, ey = math.exp(-point.x), math.exp(-point.y)
    p, q = problem.p, problem.q
    size = 1 + abs(a * p * ex) + abs(b * p * ey)
    return max(abs(point.x - a * p * ex - b * q * ey), abs(point.y - a * q * ex - b * p * ey)) / size


@given(problems)
@settings(max_examples=150, deadline=None)
def test_solutions_solve_and_lemmas_hold(draw):
    problem = made(draw)
    before, target, after = problem.pretrained, problem.oracle, problem.descent_ascent
    assert residual(problem, before, problem.b_D, problem.alpha * problem.b_D) < 1e-8
    assert residual(problem, target, problem.b_R, 0.0) < 1e-8
    assert len(after) in (0, 2)
    for point in after:
        assert residual(problem, point, problem.b_R, -problem.alpha * problem.b_F) < 1e-7
    if after:
        assert after[0].curvature > -1e-5
        assert after[1].curvature < 1e-5
        upper = two.lemma_8(problem)
        assert upper[0] is None or after[0].x <= upper[0] + 1e-9
        assert upper[1] is None or after[0].y <= upper[1] + 1e-9
    if problem.alpha <= 1:
        (low, high), (bottom, top) = two.lemma_7(problem)
        assert low - 1e-9 <= before.x <= high + 1e-9
        assert bottom - 1e-9 <= before.y <= top + 1e-9
    if after and problem.alpha >= two.lemma_9(problem.retain, problem.forget, problem.correlation):
        assert before.x >= after[0].x - 1e-9
        assert before.y >= after[0].y - 1e-9
    upper_x, upper_y = two.lemma_10(problem.retain, problem.forget, problem.group, problem.ridge, problem.correlation)
    assert problem.alpha > upper_x or target.x >= before.x - 1e-9
    assert problem.alpha > upper_y or target.y >= before.y - 1e-9


def test_lemma_7_fails_beyond_equal_groups():
    problem = two.TwoDirections(0.6, 0.4, 0.1, 3.0, 0.05, 0.4)
    (low, _), _ = two.lemma_7(problem)
    assert problem.pretrained.x < low


@pytest.mark.parametrize(
    ("a", "b", "eps"), [(2.0, -0.4, 0.5), (5.0, -0.2, 0.2), (1.0, -0.6, 0.8), (2.0, -3.0, 0.5), (2.0, 0.7, 0.5)]
)
def test_all_branches_against_multi_start(a, b, eps):
    fast = sorted((point.x, point.y) for point in two.stationary_points(a, b, eps))
    slow = sorted(all_roots(a, b, eps))
    assert len(fast) == len(slow)
    np.testing.assert_allclose(np.array(fast).reshape(-1), np.array(slow).reshape(-1), atol=1e-6)


def test_full_correlation_is_one_direction():
    make = {"retain": 0.9, "forget": 0.1, "group": 0.2, "alpha": 0.1, "ridge": 0.05}
    end = two.TwoDirections(correlation=1.0, **make)
    assert end.descent_ascent[0].x == pytest.approx(principal(2 * (end.b_R - 0.1 * end.b_F)), abs=1e-12)
    near = two.TwoDirections(correlation=1 - 1e-7, **make)
    assert near.descent_ascent[0].x == pytest.approx(end.descent_ascent[0].x, abs=1e-5)
    assert near.pretrained.y == pytest.approx(end.pretrained.y, abs=1e-5)


def test_provable_window_is_inside_the_true_one():
    for eps in (0.4, 0.7, 1.0):
        proved, true = (f(0.9, 0.1, 0.09, 10.0, eps) for f in (two.provable_window, two.true_window))
        assert not proved.empty
        assert true.low <= proved.low + 1e-9
        assert proved.high <= true.high + 1e-9
    assert two.provable_window(0.9, 0.1, 0.45, 0.01, 0.5).empty


@pytest.mark.parametrize("eps", [0.0, -0.2, 1.2])
def test_bad_correlation(eps):
    with pytest.raises(InputError, match="correlation"):
        two.TwoDirections(0.9, 0.1, 0.2, 0.1, 0.05, eps)
