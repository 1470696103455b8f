"""Losses with written-out gradients against autograd over the plain formula."""

from __future__ import annotations

import math

import pytest
import torch

from expunge.core.margins import margins_from_logits
from expunge.ensembles.losses import WeightedCrossEntropy
from expunge.methods.distillation import Divergence, divergence
from expunge.methods.evidential_repair import Evidence, evidential
from expunge.methods.margin_matching import Matching, huber
from expunge.methods.scrub import Keep

MEMBERS, BATCH, CLASSES = 3, 7, 5


def differentiated(loss, logits, *arguments):
    leaf = logits.clone().requires_grad_(True)
    losses = loss(leaf, *arguments)
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach(), gradient


def drawn(scale, seed=0):
    draw = torch.Generator().manual_seed(seed)
    logits, teacher = (scale * torch.randn(MEMBERS, BATCH, CLASSES, generator=draw).double() for _ in range(2))
    return logits, teacher, torch.randint(0, CLASSES, (MEMBERS, BATCH), generator=draw)


def agree(loss, logits, target, plain):
    written = loss.with_gradient(logits, target)
    assert torch.equal(loss.slope(logits, target), written[1])
    for one, other in zip(written, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_distance_of_scrub(scale, temperature):
    logits, teacher, _ = drawn(scale)
    plain = differentiated(lambda z: divergence(z, teacher, temperature), logits)
    agree(Divergence(temperature), logits, teacher, plain)


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_what_the_min_pass_of_scrub_descends(scale):
    logits, teacher, labels = drawn(scale)

    def loss(z):
        entropy = torch.nn.functional.cross_entropy(z.flatten(0, 1), labels.flatten(), reduction="none")
        return 0.99 * entropy.view(MEMBERS, BATCH).mean(1) + 0.1 * divergence(z, teacher, 4.0)

    agree(Keep(0.99, 0.1, Divergence(4.0), teacher), logits, labels, differentiated(loss, logits))


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("classes", [2, CLASSES])
def test_margin_matching_with_unknown_targets(scale, classes):
    logits, _, labels = drawn(scale)
    logits, labels = logits[..., :classes], labels % classes
    targets = scale * torch.randn(MEMBERS, BATCH, generator=torch.Generator().manual_seed(1)).double()
    targets[0, 1] = targets[1, 4:] = float("nan")
    weights = torch.linspace(0.5, 2.0, MEMBERS * BATCH, dtype=torch.float64).view(MEMBERS, BATCH)

    def loss(z):
        known = ~torch.isnan(targets)
        own = torch.stack([margins_from_logits(z[m], labels[m]) for m in range(MEMBERS)])
        difference = torch.where(known, own - targets.nan_to_num(), 0.0)
        apart = huber(difference, 0.5)
        return (weights * apart).sum(1)

    agree(Matching(0.5, labels, weights), logits, targets, differentiated(loss, logits))


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("shape", [(BATCH,), (MEMBERS, BATCH)])
def test_cross_entropies_with_weights_of_both_signs(scale, shape):
    logits, _, labels = drawn(scale)
    weights = torch.linspace(-0.3, 0.9, math.prod(shape), dtype=torch.float64).view(shape)

    def loss(z):
        entropy = torch.nn.functional.cross_entropy(z.flatten(0, 1), labels.flatten(), reduction="none")
        return (weights * entropy.view(MEMBERS, BATCH)).sum(1)

    agree(WeightedCrossEntropy(weights), logits, labels, differentiated(loss, logits))


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_what_the_evidential_head_descends(scale, share):
    logits, _, labels = drawn(scale)
    agree(Evidence(share), logits, labels, differentiated(lambda z: evidential(z, labels, share).mean(1), logits))
