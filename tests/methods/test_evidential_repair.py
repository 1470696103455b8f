"""Evidential repair: closed forms, a plain loop, what it must not touch, and where it is fine-tuning of the head."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.distributions import Dirichlet, kl_divergence
from torch.nn import functional as F

from expunge.core import InputError
from expunge.ensembles import train
from expunge.methods import CFk, EvidentialRepair, unlearn
from expunge.methods.evidential_repair import divergence, evidential, uncertainty
from expunge.methods.last_layers import layers_of
from reference.one_by_one import stack
from reference.problems import forget_set, small_task
from reference.unlearn_one_by_one import passes

OPTIONS = {"lr": 0.05, "epochs": 2, "evidence_epochs": 2, "batch_size": 16, "anchor": 0.3}


def test_closed_forms():
    alpha = 1 + 4 * torch.rand(50, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(divergence(alpha), kl_divergence(Dirichlet(alpha), Dirichlet(torch.ones_like(alpha))))
    assert float(divergence(torch.ones(7, dtype=torch.float64))) == pytest.approx(0, abs=1e-14)
    none = torch.full((1, 4), -800.0, dtype=torch.float64)  # no evidence at all
    assert float(uncertainty(none)) == 1.0
    assert float(evidential(none, torch.tensor([2]), 1.0)) == pytest.approx(torch.log(torch.tensor(4.0)).item())
    sure = torch.tensor([[1e6, -800.0, -800.0]], dtype=torch.float64)
    assert float(evidential(sure, torch.tensor([0]), 1.0)) == pytest.approx(0, abs=1e-5)
    assert float(evidential(sure, torch.tensor([1]), 1.0)) > 10


def twin(module, task, forget, method, seed, member):
    """One model, one example's weight at a time."""
    x, y, last = task.train.x, task.train.y, layers_of(task)[-1].weights

    def fitted(loss, epochs, sign):
        head = copy.deepcopy(module)
        moving = [parameter for name, parameter in head.named_parameters() if name in last]
        optimiser = torch.optim.SGD(moving, lr=method.lr, momentum=method.momentum, weight_decay=method.weight_decay)
        for epoch in range(1, epochs + 1):
            what = f"retain-{sign * epoch}"
            for part in passes(forget.retain, seed, "evidential_repair", member, what, method.batch_size):
                optimiser.zero_grad()
                loss(head, part, epoch).backward()
                optimiser.step()
        return head

    def first(head, part, epoch):
        return evidential(head(x[part]), y[part], min(epoch / method.annealing, 1)).mean()

    def second(head, part, epoch):
        total = sum(weights[row] * F.cross_entropy(head(x[[row]]), y[[row]]) for row in part.tolist()) / len(part)
        now, start = dict(head.named_parameters()), dict(module.named_parameters())
        return total + method.anchor * sum(((now[name] - start[name].detach()) ** 2).sum() for name in last)

    with torch.no_grad():
        right = {row: int(module(x[[row]]).argmax()) == int(y[row]) for row in forget.retain.tolist()}
    evidence = fitted(first, method.evidence_epochs, -1)
    counts = torch.bincount(y[forget.retain], minlength=task.classes)
    with torch.no_grad():
        doubt = {row: float(task.classes / (F.softplus(evidence(x[[row]])) + 1).sum()) for row in right}
    balance = {row: len(right) / (task.classes * int(counts[y[row]])) for row in right}
    weights = {row: balance[row] * (1 if right[row] else doubt[row]) for row in right}
    return fitted(second, method.epochs, 1), sum(right.values())


def test_it_equals_its_slow_twin_and_moves_the_last_layer_alone():
    task = small_task("mlp_norm")
    forget, pretrained = forget_set(task, 7), train(task, members=3, seed=4, epochs=1)
    method = EvidentialRepair(**OPTIONS)
    found = unlearn(pretrained, task, forget, method, seed=5, chunk=2)
    twins = [twin(pretrained.module(m).eval(), task, forget, method, 5, m) for m in range(3)]
    assert any(right < len(forget.retain) for _, right in twins)  # or else the evidence would decide nothing
    expected = stack([module for module, _ in twins])
    last = layers_of(task)[-1].weights
    for key, tensor in {**found.params, **found.buffers}.items():
        torch.testing.assert_close(tensor, expected[key], rtol=1e-8, atol=1e-10)
        start = {**pretrained.params, **pretrained.buffers}[key]
        assert torch.equal(tensor, start) == (key not in last)


def test_a_diverged_member_keeps_to_itself():
    task = small_task("mlp")
    forget, pretrained = forget_set(task, 7), train(task, members=2)
    spoiled = pretrained.clone()
    for tensor in spoiled.params.values():
        tensor[1] = float("nan")
    clean, beside = (unlearn(p, task, forget, EvidentialRepair(**OPTIONS)) for p in (pretrained, spoiled))
    assert all(torch.equal(tensor[0], beside.params[key][0]) for key, tensor in clean.params.items())


def test_bad_options_and_outcomes_without_classes_are_refused():
    for options in ({"annealing": 0.0}, {"anchor": -1.0}, {"evidence_epochs": 0}, {"statistics": "updated"}):
        with pytest.raises(InputError, match=next(iter(options))):
            EvidentialRepair(**options)
    assert EvidentialRepair.needs > CFk.needs
