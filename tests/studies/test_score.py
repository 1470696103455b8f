"""`expunge score`: what it reads, what it refuses, what it computes and what it says it could not."""

import io
import json
import pickle

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from expunge.core import InputError
from expunge.metrics import DEFAULT_TOLERANCE
from expunge.studies.score import score_files
from expunge.studies.score_inputs import read_arrays
from expunge.studies.score_result import ScoreResult, print_scores

rng = np.random.default_rng(21)
M, N = 24, 40


def side(shift, members=M):
    return {
        "forget": rng.normal(3 + shift, 1, (members, N)),
        "retain": rng.normal(6, 1, (members, N)),
        "validation": rng.normal(3, 1, (members, N)),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("score")
    for name, shift in (("unlearned", 2.0), ("oracle", 0.0), ("held_out", 0.0), ("pretrained", 2.5)):
        arrays = side(shift)
        np.savez(path / f"{name}.npz", **arrays)
        np.save(path / f"{name}.npy", arrays["forget"])
        np.savetxt(path / f"{name}.csv", arrays["forget"], delimiter=",", fmt="%.17g")
        save_file(
            {f"{name}/{split}": array.astype(np.float32) for split, array in arrays.items()},
            path / f"{name}.safetensors",
        )
    return path


@pytest.fixture(scope="module")
def full(folder):
    names = ("unlearned", "oracle", "held_out", "pretrained")
    files = {name: folder / f"{name}.npz" for name in names}
    return score_files(files["unlearned"], files["oracle"], held_out=files["held_out"], pretrained=files["pretrained"])


def values(result, split="forget"):
    return {line.metric: line for line in result.lines if line.split == split}


def test_all_splits_give_a_verdict_and_every_metric_of_margins(full):
    assert full.verdict == "under-forgotten"
    assert full.tolerance == DEFAULT_TOLERANCE
    assert {line.split for line in full.lines} == {"forget", "retain", "validation"}
    lines = values(full)
    assert lines["wasserstein"].value == pytest.approx(2, abs=0.5)
    assert lines["wasserstein"].side == "off the oracle"
    assert lines["mmd squared"].p_value < 0.01
    assert lines["U-LiRA, balanced accuracy"].value > 0.75
    assert lines["U-LiRA, balanced accuracy"].side == "under-forgotten"
    assert lines["population attack (loss), AUC"].side == "under-forgotten"
    assert values(full, "retain")["wasserstein"].side == "not told from the oracle"
    assert not any("held-out" in missing.needs for missing in full.missing)
    assert any("logits" in missing.needs for missing in full.missing)


def test_the_forget_set_alone_says_what_more_would_allow(folder):
    result = score_files(folder / "unlearned.npy", folder / "oracle.npy")
    assert result.verdict is None
    needs = {missing.metric: missing.needs for missing in result.missing}
    assert needs["verdict"] == "margins on retain and validation examples, of both sides"
    assert "validation" in needs["membership attack (loss)"]
    assert "held-out" in needs["floor from independent oracles"]


def test_every_format_reads_the_same_numbers(folder):
    base = read_arrays(folder / "unlearned.npy")[""]
    np.testing.assert_array_equal(read_arrays(folder / "unlearned.csv")[""], base)
    np.testing.assert_array_equal(read_arrays(folder / "unlearned.npz")["forget"], base)
    named = f"{folder}/unlearned.safetensors:unlearned"
    result = score_files(named, f"{folder}/oracle.safetensors:oracle")
    other = score_files(folder / "unlearned.npz", folder / "oracle.npz")
    for split in ("forget", "retain", "validation"):
        assert values(result, split)["wasserstein"].value == pytest.approx(
            values(other, split)["wasserstein"].value, rel=1e-5
        )


def test_separate_files_for_retain_and_validation(folder, tmp_path):
    for who in ("unlearned", "oracle"):
        for split, array in np.load(folder / f"{who}.npz").items():
            np.save(tmp_path / f"{who}_{split}.npy", array)
    pairs = {
        split: {who: tmp_path / f"{who}_{split}.npy" for who in ("unlearned", "oracle")}
        for split in ("retain", "validation")
    }
    result = score_files(tmp_path / "unlearned_forget.npy", tmp_path / "oracle_forget.npy", **pairs)
    same = score_files(folder / "unlearned.npz", folder / "oracle.npz")
    assert result.verdict == same.verdict
    assert values(result)["KLoM, p95"].value == values(same)["KLoM, p95"].value


def test_logits_with_labels_give_metrics_of_outputs(tmp_path):
    y = rng.integers(0, 3, N)
    for who, sure in (("unlearned", 4.0), ("oracle", 1.0)):
        arrays = {
            split: (sure * np.eye(3)[y] + rng.normal(size=(12, N, 3))).astype(np.float32)
            for split in ("forget", "retain", "validation")
        }
        np.savez(tmp_path / f"{who}.npz", **arrays, labels=y, labels_retain=y, labels_validation=y)
    result = score_files(tmp_path / "unlearned.npz", tmp_path / "oracle.npz")
    lines = values(result)
    assert lines["accuracy"].side == "under-forgotten"
    assert lines["accuracy"].value > lines["accuracy"].oracle
    assert {"fade", "activation distance", "tug-of-war"} <= set(lines)
    margins = torch.tensor(np.load(tmp_path / "unlearned.npz")["forget"]).double()
    assert lines["wasserstein"].value > 1
    assert margins.shape == (12, N, 3)


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_pickle_is_refused_and_not_run(tmp_path, folder, suffix):
    target = tmp_path / "owned"
    bad = np.array([Malicious(target)], dtype=object)
    file = tmp_path / f"bad{suffix}"
    (np.save if suffix == ".npy" else np.savez)(file, bad) if suffix == ".npy" else np.savez(file, forget=bad)
    with pytest.raises(InputError, match="refused"):
        score_files(file, folder / "oracle.npy")
    assert not target.exists()


def test_a_bare_pickle_with_an_array_s_name_is_refused(tmp_path, folder):
    target = tmp_path / "owned"
    file = tmp_path / "bad.npy"
    file.write_bytes(pickle.dumps(Malicious(target)))
    with pytest.raises(InputError, match=r"refused|cannot be read"):
        score_files(file, folder / "oracle.npy")
    assert not target.exists()


def save(path, array):
    np.save(path, array)
    return path


@pytest.mark.parametrize(
    ("unlearned", "message"),
    [
        (np.zeros((M, N + 1)), "same examples"),
        (np.zeros((3, N)), "3 members, expected at least 5"),
        (np.zeros(N), "expected margins"),
        (np.zeros((M, N, 3)), "give labels"),
        (np.zeros((M, N), dtype=complex), "expected real numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, folder, unlearned, message):
    with pytest.raises(InputError, match=message):
        score_files(save(tmp_path / "u.npy", unlearned), folder / "oracle.npy")


def test_files_that_cannot_be_read_are_named(tmp_path, folder):
    oracle = folder / "oracle.npy"
    with pytest.raises(InputError, match=r"nowhere.npy is not a file"):
        score_files(tmp_path / "nowhere.npy", oracle)
    (tmp_path / "x.txt").write_text("1,2")
    with pytest.raises(InputError, match=r"expected .npy, .npz, .safetensors or .csv"):
        score_files(tmp_path / "x.txt", oracle)
    for name in ("x.npy", "x.npz", "x.safetensors"):
        (tmp_path / name).write_bytes(b"damaged")
        with pytest.raises(InputError, match=name):
            score_files(tmp_path / name, oracle)
    (tmp_path / "x.csv").write_text("a,b\n1,2\n3,oops\n")
    with pytest.raises(InputError, match="row 3"):
        score_files(tmp_path / "x.csv", oracle)
    (tmp_path / "x.csv").write_text("1,oops\n3,4\n")
    with pytest.raises(InputError, match="row 1"):
        score_files(tmp_path / "x.csv", oracle)
    (tmp_path / "x.csv").write_text("1,2\n3\n")
    with pytest.raises(InputError, match="row 2 has 1 values"):
        score_files(tmp_path / "x.csv", oracle)
    np.savez(tmp_path / "y.npz", a=np.zeros((M, N)), b=np.zeros((M, N)))
    with pytest.raises(InputError, match="named forget"):
        score_files(tmp_path / "y.npz", oracle)
    with pytest.raises(InputError, match="has no 'c'"):
        score_files(f"{tmp_path}/y.npz:c", oracle)


def test_a_broken_oracle_is_refused_and_a_broken_member_is_worst(tmp_path, folder):
    array = np.load(folder / "oracle.npy")
    array[0, 0] = np.nan
    with pytest.raises(InputError, match="finite"):
        score_files(folder / "unlearned.npy", save(tmp_path / "o.npy", array))
    broken = np.load(folder / "held_out.npy")
    broken[:12] = np.nan
    lines = values(score_files(save(tmp_path / "u.npy", broken), folder / "oracle.npy"))
    assert lines["wasserstein"].value == np.inf
    assert lines["wasserstein"].side == "failed"
    assert lines["KLoM, p95"].failed == 12
    assert lines["mmd squared"].value == 2


def test_json_is_valid_and_comes_back(full, tmp_path, folder):
    text = full.model_dump_json()
    assert json.loads(text)["verdict"] == "under-forgotten"
    assert ScoreResult.model_validate_json(text).model_dump_json() == text
    broken = np.load(folder / "unlearned.npy")
    broken[0] = np.nan
    infinite = score_files(save(tmp_path / "u.npy", broken), folder / "oracle.npy").model_dump_json()
    json.loads(infinite, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert '"Infinity"' in infinite


def test_the_table_names_metrics_sides_and_what_is_missing(full):
    console = Console(width=200, record=True, file=io.StringIO())
    print_scores(full, console)
    text = console.export_text()
    for part in ("under-forgotten", "wasserstein", "oracles read", "Not computed", "LiRA", "validation: 40 examples"):
        assert part in text


def test_bfloat16_safetensors_are_read(tmp_path):
    save_torch({"forget": torch.ones(M, N, dtype=torch.bfloat16)}, tmp_path / "b.safetensors")
    assert read_arrays(tmp_path / "b.safetensors")["forget"].dtype == np.float32
