"""The compiled linear layers and chains of them are PyTorch's, at every width of vectors, type of numbers and size."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import expunge as ex
from expunge.core import Split
from expunge.core.stopping import StoppedError
from expunge.ensembles import Descent, Objective, Steps, Weighted, by_hand, chain, dense, descent, direct
from expunge.ensembles.chain import DISTIL, MATCH, Known
from expunge.ensembles.dense import DirectLinear
from expunge.ensembles.network import LayerNetwork
from expunge.ensembles.rule import Rule
from expunge.ensembles.written import Setting

compiled = pytest.mark.skipif(direct.library() is None, reason="installed without a C compiler")
WIDTHS = [] if direct.library() is None else [w for w in (16, 32, 64) if w <= direct.library().expunge_direct_width()]
CLOSE = {torch.float32: {"rtol": 2e-5, "atol": 2e-4}, torch.float64: {"rtol": 1e-11, "atol": 1e-11}}
"""Sums of at most 200 products of standard normal numbers: 200 roundings of numbers up to about 60."""


@compiled
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=80, deadline=None)
@given(
    members=st.integers(1, 3),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 40),
    batch=st.integers(1, 70),
    rows=st.booleans(),
    clamp=st.booleans(),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_linear_layer_is_that_of_pytorch(width, dtype, members, inputs, outputs, batch, rows, clamp, bias, seed):
    g = torch.Generator().manual_seed(seed)
    layer = DirectLinear("l", nn.Linear(inputs, outputs, bias=bias), width)
    layer.clamp = clamp
    params = {"l.weight": torch.randn(members, outputs, inputs, generator=g, dtype=dtype)}
    if bias:
        params["l.bias"] = torch.randn(members, outputs, generator=g, dtype=dtype)
    setting = Setting(params, {name: torch.full_like(p, float("nan")) for name, p in params.items()}, {})
    x = torch.randn(members, batch, inputs, generator=g, dtype=dtype).mT
    x = x if rows else x.contiguous()
    slope = torch.randn(members, outputs, batch, generator=g, dtype=dtype)

    leaves = {name: p.clone().requires_grad_(True) for name, p in params.items()}
    image = x.clone().requires_grad_(True)
    y = torch.bmm(leaves["l.weight"], image)
    y = y + leaves["l.bias"].unsqueeze(2) if bias else y
    y = F.relu(y) if clamp else y
    got = layer.forward(setting, x, None)
    torch.testing.assert_close(got, y.detach(), **CLOSE[dtype])
    # An output that rounding puts on the other side of 0 has another slope: such rare ones are left out.
    slope = torch.where(y.detach().abs() < 1e-3, 0.0, slope) if clamp else slope
    y.backward(slope)
    dx = layer.backward(setting, slope.clone(), True)
    torch.testing.assert_close(dx, image.grad, **CLOSE[dtype])
    for name, leaf in leaves.items():
        torch.testing.assert_close(setting.gradients[name], leaf.grad, **CLOSE[dtype])


def made(sizes, members, dtype, seed, *, bias=True, flatten=False):
    """A chain of linear layers as a network, and the weights of its members."""
    layers = [nn.Flatten()] * flatten
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, bias=bias), nn.ReLU()]
    module = nn.Sequential(*layers[:-1]).to(dtype)
    g = torch.Generator().manual_seed(seed)
    params = {
        name: torch.randn(members, *p.shape, generator=g, dtype=dtype) / max(p.shape) ** 0.5
        for name, p in module.named_parameters()
    }
    shape = (1, 2, sizes[0] // 2) if flatten else (sizes[0],)
    return LayerNetwork(module, torch.zeros(1, *shape, dtype=dtype)), params


def data_of(sizes, examples, dtype, seed, *, square=False):
    g = torch.Generator().manual_seed(1000 + seed)
    x = torch.randn(examples, sizes[0], generator=g, dtype=dtype)
    return Split(x.view(examples, 1, 2, -1) if square else x, torch.randint(0, sizes[-1], (examples,), generator=g))


def order_of(members, examples, seed):
    g = torch.Generator().manual_seed(2000 + seed)
    return torch.stack([torch.randperm(examples, generator=g) for _ in range(members)])


def copies(params):
    return {name: tensor.clone() for name, tensor in params.items()}


def rule_of(what, params):
    """A rule with the parts that are asked for, drawn; one parameter is left out of each."""
    g = torch.Generator().manual_seed(11)
    some = {name: torch.rand(p.shape, generator=g, dtype=p.dtype) for name, p in list(params.items())[:-1]}
    return Rule(
        penalty=0.01 if what in ("penalty", "all") else 0.0,
        penalised=list(some) if what == "all" else None,
        anchor=0.3 if what == "all" else 0.0,
        factors=some if what in ("factors", "all") else None,
        moving={name: p > 0.5 for name, p in some.items()} if what in ("moving", "all") else None,
    )


@compiled
@settings(max_examples=120, deadline=None)
@given(
    hidden=st.lists(st.integers(1, 40), max_size=3),
    members=st.integers(1, 4),
    batch=st.integers(1, 40),
    examples=st.integers(1, 60),
    optimizer=st.sampled_from(["sgd", "sgd", "adam", "adamw"]),
    momentum=st.sampled_from([0.0, 0.9]),
    decay=st.sampled_from([0.0, 0.01]),
    frozen=st.integers(0, 3),
    rule=st.sampled_from(["", "penalty", "factors", "moving", "all"]),
    ascend=st.booleans(),
    bias=st.booleans(),
    flatten=st.booleans(),
    first=st.integers(0, 1),
    relabelled=st.booleans(),
    seed=st.integers(0, 99),
)
def test_many_steps_in_one_call_are_those_of_autograd_and_of_pytorchs_optimiser(
    hidden,
    members,
    batch,
    examples,
    optimizer,
    momentum,
    decay,
    frozen,
    rule,
    ascend,
    bias,
    flatten,
    first,
    relabelled,
    seed,
):
    sizes = [12, *hidden, 3]
    network, params = made(sizes, members, torch.float64, seed, bias=bias, flatten=flatten)
    data = data_of(sizes, examples, torch.float64, seed, square=flatten)
    order, count = order_of(members, examples, seed), -(-examples // batch)
    # So low that nothing diverges: where steps amplify, two ways of rounding part, and say nothing of the steps.
    scale = 0.0002 if ascend else 0.002
    rates = [scale * (1 + number % 5) for number in range(count)][min(first, count - 1) :]
    first = min(first, count - 1)
    steps = Steps(optimizer=optimizer, momentum=momentum, weight_decay=decay)
    only = [name for number, name in enumerate(params) if (number + seed) % 4 >= frozen] or list(params)
    fast, slow = (
        Descent(network, copies(params), {}, steps, by_hand=by_hand, only=only if frozen else None)
        for by_hand in (True, False)
    )
    assert fast.chain is not None
    assert slow.written is None
    for one in (fast, slow):
        one.follow(rule_of(rule, params))
    labels = (order + torch.arange(members)[:, None]) % 3 if relabelled else None  # of each member's own
    for _ in range(2):
        fast.run(data, order, batch, rates, labels=labels, first=first, ascend=ascend)
        slow.run(data, order, batch, rates, labels=labels, first=first, ascend=ascend)
    for one in (fast, slow):
        one.step(data.x[order[:, :batch]], data.y[order[:, :batch]], rates[0])
    # Adam divides by the size of a gradient, and with it what rounding made of one that is nearly 0.
    close = {"rtol": 1e-9, "atol": 1e-10 if optimizer == "sgd" else 1e-7}
    moving = rule_of(rule, params).moving or {}
    for name, tensor in slow.state()[0].items():
        torch.testing.assert_close(fast.state()[0][name], tensor, **close)
        still = (frozen and name not in only) or ~moving.get(name, torch.ones(()).bool())
        assert torch.equal(torch.where(torch.as_tensor(still), fast.state()[0][name], params[name]), params[name])
    for name, tensor in slow.optimizer_state().items():
        torch.testing.assert_close(fast.optimizer_state()[name], tensor, **close)


@compiled
@pytest.mark.parametrize("width", WIDTHS)
def test_in_single_precision_they_are_right_to_rounding_at_every_width(width):
    sizes = [20, 33, 10]
    network, params = made(sizes, 3, torch.float32, 0)
    data, order = data_of(sizes, 90, torch.float32, 0), order_of(3, 90, 0)
    exact_network, _ = made(sizes, 3, torch.float64, 0)
    exact = Descent(exact_network, {n: p.double() for n, p in params.items()}, {}, Steps(momentum=0.9), by_hand=False)
    fast = Descent(network, copies(params), {}, Steps(momentum=0.9))
    fast.chain.layers[0].width = width
    fast.run(data, order, 32, [0.05] * 3)
    exact.run(Split(data.x.double(), data.y), order, 32, [0.05] * 3)
    for name, tensor in exact.state()[0].items():
        torch.testing.assert_close(fast.state()[0][name].double(), tensor, rtol=1e-4, atol=2e-6)


class Distil(Objective):
    """gamma * cross-entropy + alpha * T^2 KL to logits of each member's own, by PyTorch's loss functions."""

    def __init__(self, aims, gamma, alpha, temperature):
        self.aims, self.gamma, self.alpha, self.temperature = aims, gamma, alpha, temperature

    @property
    def known(self):
        return Known(DISTIL, self.aims, (self.gamma, self.alpha, self.temperature))

    def of_batch(self, index, labels, shares):
        aims = torch.stack([own[rows] for own, rows in zip(self.aims, index, strict=True)])

        def one(z, y, aim):
            apart = F.kl_div(
                (z / self.temperature).log_softmax(1), (aim / self.temperature).softmax(1), reduction="batchmean"
            )
            return self.gamma * F.cross_entropy(z, y) + self.alpha * self.temperature**2 * apart

        return lambda z, y: torch.stack([one(*member) for member in zip(z, y, aims, strict=True)]), labels


class Match(Objective):
    """Huber of margins against aims where these are known, by PyTorch's loss functions; positions weigh 1, 2, 1, 2."""

    def __init__(self, aims, delta):
        self.aims, self.delta = aims, delta

    @property
    def known(self):
        return Known(MATCH, self.aims, (self.delta,))

    def shares(self, order, ends):
        return super().shares(order, ends) * (1 + torch.arange(order.shape[1]) % 2)

    def of_batch(self, index, labels, shares):
        def one(z, y, aim, weight):
            others = z.masked_fill(F.one_hot(y, z.shape[1]).bool(), float("-inf")).logsumexp(1)
            margin = z.gather(1, y[:, None])[:, 0] - others
            known = ~aim.isnan()
            each = F.huber_loss(margin[known], aim[known], delta=self.delta, reduction="none")
            return (weight[known] * each).sum() / len(y)

        weight = (1 + torch.arange(index.shape[1]) % 2).to(self.aims.dtype)
        aims = self.aims.gather(1, index)
        return (
            lambda z, y: torch.stack([one(*member, weight) for member in zip(z, y, aims, strict=True)]),
            labels,
        )


