"""Stacked equals one by one, and the hand-stacked form equals the vmapped one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from expunge.core import InputError
from expunge.core.seeds import generator
from expunge.ensembles import build_network, train
from expunge.ensembles.layers import Unsupported, compile_layers
from expunge.ensembles.network import LayerNetwork, VmapNetwork
from reference.one_by_one import stack, train_one
from reference.problems import MODELS, forget_set, small_task


def largest_difference(state, other):
    return max(float((state[name] - other[name]).abs().max()) for name in other)


def state_of(ensemble):
    return {**ensemble.params, **ensemble.buffers}


OPTIMISERS = [
    {"optimizer": "sgd", "momentum": 0.9},
    {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0},
    {"optimizer": "adam", "lr": 0.01},
    {"optimizer": "adamw", "lr": 0.01},
]
SCHEDULES = [
    {"schedule": "triangular", "last_batch": "keep"},
    {"schedule": "cosine", "last_batch": "drop"},
    {"schedule": "linear", "last_batch": "keep", "batch_size": 13},
    {"schedule": "constant", "last_batch": "drop", "batch_size": 50},
]


@pytest.mark.parametrize("kind", ["layers", "vmap"])
@pytest.mark.parametrize("name", ["mlp", "mlp_norm", "cnn", "resnet"])
@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=lambda o: f"{o['optimizer']}-{o.get('momentum', 'default')}")
def test_stacked_training_equals_one_by_one(name, optimiser, kind):
    task = small_task(name, **optimiser)
    ensemble = train(task, members=3, seed=5, chunk=2, network=build_network(task, kind))
    assert ensemble.network.kind == kind
    reference = stack([train_one(task, np.arange(50), member, 5) for member in range(3)])
    assert set(reference) == set(state_of(ensemble))
    assert largest_difference(state_of(ensemble), reference) < 1e-10
    untrained = train(task, members=3, seed=5, epochs=0)
    assert float((ensemble.params[next(iter(ensemble.params))] - untrained.params[next(iter(untrained.params))]).norm())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s['schedule']}-{s['last_batch']}")
@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_schedules_and_last_batches_equal_one_by_one(name, schedule):
    task = small_task(name, **schedule)
    forget = forget_set(task)
    if task.recipe.batch_size == 50:
        with pytest.raises(InputError, match="no step is ever taken"):
            train(task, members=2, without=forget)
        forget = None
    ensemble = train(task, members=2, without=forget, seed=1)
    rows = np.arange(50) if forget is None else forget.retain
    reference = stack([train_one(task, rows, member, 1) for member in range(2)])
    assert largest_difference(state_of(ensemble), reference) < 1e-10


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_stopping_early_is_the_start_of_the_full_schedule(epochs):
    task = small_task("mlp")
    ensemble = train(task, members=2, epochs=epochs)
    reference = stack([train_one(task, np.arange(50), member, 0, epochs=epochs) for member in range(2)])
    assert largest_difference(state_of(ensemble), reference) < 1e-12


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding="same")
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.head = nn.Linear(4 * 36, 3)

    def forward(self, x):
        x = torch.relu(self.first(x))
        y = F.gelu(self.second(x)) * 2 + (1 - x)
        y = -(y.tanh()) + torch.sigmoid(x) / 3
        return self.head(F.relu(y, inplace=True).flatten(start_dim=1))


class Twice(nn.Module):
    """The same layer used twice, and the input used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.layer(self.layer(x))) + x)


def sequential(*layers):
    return lambda: nn.Sequential(*(copy.deepcopy(layer) for layer in layers))


def convolutional(*layers, head=None):
    def build():
        body = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), *(copy.deepcopy(layer) for layer in layers), nn.Flatten())
        width = body.eval()(torch.zeros(1, 2, 6, 6)).shape[1]
        return nn.Sequential(*body, nn.Linear(width, 3))

    return build


