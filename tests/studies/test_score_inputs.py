"""Files of NumPy that are damaged are called damaged, and only pickles are called pickles."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from expunge.core import InputError
from expunge.studies.score.inputs import read_arrays

ARRAY = np.random.default_rng(0).normal(size=(20, 30))


def npy(path):
    np.save(path, ARRAY)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"damaged", r"damaged, cut short or no \.npy file \(it begins with b'damaged'"),
        (b"\x00" * 5000, "damaged, cut short or no"),
        (b"\x80\x77" + b"\x00" * 50, "damaged, cut short or no"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it begins with b'version '"),
        (pickle.dumps([1.0, 2.0]), "a pickle.*refused"),
        (pickle.dumps([1.0], protocol=2), "a pickle.*refused"),
        (b"PK\x03\x04" + b"\x00" * 50, r"holds what numpy writes as \.npz; rename it"),
    ],
)
def test_what_is_no_npy_file_is_called_what_it_is(tmp_path, content, message):
    file = tmp_path / "x.npy"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_arrays(file)


@pytest.mark.parametrize("keep", [7, 9, 60, 128, 129, 1000, -1])
def test_a_npy_file_that_was_cut_is_called_damaged_and_no_pickle(tmp_path, keep):
    file = tmp_path / "x.npy"
    file.write_bytes(npy(file)[:keep])
    with pytest.raises(InputError, match="damaged or cut short") as caught:
        read_arrays(file)
    assert "pickle" not in str(caught.value)


def test_an_array_of_objects_is_still_called_a_pickle(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}, None], dtype=object))
    with pytest.raises(InputError, match=r"a pickle.*refused"):
        read_arrays(tmp_path / "x.npy")


def test_a_npz_file_that_was_cut_or_altered_is_called_damaged(tmp_path):
    file = tmp_path / "x.npz"
    np.savez_compressed(file, forget=ARRAY)
    whole = file.read_bytes()
    middle = len(whole) // 2
    for content in (whole[:middle], whole[:middle] + b"\xff" * 50 + whole[middle + 50 :], whole[:4]):
        file.write_bytes(content)
        with pytest.raises(InputError, match="damaged or cut short"):
            read_arrays(file)
    file.write_bytes(npy(tmp_path / "y.npy"))
    with pytest.raises(InputError, match=r"holds what numpy writes as \.npy"):
        read_arrays(file)


def test_the_numbered_header_of_pandas_is_no_member(tmp_path):
    margins = np.random.default_rng(0).normal(size=(6, 12))
    body = "\n".join(",".join(map(str, row)) for row in margins.tolist())
    (tmp_path / "plain.csv").write_text(body)
    (tmp_path / "numbered.csv").write_text(",".join(map(str, range(12))) + "\n" + body)
    (tmp_path / "labels.csv").write_text("0,1,2")
    (tmp_path / "two.csv").write_text("0,1\n2,3")
    for name in ("plain", "numbered"):
        assert np.array_equal(read_arrays(tmp_path / f"{name}.csv")[""], margins)
    assert read_arrays(tmp_path / "labels.csv")[""].tolist() == [[0, 1, 2]]
    assert read_arrays(tmp_path / "two.csv")[""].tolist() == [[0, 1], [2, 3]]
