"""Written-out gradients equal autograd's, and a member is still itself."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from expunge.core import Interface, Task
from expunge.core.seeds import generator
from expunge.ensembles import Descent, Steps, build_network, by_hand, train
from expunge.ensembles.by_hand import write_out
from expunge.ensembles.columns import ColumnConvolution
from expunge.ensembles.direct import library
from expunge.ensembles.layers import Unsupported
from expunge.ensembles.network import LayerNetwork, _reads
from expunge.ensembles.pooling import Pooling
from expunge.ensembles.products import LARGE, affine, input_gradient, separate, weight_gradient
from expunge.tasks.models import resnet9
from reference.one_by_one import stack, train_one
from reference.problems import small_task

ROW, IMAGE = (6,), (2, 7, 6)


def sequential(*layers):
    """A factory whose weights come from PyTorch's generator at the call, not from when this file was read."""

    def build():
        module = nn.Sequential(*(copy.deepcopy(layer) for layer in layers))
        for layer in module:
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        return module

    return build


def images(*layers, shape=IMAGE):
    width = nn.Sequential(*layers, nn.Flatten()).eval()(torch.zeros(2, *shape)).shape[1]
    return sequential(*layers, nn.Flatten(), nn.Linear(width, 3))


class Functions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(2, 3, 3, stride=2), nn.Linear(18, 3)

    def forward(self, x):
        x = F.silu(F.relu(torch.relu(self.first(x)).tanh(), inplace=False))
        return F.gelu(self.head(torch.flatten(x, 1).sigmoid()), approximate="tanh")


class Residual(nn.Module):
    """Skips of every kind: of the inputs, of a normed value, around nothing that learns, and by a convolution."""

    def __init__(self, norm: bool) -> None:
        super().__init__()

        def step(inputs, outputs, kernel, stride=1):
            layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=not norm)]
            return nn.Sequential(*layers, *[nn.BatchNorm2d(outputs)] * norm)

        self.first, self.second, self.third = step(2, 2, 3), step(2, 2, 3), step(2, 3, 3, 2)
        self.shortcut, self.last, self.head = step(2, 3, 1, 2), step(3, 3, 3), nn.Linear(36, 3)

    def forward(self, x):
        x = x + torch.relu(self.first(x))
        x = torch.relu(torch.add(self.second(x), x))
        x = F.relu(self.third(x) + self.shortcut(x) * 0.5)
        y = self.last(x)
        y += x
        return self.head(torch.flatten(1 - torch.tanh(y) + torch.sigmoid(y), 1))


