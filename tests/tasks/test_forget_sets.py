"""Forget sets: sizes, disjoint calibration sets of the same kind, tightness, planted labels, files, messages."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from expunge.core import ForgetSet, InputError, Recipe, Task
from expunge.tasks import (
    CHOOSERS,
    choose,
    class_part,
    cluster,
    digits,
    from_file,
    mislabelled,
    random_forget_set,
)

DIGITS = digits()


def small(n: int = 40, classes: int = 4) -> Task:
    rng = np.random.default_rng(5)
    y = np.arange(n) % classes
    x = rng.normal(size=(n, 3)) + y[:, None]
    return Task(
        name="small",
        train=(x, y),
        validation=(x[:classes] + 1, y[:classes]),
        model=lambda: nn.Linear(3, classes),
        recipe=Recipe(epochs=1, peak_epoch=0.5),
    )


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(sorted(CHOOSERS)), size=st.integers(1, 5), seed=st.integers(0, 1000))
def test_every_kind_gives_two_disjoint_sets_of_the_size_asked(kind, size, seed):
    task = small()
    choice = choose(task, f"{kind}:{size}", seed=seed)
    for chosen in (choice.forget, choice.calibration):
        assert len(chosen) == size
        assert chosen.chooser == kind
        assert chosen.options["size"] == size
        chosen.check(choice.task)
    assert not np.intersect1d(choice.forget.indices, choice.calibration.indices).size
    again = choose(task, f"{kind}:{size}", seed=seed)
    np.testing.assert_array_equal(again.forget.indices, choice.forget.indices)
    np.testing.assert_array_equal(again.calibration.indices, choice.calibration.indices)
    torch.testing.assert_close(again.task.train.y, choice.task.train.y)


@settings(max_examples=30, deadline=None)
@given(kind=st.sampled_from(["random", "class_part", "cluster"]), size=st.integers(1, 5), seed=st.integers(0, 1000))
def test_a_set_made_in_python_gets_the_same_calibration_as_its_specification(kind, size, seed):
    task = small()
    made = {"random": random_forget_set, "class_part": class_part, "cluster": cluster}[kind](task, size, seed=seed)
    spec = choose(task, f"{kind}:{size}", seed=seed)
    given_set = choose(task, made, seed=seed)
    assert given_set.forget is made
    np.testing.assert_array_equal(made.indices, spec.forget.indices)
    np.testing.assert_array_equal(given_set.calibration.indices, spec.calibration.indices)


def test_random_sets_are_uniform_over_examples():
    task, size, draws = small(), 8, 3000
    counts = sum(
        np.isin(np.arange(40), random_forget_set(task, size, seed=seed).indices).astype(int) for seed in range(draws)
    )
    expected = draws * size / 40
    spread = math.sqrt(draws * (size / 40) * (1 - size / 40))
    # Forty counts, each beyond five standard deviations with probability below 1e-6.
    assert np.abs(counts - expected).max() < 5 * spread


def test_calibration_sets_are_uniform_over_what_is_left():
    counts = np.zeros(40)
    forget = random_forget_set(small(), 8)
    for seed in range(500):
        counts[choose(small(), forget, seed=seed).calibration.indices] += 1
    assert counts[forget.indices].sum() == 0
    left = counts[forget.retain]
    assert np.abs(left - 500 * 8 / 32).max() < 5 * math.sqrt(500 * 0.25 * 0.75)


def test_class_part_stays_in_one_class_and_so_does_its_calibration():
    choice = choose(DIGITS, "class_part:50:3")
    assert set(DIGITS.train.y[choice.forget.indices].tolist()) == {3}
    assert set(DIGITS.train.y[choice.calibration.indices].tolist()) == {3}
    assert choice.forget.name == "class_part-50-class-3"
    free = choose(DIGITS, "class_part:70", seed=2)
    assert len(set(DIGITS.train.y[np.r_[free.forget.indices, free.calibration.indices]].tolist())) == 1


def mean_distance(x: torch.Tensor) -> float:
    return float(torch.cdist(x, x).mean())


def test_clusters_are_tighter_than_random_sets():
    x = DIGITS.train.x
    random = mean_distance(x[random_forget_set(DIGITS, 70).indices])
    for seed in range(5):
        choice = choose(DIGITS, "cluster:70", seed=seed)
        assert mean_distance(x[choice.forget.indices]) < 0.8 * random
        assert mean_distance(x[choice.calibration.indices]) < 0.8 * random


def test_cluster_equals_brute_force_on_given_features():
    task = small()
    features = torch.randn(40, 2, 3, generator=torch.Generator().manual_seed(3))
    found = cluster(task, 6, seed=4, features=features)
    centre = int(re.match(r"training example (\d+) ", found.how)[1])
    flat = features.reshape(40, -1).numpy().astype(np.float64)
    ranked = sorted(range(40), key=lambda i: (i != centre, math.dist(flat[i], flat[centre]), i))
    assert found.indices.tolist() == sorted(ranked[:6])
    assert len(choose(task, found).calibration) == 6


def test_cluster_with_copies_and_constant_inputs():
    x = np.repeat(np.arange(10.0), 4)[:, None] * np.array([[1.0, 0.0]])
    task = Task(
        name="copies",
        train=(x, np.arange(40) % 2),
        validation=(x + 1, np.arange(40) % 2),
        model=lambda: nn.Linear(2, 2),
        recipe=Recipe(epochs=1, peak_epoch=0.5),
    )
    values = {float(task.train.x[i, 0]) for i in cluster(task, 4, seed=1).indices}
    assert len(values) == 1


def test_mislabelled_points_are_wrong_and_all_others_right():
    task, forget = mislabelled(DIGITS, 70)
    changed = np.flatnonzero((task.train.y != DIGITS.train.y).numpy())
    np.testing.assert_array_equal(changed, forget.indices)
    torch.testing.assert_close(task.validation.y, DIGITS.validation.y)
    assert task.fingerprint != DIGITS.fingerprint
    choice = choose(DIGITS, "mislabelled:70")
    both = np.union1d(choice.forget.indices, choice.calibration.indices)
    np.testing.assert_array_equal(np.flatnonzero((choice.task.train.y != DIGITS.train.y).numpy()), both)
    with pytest.raises(InputError, match=r"task that mislabelled\(\) returned"):
        choose(DIGITS, forget)
    more = choose(task, forget)
    assert len(np.flatnonzero((more.task.train.y != DIGITS.train.y).numpy())) == 140


def test_wrong_labels_are_uniform_over_the_other_classes():
    shifts = np.zeros(4)
    for seed in range(150):
        task, forget = mislabelled(small(), 8, seed=seed)
        shift = (task.train.y - small().train.y)[forget.indices] % 4
        shifts += np.bincount(shift.numpy(), minlength=4)
    assert shifts[0] == 0
    assert np.abs(shifts[1:] - 1200 / 3).max() < 5 * math.sqrt(1200 * 2 / 9)


def test_a_list_gets_a_class_matched_calibration_that_says_so():
    mine = ForgetSet.of(DIGITS, np.flatnonzero(DIGITS.train.y.numpy() == 7)[:30], name="mine", how="by hand")
    choice = choose(DIGITS, mine)
    assert set(DIGITS.train.y[choice.calibration.indices].tolist()) == {7}
    assert "only approximates" in choice.calibration.how
    whole_class = ForgetSet.of(DIGITS, np.flatnonzero(DIGITS.train.y.numpy() == 7), name="all-of-7", how="by hand")
    made_up = choose(DIGITS, whole_class).calibration
    assert len(made_up) == len(whole_class)
    assert f"{len(whole_class)} from other classes" in made_up.how


@pytest.mark.parametrize(
    "text", ["3\n1\n2\n", "index\n1\n2\n3\n", "\ufeffindex\r\n1\r\n2\r\n3", "# mine\n\n1.0\n2\n3,\n", '"1"\n"2"\n"3"\n']
)
def test_files_with_one_position_a_line(tmp_path, text):
    path = tmp_path / "my set.csv"
    path.write_text(text, encoding="utf-8", newline="")
    forget = from_file(DIGITS, path)
    assert forget.indices.tolist() == [1, 2, 3]
    assert forget.name == "my-set"
    assert choose(DIGITS, str(path)).forget.indices.tolist() == [1, 2, 3]


def test_numpy_files(tmp_path):
    np.save(tmp_path / "a.npy", np.array([5, 9], dtype=np.uint16))
    assert from_file(DIGITS, tmp_path / "a.npy").indices.tolist() == [5, 9]
    np.save(tmp_path / "o.npy", np.array([5, "x"], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"o\.npy cannot be read as an array of numbers"):
        from_file(DIGITS, tmp_path / "o.npy")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    with pytest.raises(InputError, match=r"cut\.npy cannot be read"):
        from_file(DIGITS, tmp_path / "cut.npy")
    np.save(tmp_path / "m.npy", np.ones(1437, dtype=bool))
    with pytest.raises(InputError, match="is a mask"):
        from_file(DIGITS, tmp_path / "m.npy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\ntwo\n", r"line 2: 'two', expected one whole number a line"),
        ("index\nother\n1\n", r"line 2: 'other'"),
        ("1\n1.5\n", r"line 2: '1.5', expected"),
        ("1.5\n", r"line 1: '1.5', expected"),
        ("1\n\n1437\n", r"line 3: position 1437, expected 0 to 1436"),
        ("-1\n", r"line 1: position -1, expected 0 to 1436"),
        ("1,2\n", r"line 1: '1,2' has 2 values"),
        ("4\n4\n", "names position 4 2 times"),
        ("index\n", "is empty"),
    ],
)
def test_bad_lines_are_named(tmp_path, text, message):
    path = tmp_path / "f.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        from_file(DIGITS, path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nearest:70", "'nearest:70' is not known, expected one of: random:SIZE, class_part:SIZE"),
        ("random", "cannot be read, expected random:SIZE, such as random:70"),
        ("random:70:3", "cannot be read, expected random:SIZE"),
        ("random:x", "'x' is not a whole number"),
        ("random:-5", "'-5' is not a whole number"),
        ("random:0", "size = 0, expected a whole number of at least 1"),
        ("random:1437", "random of size 1437 asks for all of the 1437 training examples"),
        ("random:719", "expected fewer than half"),
        ("class_part:70:12", "label = 12, expected 0 to 9"),
        ("class_part:600", "fits no class: the largest has"),
        ("class_part:100:3", r"class 3 has \d+ training examples \(100 of them are in the forget set\)"),
        ("cluster:700", "no second cluster of this size is clear of the first"),
        ("missing.csv", "missing.csv does not exist"),
        (Path("set.json"), "ends in '.json', expected a file of indices: .npy, .csv, .txt"),
        (70, "forget set is a int, expected a ForgetSet, a file"),
    ],
)
def test_wrong_specifications_are_named(spec, message):
    with pytest.raises(InputError, match=message):
        choose(DIGITS, spec)


def test_features_and_foreign_sets_are_checked():
    with pytest.raises(InputError, match=r"features have shape \(3, 2\), expected"):
        cluster(DIGITS, 5, features=np.zeros((3, 2)))
    with pytest.raises(InputError, match="features hold non-finite"):
        cluster(small(), 5, features=np.full((40, 2), np.nan))
    with pytest.raises(InputError, match="was made for 40 training examples"):
        choose(DIGITS, random_forget_set(small(), 5))
