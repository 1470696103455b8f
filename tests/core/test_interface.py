"""Interfaces: packing loses no digit, modules are called as they want to be, outputs are read from what they return."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from expunge.core import InputError, Interface
from expunge.core.interface import outputs_of

TYPES = [np.uint8, np.int16, np.int32, np.int64, np.bool_, np.float32, np.float64]


@st.composite
def inputs(draw):
    """Named inputs: any types and shapes, whole numbers up to what float32 holds exactly."""
    examples = draw(st.integers(1, 4))
    names = draw(st.lists(st.sampled_from(["ids", "mask", "x", "positions"]), min_size=1, max_size=3, unique=True))
    given = {}
    for name in names:
        dtype = np.dtype(draw(st.sampled_from(TYPES)))
        most = {} if dtype.kind in "bf" else {"min_value": 0, "max_value": min(2**24, np.iinfo(dtype).max)}
        elements = arrays.from_dtype(dtype, allow_nan=False, allow_infinity=False, **most)
        shape = (examples, *draw(arrays.array_shapes(min_dims=0, max_dims=2, max_side=3)))
        given[name] = draw(arrays.arrays(dtype, shape, elements=elements))
    return given


@given(inputs())
def test_what_is_packed_comes_back_exactly_with_its_type_and_shape(given):
    interface = Interface.of(given, torch.float64)
    packed = interface.pack(given)
    assert packed.ndim == 2
    back = interface.unpack(packed)
    assert set(back) == set(given)
    for name, values in given.items():
        expected = torch.from_numpy(values)
        assert back[name].shape == expected.shape
        assert torch.equal(back[name].to(torch.float64), expected.to(torch.float64))
        assert back[name].dtype == (packed.dtype if values.dtype.kind == "f" else expected.dtype)
    # a stack of members, or a batch in another order, is unpacked the same way
    stacked = interface.unpack(torch.stack([packed, packed.flip(0)]))
    for name, value in back.items():
        assert torch.equal(stacked[name], torch.stack([value, value.flip(0)]))


def test_named_inputs_that_do_not_fit_are_refused():
    given = {"ids": torch.ones(3, 2, dtype=torch.int64), "x": torch.rand(3, 4)}
    interface = Interface.of(given)
    for changed, message in (
        ({"ids": given["ids"]}, r"x has the names \['ids'\], expected \['ids', 'x'\]"),
        ({**given, "x": torch.rand(3, 5)}, r"x\['x'\] has shape \(3, 5\), expected \(examples, 4\)"),
        ({**given, "x": torch.rand(2, 4)}, r"x has \[3, 2\] examples"),
        ({**given, "ids": given["ids"] + 0.5}, r"x\['ids'\] holds fractions, expected whole numbers"),
        ({**given, "ids": given["ids"] * (2**24 + 1)}, "whole number of size 16777217 beside fractions"),
        ({**given, "x": "words"}, r"x\['x'\] is the text 'words'"),
    ):
        with pytest.raises(InputError, match=message):
            interface.pack(changed)
    assert torch.equal(interface.pack({**given, "ids": given["ids"].double()}), interface.pack(given))
    with pytest.raises(InputError, match="takes one"):
        Interface().pack(given)
    for names in ({}, {"not a name": torch.ones(2)}, {3: torch.ones(2)}):
        with pytest.raises(InputError, match="names of the arguments"):
            Interface.of(names)


def test_float64_beside_large_whole_numbers_is_exact_only_in_a_float64_task():
    given = {"ids": torch.tensor([[2**30 + 1]]), "x": torch.rand(1, 1, dtype=torch.float64)}
    exact = Interface.of(given, torch.float64)
    assert int(exact.unpack(exact.pack(given))["ids"]) == 2**30 + 1
    with pytest.raises(InputError, match="Recipe"):
        Interface.of(given, torch.float32).pack(given)


class Named(nn.Module):
    def forward(self, *, ids, mask):
        return {"hidden": None, "logits": (ids * mask).sum(1, keepdim=True)}


def test_a_module_is_called_by_name_and_so_is_whatever_stands_for_it():
    given = {"ids": torch.tensor([[1, 2], [3, 4]]), "mask": torch.tensor([[True, False], [True, True]])}
    interface = Interface.of(given)
    packed = interface.pack(given)
    assert interface.run(Named(), packed).tolist() == [[1], [7]]
    assert interface.run(lambda **named: torch.stack([named["mask"].sum()]), packed).tolist() == [3]
    assert torch.equal(Interface().run(lambda x: (x + 1, None), packed), packed + 1)


def test_outputs_are_found_in_what_a_model_returns():
    logits = torch.rand(2, 3)
    for result in (
        logits,
        (logits, torch.rand(2)),
        [logits],
        {"logits": logits, "loss": torch.rand(1)},
        {"out": logits, "note": "text"},
        SimpleNamespace(logits=logits),
    ):
        assert outputs_of(result) is logits
    for result in (None, "text", (), ("a", logits), {"a": logits, "b": logits}, {}, SimpleNamespace(logits=3)):
        with pytest.raises(InputError, match="the model returned"):
            outputs_of(result)


@pytest.mark.parametrize("shape", [(5, 3, 2, 2), (4, 5, 3, 2, 2)])
def test_images_are_normalised_by_channel_on_any_leading_axes(shape):
    x = torch.randint(0, 256, shape, dtype=torch.uint8)
    mean, std = (0.1, 0.2, 0.3), (1.0, 2.0, 0.5)
    interface = Interface.of(x.view(-1, 3, 2, 2), torch.float64, (mean, std))
    expected = torch.stack([(x[..., c, :, :].double() / 255 - mean[c]) / std[c] for c in range(3)], -3)
    torch.testing.assert_close(interface.unpack(x), expected, rtol=1e-14, atol=1e-14)
    one = Interface.of(x.view(-1, 3, 2, 2), torch.float32, (0.5, np.float32(0.25)))
    torch.testing.assert_close(one.unpack(x), (x.float() / 255 - 0.5) / 0.25)
    with pytest.raises(InputError, match=r"x is torch.float32, expected uint8"):
        one.pack(x.float())


IMAGES = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
BAD = [
    (IMAGES, 0.5, r"expected \(mean, std\)"),
    (IMAGES, ((0.1, 0.2), (1.0, 1.0)), "2 means and 2 standard deviations, expected 1 of each or 3"),
    (IMAGES, ((0.1, 0.2, 0.3), 1.0), "3 means and 1"),
    (IMAGES, (0.5, 0.0), "above 0"),
    (IMAGES, (float("nan"), 1.0), "finite"),
    (IMAGES.float(), (0.5, 1.0), "for images of type uint8"),
    (IMAGES[:, 0], ((0.1, 0.2), (1.0, 1.0)), "expected 1 of each"),
    ({"x": IMAGES}, (0.5, 1.0), "inputs by name"),
]


@pytest.mark.parametrize(("x", "normalise", "message"), BAD)
def test_a_normalisation_that_does_not_fit_is_refused(x, normalise, message):
    with pytest.raises(InputError, match=message):
        Interface.of(x, torch.float32, normalise)