IMAGE, ROW = (2, 6, 6), (6,)
STACKABLE = {
    "linear-without-bias": (sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 3)), ROW),
    "gelu-tanh": (sequential(nn.Linear(6, 5), nn.GELU(approximate="tanh"), nn.Linear(5, 3)), ROW),
    "tanh-sigmoid": (sequential(nn.Linear(6, 5), nn.Tanh(), nn.Sigmoid(), nn.Linear(5, 3)), ROW),
    "silu-elu": (sequential(nn.Linear(6, 5), nn.SiLU(), nn.ELU(0.5), nn.Linear(5, 3)), ROW),
    "leaky": (sequential(nn.Linear(6, 5), nn.LeakyReLU(0.3), nn.Linear(5, 3)), ROW),
    "softplus": (sequential(nn.Linear(6, 5), nn.Softplus(beta=2.0), nn.Linear(5, 3)), ROW),
    "hardtanh-relu6": (sequential(nn.Linear(6, 5), nn.Hardtanh(-0.4, 0.3), nn.ReLU6(), nn.Linear(5, 3)), ROW),
    "identity-inplace": (sequential(nn.Identity(), nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)), ROW),
    "norm-1d": (sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, momentum=0.3), nn.Linear(5, 3)), ROW),
    "norm-of-inputs": (sequential(nn.BatchNorm1d(6, eps=0.1), nn.Linear(6, 3)), ROW),
    "norm-not-affine": (sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, affine=False), nn.Linear(5, 3)), ROW),
    "norm-2d": (convolutional(nn.BatchNorm2d(4, momentum=0.2), nn.ReLU()), IMAGE),
    "norm-of-images": (
        sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 3)),
        IMAGE,
    ),
    "stride-dilation": (convolutional(nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, bias=False)), IMAGE),
    "grouped": (convolutional(nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(8, 8, 1, groups=8)), IMAGE),
    "grouped-first": (sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 3)), IMAGE),
    "rectangular": (convolutional(nn.Conv2d(4, 2, (3, 1), stride=(1, 2), padding=(0, 1))), IMAGE),
    "max-pool": (convolutional(nn.MaxPool2d(2)), IMAGE),
    "max-pool-odd": (convolutional(nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)), IMAGE),
    "average-pool": (convolutional(nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)), IMAGE),
    "adaptive": (convolutional(nn.AdaptiveAvgPool2d((2, 3)), nn.AdaptiveMaxPool2d(1)), IMAGE),
    "pool-of-inputs": (sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(18, 3)), IMAGE),
    "flatten-inputs": (sequential(nn.Flatten(), nn.Linear(72, 3)), IMAGE),
    "functional": (Functional, IMAGE),
    "twice": (Twice, ROW),
}


def stacked_state(factory, members, dtype=torch.float64):
    torch.manual_seed(3)
    modules = [factory().to(dtype) for _ in range(members)]
    for module in modules:
        for layer in module.modules():
            if getattr(layer, "running_mean", None) is not None:
                nn.init.normal_(layer.running_mean)
                nn.init.uniform_(layer.running_var, 0.5, 2.0)
    params = {
        n: torch.stack([dict(m.named_parameters())[n].detach() for m in modules])
        for n, _ in modules[0].named_parameters()
    }
    buffers = {
        n: torch.stack([dict(m.named_buffers())[n].detach() for m in modules]) for n, _ in modules[0].named_buffers()
    }
    return modules, params, buffers


