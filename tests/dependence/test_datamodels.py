"""Datamodels: equal to their slow twins, exact where the truth is additive, honest about their errors."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.core import ForgetSet, InputError
from expunge.dependence import (
    SubsetEnsemble,
    fit_lasso,
    fit_ridge,
    subset_masks,
)
from expunge.papers.ascent_fails_to_forget.dependence import linear_datamodeling_score
from expunge.papers.ascent_fails_to_forget.theory.ridge import ridge_problem
from reference import datamodels_slow as slow


def additive(k=60, n=20, outside=3, noise=0.3, alpha=0.5, seed=0, own=1.0, mean=0.0):
    """Margins that are a sum of effects of the examples, plus noise; the first n targets are the examples."""
    rng = np.random.default_rng(seed)
    masks = subset_masks(n, k, alpha, seed)
    effects = mean + 0.2 * rng.normal(size=(n, n + outside))
    effects[np.arange(n), np.arange(n)] += own
    margins = 4 + masks @ effects + noise * rng.normal(size=(k, n + outside))
    places = np.r_[np.arange(n), np.full(outside, -1)]
    subsets = SubsetEnsemble(masks, margins, margins > 4, places, round(alpha * n) / n)
    return subsets, effects, 4 + effects.sum(0)


@pytest.mark.parametrize(("k", "n"), [(25, 30), (60, 20)])
def test_ridge_equals_its_slow_twin(k, n):
    subsets, _, _ = additive(k, n)
    model = fit_ridge(subsets, strengths=[0.3])
    weights = model.weights()
    new = subset_masks(n, 7, 0.4, seed=9)
    predicted = model.predict(new)
    for target, place in enumerate(subsets.own):
        twin = slow.ridge(subsets.masks, subsets.margins[:, target], place, model.strength[target])
        np.testing.assert_allclose(weights[:, target], twin.weights, atol=1e-9)
        np.testing.assert_allclose(model.own_effect[target], twin.own, atol=1e-9)
        expected = twin.intercept + (new - subsets.masks.mean(0)) @ twin.weights
        np.testing.assert_allclose(predicted[:, target], expected, atol=1e-9)
        errors = slow.left_out_errors(subsets.masks, subsets.margins[:, target], place, model.strength[target])
        rest = np.array([np.delete(subsets.margins[:, target], i).mean() for i in range(k)])
        total = ((subsets.margins[:, target] - rest) ** 2).sum()
        assert model.r2[target] == pytest.approx(1 - (errors**2).sum() / total, abs=1e-9)


def test_the_strength_has_the_least_left_out_error_shared_or_by_target():
    subsets, _, _ = additive(40, 30, noise=1.0)
    grid = (0.01, 0.1, 1.0, 10.0)
    alone = np.stack([fit_ridge(subsets, strengths=[s]).r2 for s in grid])
    scale = fit_ridge(subsets, strengths=[1.0]).strength[0]
    shared = fit_ridge(subsets, strengths=grid)
    np.testing.assert_allclose(shared.strength / scale, grid[alone.mean(1).argmax()])
    each = fit_ridge(subsets, strengths=grid, shared=False)
    np.testing.assert_allclose(each.strength / scale, np.array(grid)[alone.argmax(0)])
    np.testing.assert_allclose(each.r2, alone.max(0))
    assert len(set(each.strength)) > 1, "the data do not tell shared from separate strengths"


@pytest.mark.parametrize("forget", [[0, 4, 7, 11], [2], [5, 6]])
def test_sums_and_their_errors_equal_generalised_least_squares(forget):
    subsets, _, _ = additive(40, 30)
    model = fit_ridge(subsets, strengths=[0.5])
    none, ridge = (model.removal(forget, law="constant", shrink=s, limit=np.inf) for s in ("none", "penalty"))
    z = subsets.masks - subsets.masks.mean(0)
    weights = model.weights()
    for target, place in enumerate(subsets.own):
        others = [j for j in forget if j != place]
        columns, combine = [], []
        if place >= 0:
            columns.append(z[:, place])
            combine.append(1.0 if place in forget else 0.0)
        if others:
            columns.append(z[:, others].sum(1))
            combine.append(len(others))
        combine = np.array(combine)
        effects, covariance, of_one = slow.fixed_effects(
            subsets.masks, subsets.margins[:, target], np.column_stack(columns), model.strength[target]
        )
        assert none.change[target] == pytest.approx(-combine @ effects, abs=1e-9)
        # With no other forget example there is one fixed effect fewer, which the error does not take back.
        wide = np.sqrt((39 - len(columns)) / 37)
        expected = np.sqrt(combine @ covariance @ combine - len(others) * of_one) * wide
        assert none.standard_error[target] == pytest.approx(expected, abs=1e-9)
        assert ridge.change[target] == pytest.approx(-weights[forget, target].sum(), abs=1e-9)
        if place < 0:
            assert ridge.change[target] == pytest.approx(ridge.kept[target] * none.change[target], abs=1e-9)
            assert 0 < ridge.kept[target] < 1


def test_additive_margins_without_noise_are_recovered_exactly():
    subsets, effects, everything = additive(k=80, n=20, noise=0.0, mean=0.1)
    model = fit_ridge(subsets, strengths=[1e-10], full=everything)
    assert np.nanmin(model.r2) > 1 - 1e-6
    forget = [1, 3, 12]
    for shrink in ("penalty", "none", "adaptive"):
        found = model.removal(forget, law="constant", shrink=shrink, limit=np.inf)
        np.testing.assert_allclose(found.change, -effects[forget].sum(0), atol=1e-5)
    # Subsets of one size say nothing about what all effects share; without `full` that part is missing.
    blind = fit_ridge(subsets, strengths=[1e-10]).removal(forget, law="constant", shrink="penalty", limit=np.inf)
    outside = subsets.own < 0
    np.testing.assert_allclose(
        (blind.change + effects[forget].sum(0))[outside], 3 * effects.mean(0)[outside], atol=1e-5
    )
    new = subset_masks(20, 15, 0.5, seed=4)
    predicted = model.predict(new)
    np.testing.assert_allclose(predicted, 4 + new @ effects, atol=1e-5)
    assert linear_datamodeling_score(predicted, 4 + new @ effects).score == pytest.approx(1.0)


def test_the_unshrunk_sum_is_unbiased_and_its_standard_error_honest():
    # A thousand targets outside, each with effects and noise of its own; fewer subsets than examples.
    rng = np.random.default_rng(1)
    k, n, targets, size = 100, 150, 1000, 12
    masks = subset_masks(n, k, 0.5, seed=1)
    effects = 0.1 * rng.normal(size=(n, targets))
    effects[:size] += 0.15  # the forget examples pull the same way, which ridge takes for noise
    margins = masks @ effects + rng.normal(size=(k, targets))
    subsets = SubsetEnsemble(masks, margins, margins > 0, np.full(targets, -1), 0.5)
    everything = effects.sum(0)
    model = fit_ridge(subsets, full=everything)
    found = model.removal(np.arange(size), law="constant", shrink="none")
    truth = -effects[:size].sum(0)
    z = (found.change - truth) / found.standard_error
    assert abs(z.mean()) < 0.15
    assert 0.85 < z.std() < 1.15
    shrunk = model.removal(np.arange(size), law="constant", shrink="penalty").change
    assert abs(shrunk.mean()) < 0.7 * abs(truth.mean())
    adaptive = model.removal(np.arange(size), law="constant").change
    errors = [np.mean((change - truth) ** 2) for change in (found.change, shrunk, adaptive)]
    assert errors[2] < 1.02 * min(errors)


def test_effects_fall_as_one_over_the_examples_on_ridge_regression():
    problem = ridge_problem(examples=200, features=6, noise=0.5, ridge=0.5, seed=3)
    points = np.random.default_rng(0).normal(size=(60, 6))
    masks = subset_masks(200, 1500, 0.5, seed=2)
    values = np.stack([points @ problem.solve(mask.astype(float)) for mask in masks])
    subsets = SubsetEnsemble(masks, values, values > 0, np.full(60, -1), 0.5)
    everything = points @ problem.solve()
    model = fit_ridge(subsets, full=everything)
    forget = np.argsort(-(points[:1] @ problem.x.T)[0])[:10]
    truth = points @ problem.oracle(forget) - everything
    slopes = {}
    for law in ("inverse", "constant"):
        found = model.removal(forget, law=law, shrink="none").change
        assert np.corrcoef(found, truth)[0, 1] > 0.95
        slopes[law] = float(found @ truth / (found @ found))
    assert 0.8 < slopes["inverse"] < 1.2
    assert slopes["constant"] < 0.65  # effects at half the examples are about twice as large


def test_permuted_scores_have_no_rank_correlation_and_the_interval_says_so():
    subsets, _, _ = additive(400, 40, outside=20, noise=0.5)
    model = fit_ridge(subsets[:300])
    held_out = subsets[300:]
    predicted = model.predict(held_out.masks)
    real = linear_datamodeling_score(predicted, held_out.margins)
    assert real.score > 0.75
    assert real.low < real.score < real.high
    none = linear_datamodeling_score(np.random.default_rng(0).permutation(predicted), held_out.margins)
    assert abs(none.score) < 0.1
    assert none.low < 0 < none.high
    from scipy.stats import spearmanr

    expected = [spearmanr(predicted[:, t], held_out.margins[:, t])[0] for t in range(60)]
    np.testing.assert_allclose(real.by_target, expected)


def test_the_interval_of_the_linear_datamodeling_score_covers():
    # Targets that share half of their noise: an interval from the spread over targets would be far too narrow.
    covered, rng = 0, np.random.default_rng(5)
    truth = 6 / np.pi * np.arcsin(0.5 / 2)  # Spearman of a Gaussian pair with correlation .5
    for _ in range(200):
        shared, own = rng.normal(size=(2, 60, 1)), rng.normal(size=(2, 60, 8))
        a, e = np.sqrt(0.5) * (shared + own)
        score = linear_datamodeling_score(a, 0.5 * a + np.sqrt(0.75) * e)
        covered += score.low <= truth <= score.high
    assert 175 <= covered <= 199


def test_lasso_meets_its_optimality_conditions_and_finds_sparse_effects():
    rng = np.random.default_rng(2)
    masks = subset_masks(60, 200, 0.5, seed=2)
    effects = np.zeros((60, 5))
    for target in range(5):
        effects[rng.choice(60, 3, replace=False), target] = rng.choice([-1.0, 1.0], 3)
    margins = masks @ effects + 0.2 * rng.normal(size=(200, 5))
    subsets = SubsetEnsemble(masks, margins, margins > 0, np.full(5, -1), 0.5)
    model = fit_lasso(subsets)
    z = masks - masks.mean(0)
    residual = margins - margins.mean(0) - z @ model.weights()
    correlation = z.T @ residual / len(z)
    active = model.weights() != 0
    assert np.all(np.abs(correlation) <= model.strength * 1.02)
    held = np.where(active, np.sign(model.weights()) * correlation / model.strength, 1.0)
    np.testing.assert_allclose(held, 1.0, atol=0.03)
    assert np.array_equal(np.sign(np.where(np.abs(model.weights()) > 0.3, model.weights(), 0)), effects)
    assert np.nanmin(model.r2) > 0.9
    new = subset_masks(60, 50, 0.5, seed=3)
    assert linear_datamodeling_score(model.predict(new), new @ effects).score > 0.93
    found = model.removal([0, 1, 2], law="constant", shrink="penalty")
    np.testing.assert_allclose(found.change, -model.weights()[:3].sum(0))
    again = fit_lasso(subsets, workers=1)
    np.testing.assert_allclose(again.weights(), model.weights(), rtol=0, atol=1e-12)


def test_lasso_completes_from_its_residuals_what_the_penalty_took():
    # Every target has five strong effects of its own, and the forget examples pull it a little, all the same way.
    rng = np.random.default_rng(6)
    k, n, targets, size = 200, 120, 300, 12
    masks = subset_masks(n, k, 0.5, seed=6)
    effects = np.zeros((n, targets))
    for target in range(targets):
        effects[rng.choice(n, 5, replace=False), target] = 0.8 * rng.normal(size=5)
    effects[:size] += 0.1
    margins = masks @ effects + 0.4 * rng.normal(size=(k, targets))
    subsets = SubsetEnsemble(masks, margins, margins > 0, np.full(targets, -1), 0.5)
    model = fit_lasso(subsets, full=effects.sum(0))
    assert model.inflation > 1.05
    truth = -effects[:size].sum(0)
    whole, bare, adaptive = (
        model.removal(np.arange(size), law="constant", shrink=shrink) for shrink in ("none", "penalty", "adaptive")
    )
    z = (whole.change - truth) / whole.standard_error
    assert abs(z.mean()) < 0.3
    assert 0.7 < z.std() < 1.15
    error = [np.sqrt(np.mean((found.change - truth) ** 2)) for found in (whole, bare, adaptive)]
    assert error[2] < 0.8 * error[1]
    assert error[2] < 1.05 * error[0]
    by_ridge = fit_ridge(subsets, full=effects.sum(0)).removal(np.arange(size), law="constant")
    assert error[2] < 0.9 * np.sqrt(np.mean((by_ridge.change - truth) ** 2))


def test_products_with_the_weights_equal_the_weights():
    subsets, _, _ = additive(40, 30)
    rng = np.random.default_rng(0)
    targets = np.array([3, 31, 0, 12, 29])
    for model in (fit_ridge(subsets), fit_lasso(subsets, shares=[0.3])):
        weights = model.weights()
        right, left = rng.normal(size=(5, 2)), rng.normal(size=(4, 30))
        np.testing.assert_allclose(model.apply(right, targets), weights[:, targets] @ right, atol=1e-10)
        np.testing.assert_allclose(model.apply_transposed(left, targets), left @ weights[:, targets], atol=1e-10)


def test_models_that_are_not_finite_are_left_out():
    subsets, _, _ = additive(50, 20)
    spoiled = subsets.margins.copy()
    spoiled[[3, 40]] = np.nan
    broken = SubsetEnsemble(subsets.masks, spoiled, subsets.correct, subsets.own, subsets.alpha)
    keep = np.delete(np.arange(50), [3, 40])
    clean = SubsetEnsemble(
        subsets.masks[keep], subsets.margins[keep], subsets.correct[keep], subsets.own, subsets.alpha
    )
    np.testing.assert_array_equal(fit_ridge(broken).weights(), fit_ridge(clean).weights())


def test_constant_targets_and_constant_columns_are_harmless():
    subsets, _, _ = additive(50, 20)
    margins, masks = subsets.margins.copy(), subsets.masks.copy()
    margins[:, 21] = 3.0
    masks[:, 5] = True
    model = fit_ridge(SubsetEnsemble(masks, margins, subsets.correct, subsets.own, 0.5))
    assert np.isnan(model.r2[21])
    assert np.isfinite(np.delete(model.r2, 21)).all()
    assert np.abs(model.weights()[5]).max() < 1e-12
    assert np.isfinite(model.removal([0, 1]).change).all()
    with pytest.raises(InputError, match=r"1 forget examples \(first: 5\) are in all subsets or in none"):
        model.removal([0, 5])


def test_bad_requests_are_refused():
    subsets, _, _ = additive(50, 20)
    with pytest.raises(InputError, match=r"15 subset models with finite margins .*at least 20"):
        fit_ridge(subsets[:15])
    same = SubsetEnsemble(np.ones((50, 20), bool), subsets.margins, subsets.correct, subsets.own, 0.5)
    with pytest.raises(InputError, match="no example is in some subsets"):
        fit_ridge(same)
    with pytest.raises(InputError, match="strength = 0"):
        fit_ridge(subsets, strengths=[0.0])
    with pytest.raises(InputError, match="full has shape"):
        fit_ridge(subsets, full=np.zeros(4))
    with pytest.raises(InputError, match="margins have shape"):
        fit_ridge(SubsetEnsemble(subsets.masks, subsets.margins[:, :3], subsets.correct, subsets.own, 0.5))
    with pytest.raises(InputError, match="masks are"):
        fit_ridge(subsets).predict(np.ones((3, 4), bool))
    model = fit_ridge(subsets)
    for forget, message in [
        ([], "expected positions"),
        ([0.5], "expected positions"),
        ([0, 0], "at most once"),
        ([20], "0 to 19"),
        (np.arange(20), "whole training set"),
        (ForgetSet("f", np.array([1]), 30, "x"), "made for 30"),
    ]:
        with pytest.raises(InputError, match=message):
            model.removal(forget)
    with pytest.raises(InputError, match="law"):
        model.removal([1], law="linear")
    with pytest.raises(InputError, match="shrink"):
        model.removal([1], shrink="yes")
    with pytest.raises(InputError, match="share"):
        fit_lasso(subsets, shares=[2.0])
    with pytest.raises(InputError, match="at least 10"):
        linear_datamodeling_score(np.zeros((3, 2)), np.zeros((3, 2)))
    with pytest.raises(InputError, match="nothing can be ranked"):
        linear_datamodeling_score(np.zeros((12, 2)), np.zeros((12, 2)))


def test_a_forget_set_too_large_for_the_subsets_is_refused_with_its_standard_error():
    subsets, _, _ = additive(k=30, n=200, noise=1.0)
    model = fit_ridge(subsets)
    with pytest.raises(InputError, match=r"larger than 30 subsets can resolve: the standard error .* train about \d+"):
        model.removal(np.arange(100))
    found = model.removal(np.arange(100), limit=float("inf"))
    scale = np.sqrt((model.spread**2).mean())
    assert np.sqrt((found.standard_error**2).mean()) / model.size_factor(100, "inverse") > scale
    model.removal(np.arange(5))
