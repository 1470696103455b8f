"""Image files: both CIFAR forms and IDX, plain and compressed, checksums, damage, and pickles that must not be run."""

from __future__ import annotations

import gzip
import lzma
import pickle
import struct
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.core import InputError
from expunge.tasks import cifar10, fashion_mnist, images, mnist, small_cnn
from expunge.tasks.plain_pickle import read_plain_pickle

RNG = np.random.default_rng(0)
IDX = {"train-images-idx3-ubyte": (30, 12, 12), "train-labels-idx1-ubyte": (30,)}
IDX |= {"t10k-images-idx3-ubyte": (10, 12, 12), "t10k-labels-idx1-ubyte": (10,)}


def idx_bytes(values):
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_idx(folder, pack=gzip.compress, suffix=".gz"):
    folder.mkdir(parents=True)
    arrays = {}
    for name, shape in IDX.items():
        arrays[name] = RNG.integers(0, 10 if len(shape) == 1 else 256, shape).astype(np.uint8)
        (folder / f"{name}{suffix}").write_bytes(pack(idx_bytes(arrays[name])))
    return arrays


def write_cifar(folder, kind, protocol=2):
    folder.mkdir(parents=True)
    batches = {}
    for part in images.CIFAR_PARTS:
        pixels = RNG.integers(0, 256, (4, 3072)).astype(np.uint8)
        labels = RNG.integers(0, 10, 4).tolist()
        batches[part] = pixels, labels
        if kind == "bin":
            rows = np.column_stack([np.array(labels, dtype=np.uint8), pixels])
            (folder / f"{part}.bin").write_bytes(rows.tobytes())
        else:
            value = {"batch_label": part, "labels": labels, "data": pixels, "filenames": ["a.png"] * 4}
            if kind == "bytes keys":
                value = {key.encode(): item for key, item in value.items()}
            content = pickle.dumps(value, protocol=protocol)
            (folder / (f"{part}.xz" if kind == "xz" else part)).write_bytes(
                lzma.compress(content) if kind == "xz" else content
            )
    return batches


@pytest.mark.parametrize(("place", "load"), [("MNIST/raw", mnist), ("FashionMNIST/raw", fashion_mnist), (".", mnist)])
def test_idx_files_are_read_and_standardised(tmp_path, place, load):
    arrays = write_idx(tmp_path / "data" / place)
    task = load(tmp_path / "data", verify=False, lr=0.05)
    pixels = arrays["train-images-idx3-ubyte"] / 255.0
    expected = (pixels - pixels.mean()) / pixels.std()
    np.testing.assert_allclose(task.train.x[:, 0].numpy(), expected, atol=1e-5)
    test = (arrays["t10k-images-idx3-ubyte"] / 255.0 - pixels.mean()) / pixels.std()
    np.testing.assert_allclose(task.validation.x[:, 0].numpy(), test, atol=1e-5)
    assert task.train.y.tolist() == arrays["train-labels-idx1-ubyte"].tolist()
    assert task.recipe.lr == 0.05
    assert load(tmp_path / "data", verify=False, train=20, validation=5).describe()["train"] == 20


@pytest.mark.parametrize(("pack", "suffix"), [(bytes, ""), (lzma.compress, ".xz")])
def test_idx_files_may_be_plain_or_xz(tmp_path, pack, suffix):
    arrays = write_idx(tmp_path / "data", pack, suffix)
    assert mnist(tmp_path / "data", verify=False).validation.y.tolist() == arrays["t10k-labels-idx1-ubyte"].tolist()


