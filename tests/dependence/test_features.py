"""Feature measures: golden numbers, double sums, closed forms, and what they read where there is nothing to see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from dependence.common import modules, trained
from expunge.core import InputError
from expunge.dependence.entanglement import _mask, _scores, entanglement, random_masks
from expunge.dependence.features import penultimate
from expunge.dependence.two_sample import (
    gaussian_kernel,
    hsic,
    member_dependence,
    mmd,
    within_class_classifier,
    within_class_mmd,
)
from expunge.ensembles import build_network, train
from reference.dependence_slow import (
    area_slow,
    entanglement_slow,
    hsic_slow,
    leave_one_out_slow,
    mmd_slow,
    penultimate_slow,
)
from reference.problems import small_task


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some(n, size, seed=0):
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:size]


def test_features_are_the_input_of_the_last_linear_layer():
    task, ensemble = trained("cnn")
    for member, module in enumerate(modules(ensemble)):
        expected = penultimate_slow(module, task.train.x)
        torch.testing.assert_close(penultimate(ensemble, member, task.train.x), expected)
    task, ensemble = trained("resnet")
    assert penultimate(ensemble, 0, task.train.x).shape == (50, 8)


def test_a_network_without_linear_layers_gives_its_logits():
    def only_convolutions() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    task = small_task("cnn", model=only_convolutions)
    ensemble = train(task, members=2, seed=0, network=build_network(task))
    torch.testing.assert_close(penultimate(ensemble, 1, task.train.x), ensemble.logits(task.train.x)[1])
    with pytest.raises(InputError, match="no examples"):
        penultimate(ensemble, 0, task.train.x[:0])


def entanglement_score(features, index):
    return float(_scores(features, _mask(index, len(features)))[0])


def test_entanglement_equals_its_definition():
    golden = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 0.0], [5.0, 2.0]])
    assert entanglement_score(golden, torch.tensor([2, 3])) == pytest.approx(2 / 4.25)
    phi = normal(30, 4)
    for index in ([0, 5, 9], [3], list(range(25))):
        assert entanglement_score(phi, torch.tensor(index)) == pytest.approx(entanglement_slow(phi, index))


def test_raw_entanglement_of_a_random_set_reads_its_size():
    # E[1 / chi^2] adds 1 / (1 - 2 / features): about 8 |F| for many features and a small share.
    phi = normal(4000, 60)
    for size in (20, 80):
        found = np.mean([entanglement_score(phi, some(4000, size, s)) for s in range(20)])
        assert found == pytest.approx(8 * size, rel=0.15)


def test_normalised_entanglement_does_not_read_the_size_or_the_class_mix():
    labels = torch.arange(3).repeat_interleave(80)
    phi = normal(240, 6) + 4.0 * labels[:, None]
    seen = {}
    for size in (6, 30):
        # All of one class: apart from the others by its class, not given it.
        values = [entanglement(phi, labels, some(80, size, s), seed=s).normalised for s in range(40)]
        seen[size] = np.mean(values)
        assert abs(seen[size]) < 0.5
        assert 0.6 < np.std(values) < 1.6
    # Pushed away from everything: less entangled than chance, and significantly so. Towards the rest: more.
    apart, towards = phi.clone(), phi.clone()
    apart[:20, 0] -= 3.0
    towards[:20, 0] += 3.0
    found = entanglement(apart, labels, torch.arange(20))
    assert found.normalised < -3
    assert found.p_value == pytest.approx(1 / 101)
    assert entanglement(towards, labels, torch.arange(20)).normalised > 3


def test_random_sets_have_the_size_and_class_mix_of_the_set():
    labels = torch.tensor([0] * 10 + [1] * 5 + [2] * 20)
    index = torch.tensor([0, 1, 10, 20, 21, 22])
    masks = random_masks(labels, index, 50, seed=3)
    for label, count in ((0, 2), (1, 1), (2, 3)):
        assert bool((masks[:, labels == label].sum(1) == count).all())
    assert len({tuple(row.tolist()) for row in masks}) > 40
    assert torch.equal(masks, random_masks(labels, index, 50, seed=3))


def test_a_whole_class_has_nothing_to_be_compared_with():
    labels = torch.tensor([0] * 5 + [1] * 8)
    phi = normal(13, 3)
    assert np.isnan(entanglement(phi, labels, torch.arange(5)).normalised)
    assert np.isnan(within_class_mmd(phi, labels, torch.arange(5)).value)
    assert np.isnan(within_class_classifier(phi, labels, torch.arange(5)).value)


def test_mmd_equals_the_double_sum():
    kernel = gaussian_kernel(normal(14, 3))
    masks = torch.zeros(2, 14, dtype=torch.bool)
    masks[0, :5], masks[1, [1, 7]] = True, True
    for found, mask in zip(mmd(kernel, masks), masks, strict=True):
        assert float(found) == pytest.approx(mmd_slow(kernel.numpy(), mask.numpy()), abs=1e-12)
    with pytest.raises(InputError, match="a side has 1 rows"):
        mmd(kernel, torch.arange(14)[None] < 1)


def test_mmd_of_two_gaussians_has_its_closed_form():
    s, d, n = 1.3, 0.8, 400
    masks = torch.arange(2 * n)[None] < n
    found = []
    for seed in range(20):
        x = normal(2 * n, 1, seed=seed)
        x[:n] += d
        found.append(float(mmd(gaussian_kernel(x, s), masks)[0]))
    expected = 2 * s / np.sqrt(s**2 + 2) * (1 - np.exp(-(d**2) / (2 * (s**2 + 2))))
    error = np.std(found, ddof=1) / np.sqrt(20)
    assert abs(np.mean(found) - expected) < 4 * error
    assert error < 0.1 * expected


def test_the_width_is_the_median_distance():
    x = torch.tensor([[0.0], [1.0], [3.0]])
    torch.testing.assert_close(gaussian_kernel(x), gaussian_kernel(x, 2.0))
    assert float(gaussian_kernel(torch.ones(4, 2)).min()) == 1.0


def test_hsic_equals_its_sums_and_is_unbiased_under_independence():
    k, m = gaussian_kernel(normal(7, 2)), gaussian_kernel(normal(7, 2, seed=1))
    assert hsic(k, m) == pytest.approx(hsic_slow(k.numpy(), m.numpy()), abs=1e-12)
    centre = np.eye(7) - 1 / 7
    biased = np.trace(k.numpy() @ centre @ m.numpy() @ centre) / 49
    assert hsic(k, m, unbiased=False) == pytest.approx(biased)
    values = [
        hsic(gaussian_kernel(normal(20, 1, seed=2 * s)), gaussian_kernel(normal(20, 1, seed=2 * s + 1)))
        for s in range(300)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(300)
    with pytest.raises(InputError, match="4 rows or more"):
        hsic(k[:3, :3], m[:3, :3])


def test_members_that_agree_on_both_sides_are_dependent():
    shared = normal(30, 1)
    forget, retain = shared + 0.3 * normal(30, 5, seed=1), shared + 0.3 * normal(30, 9, seed=2)
    found = member_dependence(forget, retain)
    assert found.value > 0.6
    assert found.p_value < 0.02
    p_values = [member_dependence(normal(20, 4, seed=s), normal(20, 6, seed=1000 + s)).p_value for s in range(100)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert member_dependence(forget, forget).value == pytest.approx(1.0)


@pytest.mark.parametrize("test", [within_class_mmd, within_class_classifier])
def test_p_values_are_uniform_where_nothing_differs(test):
    labels = torch.arange(2).repeat_interleave(25)
    p_values = []
    for seed in range(120):
        # The classes differ and F has more of one than of the other: neither may count.
        phi = normal(50, 3, seed=seed) + 5.0 * labels[:, None]
        index = torch.cat([some(25, 10, seed), 25 + some(25, 4, 500 + seed)])
        p_values.append(test(phi, labels, index, permutations=39, seed=seed).p_value)
    assert stats.kstest(p_values, "uniform").pvalue > 0.005


@pytest.mark.parametrize("test", [within_class_mmd, within_class_classifier])
def test_a_shift_within_class_is_seen(test):
    labels = torch.arange(2).repeat_interleave(30)
    phi = normal(60, 3) + 5.0 * labels[:, None]
    index = torch.cat([torch.arange(10), torch.arange(30, 40)])
    phi[index, 1] += 3.0
    found = test(phi, labels, index)
    assert found.normalised > 3
    assert found.p_value < 0.03


def test_the_classifier_equals_refits_without_each_example():
    labels = torch.arange(2).repeat_interleave(12)
    phi = normal(24, 3) + labels[:, None]
    index = torch.tensor([0, 1, 2, 3, 12, 13])
    inside = np.isin(np.arange(24), index)
    centred, target = phi.numpy().copy(), inside.astype(float)
    for label in (0, 1):
        rows = labels.numpy() == label
        centred[rows] -= centred[rows].mean(0)
        target[rows] -= target[rows].mean()
    centred /= centred.std(0, ddof=1)
    scores = leave_one_out_slow(centred, target, 24 / 100)
    areas = [area_slow(scores[rows], inside[rows]) for rows in (labels.numpy() == 0, labels.numpy() == 1)]
    assert within_class_classifier(phi, labels, index).value == pytest.approx((4 * areas[0] + 2 * areas[1]) / 6)


def test_the_order_of_examples_changes_no_statistic():
    labels = torch.arange(2).repeat_interleave(15)
    phi, index = normal(30, 3), torch.tensor([0, 3, 20, 21, 28])
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    place = torch.argsort(order)[index]
    assert entanglement_score(phi[order], place) == pytest.approx(entanglement_score(phi, index))
    for test in (within_class_mmd, within_class_classifier):
        assert test(phi[order], labels[order], place).value == pytest.approx(test(phi, labels, index).value)
