import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

from expunge import tasks
from expunge.core import InputError
from expunge.papers.ascent_fails_to_forget.theory.logistic import logistic_problem
from expunge.papers.ascent_fails_to_forget.theory.ridge import ridge_problem
from expunge.papers.ascent_fails_to_forget.theory.skew import (
    State,
    flow,
    max_margin,
    resting_point,
    retain_agreement,
    time_to_forget,
)
from reference.theory_slow import max_margin as slow_margin


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_flow_solves_its_equation(p):
    start = State(0.4, -0.7)

    def slope(_, w):
        agree, disagree = p * math.exp(-w[0] - w[1]), (1 - p) * math.exp(-w[0] + w[1])
        return [agree + disagree, agree - disagree]

    path = solve_ivp(slope, (0, 50), [start.invariant, start.spurious], rtol=1e-11, atol=1e-12)
    found = flow(start, p, 50.0)
    assert (found.invariant, found.spurious) == pytest.approx(tuple(path.y[:, -1]), abs=1e-8)


def test_flow_composes_and_rests():
    start = State(0.1, 0.2)
    twice = flow(flow(start, 0.8, 3.0), 0.8, 4.0)
    once = flow(start, 0.8, 7.0)
    assert (twice.invariant, twice.spurious) == pytest.approx((once.invariant, once.spurious), abs=1e-12)
    assert flow(start, 0.8, 1e12).spurious == pytest.approx(resting_point(0.8), abs=1e-8)


def test_time_to_forget():
    before = flow(State(), 0.9, 1000.0)
    time = time_to_forget(before, 0.5, 0.05)
    assert flow(before, 0.5, time).spurious == pytest.approx(0.05, abs=1e-10)
    assert time > 1000
    assert time_to_forget(before, 1.0, 0.05) == math.inf


def test_fine_tuning_never_forgets_the_whole_minority():
    before = flow(State(), 0.9, 1000.0)
    for time in (1.0, 1e4, 1e9):
        after = flow(before, 1.0, time)
        assert after.invariant - after.spurious == pytest.approx(before.invariant - before.spurious, abs=1e-10)


@pytest.mark.parametrize(("majority", "minority"), [(6, 0), (6, 1), (6, 3), (5, 5), (0, 4), (2, 6)])
def test_max_margin_against_the_full_programme(majority, minority):
    for invariant, noise in ((1.0, 1.0), (0.5, 2.0), (2.0, 0.4)):
        found = max_margin(majority, minority, invariant=invariant, noise=noise)
        slow = slow_margin(majority, minority, invariant, noise)
        assert (found.invariant, found.spurious) == pytest.approx(slow, abs=2e-5)


def test_ridge_oracles():
    problem = ridge_problem()
    forget = np.array([3, 10, 11, 40])
    keep = np.setdiff1d(np.arange(60), forget)
    direct = np.linalg.solve(problem.x[keep].T @ problem.x[keep] + np.eye(8), problem.x[keep].T @ problem.y[keep])
    for found in (problem.oracle(forget), problem.removed(forget), problem.newton(forget)):
        np.testing.assert_allclose(found, direct, atol=1e-11)
    nothing, influence = (np.linalg.norm(w - direct) for w in (problem.solve(), problem.influence(forget)))
    assert influence < nothing / 2
    np.testing.assert_allclose(problem.descent_ascent(forget, 1.0), problem.solve(), atol=1e-12)
    with pytest.raises(InputError, match="ascent outweighs"):
        problem.descent_ascent(forget, -100.0)
    with pytest.raises(InputError, match="nothing is left"):
        problem.oracle(np.arange(60))


def test_logistic_oracles():
    problem = logistic_problem()
    forget = np.array([1, 5, 9])
    weights = np.ones(80)
    weights[forget] = 0
    slow = minimize(problem.loss, np.zeros(6), args=(weights,), jac=problem.gradient, method="BFGS", tol=1e-10).x
    exact = problem.oracle(forget)
    np.testing.assert_allclose(exact, slow, atol=1e-6)
    errors = [np.linalg.norm(w - exact) for w in (problem.newton(forget), problem.influence(forget), problem.solve())]
    assert errors[0] < errors[1] < errors[2]
    ascent = problem.descent_ascent(forget, -0.2)
    weights[forget] = -0.2
    assert np.abs(problem.gradient(ascent, weights)).max() < 1e-8


def test_teacher_mixture_task_has_the_overlaps_it_promises():
    task, forget, truth = tasks.teacher_mixture(
        dimension=50, density=20, similarity=0.5, correlation=(0.2, 0.1), seed=3
    )
    np.testing.assert_allclose(
        truth.vectors @ truth.vectors.T / 50, [[1, 0.5, 0.2], [0.5, 1, 0.1], [0.2, 0.1, 1]], atol=1e-12
    )
    x = task.train.x.numpy() * math.sqrt(50)
    fields = np.where(truth.group > 0, x @ truth.vectors[0], x @ truth.vectors[1])
    assert np.mean((fields > 0) == (task.train.y.numpy() == 1)) > 0.999
    assert set(truth.group[forget.indices]) == {-1.0}
    assert len(forget) == round(0.3 * (truth.group < 0).sum())
    residual = x[truth.group > 0] - truth.vectors[2] / math.sqrt(50)
    assert residual.var() == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize(("group", "share", "agreement"), [("minority", 1.0, 1.0), ("majority", 0.5, 0.45 / 0.55)])
def test_skew_tasks(group, share, agreement):
    for make in (tasks.statistical_skew, tasks.geometric_skew):
        task, forget, truth = make(examples=200, forget=group, share=share)
        x, sign = task.train.x, 2.0 * task.train.y - 1
        assert ((x[:, 0] * sign) > 0).all()
        assert truth.agreement == 0.9
        assert truth.retain_agreement == pytest.approx(agreement)
        assert truth.retain_agreement == pytest.approx(
            retain_agreement(0.9, share * (group == "majority"), share * (group == "minority"))
        )
        agrees = (x[:, 1] * sign > 0).numpy()
        assert (agrees == truth.agrees).all()
        assert (agrees[forget.indices] == (group == "majority")).all()
    with pytest.raises(InputError, match="share"):
        tasks.statistical_skew(examples=20, agreement=1.0)
