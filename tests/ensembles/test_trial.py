"""Every kind of module: the right form is found, a member trains as its plain module does, and is itself."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from expunge.core import ForgetSet, InputError
from expunge.core.seeds import generator
from expunge.ensembles import Descent, Steps, build_network, train
from expunge.methods import GradientAscent, unlearn
from reference.modules import HUGGING_FACE, KINDS, task_of, trained_alone
from reference.problems import small_task


@pytest.mark.parametrize("name", KINDS)
def test_a_member_of_any_kind_trains_as_its_plain_module_does(name):
    task = task_of(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert task.network.kind == KINDS[name].form, task.network.reason
        pair, single = (train(task, members=3, seed=4, chunk=chunk) for chunk in (3, 1))
    x = task.validation.x
    torch.testing.assert_close(pair.logits(x), single.logits(x), rtol=1e-9, atol=1e-9)
    for member in range(2):
        module = trained_alone(task, member, 4)
        for key, tensor in (*module.named_parameters(), *module.named_buffers()):
            found = {**pair.params, **pair.buffers}[key][member]
            torch.testing.assert_close(found, tensor.detach(), rtol=1e-8, atol=1e-9)
        with torch.no_grad():
            expected = task.interface.run(module, x)
            taken = task.interface.run(pair.module(member), x)
        torch.testing.assert_close(pair.logits(x)[member], expected, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(taken, expected, rtol=1e-8, atol=1e-8)
    fresh = train(task, members=2, seed=4, epochs=0).logits(x)
    assert float((fresh - pair.logits(x)[:2]).abs().max()) > 1e-3


@pytest.mark.parametrize("statistics", ["frozen", "updated"])
@pytest.mark.parametrize("name", ["mlp", "mlp_norm", "cnn", "resnet"])
def test_one_at_a_time_equals_the_stacked_forms(name, statistics):
    task = small_task(name)
    start = train(task, members=2, epochs=1)
    results = []
    for kind in ("layers", "one"):
        steps = Steps(momentum=0.9, weight_decay=0.01, statistics=statistics)
        copies = ({key: tensor.clone() for key, tensor in part.items()} for part in (start.params, start.buffers))
        descent = Descent(build_network(task, kind), *copies, steps)
        noise = [generator(5, member) for member in range(2)]
        for step in range(3):
            index = torch.stack([torch.randperm(50, generator=generator(step, m))[:10] for m in range(2)])
            descent.step(task.train.x[index], task.train.y[index], 0.1, noise=noise)
        results.append({**descent.params, **descent.buffers})
    for key, tensor in results[0].items():
        torch.testing.assert_close(results[1][key].detach(), tensor.detach(), rtol=1e-9, atol=1e-10)
        assert statistics == "updated" or key in start.params or torch.equal(tensor, start.buffers[key])


@pytest.mark.parametrize("name", KINDS)
def test_a_member_of_any_kind_unlearns_as_itself(name):
    task = task_of(name, n=24)
    forget = ForgetSet.of(task, [1, 5, 7], name="some", how="for a test")
    trained = train(task, members=2, seed=4)
    for statistics in ("frozen", "updated", "recalibrated"):
        method = GradientAscent(lr=0.05, epochs=1, statistics=statistics)
        done, alone = (unlearn(start, task, forget, method, seed=0) for start in (trained, trained[1:]))
        assert bool(done.finite().all())
        for key, tensor in {**alone.params, **alone.buffers}.items():
            own = {**done.params, **done.buffers}[key]
            torch.testing.assert_close(own[1:], tensor, rtol=1e-9, atol=1e-10)
            if statistics == "frozen" and key in trained.buffers:
                assert torch.equal(own, trained.buffers[key])
        assert any(bool((tensor != trained.params[key]).any()) for key, tensor in done.params.items())


def test_dropout_is_the_same_in_every_form():
    task = task_of("mlp")
    stacked, single = (train(task, members=2, network=build_network(task, kind)) for kind in ("layers", "one"))
    for key, tensor in stacked.params.items():
        torch.testing.assert_close(single.params[key], tensor, rtol=1e-9, atol=1e-10)


def test_gradients_and_steps_apart_are_a_step():
    for name, kind in (("cnn", "layers"), ("mlp", "vmap"), ("mlp", "one")):
        task = small_task(name)
        start = train(task, members=3, epochs=0)
        index = torch.arange(30).view(3, 10)
        x, y = task.train.x[index], task.train.y[index]
        for steps in (Steps(momentum=0.9, weight_decay=0.1), Steps(optimizer="adamw", weight_decay=0.1)):
            one, two, rates = (Descent(build_network(task, kind), start.clone().params, {}, steps) for _ in range(3))
            for _ in range(2):
                losses = one.step(x, y, 0.05)
                again, gradients = two.gradients(x, y)
                two.apply(gradients, 0.05)
                rates.apply(rates.gradients(x, y)[1], torch.tensor([0.0, 0.05, 0.1], dtype=torch.float64))
                assert torch.equal(losses, again)
            for key, tensor in one.params.items():
                assert torch.equal(tensor, two.params[key])
                torch.testing.assert_close(rates.params[key][1], tensor[1], rtol=1e-9, atol=1e-12)
                assert torch.equal(rates.params[key][0], start.params[key][0])


def test_a_member_of_any_kind_resumes(tmp_path):
    task = task_of("noise")
    whole = train(task, members=2, seed=1)
    kept = train(task, members=1, seed=1, store=tmp_path)
    more = train(task, members=2, seed=1, store=tmp_path)
    for key, tensor in whole.params.items():
        torch.testing.assert_close(more.params[key], tensor)
        torch.testing.assert_close(kept.params[key][0], tensor[0])


def factory(**changes):
    def build():
        net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        for name, change in changes.items():
            change(net, name)
        return net

    return build


SHARED = nn.Linear(6, 3)


class Unseeded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)
        with torch.no_grad():
            self.head.bias.copy_(torch.from_numpy(np.random.default_rng().normal(size=3)))

    def forward(self, x):
        return self.head(x)


class Depth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*(nn.Linear(6, 6) for _ in range(1 + int(torch.initial_seed() == 1))))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.body(x))


class FailsInTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x).view(2 if self.training else -1, 5)[:, :3] if self.training else self.head(x)


class Remembers(nn.Module):
    """Carries the mean of the last batch on in an attribute that does not exist before."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.head = None, nn.Linear(6, 3)

    def forward(self, x):
        before, self.last = self.last, x.detach().mean(0)
        return self.head(x if before is None or not self.training else x + before)


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x).detach()


