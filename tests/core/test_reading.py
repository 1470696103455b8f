"""Data as users have them: pairs, lists, frames, data sets, images; and data that cannot be used, said at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import expunge as ex
from expunge.core import InputError, Recipe, Task, reading
from expunge.core.reading import as_tensor, available_memory, check_memory, read_pair
from expunge.dependence.features import penultimate
from expunge.ensembles import build_network, train
from reference.problems import blobs, cnn, mlp

X, Y = blobs((6,), 24, 0)
VX, VY = blobs((6,), 12, 1)


def task_with(**changes):
    base = {
        "name": "t",
        "train": (X, Y),
        "validation": (VX, VY),
        "model": mlp,
        "recipe": Recipe(epochs=2, batch_size=8),
    }
    return Task(**{**base, **changes})


def same(task, other):
    return torch.equal(task.train.x, other.train.x) and torch.equal(task.train.y, other.train.y)


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


NAMED = [{"x": x.numpy(), "scale": 2.0, "label": int(y)} for x, y in zip(X, Y, strict=True)]


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = mlp()

    def forward(self, x, scale):
        return self.body(x * scale[:, None])


def test_lists_and_data_sets_are_what_the_arrays_are():
    plain = task_with()
    for arrays_ in (
        [X, Y],
        [X.tolist(), Y.tolist()],
        (X.numpy()[::-1][::-1], Y.numpy()),
        (X.numpy().astype(">f8"), Y.numpy().astype("uint64")),
        TensorDataset(X, Y),
        Items([(x.numpy(), int(y)) for x, y in zip(X, Y, strict=True)]),
        Items([[x.tolist(), y] for x, y in zip(X, Y, strict=True)]),
    ):
        assert same(task_with(train=arrays_), plain)
    assert torch.equal(task_with(validation=TensorDataset(VX, VY)).validation.x, plain.validation.x)


def test_items_with_named_inputs_and_words_for_labels():
    words = [{**item, "label": "abc"[item["label"]]} for item in NAMED]
    held_out = [{"x": x.numpy(), "scale": 2.0, "label": "abc"[y]} for x, y in zip(VX, VY.tolist(), strict=True)]
    task = task_with(train=Items(words), validation=Items(held_out), model=Scaled)
    assert task.train.x.shape == (24, 7)
    assert torch.equal(task.train.y, Y)
    assert task.outcome.labels == ("a", "b", "c")
    pairs = [({"x": item["x"], "scale": 2.0}, item["label"]) for item in words]
    assert same(task_with(train=Items(pairs), validation=Items(held_out), model=Scaled), task)
    assert train(task, members=2, epochs=1).margins(task.validation.x, [i["label"] for i in held_out]).shape == (2, 12)


class Random(Items):
    def __getitem__(self, index):
        return X[index] + torch.rand(6), Y[index]


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(X, Y, strict=True)


REFUSED = [
    (Items([]), "train is empty"),
    (Random(list(X)), r"train\[0\] differs from one reading to the next.*augment"),
    (Stream(), "only be read in order"),
    (iter([(X, Y)]), "only be read in order"),
    (DataLoader(TensorDataset(X, Y)), "pass loader.dataset"),
    (Items([3, 4]), r"train\[0\] is an int, expected \(x, y\)"),
    (Items([(X[0], 0), (X[0, :3], 1)]), r"train\[1\] has \(3,\) for x, train\[0\] has \(6,\)"),
    (Items([(X[0], 0), {"x": X[0], "label": 1}]), r"train\[1\] has the names"),
    (Items([{"x": X[0]}]), "expected the inputs and one of labels, label"),
    ({"x": X, "y": Y}, "train is a dict, expected a pair"),
    ((X, Y, Y), "expected a pair"),
    ("digits", "the text 'digits'"),
    ((X.numpy() * 1j, Y), "complex"),
    ((X.to_sparse(), Y), "sparse tensor"),
    ((X.to("meta"), Y), "meta tensor"),
    ((np.ma.MaskedArray(X.numpy(), mask=X.numpy() > 1e9), np.ma.MaskedArray(Y.numpy(), mask=Y.numpy() == 2)), "masked"),
    ((np.array([["a", 1.0]], dtype=object), [0]), "holds the text 'a' among its values"),
    ((np.zeros(24, dtype="datetime64[D]"), Y), "expected a tensor"),
    ((np.full((24, 6), 2**63, dtype=np.uint64), Y), "below 2"),
    (([[1.0], [1.0, 2.0]], [0, 1]), "expected a tensor"),
    ((np.where(X.numpy() > 2, 1e300, X.numpy()), Y), "numbers that torch.float32 cannot hold.*1e[+]300.*float64"),
    (((X * 9).to(torch.uint8), Y), r"write normalise=\(mean, std\)"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_cannot_be_read_is_refused_with_what_to_change(given, message):
    with pytest.raises(InputError, match=message):
        task_with(train=given)


@given(arrays.arrays(st.sampled_from(["u1", "u2", "i4", "i8", "f2", "f4", "f8", "b1"]), (3, 2)))
def test_arrays_keep_their_numbers(array):
    found = as_tensor(array, "x")
    np.testing.assert_array_equal(found.to(torch.float64).numpy(), array.astype(np.float64))
    assert torch.equal(as_tensor(array.tolist(), "x").double().nan_to_num(), found.double().nan_to_num())


def test_float16_and_longdouble_and_read_only_memory_are_taken():
    array = X.numpy().astype(np.longdouble)
    array.setflags(write=False)
    assert same(task_with(train=(array, Y)), task_with())
    assert task_with(train=(X.half(), Y), validation=(VX.half(), VY)).train.x.dtype == torch.float32


def test_whole_and_true_validation_inputs_become_what_train_is_or_are_refused():
    task = task_with(validation=((VX * 3).round().long(), VY))
    assert task.validation.x.dtype == task.train.x.dtype
    assert task_with(train=(X > 0, Y), validation=(VX > -9, VY)).train.x.dtype == torch.float32
    tokens = torch.arange(5).repeat(15)[:72].reshape(24, 3)
    held_out = tokens[:12].flip(1)
    model = lambda: nn.Sequential(nn.Embedding(5, 2), nn.Flatten(), nn.Linear(6, 3))  # noqa: E731
    task = task_with(train=(tokens, Y), validation=(held_out.double(), VY), model=model)
    assert task.validation.x.dtype == torch.int64
    with pytest.raises(InputError, match=r"validation.x is torch.float32 and 36 of its numbers cannot be torch.int64"):
        task_with(train=(tokens, Y), validation=(tokens[:12] + 0.5, VY), model=model)
    assert (
        next(
            task_with(train=(tokens, Y), validation=(held_out, VY), model=model, recipe=Recipe(precision="float64"))
            .build(0)
            .parameters()
        ).dtype
        == torch.float64
    )


def test_a_task_keeps_its_own_data():
    x, y, labels = X.float().numpy().copy(), Y.numpy().copy(), Y.clone()
    tasks = [task_with(train=(x, y)), task_with(train=(torch.from_numpy(x), labels))]
    before = [task.fingerprint for task in tasks]
    x[:], y[:], labels[:] = 0, 1, 1
    for task, print_ in zip(tasks, before, strict=True):
        del task.fingerprint
        assert task.fingerprint == print_


def test_frames_and_columns_of_pandas():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X.numpy(), columns=list("abcdef"))
    frame["flag"] = X[:, 0].numpy() > 0
    names = pandas.Series(["abc"[label] for label in Y.tolist()])
    model = lambda: nn.Linear(7, 3)  # noqa: E731
    held_out = frame.iloc[:12] + 1, names[:12]
    task = task_with(train=(frame, names), validation=held_out, model=model)
    assert torch.equal(task.train.y, Y)
    assert torch.equal(task.train.x[:, 6] > 0, task.train.x[:, 0] > 0)
    category = task_with(train=[frame, names.astype("category")], validation=held_out, model=model)
    assert same(category, task)
    nullable = frame.astype({"flag": "Int64"})
    assert same(task_with(train=(nullable, names), validation=held_out, model=model), task)
    nullable.loc[3, "flag"] = pandas.NA
    with pytest.raises(InputError, match=r"train: x holds a NAType among its values.*leave out what is missing"):
        task_with(train=(nullable, names), validation=held_out, model=model)
    names[2] = None
    with pytest.raises(InputError, match=r"1 labels are no words.*row 2"):
        task_with(train=(frame, names), validation=held_out, model=model)
    with pytest.raises(InputError, match="train is a DataFrame, expected a pair"):
        task_with(train=frame)


IMAGES, LABELS = torch.randint(0, 256, (24, 1, 8, 8), dtype=torch.uint8), Y


@pytest.mark.parametrize("kind", ["layers", "vmap"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_uint8_images_give_the_results_of_the_same_images_as_fractions(kind, precision):
    mean, std = 0.3, 0.4
    recipe = Recipe(epochs=2, batch_size=8, lr=0.05, precision=precision)
    split = slice(0, 16), slice(16, 24)
    dtype = torch.float64 if precision == "float64" else torch.float32
    fractions = (IMAGES.to(dtype) / 255 - mean) / std
    small, plain = (
        Task(
            name="images",
            train=(x[split[0]], LABELS[split[0]]),
            validation=(x[split[1]], LABELS[split[1]]),
            model=cnn,
            recipe=recipe,
            classes=3,
            **options,
        )
        for x, options in ((IMAGES, {"normalise": (mean, std)}), (fractions, {}))
    )
    assert small.train.x.dtype == torch.uint8
    assert small.fingerprint != plain.fingerprint
    found, expected = (train(task, members=3, network=build_network(task, kind)) for task in (small, plain))
    tolerance = 1e-10 if precision == "float64" else 1e-4
    for name, value in found.params.items():
        torch.testing.assert_close(value, expected.params[name], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(
        found.logits(small.validation.x), expected.logits(plain.validation.x), rtol=tolerance, atol=tolerance
    )
    features = penultimate(found, 0, small.train.x), penultimate(expected, 0, plain.train.x)
    torch.testing.assert_close(*features, rtol=tolerance, atol=tolerance)
    with pytest.raises(InputError, match=r"x is torch.float32, expected uint8 images"):
        found.logits(fractions.float())


def test_lazy_layers_are_built_by_an_example():
    lazy = lambda: nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))  # noqa: E731
    task, plain = task_with(model=lazy), task_with(model=mlp)
    modules = task.build(3), task.build(3), task.build(4)
    assert modules[0].training
    assert torch.equal(modules[0][0].weight, modules[1][0].weight)
    assert not torch.equal(modules[0][0].weight, modules[2][0].weight)
    assert {n: p.shape for n, p in modules[0].named_parameters()} == {
        n: p.shape for n, p in plain.build(0).named_parameters()
    }
    assert train(task, members=2, epochs=1).finite().all()


def test_what_is_too_large_says_so_with_both_sizes(monkeypatch, tmp_path):
    there = available_memory()
    assert there is None or there > 2**20
    monkeypatch.setattr(reading, "available_memory", lambda: 2**30)
    check_memory(2**30, "train")
    with pytest.raises(InputError, match=r"train needs 3.0 GiB of memory and 1.0 GiB are free"):
        check_memory(3 * 2**30, "train")

    class Endless(Items):
        def __len__(self):
            return 10**9

    with pytest.raises(InputError, match=r"train needs 2.\.. GiB"):
        read_pair(Endless([(torch.zeros(6), 0)]), "train")
    monkeypatch.setattr(reading, "available_memory", lambda: 2**20)
    with pytest.raises(InputError, match=r"an ensemble of 10,000 members needs"):
        train(task_with(), members=10**4)
    with pytest.raises(InputError, match=r"an ensemble of 10,000 members needs"):
        ex.audit(task_with(), forget="random:3", members=10**4, out=tmp_path / "run")
    with pytest.raises(InputError, match=r"an ensemble of 10,000 members needs"):
        ex.forecast(task_with(), forget="random:3", members=10**4, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(reading, "available_memory", lambda: 100)
    with pytest.raises(InputError, match=r"train.x of shape \(24, 6\) needs 576 bytes of memory and 100 bytes"):
        task_with()


def test_available_memory_heeds_the_limit_of_a_container(tmp_path, monkeypatch):
    for name, text in (("max", "3000\n"), ("now", "2500"), ("memory.stat", "anon 5\ninactive_file 100\n")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(reading, "LIMITS", ((str(tmp_path), "max", "now"), (str(tmp_path), "no", "file")))
    # What the system has left changes from one moment to the next.
    monkeypatch.setattr(reading, "_unused", lambda: 5000)
    monkeypatch.setattr(reading, "_below_own_limit", lambda: None)
    assert available_memory() == 600
    (tmp_path / "max").write_text("max\n")
    assert available_memory() == 5000