@pytest.mark.parametrize("kind", ["py", "bytes keys", "xz", "bin"])
def test_both_forms_of_cifar_are_read(tmp_path, kind):
    folder = "cifar-10-batches-bin" if kind == "bin" else "cifar-10-batches-py"
    batches = write_cifar(tmp_path / folder, kind)
    task = cifar10(tmp_path, verify=False)
    pixels = np.concatenate([batches[part][0] for part in images.CIFAR_PARTS[:-1]]).reshape(-1, 3, 32, 32) / 255.0
    mean, scale = pixels.mean((0, 2, 3), keepdims=True), pixels.std((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(task.train.x.numpy(), (pixels - mean) / scale, atol=1e-5)
    assert task.train.y.tolist() == [label for part in images.CIFAR_PARTS[:-1] for label in batches[part][1]]
    assert (task.recipe.batch_size, task.recipe.epochs, task.recipe.lr, task.recipe.peak_epoch) == (512, 24, 0.4, 5.0)
    other = cifar10(tmp_path, model=partial(small_cnn, 32, 3), verify=False)
    assert [tensor.shape for tensor in other.build(0).parameters()] == [t.shape for t in small_cnn(32, 3).parameters()]


def test_other_data_are_refused_unless_asked_for(tmp_path):
    write_idx(tmp_path / "m")
    with pytest.raises(InputError, match=r"is not the original file .* pass verify=False"):
        mnist(tmp_path / "m")
    write_cifar(tmp_path / "cifar-10-batches-py", "py")
    with pytest.raises(InputError, match=r"data_batch_1 is not the original file"):
        cifar10(tmp_path)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(InputError, match="nowhere is not a folder"):
        mnist(tmp_path / "nowhere")
    arrays = write_idx(tmp_path / "m")
    labels = tmp_path / "m" / "t10k-labels-idx1-ubyte.gz"
    good = labels.read_bytes()
    labels.write_bytes(good[:-6])
    with pytest.raises(InputError, match=r"t10k-labels-idx1-ubyte\.gz cannot be read"):
        mnist(tmp_path / "m", verify=False)
    labels.write_bytes(gzip.compress(idx_bytes(arrays["t10k-labels-idx1-ubyte"])[:-1]))
    with pytest.raises(InputError, match=r"holds 9 values, its header says 10"):
        mnist(tmp_path / "m", verify=False)
    labels.write_bytes(gzip.compress(b"something else"))
    with pytest.raises(InputError, match=r"begins with 73 6f 6d 65, expected 00 00 08 01"):
        mnist(tmp_path / "m", verify=False)
    labels.write_bytes(gzip.compress(idx_bytes(np.full(10, 11, dtype=np.uint8))))
    with pytest.raises(InputError, match=r"has the label 11, expected 0 to 9"):
        mnist(tmp_path / "m", verify=False)
    labels.unlink()
    with pytest.raises(InputError, match=r"holds no t10k-labels-idx1-ubyte \(plain, \.gz or \.xz\)"):
        mnist(tmp_path / "m", verify=False)
    write_idx(tmp_path / "n")
    with pytest.raises(InputError, match=r"train = 31, expected at most 30"):
        mnist(tmp_path / "n", verify=False, train=31)


def test_cifar_batches_of_another_form_are_named(tmp_path):
    write_cifar(tmp_path / "cifar-10-batches-py", "py")
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    for value in ({"labels": [1]}, {"data": np.zeros((1, 3)), "labels": [1]}, [1, 2]):
        path.write_bytes(pickle.dumps(value))
        with pytest.raises(InputError, match="test_batch is no CIFAR-10 batch"):
            cifar10(tmp_path, verify=False)
    path.write_bytes(pickle.dumps({"data": np.zeros((1, 3072), dtype=np.uint8), "labels": [300]}))
    with pytest.raises(InputError, match="labels from 300 to 300"):
        cifar10(tmp_path, verify=False)


class Runs:
    """Unpickling it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_something_is_refused_and_not_run(tmp_path, protocol):
    content = pickle.dumps({"data": Runs(tmp_path / "ran")}, protocol=protocol)
    with pytest.raises(InputError, match=r"refers to (_io|io)\.open, expected plain values"):
        read_plain_pickle(content, "file")
    assert not (tmp_path / "ran").exists()


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=50, deadline=None)
@given(value=PLAIN, protocol=st.integers(1, 5))
def test_plain_values_come_back(value, protocol):
    assert read_plain_pickle(pickle.dumps(value, protocol=protocol), "file") == value


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    dtype=st.sampled_from(["u1", "<i4", ">i8", "<f4", "f8"]),
    protocol=st.integers(0, 4),
    fortran=st.booleans(),
)
def test_arrays_come_back(shape, dtype, protocol, fortran):
    values = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    values = np.asfortranarray(values) if fortran else values
    found = read_plain_pickle(pickle.dumps(values, protocol=protocol), "file")
    np.testing.assert_array_equal(found, values)
    assert found.dtype == values.dtype


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_pickles_end_in_one_kind_of_error(data):
    content = bytearray(pickle.dumps({"labels": [1, 2], "data": np.zeros((2, 3), dtype=np.uint8)}, protocol=2))
    cut = data.draw(st.integers(0, len(content)))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    message = ""
    try:
        read_plain_pickle(bytes(content[:cut]), "file")
    except InputError as error:
        message = str(error)
    assert message == "" or message.startswith("file ")


def test_known_checksums_are_complete_and_differ():
    known = [value for table in images.CHECKSUMS.values() for value in table.values()]
    assert len(known) == 14
    assert len(set(known)) == 14
    assert set(images.CHECKSUMS["cifar10"]) == set(images.CIFAR_PARTS)
    assert torch.tensor([len(value) for value in known]).eq(64).all()