@pytest.mark.parametrize("shared", [True, False], ids=["shared-input", "own-inputs"])
@pytest.mark.parametrize("statistics", ["frozen", "updated"])
@pytest.mark.parametrize("name", STACKABLE)
def test_layers_equal_vmap_and_the_module_itself(name, statistics, shared):
    factory, shape = STACKABLE[name]
    modules, params, buffers = stacked_state(factory, 3)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1 if shared else 3, 5, *shape, generator=g, dtype=torch.float64)
    weigh = torch.randn(3, 5, 3, generator=g, dtype=torch.float64)
    results = []
    for kind in (LayerNetwork, VmapNetwork):
        network = kind(modules[0], x[0, :1])
        own = {k: t.clone().requires_grad_() for k, t in params.items()}
        moved = {k: t.clone() for k, t in buffers.items()}
        logits = network(own, moved, x, statistics=statistics)
        results.append((logits.detach(), torch.autograd.grad((logits * weigh).sum(), list(own.values())), moved))
    (logits, gradients, moved), (logits_v, gradients_v, moved_v) = results
    torch.testing.assert_close(logits, logits_v, rtol=1e-10, atol=1e-10)
    for one, other in zip(gradients, gradients_v, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    for key in moved:
        torch.testing.assert_close(moved[key], moved_v[key], rtol=1e-10, atol=1e-10)
        assert statistics == "updated" or torch.equal(moved[key], buffers[key])
    # What each module computes alone, and what it stores.
    for member, module in enumerate(modules):
        module.train(statistics == "updated")
        alone = module(x[0 if shared else member].clone())
        torch.testing.assert_close(logits[member], alone.detach(), rtol=1e-10, atol=1e-10)
        for key, tensor in module.named_buffers():
            torch.testing.assert_close(moved[key][member], tensor, rtol=1e-10, atol=1e-10)


def test_average_norm_without_momentum_equals_the_module():
    factory = sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, momentum=None), nn.Linear(5, 3))
    modules, params, buffers = stacked_state(factory, 2)
    network = LayerNetwork(modules[0], torch.zeros(1, 6, dtype=torch.float64))
    for step in range(3):
        x = torch.randn(1, 8, 6, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        network(params, buffers, x, statistics="updated")
        for module in modules:
            module.train()(x[0])
    for member, module in enumerate(modules):
        for key, tensor in module.named_buffers():
            torch.testing.assert_close(buffers[key][member], tensor)


class TiedWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.relu(self.first(x)))))


class Branches(nn.Module):
    """Does something else in training."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.body(x)
        return self.head(torch.relu(x) if self.training else torch.tanh(x))


class FunctionalDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(F.dropout(torch.relu(self.body(x)), 0.5, training=self.training))


class LooksAtItsInput(nn.Module):
    """Passes tracing only if nobody asks what the input is."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x) if x.shape[-1] == 6 else x


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))
        self.temperature = nn.Parameter(torch.tensor(2.0))  # no axis of its own: (members,) in the stack
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x * self.scale) / self.temperature


