"""Augmentation: what the ready-made ones do, and that a member's is its own whatever is trained beside it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from expunge.core import InputError, Recipe, Task
from expunge.core.seeds import derive, generator
from expunge.ensembles import train
from expunge.methods import Retrain, unlearn
from expunge.tasks.augment import compose, noise, random_crop, random_flip
from reference.one_by_one import member_seed, optimiser_of
from reference.problems import MODELS, blobs, forget_set, small_task


def drawn(augment, batch, seed=0):
    return augment(batch, torch.Generator().manual_seed(seed))


def task_with(augment, name="cnn", **recipe):
    factory, shape = MODELS[name]
    options = {"epochs": 2, "batch_size": 8, "lr": 0.05, "precision": "float64", **recipe}
    train_, held_out = blobs(shape, 30, 1), blobs(shape, 12, 2)
    return Task(name="t", train=train_, validation=held_out, model=factory, recipe=Recipe(**options), augment=augment)


@pytest.mark.parametrize("shape", [(40, 5, 7), (40, 1, 5, 7), (40, 3, 5, 7)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64])
def test_a_crop_is_a_window_of_the_padded_image_and_every_window_occurs(shape, dtype):
    batch = torch.randint(1, 256, shape).to(dtype)
    found = drawn(random_crop(1), batch)
    assert found.dtype == dtype
    padded = F.pad(batch, (1, 1, 1, 1))
    windows = [(i, j) for i in range(3) for j in range(3)]
    seen = {
        next(w for w in windows if torch.equal(found[n], padded[n][..., w[0] : w[0] + 5, w[1] : w[1] + 7]))
        for n in range(40)
    }
    assert seen == set(windows)


def test_a_flip_mirrors_about_half_of_the_images_and_nothing_else():
    batch = torch.rand(400, 2, 3, 4)
    found = drawn(random_flip(), batch)
    mirrored = (found == batch.flip(-1)).flatten(1).all(1)
    assert bool((mirrored | (found == batch).flatten(1).all(1)).all())
    assert 150 < int(mirrored.sum()) < 250  # 5 standard deviations


def test_noise_has_its_standard_deviation_and_uint8_stays_within_its_range():
    found = drawn(noise(0.5), torch.zeros(10_000, 3, dtype=torch.float64))
    assert found.std() == pytest.approx(0.5, rel=0.05)
    images = torch.tensor([0, 128, 255], dtype=torch.uint8).expand(4000, 3)
    moved = drawn(noise(0.1), images)
    assert moved.dtype == torch.uint8
    assert moved[:, 1].double().std() == pytest.approx(25.5, rel=0.1)
    assert moved[:, 0].double().mean() == pytest.approx(25.5 / (2 * torch.pi) ** 0.5, rel=0.1)  # half is cut off
    with pytest.raises(InputError, match=r"inputs of type torch.int64"):
        drawn(noise(0.1), images.long())


def test_composition_is_one_after_the_other():
    batch, own = torch.rand(6, 1, 5, 5), torch.Generator().manual_seed(3)
    expected = noise(0.1)(random_flip()(random_crop(2)(batch, own), own), own)
    assert torch.equal(drawn(compose(random_crop(2), random_flip(), noise(0.1)), batch, 3), expected)


def test_options_are_checked():
    for wrong in (0, -1, 1.5, "4"):
        with pytest.raises(InputError, match="padding"):
            random_crop(wrong)
    with pytest.raises(InputError, match="std"):
        noise(0)
    with pytest.raises(InputError, match=r"random_flip was given \(4, 6\), expected images"):
        task_with(random_flip(), "mlp")


BAD = [
    (3, "augment is an int"),
    (lambda batch, _: batch[:-1], r"returned \(3, 6\) for a batch of \(4, 6\)"),
    (lambda batch, _: batch + torch.randn(batch.shape), "other inputs for the same generator"),
    (lambda batch, _: batch / 0, "or not finite ones"),
    (lambda batch, _: "words", "augment: x is the text 'words'"),
]


@pytest.mark.parametrize(("augment", "message"), BAD)
def test_an_augmentation_that_is_none_is_refused_at_construction(augment, message):
    with pytest.raises(InputError, match=message):
        task_with(augment, "mlp")


def test_training_equals_a_plain_loop_with_the_members_own_generators():
    task = task_with(compose(random_crop(1), random_flip(), noise(0.2)))
    ensemble, k = train(task, members=3, seed=5), len(task.train)
    rows = torch.arange(k)
    for member in range(3):
        own = member_seed(5, rows.numpy(), member)
        torch.manual_seed(derive(own, "initialisation"))
        module = task.model().double()
        optimiser = optimiser_of(module, task.recipe)
        for epoch in range(2):
            order = torch.randperm(k, generator=generator(own, "order", epoch))
            changes, parts = generator(own, "augment", epoch), order.split(8)
            for number, part in enumerate(parts):
                optimiser.param_groups[0]["lr"] = task.recipe.rate(epoch + (number + 0.5) / len(parts))
                optimiser.zero_grad()
                F.cross_entropy(module(task.augment(task.train.x[part], changes)), task.train.y[part]).backward()
                optimiser.step()
        for name, value in module.named_parameters():
            torch.testing.assert_close(ensemble.params[name][member], value.detach(), rtol=1e-8, atol=1e-10)


def test_a_member_is_itself_whatever_the_chunk():
    task = task_with(compose(random_crop(2), noise(0.1)))
    one, many = (train(task, members=4, chunk=chunk, workers=1) for chunk in (1, 4))
    last = train(task, members=1, first=3)
    for name, value in one.params.items():
        torch.testing.assert_close(many.params[name], value, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(last.params[name][0], value[3], rtol=1e-9, atol=1e-11)
    assert not torch.allclose(one.params["6.weight"], train(task_with(None), members=4).params["6.weight"])


def test_augmentation_is_in_training_from_scratch_alone():
    calls = []

    def spy(batch, own):
        calls.append(len(batch))
        return batch

    task = task_with(spy, "mlp")
    pretrained = train(task, members=2, workers=1, chunk=2)
    trained = len(calls)
    assert trained > 0
    pretrained.margins(task.validation.x, task.validation.y)
    assert len(calls) == trained
    unlearn(pretrained, task, forget_set(task, 4), Retrain(), workers=1)
    assert len(calls) > trained


def test_named_inputs_are_augmented_by_name():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x, mask):
            return self.layer(x * mask)

    (x, y), (vx, vy) = blobs((6,), 30, 1), blobs((6,), 12, 2)
    seen = []

    def augment(batch, own):
        seen.append(set(batch))
        return {**batch, "mask": torch.rand(batch["mask"].shape, generator=own) > 0.3}

    task = Task(
        name="named",
        train=({"x": x, "mask": torch.ones(30, 6, dtype=torch.bool)}, y),
        validation=({"x": vx, "mask": torch.ones(12, 6, dtype=torch.bool)}, vy),
        model=Model,
        recipe=Recipe(epochs=1, batch_size=10),
        augment=augment,
    )
    train(task, members=2)
    assert all(names == {"x", "mask"} for names in seen)


def test_the_fingerprint_sees_the_augmentation():
    def shifted(amount):
        return lambda batch, own: batch + amount

    prints = [
        task_with(augment).fingerprint
        for augment in (
            None,
            random_crop(1),
            random_crop(2),
            random_flip(),
            noise(0.1),
            noise(0.2),
            compose(random_crop(1), random_flip()),
            shifted(0.1),
            shifted(0.2),
        )
    ]
    assert len(set(prints)) == len(prints)
    assert task_with(random_crop(1)).fingerprint == prints[1]
    assert task_with(shifted(0.1)).fingerprint == prints[-2]
    assert small_task("cnn").fingerprint == small_task("cnn").fingerprint
