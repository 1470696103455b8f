import math

import numpy as np
import pytest

from expunge.core import InputError
from expunge.papers.ascent_fails_to_forget.theory.simulated_mixture import simulate
from expunge.papers.ascent_fails_to_forget.theory.teacher_mixture import (
    Estimator,
    Mixture,
    breakdown,
    group_errors,
    helpful_limit,
    solve,
)
from reference.theory_slow import group_error

LAW = Mixture()
NOTHING = Mixture(density=2, forget=(0.0, 0.0))
TRIO = [Estimator("pretrained"), Estimator("oracle", 0.0), Estimator("tuned", 0.0, 1.0, 0, 2.0)]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("square", (0.5195, 0.4399, 0.1941, 0.5071, 0.7369, 0.1095, 0.2145, 0.2852)),
        ("logistic", (0.6119, 0.5274, 0.2866, 0.7269, 1.3892, 0.3163, 0.2376, 0.2956)),
    ],
)
def test_golden_order_parameters(loss, expected):
    _matches(solve(NOTHING, [Estimator("w", 1.0, 0.5)], loss=loss), expected)


def test_golden_with_biased_rules():
    law = Mixture(1.0, 0.5, 0.8, (0.5, -0.1), (0.5, 0.5), (0.2, -0.3), (0.0, 0.0))
    expected = (0.9975, 0.7477, 0.5953, 2.2841, 6.7326, 0.6612, 0.1488, 0.3490)
    _matches(solve(law, [Estimator("w", 1.0, 0.1)], loss="logistic"), expected)


def _matches(found, expected):
    values = [
        *found.teacher[0],
        found.group[0],
        found.overlap[0, 0],
        found.response[0, 0],
        found.bias[0],
        *found.errors[0],
    ]
    assert values == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize(
    ("gamma", "expected", "digits"),
    [(-1, 0.0201, 5e-5), (-0.5, 0.0074, 5e-5), (-0.1, 0.00045, 5e-6), (0, 0, 1e-12), (0.05, 0.00014, 5e-6),
     (0.1, 0.00058, 5e-6), (0.2, 0.0027, 5e-5), (0.3, 0.0072, 5e-5), (0.5, 0.030, 5e-4), (0.8, 0.247, 5e-4)],
)  # fmt: skip
def test_golden_distances(gamma, expected, digits):
    found = solve(LAW, [Estimator("oracle", 0.0), Estimator("ascent", -gamma)])
    assert found.distance("oracle", "ascent") == pytest.approx(expected, abs=digits)


def test_closed_form_against_quadrature():
    fast, slow = solve(LAW, TRIO), solve(LAW, TRIO, quadrature=True, nodes=16)
    for name in ("teacher", "group", "overlap", "response", "bias"):
        np.testing.assert_allclose(getattr(fast, name), getattr(slow, name), atol=5e-6, err_msg=name)


def test_same_estimator_twice_has_no_distance():
    for loss in ("square", "logistic"):
        found = solve(LAW, [Estimator("a"), Estimator("b")], loss=loss, nodes=24, tolerance=1e-9)
        # Squared distances cancel to the accuracy of the iteration.
        assert found.distance("a", "b") == pytest.approx(0, abs=1e-6)


def test_joint_solution_contains_the_single_ones():
    alone = [solve(LAW, [Estimator("w", weight)]).overlap[0, 0] for weight in (1.0, 0.0)]
    together = solve(LAW, TRIO)
    assert np.diag(together.overlap)[:2] == pytest.approx(alone, abs=1e-10)


def test_elastic_term_runs_from_the_oracle_to_the_start():
    for pull, near in ((1e-9, "oracle"), (1e9, "pretrained")):
        found = solve(LAW, [*TRIO[:2], Estimator("tuned", 0.0, 1.0, 0, pull)])
        assert found.distance("tuned", near) == pytest.approx(0, abs=1e-7)


def test_exchangeable_groups():
    law = Mixture(2.0, 0.5, 1.0, (0.3, 0.3), (0.7, 0.7), (0.0, 0.0), (0.0, 0.0))
    found = solve(law, [Estimator("w")])
    assert found.teacher[0, 0] == pytest.approx(found.teacher[0, 1], abs=1e-12)


def test_infinite_ridge_gives_zero():
    assert solve(LAW, [Estimator("w", 1.0, 1e9)]).overlap[0, 0] < 1e-9


def test_group_errors_against_quadrature():
    found = group_errors(LAW, np.array([0.5, 0.4]), 0.2, 0.6, 0.1)
    for index, c in enumerate((1, -1)):
        spread = math.sqrt(LAW.variance[index])
        slow = group_error(
            c * LAW.correlation[index] / spread,
            (c * 0.2 + 0.1) / (spread * math.sqrt(0.6)),
            (0.5, 0.4)[index] / math.sqrt(0.6),
        )
        assert found[index] == pytest.approx(slow, abs=1e-5)


def test_breakdown_is_where_simulations_lose_their_minimum():
    limit = breakdown(LAW, 1.0)
    assert solve(LAW, [Estimator("a", -limit * 1.001)]) is None
    simulate(LAW, [Estimator("a", -limit * 0.9)], dimension=300)
    with pytest.raises(InputError, match="no minimum"):
        simulate(LAW, [Estimator("a", -limit * 1.15)], dimension=300)


def test_helpful_limit():
    limit = helpful_limit(LAW, 1.0)
    found = solve(LAW, [Estimator("oracle", 0.0), Estimator("pretrained"), Estimator("ascent", -limit)])
    assert found.distance("oracle", "ascent") == pytest.approx(found.distance("oracle", "pretrained"), rel=1e-6)
    assert limit == pytest.approx(0.42, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["square", "logistic"])
def test_simulations_agree_within_three_standard_errors(loss):
    seeds, dimension = (6, 600) if loss == "square" else (5, 500)
    exact = solve(LAW, TRIO, loss=loss, nodes=14, tolerance=1e-8)
    runs = [simulate(LAW, TRIO, dimension=dimension, loss=loss, seed=seed) for seed in range(seeds)]
    for pair in (("pretrained", "oracle"), ("tuned", "oracle"), ("tuned", "pretrained")):
        values = np.array([run.distance(*pair) for run in runs])
        # A finite dimension biases the mean by a relative amount of order 1 / d.
        allowed = 3 * values.std(ddof=1) / math.sqrt(seeds) + 5 * exact.distance(*pair) / dimension
        assert abs(values.mean() - exact.distance(*pair)) < allowed, pair


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"imbalance": 0.0}, "imbalance"),
        ({"similarity": 1.0, "correlation": (0.9, -0.9)}, "no three vectors"),
        ({"forget": (1.0, 1.0)}, "whole data"),
        ({"density": -1.0}, "density"),
    ],
)
def test_bad_parameters(options, message):
    with pytest.raises(InputError, match=message):
        Mixture(**options)
