"""Projected influence: exact without a projection, close with one, unbiased inner products, bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dependence.common import trained
from expunge.core import InputError
from expunge.dependence.cross_influence import blocks, largest_singular_value
from expunge.dependence.inputs import complement
from expunge.dependence.kernel import Kernel
from expunge.dependence.leverage import canonical_correlations, leverage
from expunge.papers.ascent_fails_to_forget.dependence.projection import Projection
from reference.influence_slow import margin_gradients

INDEX = torch.tensor([2, 5, 11, 30, 31])
REST = complement(INDEX, 50)


@pytest.mark.parametrize("order", ["first", "newton"])
@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_without_a_projection_it_is_the_kernel(name, order):
    task, ensemble = trained(name)
    kernel = Kernel(ensemble, task, damping=0.3)
    found = Projection(ensemble, task, dims=10**6, damping=0.3)
    sets = found.forget(INDEX, order=order)
    shift = kernel.removal(INDEX, order=order)
    for member, own, expected in zip(kernel, sets, shift, strict=True):
        block = blocks(member, INDEX)
        torch.testing.assert_close(own.shift_forget, expected[INDEX], rtol=1e-7, atol=1e-9)
        assert own.shift_retain == pytest.approx(float((expected[REST] ** 2).mean().sqrt()), rel=1e-6)
        assert own.spectral_retain == pytest.approx(largest_singular_value(block.retain), rel=1e-6)
        assert own.effect_retain == pytest.approx(float(block.retain.sum(1).norm()), rel=1e-6)
        assert own.leverage == pytest.approx(leverage(member, INDEX), rel=1e-7)
        torch.testing.assert_close(own.canonical, canonical_correlations(member, INDEX), rtol=1e-5, atol=1e-7)
    v = task.validation
    torch.testing.assert_close(found.margins(sets, v.x, v.y), shift[:, 50:], rtol=1e-7, atol=1e-9)


def test_inner_products_are_unbiased_and_keep_their_scale():
    task, ensemble = trained("mlp")
    x, y = task.train.x[:6], task.train.y[:6]
    g = margin_gradients(ensemble.module(0), x, y)
    exact = g @ g.T
    found = []
    for seed in range(150):
        psi = Projection(ensemble, task, dims=16, damping=1.0, members=1, seed=seed).gradients(0, x, y)
        found.append(psi @ psi.T)
    stack = torch.stack(found)
    error = stack.std(0) / 150**0.5
    assert float(((stack.mean(0) - exact).abs() / error).max()) < 4.5
    # The variance of a sketch of k numbers: (|a|^2 |b|^2 + (a.b)^2 - 2 sum a_i^2 b_i^2) / k.
    a, b = g[0], g[1]
    variance = float((a @ a) * (b @ b) + (a @ b) ** 2 - 2 * ((a * b) ** 2).sum()) / 16
    assert float(stack[:, 0, 1].var()) == pytest.approx(variance, rel=0.5)


def test_with_a_projection_it_is_close_to_the_kernel():
    task, ensemble = trained("mlp", members=3)
    kernel = Kernel(ensemble, task, damping=2.0)
    exact = kernel.removal(INDEX)[:, INDEX]
    found = Projection(ensemble, task, dims=60, damping=2.0)
    seen = torch.stack([own.shift_forget for own in found.forget(INDEX)])
    assert found.dims == 60 < found.linearised.parameters
    assert np.corrcoef(exact.flatten(), seen.flatten())[0, 1] > 0.9
    assert 0.5 < float(seen.mean() / exact.mean()) < 1.5


def test_batches_do_not_matter(monkeypatch):
    task, ensemble = trained("cnn")
    one = Projection(ensemble, task, dims=40, damping=1.0).forget(INDEX)
    monkeypatch.setattr("expunge.ensembles.example_gradients.CHUNK", 1)
    other = Projection(ensemble, task, dims=40, damping=1.0).forget(INDEX)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.shift_forget, b.shift_forget, rtol=1e-9, atol=1e-11)
        assert a.spectral_retain == pytest.approx(b.spectral_retain, rel=1e-8)


def test_members_and_seeds():
    task, ensemble = trained("mlp")
    broken = ensemble.clone()
    next(iter(broken.params.values()))[0] = float("nan")
    options = {"dims": 40, "damping": 1.0}
    whole = Projection(ensemble, task, **options)
    part = Projection(broken, task, **options)
    sets = part.forget(INDEX)
    assert len(sets) == 2
    torch.testing.assert_close(sets[0].shift_forget, whole.forget(INDEX)[1].shift_forget)
    margins = part.margins(sets, task.validation.x, task.validation.y)
    assert margins.isnan().all(1).tolist() == [True, False, False]
    again = Projection(ensemble, task, **options).forget(INDEX)[0].shift_forget
    assert torch.equal(again, whole.forget(INDEX)[0].shift_forget)
    other = Projection(ensemble, task, seed=1, **options).forget(INDEX)[0].shift_forget
    assert not torch.equal(again, other)


def test_bad_input_is_refused():
    task, ensemble = trained("mlp")
    with pytest.raises(InputError, match="dims = 0"):
        Projection(ensemble, task, dims=0)
    with pytest.raises(InputError, match="weight decay and damping are both 0"):
        Projection(ensemble, (task.train.x, task.train.y))
    with pytest.raises(InputError, match="at least one position"):
        Projection(ensemble, task).forget([])