class Shared(Weighted):
    """Cross-entropy with a weight of each member and position, of either sign."""

    def shares(self, order, ends):
        return super().shares(order, ends) * torch.cos(order + torch.arange(len(order))[:, None])


@compiled
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", ["distil", "away", "match", "weighted"])
@pytest.mark.parametrize("sizes_of", [[40, 2, 20, 1], [6, 6, 4]])
def test_steps_on_other_losses_are_those_of_autograd_at_every_width(width, dtype, loss, sizes_of):
    members, examples, sizes = 3, 50, [20, 33, 10]
    network, params = made(sizes, members, dtype, 0)
    data, order = data_of(sizes, examples, dtype, 0), order_of(members, examples, 0).repeat(1, 2)
    g = torch.Generator().manual_seed(5)
    aims = 3 * torch.randn(members, examples, 10, generator=g, dtype=dtype)
    if loss == "match":
        aims = aims[:, :, 0].contiguous()
        aims[1, ::3] = float("nan")
        objective, exact_objective = Match(aims, 0.7), Match(aims.double(), 0.7)
    elif loss == "weighted":
        objective = exact_objective = Shared(network.outcome)
    else:
        options = (0.9, 0.3, 4.0) if loss == "distil" else (0.0, 1.0, 2.0)
        objective, exact_objective = Distil(aims, *options), Distil(aims.double(), *options)
    exact_network, _ = made(sizes, members, torch.float64, 0)
    exact = Descent(exact_network, {n: p.double() for n, p in params.items()}, {}, Steps(momentum=0.9), by_hand=False)
    fast = Descent(network, copies(params), {}, Steps(momentum=0.9))
    fast.chain.layers[0].width = width
    assert fast.takes_many(data, max(sizes_of), objective)
    rates = [0.02] * len(sizes_of)
    # An even number of positions before each step, so that its weights begin with 1.
    length, ascend = sum(sizes_of), loss == "away"
    fast.run(data, order[:, :length], sizes_of, rates, objective=objective, ascend=ascend)
    exact.run(
        Split(data.x.double(), data.y), order[:, :length], sizes_of, rates, objective=exact_objective, ascend=ascend
    )
    single = dtype == torch.float32
    for name, tensor in exact.state()[0].items():
        close = {"rtol": 1e-4, "atol": 2e-6} if single else {"rtol": 1e-9, "atol": 1e-11}
        torch.testing.assert_close(fast.state()[0][name].double(), tensor, **close)
        assert float((tensor - params[name]).abs().max()) > 1e-4


