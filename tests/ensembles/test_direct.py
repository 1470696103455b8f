"""The compiled convolutions are PyTorch's, at every width of vectors, type of numbers, geometry and batch."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from expunge.ensembles import by_hand, direct
from expunge.ensembles.columns import ColumnConvolution
from expunge.ensembles.direct import DirectConvolution
from expunge.ensembles.normalised import DirectBatchNorm
from expunge.ensembles.written import Setting

compiled = pytest.mark.skipif(direct.library() is None, reason="installed without a C compiler")
WIDTHS = [] if direct.library() is None else [w for w in (16, 32, 64) if w <= direct.library().expunge_direct_width()]


def layer(module, width, *, clamp=False):
    found = DirectConvolution("c", module, width)
    found.clamp = clamp
    return found


def setting_for(members, module, dtype, g):
    params = {
        f"c.{name}": torch.randn(members, *p.shape, generator=g, dtype=dtype) for name, p in module.named_parameters()
    }
    return Setting(params, {name: torch.full_like(p, float("nan")) for name, p in params.items()}, {})


def by_pytorch(x, params, module, clamp, slope):
    """One member after another, by autograd, examples first."""
    out = []
    for m in range(len(x)):
        image = x[m].movedim(-1, 0).clone().requires_grad_(True)
        weight = params["c.weight"][m].clone().requires_grad_(True)
        bias = params["c.bias"][m].clone().requires_grad_(True) if "c.bias" in params else None
        y = F.conv2d(image, weight, bias, module.stride, module.padding, module.dilation)
        y = F.relu(y) if clamp else y
        y.backward(slope[m].movedim(-1, 0))
        out.append((y, weight.grad, None if bias is None else bias.grad, image.grad))
    stacked = [None if part[0] is None else torch.stack(part).detach() for part in zip(*out, strict=True)]
    return stacked[0].movedim(1, -1), stacked[1], stacked[2], stacked[3].movedim(1, -1)


@compiled
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=60, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels=st.integers(1, 9),
    outputs=st.integers(1, 17),
    batch=st.integers(1, 37),
    clamp=st.booleans(),
    bias=st.booleans(),
)
def test_values_and_gradients_are_those_of_pytorch(
    dtype, width, kernel, stride, padding, dilation, size, channels, outputs, batch, clamp, bias
):
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if any(n + 2 * p < r for n, p, r in zip(size, padding, reach, strict=True)):
        return
    module = nn.Conv2d(channels, outputs, kernel, stride, padding, dilation, bias=bias)
    g = torch.Generator().manual_seed(0)
    convolution, setting = layer(module, width, clamp=clamp), setting_for(2, module, dtype, g)
    x = torch.randn(2, channels, *size, batch, generator=g, dtype=dtype)
    y = convolution.forward(setting, convolution.load(x), None).clone()
    slope = torch.randn(y.shape, generator=g, dtype=dtype)
    # Outputs within rounding of 0 may be cut off on one side only.
    unclear = (y.abs() < 1e-4) & (y != 0)
    slope[unclear] = 0
    expected = by_pytorch(x, setting.params, module, clamp, slope)
    dx = convolution.backward(setting, slope.clone(), True)
    close = {"rtol": 1e-4, "atol": 1e-3} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-11}
    torch.testing.assert_close(y, expected[0], **close)
    torch.testing.assert_close(setting.gradients["c.weight"], expected[1], **close)
    if bias:
        torch.testing.assert_close(setting.gradients["c.bias"], expected[2], **close)
    torch.testing.assert_close(dx, expected[3], **close)


@compiled
@pytest.mark.parametrize("width", WIDTHS)
def test_a_member_is_itself_whatever_it_is_stacked_with_and_examples_do_not_mix(width):
    module = nn.Conv2d(3, 5, 3, 2, 1)
    g = torch.Generator().manual_seed(0)
    setting, x = setting_for(4, module, torch.float32, g), torch.randn(4, 3, 7, 6, 21, generator=g)
    first = layer(module, width)
    whole = first.forward(setting, first.load(x), None)
    for m in range(4):
        convolution = layer(module, width)
        alone = Setting({name: p[m : m + 1] for name, p in setting.params.items()}, {}, {})
        assert torch.equal(convolution.forward(alone, convolution.load(x[m : m + 1]), None), whole[m : m + 1])
    convolution = layer(module, width)
    x[2, :, :, :, 4] = float("nan")
    touched = convolution.forward(setting, convolution.load(x), None)
    assert touched[2, ..., 4].isnan().any()
    keep = torch.ones(4, 21, dtype=torch.bool)
    keep[2, 4] = False
    assert torch.equal(touched.movedim(-1, 1)[keep], whole.movedim(-1, 1)[keep])


@compiled
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_diverged_member_stays_diverged(width, value):
    """max(nan, 0) is 0 on some processors; a ReLU must not make a finite member of one that is not."""
    module = nn.Conv2d(1, 2, 3)
    setting = setting_for(1, module, torch.float32, torch.Generator().manual_seed(0))
    setting.params["c.weight"][0, 1] = value
    convolution, x = layer(module, width, clamp=True), torch.ones(1, 1, 4, 4, 19)
    y = convolution.forward(setting, convolution.load(x), None).clone()
    slope = torch.ones_like(y)
    expected = by_pytorch(x, setting.params, module, True, slope)
    dx = convolution.backward(setting, slope.clone(), True)
    own = (y, setting.gradients["c.weight"], setting.gradients["c.bias"], dx)
    for mine, theirs in zip(own, expected, strict=True):
        torch.testing.assert_close(mine, theirs, equal_nan=True, rtol=1e-5, atol=1e-5)


@compiled
def test_outputs_go_where_the_next_layer_wants_them_and_shared_images_are_read_once():
    g = torch.Generator().manual_seed(0)
    module = nn.Conv2d(2, 3, 3, 1, 1)
    setting, x = setting_for(3, module, torch.float32, g), torch.randn(1, 9, 2, 5, 4, generator=g)
    shared = x.expand(3, 9, 2, 5, 4).movedim(1, -1)
    convolution, other = layer(module, 16), layer(module, 16)
    apart = other.forward(setting, other.load(shared.contiguous()), None)
    wide = torch.full((3, 3, 7, 8, 9), 7.0)
    inner = wide[:, :, 1:6, 2:6]
    assert convolution.forward(setting, convolution.load(shared), inner) is inner
    assert torch.equal(inner, apart)
    inner.fill_(7.0)
    assert (wide == 7).all()


@compiled
def test_frozen_weights_have_no_gradient():
    g = torch.Generator().manual_seed(0)
    module = nn.Conv2d(2, 3, 3)
    setting, x = setting_for(2, module, torch.float64, g), torch.randn(2, 2, 5, 5, 6, generator=g, dtype=torch.float64)
    slope = torch.randn(2, 3, 3, 3, 6, generator=g, dtype=torch.float64)
    both = by_pytorch(x, setting.params, module, False, slope)
    setting = Setting(setting.params, {"c.bias": setting.gradients["c.bias"]}, {})
    convolution = layer(module, 16)
    convolution.forward(setting, convolution.load(x), None)
    torch.testing.assert_close(convolution.backward(setting, slope, True), both[3])
    torch.testing.assert_close(setting.gradients["c.bias"], both[2])


@compiled
def test_a_relu_after_a_convolution_is_done_by_it():
    chain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    layers = by_hand.Pass(by_hand.made(by_hand.write_out(chain)), Setting({}, {}, {})).layers
    assert [type(one).__name__ for one in layers] == ["DirectConvolution", "Flatten", "DirectLinear"]
    assert layers[0].clamp


def test_without_the_library_products_are_used(monkeypatch):
    monkeypatch.setattr(by_hand, "library", lambda: None)
    layers = by_hand.write_out(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)))
    assert type(layers[0].make()) is ColumnConvolution
    code = "from expunge.ensembles.direct import describe, library; print(library(), describe())"
    env = {**os.environ, "EXPUNGE_COMPILED": "0"}
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env)
    assert found.stdout.strip() == "None convolutions as matrix products"


def test_a_library_from_other_source_or_a_damaged_one_is_not_used(monkeypatch, tmp_path):
    direct.library.cache_clear()
    damaged = tmp_path / "_direct.so"
    damaged.write_bytes(b"not a library")
    monkeypatch.setattr(direct, "LIBRARY", damaged)
    try:
        assert direct.library() is None
        monkeypatch.undo()
        direct.library.cache_clear()
        monkeypatch.setattr(direct, "VERSION", -1)
        assert direct.library() is None
    finally:
        monkeypatch.undo()
        direct.library.cache_clear()


@compiled
def test_the_geometry_is_what_the_kernels_read():
    """A field that is added on one side only would shift all others."""
    source = (direct.LIBRARY.parent / "direct.c").read_text()
    fields = source[source.index("typedef struct {") : source.index("} geometry;")]
    declared = [line.split(";")[0] for line in fields.splitlines() if line.strip().startswith("int64_t")]
    count = sum(line.count(",") + 1 for line in declared)
    convolution = layer(nn.Conv2d(1, 1, 1), 16)
    convolution.place((1, 1, 2, 2, 1), torch.zeros(1))
    described = convolution._described(torch.zeros(1, 1, 2, 2, 1))
    assert ctypes.sizeof(described) == 8 * (count + 2 * 3)  # x and y have four numbers each


@compiled
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("images", [False, True])
@settings(max_examples=40, deadline=None)
@given(
    channels=st.integers(1, 5),
    batch=st.integers(8, 70),
    clamp=st.booleans(),
    affine=st.booleans(),
    update=st.booleans(),
    apart=st.booleans(),
)
def test_batch_norm_is_that_of_pytorch(dtype, width, images, channels, batch, clamp, affine, update, apart):
    members, inner = 2, ((3, 4) if images else ())
    module = (nn.BatchNorm2d if images else nn.BatchNorm1d)(channels, affine=affine, momentum=0.3).to(dtype)
    norm = DirectBatchNorm("c", module, width)
    norm.clamp = clamp
    g = torch.Generator().manual_seed(0)
    setting = setting_for(members, module, dtype, g)
    setting.update = update
    setting.buffers = {
        "c.running_mean": torch.randn(members, channels, generator=g, dtype=dtype),
        "c.running_var": torch.rand(members, channels, generator=g, dtype=dtype) + 0.5,
        "c.num_batches_tracked": torch.zeros(members, dtype=torch.int64),
    }
    before = {name: tensor.clone() for name, tensor in setting.buffers.items()}
    # Far from 0, where a difference of squares would be rounding alone.
    x = torch.randn(members, channels, *inner, batch, generator=g, dtype=dtype) + 30
    slope = torch.randn(x.shape, generator=g, dtype=dtype)
    padded = x.new_full((members, channels, *(n + 2 for n in inner), batch), float("nan"))
    place = padded[:, :, 1:-1, 1:-1] if images else padded
    y = norm.forward(setting, x, place if apart else None)
    dx = norm.backward(setting, slope.clone(), True)
    close = {"rtol": 1e-3, "atol": 1e-3} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    for m in range(members):
        own = {name: tensor[m].double() for name, tensor in setting.params.items()}
        weight, bias = (own[name].requires_grad_(True) if affine else None for name in ("c.weight", "c.bias"))
        mean, variance = (before[f"c.running_{kind}"][m].double() for kind in ("mean", "var"))
        first = x[m].movedim(-1, 0).double().requires_grad_(True)
        expected = F.batch_norm(first, mean, variance, weight, bias, update, 0.3, module.eps)
        expected = F.relu(expected) if clamp else expected
        torch.testing.assert_close(y[m].movedim(-1, 0).double(), expected.detach(), **close)
        # At the kink rounding decides; there any slope will do.
        near = expected.detach().abs() < close["atol"] if clamp else torch.zeros_like(expected, dtype=torch.bool)
        if not bool((near & (expected > 0)).any()):
            expected.backward(slope[m].movedim(-1, 0).double())
            torch.testing.assert_close(dx[m].movedim(-1, 0).double(), first.grad, **close)
            for name, tensor in (("c.weight", weight), ("c.bias", bias)):
                if tensor is not None:
                    torch.testing.assert_close(setting.gradients[name][m].double(), tensor.grad, **close)
        torch.testing.assert_close(setting.buffers["c.running_mean"][m].double(), mean, **close)
        torch.testing.assert_close(setting.buffers["c.running_var"][m].double(), variance, **close)
    assert not images or bool(padded[:, :, 0].isnan().all())
