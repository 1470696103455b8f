"""Models: shapes, sizes known from the papers, traceability, and the batch-norm choice."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import fx, nn

from expunge.core import InputError, Recipe, Task, has_statistics
from expunge.ensembles import build_network
from expunge.tasks import mlp, resnet9, resnet18, small_cnn

CASES = {
    "mlp": (partial(mlp, 12, hidden=(5, 4), classes=3), (12,), 3),
    "small_cnn": (partial(small_cnn, size=9, classes=4), (1, 9, 9), 4),
    "resnet9": (resnet9, (3, 32, 32), 10),
    "resnet18": (resnet18, (3, 32, 32), 10),
}


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("norm", [None, "batch"])
def test_returns_logits_traces_and_keeps_statistics_only_with_batch_norm(name, norm):
    factory, shape, classes = CASES[name]
    module = factory(norm=norm).eval()
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    out = module(x)
    assert out.shape == (2, classes)
    assert has_statistics(module) == (norm == "batch")
    torch.testing.assert_close(fx.symbolic_trace(copy.deepcopy(module))(x), out)


@pytest.mark.parametrize("name", CASES)
def test_each_example_is_classified_alone_in_evaluation_mode(name):
    factory, shape, _ = CASES[name]
    module = factory().double().eval()
    x = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(module(x)[1:2], module(x[1:2]))


# Blocks without batch norm are those of ResNet-9.
@pytest.mark.parametrize(
    ("name", "norm"), [(name, norm) for name in CASES for norm in (None, "batch") if (name, norm) != ("resnet18", None)]
)
def test_every_model_can_be_stacked_by_hand(name, norm):
    factory, shape, classes = CASES[name]
    shape = {"resnet9": (3, 16, 16), "resnet18": (3, 8, 8)}.get(name, shape)
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(3))
    y = torch.tensor([0, 1, 0, 1])
    task = Task(
        name=name,
        train=(x, y),
        validation=(x + 1, y),
        model=partial(factory, norm=norm),
        recipe=Recipe(epochs=1, peak_epoch=0.5),
        classes=classes,
    )
    assert build_network(task).kind == "layers"


def test_factories_survive_pickling_for_other_processes():
    again = pickle.loads(pickle.dumps(CASES["small_cnn"][0]))
    assert again().state_dict().keys() == small_cnn(9, classes=4).state_dict().keys()


def test_sizes_are_those_of_the_architectures():
    assert parameters(mlp(64)) == 64 * 128 + 128 + 128 * 10 + 10
    assert parameters(small_cnn(28)) == 8 * 10 + 16 * (8 * 9 + 1) + (16 * 7 * 7 + 1) * 10
    assert parameters(resnet18()) == 11_173_962
    convolutions = [(3, 64, 9), (64, 128, 25), (128, 128, 9), (128, 128, 9), (128, 256, 9)]
    convolutions += [(256, 256, 9), (256, 256, 9), (256, 128, 9)]
    with_norm = sum(i * o * k + 2 * o for i, o, k in convolutions) + 128 * 10
    assert parameters(resnet9()) == with_norm
    narrow = [(i if i == 3 else i // 16, o // 16, k) for i, o, k in convolutions]
    assert parameters(resnet9(width=4)) == sum(i * o * k + 2 * o for i, o, k in narrow) + 8 * 10


def test_resnet9_equals_the_written_out_forward_pass():
    module = resnet9(norm=None).double().eval()
    c = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    head = next(layer for layer in module.modules() if isinstance(layer, nn.Linear))
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    h = torch.relu(c[0](x))
    h = torch.relu(nn.functional.conv2d(h, c[1].weight, c[1].bias, stride=2, padding=2))
    h = h + torch.relu(c[3](torch.relu(c[2](h))))
    h = nn.functional.max_pool2d(torch.relu(c[4](h)), 2)
    h = h + torch.relu(c[6](torch.relu(c[5](h))))
    h = torch.relu(nn.functional.conv2d(h, c[7].weight, c[7].bias)).amax((2, 3))
    assert head.bias is None
    torch.testing.assert_close(module(x), 0.2 * h @ head.weight.T)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mlp(0), "inputs = 0, expected a whole number of at least 1"),
        (lambda: mlp(4, hidden=(3, -1)), r"hidden\[1\] = -1"),
        (lambda: mlp(4, classes=1), "classes = 1, expected a whole number of at least 2"),
        (lambda: small_cnn(norm="layer"), "norm = 'layer', expected 'batch' or None"),
        (lambda: resnet9(channels=2.5), "channels = 2.5"),
        (lambda: resnet9(width=0), "width = 0, expected a whole number of at least 1"),
    ],
)
def test_wrong_options_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