@compiled
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("loss", ["distil", "match"])
def test_the_slopes_of_other_losses_are_right_for_large_logits(scale, loss):
    """One linear layer from 0 on the identity, as below."""
    network = LayerNetwork(nn.Sequential(nn.Linear(8, 5)), torch.zeros(1, 8))
    g = torch.Generator().manual_seed(3)
    params = {"0.weight": scale * torch.randn(1, 5, 8, generator=g), "0.bias": torch.zeros(1, 5)}
    aims = scale * torch.randn(1, 8, 5, generator=g)
    data, order = Split(torch.eye(8), torch.arange(8) % 5), torch.arange(8)[None]
    found = []
    for wide in (False, True):
        there = (aims if loss == "distil" else aims[..., 0].contiguous()).to(torch.float64 if wide else torch.float32)
        objective = Distil(there, 0.9, 0.3, 4.0) if loss == "distil" else Match(there, 0.7)
        own = {n: p.double() if wide else p.clone() for n, p in params.items()}
        one = Descent(network, own, {}, Steps(), by_hand=not wide)
        one.run(Split(data.x.double() if wide else data.x, data.y), order, 8, [1.0], objective=objective)
        found.append(one.state()[0]["0.weight"].double() - params["0.weight"].double())
    # The margin is rounded to a few of its last digits, as the difference of weights is.
    torch.testing.assert_close(*found, rtol=0, atol=1e-6 + 4e-7 * scale)


