"""Fisher noise: golden variances, a slow twin, its law, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from expunge.core import InputError
from expunge.ensembles import train
from expunge.methods import FisherNoise, unlearn
from expunge.methods.ssd import squares
from reference.one_by_one import stack
from reference.problems import forget_set, small_task
from reference.unlearn_one_by_one import fisher_noise


def test_golden_variances():
    method = FisherNoise(alpha=1e-6, damping=1e-8, most=1e3)
    found = method.variance(torch.tensor([0.0, 1.0, 1e-6, 9.9e-7], dtype=torch.float64))
    assert found.tolist() == pytest.approx([100.0, 1e-6, 1e-6 / 1.01e-6, 1.0], rel=1e-6)
    assert float(FisherNoise(alpha=1.0).variance(torch.zeros(1))) == 1e3


@pytest.mark.parametrize("name", ["logistic", "mlp", "mlp_norm", "resnet"])
@pytest.mark.parametrize("method", [FisherNoise(alpha=1e-4, damping=1e-3), FisherNoise(alpha=0.1, most=0.5)])
def test_it_equals_its_slow_twin(method, name):
    task = small_task(name)
    forget, pretrained = forget_set(task), train(task, members=3, seed=4)
    found = unlearn(pretrained, task, forget, method, seed=11, chunk=2)
    expected = stack([fisher_noise(pretrained.module(m), task, forget, method, 11, m) for m in range(3)])
    for key, tensor in {**found.params, **found.buffers}.items():
        assert float((tensor - expected[key]).abs().max()) < 1e-9
    assert not [check for check in found.trace.failed_checks if check.name != "moved enough"]


def test_the_noise_is_normal_with_the_variance_that_is_declared_and_members_share_none():
    task = small_task("cnn")
    forget, pretrained = forget_set(task), train(task, members=20, epochs=1)
    method = FisherNoise(alpha=1e-3, damping=1e-2)
    found = unlearn(pretrained, task, forget, method, seed=1)
    retain = torch.from_numpy(forget.retain)
    total = squares(pretrained, task.train.x[retain], task.train.y[retain])
    noise = torch.cat(
        [
            ((found.params[key] - tensor) / method.variance(total[key] / len(retain)).sqrt()).flatten(1)
            for key, tensor in pretrained.params.items()
        ],
        1,
    )
    members, weights = noise.shape
    n = members * weights
    # Six standard deviations of a mean, of a mean square and of an inner product: each less than 1e-8.
    assert abs(float(noise.mean())) < 6 / n**0.5
    assert abs(float(noise.square().mean()) - 1) < 6 * (2 / n) ** 0.5
    assert abs(float((noise[0] * noise[1]).mean())) < 6 / weights**0.5


def test_without_alpha_nothing_moves_and_that_is_flagged():
    task = small_task("mlp")
    forget, pretrained = forget_set(task), train(task, members=2)
    found = unlearn(pretrained, task, forget, FisherNoise(alpha=0))
    assert all(torch.equal(found.params[key], tensor) for key, tensor in pretrained.params.items())
    assert "weights moved" in {check.name for check in found.trace.failed_checks}


def test_what_the_retain_set_needs_moves_less():
    task = small_task("mlp")
    forget, pretrained = forget_set(task), train(task, members=4)
    retain = torch.from_numpy(forget.retain)
    fisher = squares(pretrained, task.train.x[retain], task.train.y[retain])["2.weight"] / len(retain)
    variance = FisherNoise().variance(fisher).flatten()
    assert bool((variance[fisher.flatten().argsort()].diff() <= 0).all())
    assert float(variance.max()) > 2 * float(variance.min())


def test_what_cannot_be_is_refused():
    def mixing() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.ReLU(), nn.Linear(8, 3))

    task = small_task(model=mixing)
    with pytest.raises(InputError, match="an example has no gradient of its own"):
        unlearn(train(task, members=1, epochs=0), task, forget_set(task), FisherNoise())
    for options in ({"alpha": -1.0}, {"damping": 0.0}, {"most": 0.0}, {"alpha": float("inf")}):
        with pytest.raises(InputError, match=f"{next(iter(options))} = "):
            FisherNoise(**options)