class InplaceResidual(nn.Module):
    """An in-place activation that changes a value used again: the hand-stacked form would not."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        h = torch.tanh(self.body(x)) + 0
        return self.head(self.act(h) + h)


UNSTACKABLE = {
    "layer-norm": sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 3)),
    "norm-without-running-statistics": sequential(
        nn.Linear(6, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 3)
    ),
    "tied-weights": TiedWeights,
    "branches": Branches,
    "scale": Scale,
    "looks-at-its-input": LooksAtItsInput,
    "inplace-residual": InplaceResidual,
    "root-linear": lambda: nn.Linear(6, 3),
}


@pytest.mark.parametrize("name", UNSTACKABLE)
def test_what_cannot_be_hand_stacked_goes_through_vmap_and_is_right(name):
    task = small_task("mlp", model=UNSTACKABLE[name])
    assert build_network(task).kind == "vmap"
    with pytest.raises(InputError, match="cannot be hand-stacked"):
        build_network(task, "layers")
    ensemble = train(task, members=2)
    modules = [train_one(task, np.arange(50), member, 0) for member in range(2)]
    own = stack(modules)
    assert largest_difference({n: own[n] for n in state_of(ensemble)}, state_of(ensemble)) < 1e-10
    # A member taken out as an ordinary module gives the same logits.
    x = task.validation.x
    for member, module in enumerate(modules):
        torch.testing.assert_close(ensemble.logits(x)[member], module(x).detach(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(ensemble.module(member)(x), module(x), rtol=1e-9, atol=1e-9)


def test_functional_dropout_is_run_one_model_at_a_time():
    task = small_task("mlp", model=FunctionalDropout)
    assert task.network.kind == "one"
    assert "draws random numbers while training" in task.network.reason
    with pytest.raises(InputError, match=r"cannot be stacked by torch\.vmap: it draws random numbers"):
        build_network(task, "vmap")


def test_dropout_equals_a_loop_with_the_same_noise():
    factory = sequential(nn.Dropout(0.2), nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    modules, params, buffers = stacked_state(factory, 3)
    network = LayerNetwork(modules[0], torch.zeros(1, 6, dtype=torch.float64))
    x = torch.randn(1, 16, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits = network(params, buffers, x, noise=[generator(member) for member in range(3)])
    for member, module in enumerate(modules):
        own = generator(member)
        h = x[0] * (torch.rand(16, 6, generator=own) >= 0.2) / 0.8
        h = torch.relu(module[1](h))
        h = h * (torch.rand(16, 8, generator=own) >= 0.5) / 0.5
        torch.testing.assert_close(logits[member], module[4](h).detach())
    torch.testing.assert_close(network(params, buffers, x)[0], modules[0].eval()(x[0]).detach())


def test_dropout_of_images_keeps_the_expected_share_and_differs_between_members():
    factory = sequential(nn.Conv2d(2, 4, 1, bias=False), nn.Dropout(0.25), nn.Flatten(), nn.Linear(4 * 36, 3))
    modules, params, buffers = stacked_state(factory, 2)
    run = compile_layers(sequential(nn.Conv2d(2, 4, 1, bias=False), nn.Dropout(0.25), nn.Flatten())())
    params = {"0.weight": torch.ones_like(params["0.weight"])}
    from expunge.ensembles.layers import Context

    noise = [generator(0), generator(1)]
    out = run(Context(params, buffers, 2, False, noise), torch.ones(2, 500, 2, 6, 6, dtype=torch.float64))
    kept = out > 0
    torch.testing.assert_close(out[kept], torch.full_like(out[kept], 2 / 0.75))
    assert abs(float(kept.double().mean()) - 0.75) < 0.01  # 144,000 draws: standard error 0.0011
    assert not torch.equal(kept[0], kept[1])
    assert modules[0] is not modules[1]


def test_dropout_that_drops_everything_gives_zeros():
    run = compile_layers(sequential(nn.Linear(6, 4), nn.Dropout(1.0))())
    from expunge.ensembles.layers import Context

    params = {"0.weight": torch.ones(2, 4, 6), "0.bias": torch.ones(2, 4)}
    out = run(Context(params, {}, 2, False, [generator(0), generator(1)]), torch.ones(2, 3, 6))
    assert torch.equal(out, torch.zeros(2, 3, 4))


def test_training_with_dropout_is_reproducible_and_independent_of_chunks():
    model = sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    task, plain = (
        small_task("mlp", model=model),
        small_task("mlp", model=sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))),
    )
    one, other = train(task, members=5, chunk=5), train(task, members=5, chunk=2)
    assert largest_difference(one.params, other.params) < 1e-10
    without = train(plain, members=5)
    assert float((one.params["0.weight"] - without.params["0.weight"]).abs().max()) > 1e-3


def test_compile_refuses_several_arguments_and_several_results():
    class TwoInputs(nn.Module):
        def forward(self, x, y=None):
            return x

    class TwoOutputs(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(Unsupported, match="more than one argument"):
        compile_layers(TwoInputs())
    with pytest.raises(Unsupported, match="other than one tensor"):
        compile_layers(TwoOutputs())


def test_every_named_problem_has_the_expected_form():
    kinds = {name: build_network(small_task(name)).kind for name in MODELS}
    assert kinds == {"logistic": "vmap", "mlp": "layers", "mlp_norm": "layers", "cnn": "layers", "resnet": "layers"}