@compiled
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
def test_the_slope_of_large_logits_is_that_of_cross_entropy(scale):
    """One linear layer from 0 on the identity: its weights after a step are the slopes."""
    module = nn.Sequential(nn.Linear(8, 5))
    network = LayerNetwork(module, torch.zeros(1, 8))
    g = torch.Generator().manual_seed(3)
    params = {"0.weight": scale * torch.randn(1, 5, 8, generator=g), "0.bias": torch.zeros(1, 5)}
    data, order = Split(torch.eye(8), torch.arange(8) % 5), torch.arange(8)[None]
    fast, slow = (
        Descent(
            network, {n: p.double() if wide else p.clone() for n, p in params.items()}, {}, Steps(), by_hand=not wide
        )
        for wide in (False, True)
    )
    fast.run(data, order, 8, [1.0])
    slow.run(Split(data.x.double(), data.y), order, 8, [1.0])
    moved = slow.state()[0]["0.weight"] - params["0.weight"].double()
    # A slope is at most 1/8; subtracting weights of size `scale` rounds to a few of their last digits.
    got = fast.state()[0]["0.weight"].double() - params["0.weight"].double()
    torch.testing.assert_close(got, moved, rtol=0, atol=1e-6 + 4e-7 * scale)


@compiled
def test_a_member_is_the_same_alone_and_among_others_and_however_steps_are_grouped(monkeypatch):
    sizes = [12, 17, 3]
    network, params = made(sizes, 5, torch.float32, 1)
    data, order = data_of(sizes, 50, torch.float32, 1), order_of(5, 50, 1)
    together = Descent(network, copies(params), {}, Steps(momentum=0.9))
    together.run(data, order, 8, [0.1] * 7)
    alone = Descent(network, {n: p[3:4].clone() for n, p in params.items()}, {}, Steps(momentum=0.9))
    monkeypatch.setattr(chain, "OPERATIONS", 1)
    begun = []
    alone.run(data, order[3:4], 8, [0.1] * 7, before=begun.append)
    assert begun == [0, 1, 2, 3, 4, 5, 6]
    for name, tensor in together.state()[0].items():
        assert torch.equal(alone.state()[0][name][0], tensor[3])


