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
from expunge.core.scoring import ScoreResult
from expunge.metrics import DEFAULT_TOLERANCE
from expunge.report.score_table import print_scores
from expunge.studies.score import score_files
from expunge.studies.score.inputs import read_arrays

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


@pytest.mark.parametrize("shape", [(M, N), (M, N, 3)])
def test_numbers_that_look_like_probabilities_are_named(tmp_path, shape):
    draw = np.random.default_rng(4)
    np.save(tmp_path / "y.npy", draw.integers(0, 3, N))
    labels = {"labels": tmp_path / "y.npy"} if len(shape) == 3 else {}
    for name in ("u", "o"):
        margins = draw.normal(size=shape)
        np.save(tmp_path / f"{name}.npy", 1 / (1 + np.exp(-margins)) if name == "u" else margins)
    notes = [note for note in score_files(tmp_path / "u.npy", tmp_path / "o.npy", **labels).notes if "between" in note]
    assert len(notes) == 1
    assert notes[0].startswith(f"unlearned: all {'logits' if labels else 'margins'} lie between 0 and 1")


def test_copies_are_named_where_no_verdict_names_them(tmp_path):
    draw = np.random.default_rng(3)
    oracle = draw.normal(size=(M, N))
    np.save(tmp_path / "o.npy", oracle)
    np.save(tmp_path / "u.npy", np.repeat(draw.normal(1, 1, size=(M // 3, N)), 3, axis=0) + 1e-5 * oracle)
    notes = score_files(tmp_path / "u.npy", tmp_path / "o.npy").notes
    assert any(f"{M - M // 3} of {M} members are copies of other members" in note for note in notes)


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
    assert lines["accuracy"].value > lines["accuracy"].floor
    assert {"fade", "activation distance", "tug-of-war"} <= set(lines)
    margins = torch.tensor(np.load(tmp_path / "unlearned.npz")["forget"]).double()
    assert lines["wasserstein"].value > 1
    assert margins.shape == (12, N, 3)


LOGIT_METRICS = {
    "KLoM": {"KLoM, p95", "KLoM, mean", "KL(unlearned | oracle), p95", "KL(oracle | unlearned), p95"},
    "attacks": {
        "U-LiRA, balanced accuracy",
        "SVC attack (confidence), efficacy",
        *(
            f"population attack ({feature}), {statistic}"
            for feature in ("loss", "entropy", "modified entropy", "confidence")
            for statistic in ("AUC", "balanced accuracy", "TPR at FPR 0.01")
        ),
    },
    "distances": {"wasserstein", "energy", "kolmogorov smirnov", "jensen shannon", "gaussian kl"},
    "joint tests": {"classifier two-sample test", "mmd squared"},
    "outputs": {"accuracy", "activation distance", "fade", "tug-of-war"},
    "epsilon": {f"epsilon, lower bound (mean margin, {route})" for route in ("clopper-pearson", "gaussian-dp")},
    "published elsewhere": {
        *(f"KLoM as published ({v}), p95" for v in ("easydub", "dub", "a2d", "trail", "own-ranges")),
        "forgetting quality (NeurIPS 2023 challenge)",
        "score (NeurIPS 2023 challenge)",
    },
}


def write_logits(path, who, sure, members=12, examples=30, change=lambda arrays: None):
    y = np.arange(examples) % 3
    arrays = {
        split: (sure * np.eye(3)[y] + rng.normal(size=(members, examples, 3))).astype(np.float32)
        for split in ("forget", "retain", "validation")
    }
    change(arrays)
    np.savez(path / f"{who}.npz", **arrays, labels=y, labels_retain=y, labels_validation=y)


@pytest.fixture(scope="module")
def with_logits(tmp_path_factory):
    path = tmp_path_factory.mktemp("logits")

    def collapse(arrays):
        arrays["retain"][2] = [1.0, 0.0, 0.0]  # finite, and the same whatever the input

    write_logits(path, "unlearned", 4.0, change=collapse)
    for who in ("oracle", "held_out"):
        write_logits(path, who, 1.0)
    return score_files(path / "unlearned.npz", path / "oracle.npz", held_out=path / "held_out.npz")


def test_everything_that_logits_allow_is_there(with_logits):
    for group, names in LOGIT_METRICS.items():
        found = {line.metric for line in with_logits.lines if line.group == group and line.split == "forget"}
        assert found == names, group
    for split in ("retain", "validation"):
        groups = {line.group for line in with_logits.lines if line.split == split}
        assert groups == {"KLoM", "distances", "joint tests", "outputs", "published elsewhere"}
    needs = " ".join(missing.metric for missing in with_logits.missing)
    for name in ("one run", "ZRF", "relearning", "GUS", "LiRA", "FADE of generated text", "before unlearning"):
        assert name in needs
    for name in ("tug-of-war", "entropy", "SVC", "challenge", "floor", "accuracy", "KLoM"):
        assert name not in needs
    comes_back = ScoreResult.model_validate_json(with_logits.model_dump_json())
    assert [line.metric for line in comes_back.lines] == [line.metric for line in with_logits.lines]


def test_what_margins_of_one_split_do_not_allow_is_listed(folder):
    result = score_files(folder / "unlearned.npy", folder / "oracle.npy")
    there = {line.metric for line in result.lines}
    listed = " ".join(missing.metric for missing in result.missing)
    for name in set().union(*LOGIT_METRICS.values()) - there:
        short = name.split("(")[1].split(")")[0] if "attack" in name else name.split(",")[0].split(" (")[0].lower()
        assert short.replace("confidence), efficacy", "SVC") in listed.lower() or name in listed, name
    needs = {missing.metric: missing.needs for missing in result.missing}
    assert needs["KLoM, distances and joint tests on retain and validation"].startswith("margins on retain")


def test_a_collapsed_member_is_no_accuracy_in_the_tug_of_war(with_logits):
    line = values(with_logits)["tug-of-war"]
    assert line.failed == 1
    assert values(with_logits, "retain")["accuracy"].failed == 1


def test_the_most_important_comes_first_in_the_table(with_logits):
    console = Console(width=200, record=True, file=io.StringIO())
    print_scores(with_logits, console)
    text = console.export_text()
    forget = text[text.index("forget: 30 examples") : text.index("retain: 30 examples")]
    places = [forget.index(f" {group} ") for group in LOGIT_METRICS]
    assert places == sorted(places)
    assert text.index("Verdict:") < text.index("KLoM, p95")


@pytest.fixture(scope="module")
def unequal(tmp_path_factory):
    """30 unlearned members that are like the oracles on F and a little off on V, and 15 held-out oracles."""
    path, draw = tmp_path_factory.mktemp("unequal"), np.random.default_rng(50)
    for who, members in (("unlearned", 30), ("oracle", 60), ("held_out", 15)):
        arrays = {split: draw.normal(0, 1, (members, 150)) for split in ("forget", "validation")}
        arrays["validation"] += 0.7 * (who == "unlearned")
        np.savez(path / f"{who}.npz", **arrays)
    return score_files(path / "unlearned.npz", path / "oracle.npz", held_out=path / "held_out.npz")


def test_floors_are_at_equal_numbers_of_members(unequal):
    lines = values(unequal)
    for name in ("KLoM as published (easydub), p95", "jensen shannon", "energy", "KL(unlearned | oracle), p95"):
        assert lines[name].value == pytest.approx(lines[name].floor, rel=0.15), name
    assert lines["jensen shannon"].side == "not told from the oracle"
    # A floor of half as many members is higher, and would hide this shift.
    assert values(unequal, "validation")["jensen shannon"].side == "off the oracle"
    assert any("15 held-out oracles for 30 unlearned members" in note for note in unequal.notes)


def test_leaving_members_out_never_leaves_a_failed_one_out(tmp_path):
    draw = np.random.default_rng(51)
    arrays = {who: draw.normal(0, 1, (n, 30)) for who, n in (("u", 30), ("o", 30), ("h", 6))}
    arrays["u"][17] = np.nan
    for who, array in arrays.items():
        np.save(tmp_path / f"{who}.npy", array)
    lines = values(score_files(tmp_path / "u.npy", tmp_path / "o.npy", held_out=tmp_path / "h.npy"))
    assert lines["wasserstein"].value == np.inf
    assert lines["wasserstein"].failed == 1
    arrays["u"][17] = draw.normal(0, 1, 30)
    sound = values(score_files(save(tmp_path / "v.npy", arrays["u"]), tmp_path / "o.npy", held_out=tmp_path / "h.npy"))
    assert sound["wasserstein"].failed == 0
    assert lines["kolmogorov smirnov"].value > sound["kolmogorov smirnov"].value


def test_large_splits_are_sampled_and_that_is_said(folder, monkeypatch):
    for where in ("studies.score", "metrics.metric"):
        monkeypatch.setattr(f"expunge.{where}.KLOM_EXAMPLES", 10)
    for where in ("studies.score", "metrics.from_margins"):
        monkeypatch.setattr(f"expunge.{where}.DISTANCE_EXAMPLES", 12)
    result = score_files(folder / "unlearned.npz", folder / "oracle.npz", held_out=folder / "held_out.npz")
    (note,) = [note for note in result.notes if "at random" in note]
    assert "10 for KLoM and the verdict, 12 for distances" in note
    assert values(result)["wasserstein"].value == pytest.approx(2, abs=0.5)


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


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_the_table_is_whole_at_any_width(full, width):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    print_scores(full, console)
    text = console.file.getvalue()
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    for line in full.lines:
        assert f"{line.value:.3f}" in text or f"{line.value:.3g}" in text
        if line.low is not None and abs(line.low) < 1000:
            assert f"{line.low:.3f} to " in " ".join(text.split())


def test_bfloat16_safetensors_are_read(tmp_path):
    save_torch({"forget": torch.ones(M, N, dtype=torch.bfloat16)}, tmp_path / "b.safetensors")
    assert read_arrays(tmp_path / "b.safetensors")["forget"].dtype == np.float32


def test_a_tolerance_that_means_nothing_is_refused_even_where_no_verdict_can_be_given(tmp_path):
    array = np.random.default_rng(0).normal(size=(30, 5))
    path = save(tmp_path / "u.npy", array)
    with pytest.raises(InputError, match=r"tolerance = -1.0, expected"):
        score_files(path, save(tmp_path / "o.npy", array + 1), tolerance=-1.0)
