"""Margin matching: its endpoints, its targets, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expunge.core import InputError
from expunge.ensembles import train
from expunge.methods import DoNothing, MarginMatching, check_fits, unlearn
from reference.problems import forget_set, small_task


@pytest.fixture(scope="module")
def problem():
    task = small_task("mlp")
    return task, forget_set(task, 10), train(task, members=3, seed=1)


def own(task, ensemble):
    return ensemble.margins(task.train.x, task.train.y)


def test_targets_that_are_met_already_move_nothing(problem):
    task, forget, pretrained = problem
    found = unlearn(pretrained, task, forget, MarginMatching(lr=0.1, epochs=2), targets=own(task, pretrained))
    for key, tensor in found.params.items():
        torch.testing.assert_close(tensor, pretrained.params[key], rtol=0, atol=1e-10)
    (check,) = [c for c in found.trace.stops[-1].checks if "targets" in c.name]
    assert check.passed  # nothing to approach


def test_the_margins_of_another_model_are_reached_where_the_model_can(problem):
    # Another member of the same kind is a function that the network can be; all its margins are given.
    task, forget, pretrained = problem
    targets = own(task, train(task, members=3, without=forget, seed=5))
    method = MarginMatching(lr=0.01, epochs=300, batch_size=40, forget_batch_size=10)
    found = unlearn(pretrained, task, forget, method, targets=targets)
    before, after = ((own(task, e) - targets).abs().mean(1) for e in (pretrained, found))
    assert bool((after < 0.25 * before).all())
    stops = found.trace.stops
    start, now = (stops[-1].facts[name] for name in ("target-distance-start", "target-distance"))
    expected = (own(task, found) - targets)[:, torch.from_numpy(forget.indices)].pow(2).mean(1).sqrt()
    torch.testing.assert_close(now, expected)
    assert bool((now < start).all())
    assert found.trace.failed_checks == []


def test_each_member_follows_its_own_targets(problem):
    task, forget, pretrained = problem
    targets = own(task, pretrained)
    targets[0] -= 2.0
    found = unlearn(pretrained, task, forget, MarginMatching(lr=0.02, epochs=5), targets=targets)
    moved = found.trace.stops[-1].facts["moved"]
    assert moved[0] > 1e-2
    assert bool((moved[1:] < 1e-10).all())


def test_a_rate_that_is_too_large_is_flagged(problem):
    task, forget, pretrained = problem
    method = MarginMatching(lr=20.0, epochs=3, delta=100.0)
    found = unlearn(pretrained, task, forget, method, targets=own(task, pretrained) - 0.1)
    assert "distance to targets fell" in {check.name for check in found.trace.failed_checks}


def test_unknown_targets_have_no_say(problem):
    task, forget, pretrained = problem
    targets = own(task, pretrained)
    targets[:, forget.indices] -= 1.0
    blind = targets.clone()
    blind[:, torch.from_numpy(forget.retain)] = float("nan")
    method = MarginMatching(lr=0.02, epochs=2)
    one = unlearn(pretrained, task, forget, method, targets=blind)
    other = unlearn(pretrained, task, forget, MarginMatching(lr=0.02, epochs=2, retain_weight=0.0), targets=targets)
    for key, tensor in one.params.items():
        torch.testing.assert_close(tensor, other.params[key])
    assert bool(one.finite().all())


def test_the_targets_and_the_share_of_r_enter_the_cost(problem):
    task, forget, pretrained = problem
    method = MarginMatching(epochs=2, batch_size=10, forget_batch_size=4, retain_share=0.5)
    found = unlearn(pretrained, task, forget, method, targets=own(task, pretrained), targets_cost=2.5)
    # Half of 40 retain examples in two batches of 10, each beside 4 forget examples, for 2 of 3 epochs.
    assert [stop.cost for stop in found.trace.stops] == pytest.approx([2.5 + t * 28 / 120 for t in (1, 2)])
    free = unlearn(pretrained, task, forget, DoNothing(), targets=own(task, pretrained), targets_cost=2.5)
    assert free.trace.cost == 0  # it does not read them


def test_batch_norm_meets_forget_and_retain_examples_in_one_batch():
    task = small_task("mlp_norm")
    pretrained = train(task, members=2)
    method = MarginMatching(epochs=1, batch_size=8, forget_batch_size=8, statistics="updated")
    for size in (9, 17):  # each leaves a batch of one, of F or of R
        forget = forget_set(task, size)
        found = unlearn(pretrained, task, forget, method, targets=own(task, pretrained))
        assert bool(found.finite().all())


def test_bad_targets_are_refused(problem):
    task, forget, pretrained = problem
    good, method = own(task, pretrained), MarginMatching(epochs=1)
    with pytest.raises(InputError, match="needs predicted oracle margins and got none"):
        unlearn(pretrained, task, forget, method)
    with pytest.raises(InputError, match="needs predicted oracle margins"):
        check_fits(method, pretrained.network, task, forget)
    check_fits(method, pretrained.network, task, forget, targets=True)
    for targets, message in [
        (good[:2], r"expected floating-point margins \(members, training examples\) = \(3, 50\)"),
        (good[:, :40], r"shape \(3, 40\)"),
        (good.long(), "torch.int64"),
        (torch.full_like(good, float("inf")), "infinities"),
        (torch.full_like(good, float("nan")), "whole forget set for 3 members"),
    ]:
        with pytest.raises(InputError, match=message):
            unlearn(pretrained, task, forget, method, targets=targets)
    with pytest.raises(InputError, match="targets_cost = -1"):
        unlearn(pretrained, task, forget, method, targets=good, targets_cost=-1)
    unlearn(pretrained, task, forget, method, targets=np.asarray(good))