def frozen() -> nn.Module:
    return nn.Linear(6, 3).requires_grad_(False)


REFUSED = {
    "same-object": (lambda: SHARED, "same object twice"),
    "shared-layer": (
        lambda: nn.Sequential(SHARED, nn.ReLU(), nn.Linear(3, 3)),
        "share the trainable tensor '0.weight'",
    ),
    "unseeded": (Unseeded, "two models of one seed differ in 'head.bias'"),
    "architecture": (Depth, "tensors of other names or shapes"),
    "frozen": (frozen, "all parameters of the model are frozen"),
    "fails-in-training": (FailsInTraining, r"model\(\).train\(\) failed"),
    "no-gradient": (Detached, r"model\(\).train\(\) failed .* does not require grad"),
    "remembers": (Remembers, "keep what it carries from batch to batch in buffers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_member_is_refused_before_training(name):
    model, says = REFUSED[name]
    with pytest.raises(InputError, match=says):
        train(small_task("mlp", model=model), members=2)


def test_a_common_start_and_shared_frozen_layers_are_said_and_allowed():
    net = nn.Linear(6, 3)
    base = nn.Linear(6, 6).double().requires_grad_(False)

    def copied() -> nn.Module:
        fresh = nn.Linear(6, 3)
        fresh.load_state_dict(net.state_dict())
        return fresh

    alike = small_task("mlp", model=copied)
    assert alike.common_start
    assert alike.describe()["common_start"]
    shared = small_task("mlp", model=lambda: nn.Sequential(base, nn.ReLU(), nn.Linear(6, 3)))
    assert not shared.common_start
    trained = train(shared, members=2)
    assert torch.equal(trained.params["0.weight"][1], base.weight)


def test_the_record_says_which_form_and_why():
    task = task_of("lstm")
    said = task.describe()
    assert said["network"] == "one"
    assert "LSTM" in said["network_reason"]
    assert train(task, members=1, epochs=0).provenance["network"] == "one"
    with pytest.raises(InputError, match=r"cannot be hand-stacked: .*LSTM"):
        build_network(task, "layers")


def test_the_trial_is_quick_for_small_models():
    build_network(task_of("mlp"))
    for name in ("mlp", "lstm", "tied"):
        task = task_of(name)
        begin = time.perf_counter()
        build_network(task)
        assert time.perf_counter() - begin < 2  # .1 s on an idle core


def test_the_table_in_the_documentation_has_every_kind_in_its_form():
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    for kind in {**KINDS, **HUGGING_FACE}.values():
        assert f"| {kind.says} | {kind.form} | yes | yes | yes |" in page
