"""Rewind-to-delete: its slow twin, its bound against true distances and the source's, what voids it, an attack."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import expunge as ex
from expunge.core import InputError
from expunge.core.convex import ConvexFit
from expunge.core.trade_off import gaussian_epsilon
from expunge.ensembles import train
from expunge.methods import DescentToDelete, RewindToDelete, unlearn
from expunge.methods.rewind_to_delete import shift
from methods.certified_runs import QuietFit, members_of, odd_rows, one_task, run
from reference.certified_formulas import rewind_to_delete_growth, rewind_to_delete_shift
from reference.problems import forget_set, small_task


def task_of(number=0, **options):
    return one_task(number, **{"noise": 0.1, "steps": 40, **options})


def descend(w, x, y, steps, rate, l2):
    """Plain gradient descent on the mean loss."""
    for _ in range(steps):
        z = x @ w.T
        p = np.exp(z - z.max(1, keepdims=True))
        p = p / p.sum(1, keepdims=True) - np.eye(len(w))[y]
        w = w - rate * (p.T @ x / len(x) + l2 * w)
    return w


def ends(task, forget, first):
    """Where the method and retraining end, without noise."""
    x, y, fit = task.train.x.numpy(), task.train.y.numpy(), task.fit
    nothing = np.zeros((2, x.shape[1]))
    state = descend(nothing, x, y, first, fit.step_size, fit.l2)
    kept = forget.retain
    gone_on = descend(state, x[kept], y[kept], fit.steps - first, fit.step_size, fit.l2)
    return gone_on, descend(nothing, x[kept], y[kept], fit.steps, fit.step_size, fit.l2)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_it_equals_its_slow_twin(share):
    task = task_of(steps=12)
    forget, pretrained = odd_rows(task), train(task, members=3, seed=1)
    method = RewindToDelete(share=share)
    found = unlearn(pretrained, task, forget, method, seed=2)
    expected, retrained = ends(task, forget, method.first(12))
    noise = found.params["weight"] - torch.from_numpy(expected)
    assert 0.05 < float(noise.std()) < 0.2
    assert not torch.allclose(noise[0], noise[1])
    quiet = ConvexFit(l2=task.fit.l2, noise=1e-15, steps=12)
    silent = ex.Task(
        name="silent",
        train=(task.train.x, task.train.y),
        validation=(task.validation.x, task.validation.y),
        model=task.model,
        recipe=task.recipe,
        fit=quiet,
    )
    start = members_of(silent, torch.arange(len(task.train)), 1, 1)
    bare = unlearn(start, silent, forget, method).params["weight"][0].numpy()
    np.testing.assert_allclose(bare, expected, rtol=0, atol=1e-13)
    assert found.trace.cost == pytest.approx(1 - method.first(12) / 12)
    assert method.planned_cost(8, 72, 12) == pytest.approx(found.trace.cost)
    if share == 0:
        np.testing.assert_allclose(bare, retrained, rtol=0, atol=1e-13)
        again = members_of(silent, torch.from_numpy(forget.retain), 1, 1).params["weight"][0].numpy()
        np.testing.assert_allclose(bare, again, rtol=0, atol=1e-13)
        assert found.trace.claim.epsilon == 0.0


@pytest.mark.parametrize("rate", [None, 0.3])
@pytest.mark.parametrize("l2", [0.02, 0.2])
def test_the_distance_from_retraining_is_below_its_bound_and_the_bound_below_the_source_s(l2, rate):
    for number in range(6):
        task = task_of(number, l2=l2, rate=rate)
        forget = odd_rows(task)
        n, k = len(task.train), len(forget)
        for first in (0, 1, 10, 39, 40):
            gone_on, retrained = ends(task, forget, first)
            bound = shift(task.fit, n, k, first)
            assert np.linalg.norm(gone_on - retrained) <= bound * (1 + 1e-12)
            growth = rewind_to_delete_growth(
                40 - first, 40, rate=task.fit.step_size, smoothness=task.fit.smoothness(), rows=n, forget=k
            )
            theirs = rewind_to_delete_shift(
                growth, gradient=math.sqrt(2), smoothness=task.fit.smoothness(), rows=n, forget=k
            )
            assert bound <= theirs * (1 + 1e-12)
    assert shift(task.fit, n, k, 0) == 0.0
    assert shift(task.fit, n, 2 * k, 10) == pytest.approx(2 * shift(task.fit, n, k, 10))


def test_after_one_step_and_none_on_the_retain_set_the_bound_is_a_step_of_opposite_gradients():
    fit = ConvexFit(l2=0.05, noise=0.1, steps=1)
    assert shift(fit, 80, 4, 1) == pytest.approx(fit.step_size * 2 * math.sqrt(2) * 4 / 80)
    assert shift(ConvexFit(l2=1e-12, noise=0.1, steps=50, rate=0.5), 80, 4, 30) == pytest.approx(
        30 * 0.5 * 2 * math.sqrt(2) * 4 / 80, rel=1e-3
    )  # convex and no more: steps add up, and nothing is drawn together


def test_the_source_s_golden_numbers():
    golden = {"rate": 0.01, "smoothness": 1.0, "rows": 10_000, "forget": 100}
    for kept, expected in ((50, 5.781959), (0, 6.463819), (200, 0.0)):
        assert rewind_to_delete_growth(kept, 200, **golden) == pytest.approx(expected, rel=1e-6)
    moved = rewind_to_delete_shift(5.781959, gradient=1.0, smoothness=1.0, rows=10_000, forget=100)
    sigma = moved * math.sqrt(2 * math.log(1.25e5))  # their noise for epsilon = 1, delta = 1e-5
    assert sigma == pytest.approx(0.560249, rel=1e-5)
    assert gaussian_epsilon(moved / sigma, 1e-5) < 1.0


def test_the_claim_shows_every_assumption_and_falls_with_the_steps_on_the_retain_set():
    task = task_of()
    forget, pretrained = odd_rows(task), members_of(task, torch.arange(len(task.train)), 2, 1)
    claims = [unlearn(pretrained, task, forget, RewindToDelete(share=s)).trace.claim for s in (0.75, 0.5, 0.25, 0.0)]
    assert all(claim.holds and claim.retraining for claim in claims)
    epsilons = [claim.epsilon for claim in claims]
    assert epsilons == sorted(epsilons, reverse=True)
    assert epsilons[-1] == 0.0
    assert [each.name for each in claims[0].assumptions] == [
        "norm of the longest row",
        "strong convexity found",
        "smoothness found",
        "step size",
        "distance of the gradients on all rows and on R, along the path",
        "random linear term of training",
    ]
    found = {each.name: each for each in claims[0].assumptions}
    met = found["distance of the gradients on all rows and on R, along the path"]
    assert 0 < met.value < met.bound


@pytest.mark.parametrize(
    ("options", "broken"),
    [
        ({"rate": 4 / 0.6}, {"step size"}),
        ({"scale": 4.0}, {"norm of the longest row", "smoothness found"}),
        ({"perturbation": 0.5}, {"random linear term of training"}),
    ],
)
def test_what_does_not_hold_voids_the_claim(options, broken):
    task = task_of(**options)
    pretrained = members_of(task, torch.arange(len(task.train)), 2, 1)
    claim = unlearn(pretrained, task, odd_rows(task), RewindToDelete(share=0.5)).trace.claim
    assert not claim.holds
    assert broken <= {each.name for each in claim.broken}
    assert claim.sentence.startswith("VOID, nothing is certified")


def test_tasks_of_the_other_kind_are_refused():
    descended, solved, other = task_of(), one_task(0, noise=0.1), small_task("mlp")
    assert descended.name.endswith("-descent")
    with pytest.raises(
        InputError, match=r"needs a strongly convex loss that is trained by gradient descent .*steps=40"
    ):
        unlearn(train(solved, members=1), solved, odd_rows(solved), RewindToDelete())
    with pytest.raises(
        InputError, match=r"descent_to_delete needs a strongly convex loss that is solved to its optimum"
    ):
        unlearn(train(descended, members=1), descended, odd_rows(descended), DescentToDelete())
    with pytest.raises(InputError, match="trained by gradient descent on all rows"):
        unlearn(train(other, members=1), other, forget_set(other), RewindToDelete())
    quiet = task_of(noise=0.0, perturbation=1.0)
    with pytest.raises(InputError, match="was trained with noise = 0"):
        unlearn(train(quiet, members=1), quiet, odd_rows(quiet), RewindToDelete())
    for options, message in (
        ({"steps": 0}, "steps = 0"),
        ({"steps": 3, "rate": 0.0}, "rate = 0"),
        ({"rate": 1.0}, "rate = 1 was given without steps"),
    ):
        with pytest.raises(InputError, match=message):
            ConvexFit(l2=0.1, noise=0.1, **options)
    for options in ({"share": 1.5}, {"delta": 0.0}):
        with pytest.raises(InputError, match=next(iter(options))):
            RewindToDelete(**options)


@pytest.mark.parametrize("share", [0.975, 0.5])
def test_what_is_measured_is_never_above_what_is_claimed(share):
    """Chance of failure below 1e-6: two bounds at a significance of 1e-8 each."""
    for number in range(2):
        found = run(task_of(number), RewindToDelete(share=share), members=16, seed=number, significance=1e-8)
        assert found.claim.holds
        assert found.measured <= found.claim.epsilon


def test_less_noise_than_is_claimed_is_seen_by_the_measured_bound_alone():
    """No assumption can see it. The two sides are apart by many deviations, so the seeds hardly matter."""
    task = task_of(fit=QuietFit, l2=0.2)
    found = run(task, RewindToDelete(share=0.75), members=60, seed=0, significance=1e-6)
    assert found.claim.holds
    assert found.measured > found.claim.epsilon


def test_a_grid_has_neither_end():
    recipe = ex.Recipe(epochs=40)
    assert [method.first(40) for method in RewindToDelete.grid(recipe)] == [4, 10, 20, 30]
    assert RewindToDelete.grid(ex.Recipe(epochs=1)) == [RewindToDelete(share=0.0)]