@compiled
def test_a_member_that_diverges_stays_so_and_harms_no_other():
    sizes = [12, 9, 3]
    network, params = made(sizes, 3, torch.float32, 2)
    data, order = data_of(sizes, 20, torch.float32, 2), order_of(3, 20, 2)
    sound = Descent(network, copies(params), {}, Steps())
    sound.run(data, order, 8, [0.1] * 3)
    for bad in (float("nan"), float("inf")):
        broken = copies(params)
        broken["0.weight"][1, 0, 0] = bad
        found = Descent(network, broken, {}, Steps())
        found.run(data, order, 8, [0.1] * 3)
        for name, tensor in found.state()[0].items():
            assert torch.equal(tensor[[0, 2]], sound.state()[0][name][[0, 2]])
        assert not all(bool(tensor[1].isfinite().all()) for tensor in found.state()[0].values())
        for objective in (Distil(torch.zeros(3, 20, 3), 1.0, 0.1, 4.0), Match(torch.zeros(3, 20), 1.0)):
            other = Descent(network, copies(broken), {}, Steps())
            other.run(data, order, 8, [0.1] * 3, objective=objective)
            assert [bool(tensor.isfinite().all()) for tensor in other.state()[0]["2.weight"]] == [True, False, True]


@compiled
def test_what_is_no_chain_takes_its_steps_one_by_one():
    sizes = [12, 9, 3]
    network, params = made(sizes, 2, torch.float32, 3)
    assert Descent(network, copies(params), {}, Steps(), by_hand=False).chain is None
    for module in (
        nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 3)),
        nn.Sequential(nn.Linear(12, 9), nn.BatchNorm1d(9), nn.Linear(9, 3)),
        nn.Sequential(nn.Linear(12, 9), nn.Dropout(0.5), nn.Linear(9, 3)),
    ):
        other = LayerNetwork(module, torch.zeros(1, 12))
        own = {name: p.detach().expand(2, *p.shape).clone() for name, p in module.named_parameters()}
        kept = {name: b.expand(2, *b.shape).clone() for name, b in module.named_buffers()}
        assert Descent(other, own, kept, Steps()).chain is None
    data = data_of(sizes, 20, torch.float32, 3)
    whole = Descent(network, copies(params), {}, Steps()).chain
    assert whole.takes(data, 8)
    assert not whole.takes(Split(data.x.double(), data.y), 8)
    assert not whole.takes(Split(data.x[:, ::2], data.y), 8)
    assert not whole.takes(Split(data.x, data.y.int()), 8)
    assert whole.takes(data, 8, Known(MATCH, torch.zeros(2, 20), (1.0,)))
    assert not whole.takes(data, 8, Known(MATCH, torch.zeros(2, 20).double(), (1.0,)))
    assert not whole.takes(data, 8, Known(MATCH, torch.zeros(2, 19), (1.0,)))


@compiled
@pytest.mark.parametrize("label", [-100, -1, 3])
def test_labels_outside_of_the_classes_never_reach_the_kernel(label):
    sizes = [12, 9, 3]
    network, params = made(sizes, 2, torch.float32, 4)
    data, order = data_of(sizes, 20, torch.float32, 4), order_of(2, 20, 4)
    data.y[5] = label
    with pytest.raises((RuntimeError, IndexError)):
        Descent(network, copies(params), {}, Steps()).run(data, order, 8, [0.1] * 3)


@compiled
def test_an_interrupt_ends_between_two_calls(monkeypatch):
    sizes = [12, 9, 3]
    network, params = made(sizes, 2, torch.float32, 5)
    monkeypatch.setattr(chain, "OPERATIONS", 1)
    seen = []

    def stop():
        seen.append(None)
        if len(seen) == 2:
            raise StoppedError

    monkeypatch.setattr(descent, "check_stopped", stop)
    with pytest.raises(StoppedError):
        Descent(network, params, {}, Steps()).run(
            data_of(sizes, 20, torch.float32, 5), order_of(2, 20, 5), 8, [0.1] * 3
        )
    assert len(seen) == 2


