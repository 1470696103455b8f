"""Methods of a user's own: public-style functions run unchanged, seeded member by member, counted and checked."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from tests.reference.problems import blobs, forget_set, mlp, mlp_norm, small_task
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader

import expunge as ex
from expunge.core import Ensemble, InputError, Recipe, Task
from expunge.methods import from_function

TASK = small_task("mlp", precision="float32")
FORGET = forget_set(TASK)
PRETRAINED = ex.train(TASK, members=3)
DEVICE = torch.device("cpu")


# Three functions as people publish them; nothing in them knows of this project.


def unlearning(net, retain, forget, validation):  # type: ignore[no-untyped-def]  # the challenge's starting kit
    """Unlearning by fine-tuning."""
    epochs = 2
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    net.train()
    for _ in range(epochs):
        for sample in retain:
            inputs, targets = sample
            inputs, targets = inputs.to(DEVICE), targets.to(DEVICE)
            optimizer.zero_grad()
            outputs = net(inputs)
            loss = criterion(outputs, targets)
            loss.backward()
            optimizer.step()
        scheduler.step()
    net.eval()


def gradient_ascent(model, retain_loader, forget_loader, validation_loader, lr=0.1, epochs=1):  # type: ignore[no-untyped-def]
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    model.train()
    for _ in range(epochs):
        for x, y in forget_loader:
            loss = -nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


def _forever(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


def neggrad_plus_with_a_teacher(model, retain_loader, forget_loader, validation_loader):  # type: ignore[no-untyped-def]
    """NegGrad+ on a student beside a frozen teacher (as SCRUB has it), early stopping, loaders of its own."""
    teacher = copy.deepcopy(model).eval()
    student = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    own_loader = DataLoader(retain_loader.dataset, batch_size=16, shuffle=True)
    forgets = _forever(forget_loader)
    student.train()
    for x, y in own_loader:
        x_forget, y_forget = next(forgets)
        with torch.no_grad():
            soft = nn.functional.softmax(teacher(x), dim=1)
        kept = nn.functional.cross_entropy(student(x), y) + nn.functional.kl_div(
            nn.functional.log_softmax(student(x), dim=1), soft, reduction="batchmean"
        )
        loss = 0.95 * kept - 0.05 * nn.functional.cross_entropy(student(x_forget), y_forget)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
    student.eval()
    with torch.no_grad():
        right = sum((student(x).argmax(1) == y).sum().item() for x, y in validation_loader)
    assert 0 <= right <= len(validation_loader.dataset)
    return student


PUBLIC = [unlearning, gradient_ascent, neggrad_plus_with_a_teacher]


def differs(a: Ensemble, b: Ensemble) -> list[bool]:
    return [any(not torch.equal(a.params[n][k], b.params[n][k]) for n in a.params) for k in range(len(a))]


@pytest.mark.parametrize("function", PUBLIC, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["mlp", "mlp_norm", "resnet"])
def test_public_functions_run_unchanged(function: Callable[..., Any], name: str) -> None:
    task = small_task(name, precision="float32")
    pretrained, forget = ex.train(task, members=2), forget_set(task)
    before = pretrained.clone()
    done = ex.unlearn(pretrained, task, forget, from_function(function))
    assert differs(done, before) == [True, True]
    assert differs(pretrained, before) == [False, False]
    assert not done.trace.failed_checks, done.trace.failed_checks
    assert [check.name for check in done.trace.stops[0].checks] == [
        "weights moved", "moved enough", "not only statistics moved", "weights finite"
    ]  # fmt: skip


def test_it_does_what_the_function_does_to_each_module() -> None:
    """Gradient ascent with one batch an epoch has no random numbers, so the plain loop gives the same weights."""
    method = from_function(gradient_ascent, lr=0.05, epochs=3, batch_size=100)
    done = ex.unlearn(PRETRAINED, TASK, FORGET, method)
    examples = TASK.train[torch.from_numpy(FORGET.indices)]
    for k in range(3):
        module = gradient_ascent(PRETRAINED.module(k), None, [(examples.x, examples.y)], None, lr=0.05, epochs=3)
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(done.params[name][k], parameter.detach())


def test_its_cost_is_what_the_loaders_gave_out() -> None:
    retain, forget, epochs = len(FORGET.retain), len(FORGET), TASK.recipe.epochs
    cost = {f.__name__: ex.unlearn(PRETRAINED, TASK, FORGET, from_function(f)).trace.cost for f in PUBLIC}
    assert cost["unlearning"] == pytest.approx(2 * retain / (retain * epochs))
    assert cost["gradient_ascent"] == pytest.approx(forget / (retain * epochs))
    # Three batches of its own loader, each beside one pass of the one batch of F, and V forward only.
    passes = retain + 3 * forget + len(TASK.validation) / 3
    assert cost["neggrad_plus_with_a_teacher"] == pytest.approx(passes / (retain * epochs))


def add_noise(model, retain_loader, forget_loader, validation_loader):  # type: ignore[no-untyped-def]
    """Random numbers of every library, and the order of a loader."""
    first = next(iter(retain_loader))[0].sum()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) + np.random.rand() + random.random() + first  # noqa: NPY002


def test_a_member_is_itself() -> None:
    method = from_function(add_noise)
    whole = ex.unlearn(PRETRAINED, TASK, FORGET, method, seed=3)
    for chunk in (1, 2):
        assert differs(whole, ex.unlearn(PRETRAINED, TASK, FORGET, method, seed=3, chunk=chunk)) == [False] * 3
    assert differs(whole, ex.unlearn(PRETRAINED, TASK, FORGET, method, seed=3, workers=1)) == [False] * 3
    assert differs(whole[1:], ex.unlearn(PRETRAINED[1:], TASK, FORGET, method, seed=3)) == [False] * 2
    assert differs(whole, ex.unlearn(PRETRAINED, TASK, FORGET, method, seed=4)) == [True] * 3
    moved = whole.params["0.bias"] - PRETRAINED.params["0.bias"]
    assert not torch.allclose(moved[0], moved[1])


def test_what_a_function_writes_into_its_examples_stays_with_its_member() -> None:
    def centred(model, retain, forget, validation):  # type: ignore[no-untyped-def]
        for loader in (retain, forget, validation):
            loader.dataset.x.sub_(loader.dataset.x.mean(0)).mul_(3)
        gradient_ascent(model, retain, forget, validation)

    kept = TASK.train.x.clone(), TASK.validation.x.clone()
    together = ex.unlearn(PRETRAINED, TASK, FORGET, from_function(centred), workers=1)
    apart = [ex.unlearn(PRETRAINED[k : k + 1], TASK, FORGET, from_function(centred), workers=1) for k in range(3)]
    assert torch.equal(TASK.train.x, kept[0])
    assert torch.equal(TASK.validation.x, kept[1])
    for k, one in enumerate(apart):
        assert all(torch.equal(together.params[name][k], one.params[name][0]) for name in one.params)


def test_global_generators_are_as_they_were() -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]  # noqa: NPY002
    ex.unlearn(PRETRAINED, TASK, FORGET, from_function(add_noise))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]  # noqa: NPY002
    assert random.getstate() == states[2]


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4 + 6, 3)

    def forward(self, words: Tensor, numbers: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(torch.cat([self.embed(words).mean(1), numbers], 1))}


def test_inputs_by_name_come_as_a_mapping() -> None:
    def part(n: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
        x, y = blobs((6,), n, seed)
        return {"words": torch.randint(0, 5, (n, 3), generator=torch.Generator().manual_seed(seed)), "numbers": x}, y

    task = Task(
        name="two", train=part(40, 1), validation=part(20, 2), model=TwoInputs, recipe=Recipe(epochs=2, batch_size=16)
    )
    seen = []

    def finetune(model, retain_loader, forget_loader, validation_loader):  # type: ignore[no-untyped-def]
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for inputs, targets in retain_loader:
            seen.append((inputs["words"].dtype, tuple(inputs["numbers"].shape[1:])))
            nn.functional.cross_entropy(model(**inputs)["logits"], targets).backward()
            optimizer.step()

    pretrained = ex.train(task, members=2)
    done = ex.unlearn(pretrained, task, forget_set(task), from_function(finetune), workers=1)
    assert differs(done, pretrained) == [True, True]
    assert set(seen) == {(torch.int64, (6,))}


def test_images_come_normalised() -> None:
    x, y = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8), torch.arange(40) % 3
    task = Task(
        name="images", train=(x, y), validation=(x[:9], (y[:9] + 1) % 3), normalise=(0.5, 0.25),
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), recipe=Recipe(epochs=1, batch_size=16),
    )  # fmt: skip
    seen: list[Tensor] = []

    def look(model, retain_loader, forget_loader, validation_loader):  # type: ignore[no-untyped-def]
        seen.extend(inputs for inputs, _ in validation_loader)

    ex.unlearn(ex.train(task, members=1), task, forget_set(task), from_function(look))
    torch.testing.assert_close(torch.cat(seen), (x[:9].float() / 255 - 0.5) / 0.25)


def nothing(model, retain_loader, forget_loader, validation_loader):  # type: ignore[no-untyped-def]
    pass


def test_a_function_that_changes_nothing_fails_its_check() -> None:
    failed = ex.unlearn(PRETRAINED, TASK, FORGET, from_function(nothing)).trace.failed_checks
    assert [check.name for check in failed] == ["weights moved", "moved enough"]
    assert "nothing neither changed the model that it was given nor returned another" in failed[0].detail


def test_weights_that_are_not_finite_fail_their_check() -> None:
    def explode(model, *loaders):  # type: ignore[no-untyped-def]
        model[0].weight.data.fill_(float("inf"))

    failed = ex.unlearn(PRETRAINED, TASK, FORGET, from_function(explode)).trace.failed_checks
    assert [check.name for check in failed] == ["weights finite"]


def raising(model, retain_loader, forget_loader, validation_loader):  # type: ignore[no-untyped-def]
    raise KeyError("no such layer")


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "raises": (
        raising,
        r"method raising failed for member \d: KeyError: 'no such layer' \(test_from_function.py, line \d+: raise Key",
    ),
    "other arguments": (lambda model: model, r"method lambda failed for member \d: .*TypeError"),
    "a number": (lambda *a: 3, r"method lambda returned an int for member \d, expected the unlearned torch.nn.Module"),
    "another model": (lambda *a: mlp_norm(), r"what lambda made of member \d does not fit the model of task"),
    "more digits": (lambda *a: nn.init.constant_(a[0].double()[0].bias, 1 / 3) is None or a[0], r"is torch.float64"),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_what_a_function_must_not_do_is_said(what: str) -> None:
    function, message = WRONG[what]
    with pytest.raises(InputError, match=message):
        ex.unlearn(PRETRAINED, TASK, FORGET, from_function(function))


def test_a_wrapped_model_may_come_back() -> None:
    done = ex.unlearn(PRETRAINED, TASK, FORGET, from_function(lambda *a: nn.DataParallel(gradient_ascent(*a)), "w"))
    assert differs(done, PRETRAINED) == [True] * 3


def test_weights_may_come_back_in_another_memory_format() -> None:
    task = small_task("resnet", precision="float32")
    pretrained = ex.train(task, members=2)
    done = ex.unlearn(
        pretrained, task, forget_set(task), from_function(lambda *a: a[0].to(memory_format=torch.channels_last), "w")
    )
    assert differs(done, pretrained) == [False, False]


def test_batches_of_one_under_batch_norm_are_refused() -> None:
    task = small_task("mlp_norm", precision="float32")
    with pytest.raises(InputError, match="leave a batch of 1, of which batch norm has no statistics"):
        ex.unlearn(ex.train(task, members=1), task, forget_set(task), from_function(unlearning, batch_size=6))


def test_a_method_is_told_from_others_by_what_it_does() -> None:
    one, other = from_function(gradient_ascent), from_function(gradient_ascent, lr=0.2)
    assert one.describe() != other.describe()
    assert from_function(gradient_ascent, lr=np.float64(0.1)).options()["lr"] == 0.1
    assert from_function(unlearning, "same").describe() != from_function(nothing, "same").describe()
    assert from_function(unlearning).describe() == from_function(unlearning).describe()
    assert from_function(partial(gradient_ascent, lr=0.1)).name == "own_gradient_ascent"
    assert repr(from_function(gradient_ascent, lr=0.1)) == "from_function(own_gradient_ascent, lr=0.1, epochs=1)"


def test_what_is_no_function_is_refused() -> None:
    given: list[tuple[Any, dict[str, Any], str]] = [
        (3, {}, r"fn is an int, expected a function fn\(model"),
        (mlp(), {}, "fn is a Sequential"),
        (ex.methods.GradientAscent(), {}, "fn is a GradientAscent"),
        (nothing, {"name": "a/b"}, "name = 'a/b', expected letters"),
        (nothing, {"batch_size": 0}, "batch_size = 0"),
        (nothing, {"teacher": mlp()}, "teacher is a Sequential, expected a number or a text"),
    ]
    for fn, options, message in given:
        with pytest.raises(InputError, match=message):
            from_function(fn, **options)