class Frozen(nn.Module):
    """A skip below which nothing learns, and one that carries the only gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.first.requires_grad_(False)

    def forward(self, x):
        x = self.first(x)
        x = x + torch.relu(self.second(x))
        x = torch.tanh(x) + x
        return self.head(x) / 2


CHAINS = {
    "linear": (sequential(nn.Linear(6, 3)), ROW),
    "mlp": (sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5, bias=False), nn.ReLU(), nn.Linear(5, 3)), ROW),
    "relu-first-and-last": (sequential(nn.ReLU(), nn.Linear(6, 3), nn.ReLU()), ROW),
    "relu-twice": (sequential(nn.Linear(6, 8), nn.ReLU(), nn.ReLU(), nn.Linear(8, 3)), ROW),
    "two-linear": (sequential(nn.Linear(6, 8), nn.Linear(8, 3), nn.Tanh()), ROW),
    "activations": (sequential(nn.Linear(6, 8), nn.GELU(), nn.Tanh(), nn.ReLU(), nn.Linear(8, 3), nn.ELU()), ROW),
    "norm-1d": (sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)), ROW),
    "norm-of-inputs": (sequential(nn.BatchNorm1d(6), nn.Linear(6, 3)), ROW),
    "norm-not-affine": (sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 3)), ROW),
    "norm-without-momentum": (sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, momentum=None), nn.Linear(8, 3)), ROW),
    "flatten-inputs": (sequential(nn.Flatten(), nn.Linear(84, 3)), IMAGE),
    "same": (images(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1), nn.ReLU()), IMAGE),
    "stride": (
        images(nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, 2, 1, bias=False), nn.ReLU()),
        IMAGE,
    ),
    "even-kernel": (images(nn.Conv2d(2, 4, 2, 2), nn.Conv2d(4, 3, 2)), IMAGE),
    "gaps": (images(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 2, 3), nn.ReLU()), IMAGE),
    "dilation": (images(nn.Conv2d(2, 4, 3, 1, 2, 2), nn.ReLU(), nn.Conv2d(4, 3, 3, 2, 2, 2)), IMAGE),
    "rectangular": (images(nn.Conv2d(2, 4, (3, 1), (1, 2), (0, 1)), nn.Conv2d(4, 3, (1, 3), (2, 1), (1, 0))), IMAGE),
    "norm-2d": (images(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3, 2, 1)), IMAGE),
    "norm-before-convolution": (images(nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)), IMAGE),
    "max-pool": (images(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 2)), IMAGE),
    "max-pool-overlapping": (images(nn.Conv2d(2, 4, 3), nn.MaxPool2d(3, 2, 1), nn.ReLU()), IMAGE),
    "max-pool-dilated": (images(nn.Conv2d(2, 3, 2), nn.MaxPool2d((2, 3), 1, dilation=(3, 1))), IMAGE),
    "max-pool-of-inputs": (images(nn.MaxPool2d(2), nn.Conv2d(2, 3, 2)), IMAGE),
    "average-pool": (images(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.AvgPool2d(2), nn.ReLU()), IMAGE),
    "average-pool-padded": (images(nn.Conv2d(2, 3, 2), nn.AvgPool2d(3, 2, 1), nn.Conv2d(3, 3, 2)), IMAGE),
    "average-pool-without": (images(nn.Conv2d(2, 3, 2), nn.AvgPool2d(3, 2, 1, count_include_pad=False)), IMAGE),
    "average-pool-overlapping": (images(nn.Conv2d(2, 3, 2), nn.AvgPool2d((3, 2), (1, 2))), IMAGE),
    "global-average": (images(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)), IMAGE),
    "dropout": (sequential(nn.Dropout(0.2), nn.Linear(6, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3)), ROW),
    "dropout-2d": (images(nn.Dropout(0.3), nn.Conv2d(2, 4, 3), nn.Dropout(0.5), nn.Conv2d(4, 3, 3)), IMAGE),
    "dropout-of-everything": (sequential(nn.Linear(6, 8), nn.Dropout(1.0), nn.Linear(8, 3)), ROW),
    "functions": (Functions, IMAGE),
    "residual": (partial(Residual, norm=False), IMAGE),
    "residual-with-norm": (partial(Residual, norm=True), IMAGE),
    "frozen-below-a-sum": (Frozen, ROW),
    "global-max-pool": (images(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1)), IMAGE),
    "resnet9-pooled": (partial(resnet9, 3, width=2), (3, 16, 16)),
}
if library() is None:
    CHAINS = {name: chain for name, chain in CHAINS.items() if "-pool" not in name}


def squared(logits, target):
    return ((logits - F.one_hot(target, 3)) ** 2).flatten(1).mean(1)


def both(factory, shape, steps, *, ascend=False, loss=None, dtype=torch.float64, members=3, batches=(5, 3, 5)):
    """Take the same steps by hand and by autograd; return what each leaves behind."""
    torch.manual_seed(0)
    modules = [factory().to(dtype) for _ in range(members)]
    results = []
    for written in (True, False):
        params = {
            name: torch.stack([dict(module.named_parameters())[name].detach() for module in modules])
            for name, _ in modules[0].named_parameters()
        }
        buffers = {
            name: torch.stack([dict(module.named_buffers())[name] for module in modules])
            for name, _ in modules[0].named_buffers()
        }
        network = LayerNetwork(modules[0], torch.zeros(1, *shape, dtype=dtype))
        descent = Descent(network, params, buffers, steps, by_hand=written)
        assert (descent.written is not None) is written
        g, noise, losses = torch.Generator().manual_seed(1), [generator(7, member) for member in range(members)], []
        # Batches of different sizes, so that memory is used again for other shapes.
        for batch in batches:
            x = torch.randn(members, batch, *shape, generator=g, dtype=dtype)
            y = torch.randint(0, 3, (members, batch), generator=g)
            before = x.clone()
            losses.append(descent.step(x, y, 0.1, loss, ascend=ascend, noise=noise))
            assert torch.equal(x, before)
        params, buffers = descent.state()
        results.append({**params, **buffers, "losses": torch.stack(losses), **descent.optimizer_state()})
    return results


SGD = Steps(momentum=0.9, weight_decay=1e-2, statistics="updated")
STEPS = {"sgd": SGD, "frozen": Steps(momentum=0.5), "adam": Steps(optimizer="adam", momentum=0.9, weight_decay=1e-2)}


@pytest.mark.parametrize("name", [name for name, (_, s) in CHAINS.items() if s == IMAGE and "-pool" not in name])
def test_convolutions_as_products_equal_autograd(name, monkeypatch):
    monkeypatch.setattr(by_hand, "library", lambda: None)
    test_steps_by_hand_equal_steps_by_autograd(name, "sgd")


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", CHAINS)
def test_steps_by_hand_equal_steps_by_autograd(name, steps):
    factory, shape = CHAINS[name]
    hand, auto = both(factory, shape, STEPS[steps])
    assert set(hand) == set(auto)
    for key, tensor in auto.items():
        torch.testing.assert_close(hand[key], tensor, rtol=1e-8, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("loss", [None, squared], ids=["cross-entropy", "squared"])
@pytest.mark.parametrize("ascend", [False, True])
@pytest.mark.parametrize("name", ["mlp", "norm-2d", "relu-first-and-last"])
def test_other_losses_and_ascent_by_hand_equal_autograd(name, ascend, loss):
    factory, shape = CHAINS[name]
    hand, auto = both(factory, shape, SGD, ascend=ascend, loss=loss)
    for key, tensor in auto.items():
        torch.testing.assert_close(hand[key], tensor, rtol=1e-8, atol=1e-9)
    other, _ = both(factory, shape, SGD, ascend=not ascend, loss=loss)
    assert not torch.allclose(other["losses"], hand["losses"])


@pytest.mark.parametrize("name", [name for name in CHAINS if "dropout" not in name and "momentum" not in name])
def test_training_by_hand_equals_one_by_one(name):
    factory, shape = CHAINS[name]
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, *shape, generator=g, dtype=torch.float64), torch.randint(0, 3, (50,), generator=g)
    recipe = small_task("mlp", epochs=2).recipe
    task = Task(name=name, train=(x, y), validation=(x[:9] + 1, y[:9]), model=factory, recipe=recipe, classes=3)
    assert build_network(task).by_hand
    ensemble = train(task, members=3, seed=5, chunk=2)
    reference = stack([train_one(task, np.arange(50), member, 5) for member in range(3)])
    for key, tensor in {**ensemble.params, **ensemble.buffers}.items():
        torch.testing.assert_close(tensor, reference[key], rtol=1e-8, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
)
def test_columns_and_folds_are_those_of_pytorch(kernel, stride, padding, dilation, size):
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if any(n + 2 * p < r for n, p, r in zip(size, padding, reach, strict=True)):
        return
    layer = ColumnConvolution("c", nn.Conv2d(2, 3, kernel, stride, padding, dilation))
    members, channels, batch = 2, 2, 3
    g = torch.Generator().manual_seed(0)
    x = torch.randn(members, channels, *size, batch, generator=g, dtype=torch.float64)
    options = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    layer.place(x.shape, x).copy_(x)
    layer.windowed.copy_(layer.windows)
    first = x.movedim(-1, 1).flatten(0, 1)
    expected = F.unfold(first, **options).unflatten(0, (members, batch)).permute(0, 2, 3, 1)
    assert torch.equal(layer.flat.view(expected.shape), expected)
    # Whole numbers, so that the order of the sums does not matter.
    columns = torch.randint(-9, 9, layer.flat.shape, generator=g).double()
    ordered = columns.view(expected.shape).permute(0, 3, 1, 2).flatten(0, 1)
    folded = F.fold(ordered, size, **options).unflatten(0, (members, batch)).movedim(1, -1)
    for each in (False, True):
        layer.folded.fill_(float("nan"))
        if layer.clear:
            layer.folded.zero_()
        if each:
            for member, folds in enumerate(layer.folds):
                for fold in folds:
                    fold(columns[member].clone())
        else:
            for fold in layer.all_folds:
                fold(columns)
        assert torch.equal(layer.folded, folded)


SHAPES = {"small": (4, 5, 6), "narrow": (16, 72, 1000), "wide": (120, 90, 200), "long": (8, 9, 15000)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_are_products_whatever_computes_them(shape, dtype):
    outputs, inputs, n = SHAPES[shape]
    g = torch.Generator().manual_seed(0)
    weight, x, grad = (torch.randn(3, *s, generator=g) for s in ((outputs, inputs), (inputs, n), (outputs, n)))
    bias = torch.randn(3, outputs, generator=g)
    w, b, v, d = (tensor.to(dtype) for tensor in (weight, bias, x, grad))
    rows = v.mT.contiguous().mT  # the same numbers in the other memory order, as first layers have them
    expected = torch.einsum("moi,min->mon", weight.double(), x.double())
    close = {"rtol": 1e-4, "atol": 2e-3} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-10}
    for inputs_ in (v, rows):
        for own in (None, b):
            out = affine(w, own, inputs_, torch.full((3, outputs, n), float("nan"), dtype=dtype))
            shift = 0 if own is None else bias.double().unsqueeze(2)
            torch.testing.assert_close(out.double(), expected + shift, **close)
        into = torch.full_like(w, float("nan"))
        weight_gradient(d, inputs_, into)
        torch.testing.assert_close(into.double(), torch.einsum("mon,min->moi", grad.double(), x.double()), **close)
    out = input_gradient(w, d, torch.full((3, inputs, n), float("nan"), dtype=dtype))
    torch.testing.assert_close(out.double(), torch.einsum("moi,mon->min", weight.double(), grad.double()), **close)
    # The choice looks at one member.
    chosen = separate(w, n) is not None
    assert chosen == (separate(w[:1], n) is not None)
    assert not chosen or (dtype == torch.float32 and 2 * outputs * inputs * n >= LARGE)


def test_large_convolutions_in_float32_do_not_depend_on_the_stack():
    factory = images(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), shape=(1, 20, 20))
    hand, auto = both(factory, (1, 20, 20), SGD, dtype=torch.float32, members=4, batches=(64, 20))
    for key, tensor in auto.items():
        torch.testing.assert_close(hand[key], tensor, rtol=1e-3, atol=1e-5)


def test_optimiser_states_by_hand_and_by_autograd_are_interchangeable():
    factory, shape = CHAINS["mlp"]
    torch.manual_seed(0)
    module = factory().double()
    network = LayerNetwork(module, torch.zeros(1, *shape, dtype=torch.float64))
    x = torch.randn(2, 5, *shape, dtype=torch.float64)
    y = torch.randint(0, 3, (2, 5))
    for steps in (SGD, Steps(optimizer="adamw", momentum=0.9)):

        def fresh(by_hand, state=None, steps=steps):
            params = state or {n: p.detach().expand(2, *p.shape).clone() for n, p in module.named_parameters()}
            return Descent(network, {n: p.clone() for n, p in params.items()}, {}, steps, by_hand=by_hand)

        start = fresh(True)
        start.step(x, y, 0.1)
        ends = []
        for written in (True, False):
            later = fresh(written, start.state()[0])
            later.load_optimizer_state(start.optimizer_state())
            later.step(x, y, 0.1)
            ends.append(later.state()[0])
        start.step(x, y, 0.1)
        for name, tensor in start.state()[0].items():
            assert torch.equal(ends[0][name], tensor)
            torch.testing.assert_close(ends[1][name], tensor, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("frozen", [0, 2, 5])
def test_frozen_layers_by_hand(frozen):
    def factory():
        module = images(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU())()
        module[frozen].requires_grad_(False)
        return module

    hand, auto = both(factory, IMAGE, SGD)
    for key, tensor in auto.items():
        torch.testing.assert_close(hand[key], tensor, rtol=1e-9, atol=1e-10)


class Shares(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head, self.unused = nn.Linear(6, 6), nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.layer(self.layer(x)))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x * torch.sigmoid(self.layer(x)))


class Unread(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        torch.relu(x)
        return self.head(x)


UNWRITTEN = {
    "product-of-tensors": (Gated, "no written-out gradient"),
    "nothing-reads-it": (Unread, "nothing reads"),
    "used-twice-and-not-at-all": (Shares, "twice or not at all"),
    "pooling": (
        sequential(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2, ceil_mode=True), nn.Flatten()),
        "ceil_mode|without compiled",
    ),
    "pooling-with-a-divisor": (
        sequential(nn.AvgPool2d(2, divisor_override=3), nn.Flatten()),
        "divisor|without compiled",
    ),
    "pooling-to-more": (sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), "more than one pixel"),
    "groups": (sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Flatten()), "groups"),
    "padding-by-name": (sequential(nn.Conv2d(2, 4, 3, padding="same"), nn.Flatten()), "padding by name"),
}


@pytest.mark.parametrize("name", UNWRITTEN)
def test_what_is_not_written_out_says_why_and_is_left_to_autograd(name):
    factory, reason = UNWRITTEN[name]
    with pytest.raises(Unsupported, match=reason):
        write_out(factory())


@pytest.mark.skipif(library() is None, reason="without compiled kernels products are fast whatever their width")
def test_convolutions_that_read_much_are_left_to_pytorch():
    for width, written in ((8, True), (64, False)):
        network = LayerNetwork(resnet9(width=width), torch.zeros(1, 3, 16, 16))
        assert (network.by_hand is not None) is written
    # A 3x3 convolution of 2 channels to 5x5 pixels of 4, and a 2x2 one of these to 4x4 pixels of 3.
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 2))
    first, second = 18 * 4 * 25, 16 * 3 * 16
    expected = (18 * first + 16 * second) / (first + second)
    assert _reads(module, torch.zeros(1, 2, 7, 7), Interface()) == pytest.approx(expected)


def test_bfloat16_is_left_to_autograd():
    task = small_task("mlp", precision="bfloat16")
    network = build_network(task)
    assert network.by_hand
    params = {name: tensor.detach().unsqueeze(0) for name, tensor in task.build(0).named_parameters()}
    assert Descent(network, dict(params), {}, Steps(precision="bfloat16")).written is None
    assert Descent(network, dict(params), {}, Steps()).written is not None


@pytest.mark.skipif(library() is None, reason="installed without a C compiler")
@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 1, 1), nn.MaxPool2d((1, 3), (2, 1))])
def test_pooling_breaks_ties_and_keeps_what_is_not_a_number_as_pytorch_does(pool):
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 3, (2, 3, 6, 5, 8), generator=g).double()
    x[0, 1, 2, 3, 4] = float("nan")
    x[1, 0, 0, 0, 0] = -float("inf")
    first = x.movedim(-1, 1).flatten(0, 1).requires_grad_(True)
    expected = pool(first)
    slope = torch.randn(expected.shape, generator=g, dtype=torch.float64)
    expected.backward(slope)
    layer, setting = Pooling(pool), by_hand.Setting({}, {}, {})
    y = layer.forward(setting, x, None)
    torch.testing.assert_close(y.movedim(-1, 1).flatten(0, 1), expected.detach(), equal_nan=True, rtol=0, atol=0)
    dx = layer.backward(setting, slope.unflatten(0, (2, 8)).movedim(1, -1).contiguous(), True)
    torch.testing.assert_close(dx.movedim(-1, 1).flatten(0, 1), first.grad, rtol=1e-12, atol=1e-12)