def test_without_the_library_products_are_used(monkeypatch):
    monkeypatch.setattr(by_hand, "library", lambda: None)
    sizes = [12, 9, 3]
    network, params = made(sizes, 2, torch.float32, 6)
    plain = Descent(network, copies(params), {}, Steps(momentum=0.9))
    assert plain.chain is None
    data, order = data_of(sizes, 20, torch.float32, 6), order_of(2, 20, 6)
    plain.run(data, order, 8, [0.1] * 3)
    monkeypatch.undo()
    network, _ = made(sizes, 2, torch.float32, 6)
    fast = Descent(network, copies(params), {}, Steps(momentum=0.9))
    fast.run(data, order, 8, [0.1] * 3)
    for name, tensor in plain.state()[0].items():
        torch.testing.assert_close(fast.state()[0][name], tensor, rtol=1e-4, atol=1e-5)


@compiled
def test_the_digits_train_in_this_way():
    task = ex.tasks.digits(epochs=1)
    own = Descent(task.network, {n: p.detach()[None].clone() for n, p in task.build(0).named_parameters()}, {}, Steps())
    assert own.chain is not None
    assert own.chain.takes(task.train, 64)


@compiled
def test_large_products_are_made_elsewhere_and_are_the_same(monkeypatch):
    sizes = [12, 9, 3]
    network, params = made(sizes, 2, torch.float64, 7)
    data, order = data_of(sizes, 20, torch.float64, 7), order_of(2, 20, 7)
    here = Descent(network, copies(params), {}, Steps(momentum=0.9))
    here.run(data, order, 8, [0.1] * 3)
    monkeypatch.setattr(dense, "LARGE", 2 * 12 * 9 * 8)
    there = Descent(network, copies(params), {}, Steps(momentum=0.9))
    assert not there.takes_many(data, 8)
    there.run(data, order, 8, [0.1] * 3)
    for name, tensor in here.state()[0].items():
        torch.testing.assert_close(there.state()[0][name], tensor, rtol=1e-9, atol=1e-10)


@compiled
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=40, deadline=None)
@given(
    hidden=st.lists(st.integers(1, 40), max_size=3),
    members=st.integers(1, 4),
    examples=st.integers(1, 300),
    bias=st.booleans(),
    flatten=st.booleans(),
    seed=st.integers(0, 99),
)
def test_outputs_of_a_chain_are_those_of_its_modules(width, dtype, hidden, members, examples, bias, flatten, seed):
    sizes = [12, *hidden, 3]
    network, params = made(sizes, members, dtype, seed, bias=bias, flatten=flatten)
    for layer in network.chain:
        layer.width = width
    x = data_of(sizes, examples, dtype, seed, square=flatten).x
    got = network.predict(params, {}, x[None])
    for member in range(members):
        own = {name: tensor[member] for name, tensor in params.items()}
        torch.testing.assert_close(got[member], torch.func.functional_call(network.template, own, x), **CLOSE[dtype])
        alone = network.predict({name: tensor[None] for name, tensor in own.items()}, {}, x[None])
        assert torch.equal(alone[0], got[member])


@compiled
def test_outputs_that_the_kernels_do_not_read_are_made_elsewhere():
    network, params = made([12, 9, 3], 2, torch.float32, 0)
    x = data_of([12, 3], 20, torch.float32, 0).x
    expected = network(params, {}, x[None])
    turned = {name: tensor.mT.contiguous().mT if tensor.ndim == 3 else tensor for name, tensor in params.items()}
    torch.testing.assert_close(network.predict(turned, {}, x[None]), expected)
    own = x.expand(2, 20, 12)  # a batch for each member
    torch.testing.assert_close(network.predict(params, {}, own), expected)
    broken = copies(params)
    broken["0.weight"][1, 0, 0] = float("nan")
    found = network.predict(broken, {}, x[None])
    assert bool(found[0].isfinite().all())
    assert bool(found[1].isnan().any())
    wide, wide_params = made([12, 1, 3], 1, torch.float64, 0)
    assert wide.predict(wide_params, {}, x[None].double()).dtype == torch.float64
    with pytest.raises(RuntimeError):
        network.predict(params, {}, torch.zeros(1, 5, 7))
