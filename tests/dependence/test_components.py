"""Forget sets along principal components: the right examples, the same on every run."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.core import InputError
from expunge.dependence import (
    SubsetEnsemble,
    component_forget_set,
    components,
    fit_ridge,
    principal_components,
    subset_masks,
)
from expunge.papers.ascent_fails_to_forget.dependence import paper_forget_sets
from reference.problems import small_task


def grouped(n=50, k=300, outside=4, shuffle=False):
    """Two groups of examples that help themselves and hurt each other; the rest do nothing."""
    rng = np.random.default_rng(0)
    masks = subset_masks(n, k, 0.5)
    direction = np.zeros(n)
    direction[:7], direction[7:14] = 1.0, -1.0
    second = np.zeros(n)
    second[20:26] = 0.6
    effects = np.zeros((n, n + outside))
    effects[:, :n] = np.outer(direction, direction) + np.outer(second, second)
    margins = masks @ effects + 0.3 * rng.normal(size=(k, n + outside))
    own = np.r_[np.arange(n), np.full(outside, -1)]
    if shuffle:
        order = rng.permutation(n + outside)
        margins, own = margins[:, order], own[order]
    return SubsetEnsemble(masks, margins, margins > 0, own, 0.5)


def test_components_are_those_of_the_centred_embeddings():
    model = fit_ridge(grouped())
    found = principal_components(model, 3)
    embeddings = model.weights()[:, :50].T
    centred = embeddings - embeddings.mean(0)
    covariance = centred.T @ centred
    values, vectors = np.linalg.eigh(covariance)
    for number in range(3):
        scores = centred @ vectors[:, -1 - number]
        scores = scores if scores[np.abs(scores).argmax()] > 0 else -scores
        np.testing.assert_allclose(found.scores[:, number], scores, atol=1e-8)
        assert found.shares[number] == pytest.approx(values[-1 - number] / values.sum())
    assert (found.scores[np.abs(found.scores).argmax(0), range(3)] > 0).all()


def test_groups_are_found_and_the_order_of_targets_does_not_matter():
    task = small_task("mlp")
    one, other = (principal_components(fit_ridge(grouped(shuffle=s))) for s in (False, True))
    first = component_forget_set(task, one, 1, "both", 14)
    assert set(first.indices) == set(range(14))
    top, bottom = (set(component_forget_set(task, one, 1, side, 6).indices) for side in ("top", "bottom"))
    assert {frozenset(top) <= frozenset(range(7)), frozenset(bottom) <= frozenset(range(7))} == {True, False}
    assert set(component_forget_set(task, one, 2, "top", 6).indices) == set(range(20, 26))
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-8)


def test_large_tasks_give_the_same_components_without_the_whole_matrix(monkeypatch):
    model = fit_ridge(grouped(shuffle=True))
    whole = principal_components(model, 3)
    monkeypatch.setattr(components, "DENSE", 10)
    part = principal_components(model, 3)
    np.testing.assert_allclose(part.scores, whole.scores, atol=1e-6)
    np.testing.assert_allclose(part.shares, whole.shares, atol=1e-8)


def test_sides_skips_and_ties():
    task = small_task("mlp")
    scores = np.zeros((50, 2))
    scores[:, 0] = np.arange(50)
    scores[:, 1] = 1.0
    made = components.Components(scores, np.array([0.6, 0.4]))

    def chosen(*arguments, **options):
        return component_forget_set(task, made, *arguments, **options).indices.tolist()

    assert chosen(1, "top", 3) == [47, 48, 49]
    assert chosen(1, "bottom", 3) == [0, 1, 2]
    assert chosen(1, "both", 5) == [0, 1, 47, 48, 49]
    assert chosen(1, "top", 3, skip=3) == [44, 45, 46]
    assert chosen(1, "both", 5, skip=5) == [2, 3, 44, 45, 46]
    assert chosen(2, "top", 3) == [0, 1, 2]
    forget = component_forget_set(task, made, 1, "both", 4)
    assert forget.name == "component-1-both-4"
    assert forget.chooser == "component"
    assert "largest and smallest scores on principal component 1" in forget.how
    assert component_forget_set(task, made, 1, "both", 4, skip=4).name == "component-1-both-4-next"


def test_the_papers_sets_are_scaled_to_the_task():
    task = small_task("mlp", n=50)
    made = principal_components(fit_ridge(grouped()))
    sets = paper_forget_sets(task, made)
    assert [s.name for s in sets] == [f"component-{c}-{s}" for c in (1, 2) for s in ("top-10", "top-20", "both-40")]
    assert [round(share * 50_000) for _, share, _ in components.PAPER] == [10, 100, 500]


def test_bad_requests_are_refused():
    task = small_task("mlp")
    subsets = grouped()
    model = fit_ridge(subsets)
    with pytest.raises(InputError, match="at most 48"):
        principal_components(model, 49)
    fewer = SubsetEnsemble(subsets.masks, subsets.margins[:, 1:], subsets.correct[:, 1:], subsets.own[1:], 0.5)
    with pytest.raises(InputError, match="49 of 50 training examples are targets"):
        principal_components(fit_ridge(fewer))
    made = principal_components(model)
    for arguments, message in [
        ((0, "top", 3), "component = 0"),
        ((3, "top", 3), "component = 3, expected 1 to 2"),
        ((1, "middle", 3), "side = 'middle'"),
        ((1, "top", 0), "size = 0"),
        ((1, "top", 50), "asks for all"),
        ((1, "top", 25, 25), "asks for all"),
    ]:
        with pytest.raises(InputError, match=message):
            component_forget_set(task, made, *arguments)
    with pytest.raises(InputError, match="has 60"):
        component_forget_set(small_task("mlp", n=60), made, 1, "top", 3)
