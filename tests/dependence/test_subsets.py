"""Subset ensembles: right subsets, right models, kept safely; memorisation and influence read off them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from expunge.core import DamagedFileError, DivergedError, InputError, Split
from expunge.core.seeds import derive
from expunge.dependence import SubsetEnsemble, subset_masks, subsets, train_subsets
from expunge.papers.ascent_fails_to_forget.dependence import memorisation, subset_influence, unseen_spread
from reference import datamodels_slow as slow
from reference.one_by_one import train_one
from reference.problems import small_task
from reference.unlearn_one_by_one import margin_of

TESTS = Path(__file__).parents[1]


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(subsets, "LARGEST_BLOCK", 4)


def same(one, other):
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("masks", "margins", "correct"))


def test_masks_have_exact_sizes_and_are_themselves():
    masks = subset_masks(50, 200, 0.3, seed=1)
    assert (masks.sum(1) == 15).all()
    assert np.array_equal(masks[40:60], subset_masks(50, 20, 0.3, seed=1, first=40))
    assert not np.array_equal(masks, subset_masks(50, 200, 0.3, seed=2))
    assert len(np.unique(masks, axis=0)) == 200
    # Each example is in a subset with probability .3: 60 of 200, standard deviation 6.5.
    assert abs(masks.sum(0) - 60).max() < 4 * 6.5
    pairs = (masks[:, 0] & masks[:, 1]).mean()
    assert abs(pairs - 0.3 * 14 / 49) < 0.1


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.5, float("nan"), 0.001, 0.999])
def test_alpha_must_leave_something_in_and_something_out(alpha):
    with pytest.raises(InputError, match="alpha = "):
        subset_masks(50, 3, alpha)
    with pytest.raises(InputError, match="alpha = "):
        train_subsets(small_task("mlp"), subsets=3, alpha=alpha)


def test_each_row_is_the_model_trained_alone_on_its_subset(small_blocks):
    task = small_task("mlp_norm")
    made = train_subsets(task, subsets=6, alpha=0.4, seed=3)
    assert made.margins.shape == (6, 70)
    assert made.alpha == 0.4
    assert made.own.tolist() == [*range(50), *[-1] * 20]
    for k in (0, 3, 5):
        module = train_one(task, np.flatnonzero(made.masks[k]), k, derive(3, "subsets") % 2**31)
        for x, y, part in (
            (task.train.x, task.train.y, slice(0, 50)),
            (task.validation.x, task.validation.y, slice(50, 70)),
        ):
            logits = module(x).detach()
            np.testing.assert_allclose(made.margins[k, part], margin_of(logits, y).numpy(), atol=1e-5)
            assert made.correct[k, part].tolist() == (logits.argmax(1) == y).tolist()


def test_rows_do_not_depend_on_how_many_there_are_or_on_the_targets(tmp_path, small_blocks):
    task = small_task("mlp", precision="float32")
    few = train_subsets(task, subsets=6, store=tmp_path, chunk=2)
    many = train_subsets(task, subsets=11, store=tmp_path, chunk=2)
    assert same(few, many[:6])
    assert same(many, train_subsets(task, subsets=11, chunk=2))
    train_targets = train_subsets(task, subsets=6, targets="train", chunk=2)
    # One more set of targets is another product of matrices: kernels may round its rows otherwise.
    np.testing.assert_allclose(train_targets.margins, few.margins[:, :50], atol=1e-6)
    given = train_subsets(task, subsets=6, targets=Split(task.validation.x, task.validation.y), chunk=2)
    np.testing.assert_allclose(given.margins, few.margins[:, 50:], atol=1e-6)
    assert (given.own == -1).all()
    again = train_subsets(task, subsets=11, store=tmp_path)
    assert same(many, again)
    assert again.seconds == 0
    assert not list(tmp_path.glob("*/weights"))


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from expunge.dependence import subsets
from expunge.ensembles.store import Shelf
from reference.problems import small_task

subsets.LARGEST_BLOCK = 4
real, seen = Shelf.save, []
def save(self, ids, params, buffers):
    if len(seen) == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    seen.append(ids)
    real(self, ids, params, buffers)
Shelf.save = save
subsets.train_subsets(small_task("mlp", precision="float32"), subsets=10, chunk=2, workers=1, store={store!r})
"""


@pytest.mark.parametrize("after", [1, 4])
def test_a_killed_run_goes_on_and_ends_with_identical_numbers(tmp_path, after, small_blocks):
    # Shards are written in the order: two of weights, one of rows, for each block of four.
    code = KILLED.format(tests=str(TESTS), store=str(tmp_path), after=after)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert result.returncode == -signal.SIGKILL, result.stderr
    task = small_task("mlp", precision="float32")
    resumed = train_subsets(task, subsets=10, chunk=2, store=tmp_path)
    assert same(resumed, train_subsets(task, subsets=10, chunk=2))
    assert not list(tmp_path.glob("*/weights"))


def test_a_damaged_file_is_named_and_refused(tmp_path):
    task = small_task("mlp")
    train_subsets(task, subsets=4, store=tmp_path)
    (shard,) = tmp_path.glob("*/members-*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DamagedFileError, match=shard.name):
        train_subsets(task, subsets=4, store=tmp_path)


def test_another_request_has_a_place_of_its_own(tmp_path):
    task = small_task("mlp")
    for options in ({}, {"alpha": 0.4}, {"seed": 1}, {"targets": "train"}):
        train_subsets(task, subsets=2, store=tmp_path, **options)
    assert len(list(tmp_path.iterdir())) == 4


def test_models_that_diverge_are_marked_and_all_of_them_are_an_error():
    with pytest.raises(DivergedError):
        train_subsets(small_task("mlp", lr=3e38), subsets=2)


def test_progress_counts_subsets(small_blocks):
    seen = []
    train_subsets(small_task("mlp"), subsets=6, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)
    assert seen == sorted(seen)


@pytest.mark.parametrize("targets", ["validation", Split(small_task("cnn").train.x, small_task("cnn").train.y)])
def test_targets_that_do_not_fit_are_refused(targets):
    with pytest.raises(InputError, match="targets"):
        train_subsets(small_task("mlp"), subsets=2, targets=targets)


def lookup_table(copies, n=40, k=4000, alpha=0.7):
    """A learner that is right on an example exactly if it, or an exact copy of it, was seen."""
    masks = subset_masks(n, k, alpha, seed=7)
    group = np.arange(n)
    group[: len(copies)] = copies
    correct = np.stack([masks[:, group == group[i]].any(1) for i in range(n)], axis=1)
    return SubsetEnsemble(masks, np.where(correct, 5.0, -5.0), correct, np.arange(n), alpha)


def test_a_lookup_table_memorises_what_is_unique_and_part_of_what_has_a_copy():
    table = lookup_table([0, 0])
    found = memorisation(table)
    np.testing.assert_allclose(found.value[2:], 1.0)
    # Without the example, its copy is there 7 times in 10 (28 of the other 39 in a subset of exactly 28).
    np.testing.assert_allclose(found.value[:2], 1 - 28 / 39, atol=4 * found.standard_error[0])
    margins = memorisation(table, "margins")
    np.testing.assert_allclose(margins.value, 10 * found.value)
    np.testing.assert_allclose(margins.standard_error, 10 * found.standard_error, atol=1e-6)
    influence = subset_influence(table)
    np.testing.assert_allclose(np.diag(influence.value), found.value)
    assert influence.value[0, 1] == pytest.approx(found.value[0], abs=0.05)
    assert abs(influence.value[2, 3]) < 4 * influence.standard_error[2, 3]


def test_labels_that_nothing_else_explains_are_memorised_by_a_real_model():
    task = small_task("logistic", n=40, epochs=30, lr=0.5, weight_decay=0.0)
    made = train_subsets(task, subsets=60, alpha=0.5)
    assert memorisation(made, "margins").value.mean() > 0
    assert memorisation(made).value.max() <= 1


@pytest.mark.parametrize("of", ["correct", "margins"])
def test_influence_equals_means_one_pair_at_a_time(of):
    rng = np.random.default_rng(0)
    masks, margins = subset_masks(9, 30, 0.4, seed=0), 100 + rng.normal(size=(30, 5))
    own = np.array([4, -1, 0, 8, -1])
    made = SubsetEnsemble(masks, margins, margins > 100, own, 0.4)
    values = made.correct.astype(float) if of == "correct" else margins
    found = subset_influence(made, of)
    for j in range(9):
        for i in range(5):
            expected = slow.difference(values[:, i], masks[:, j])
            assert (found.value[j, i], found.standard_error[j, i]) == pytest.approx(expected, abs=1e-10)
    part = subset_influence(made, of, slice(1, 3))
    np.testing.assert_allclose(part.value, found.value[:, 1:3], atol=1e-12)
    memory = memorisation(made, of)
    np.testing.assert_allclose(memory.value, [found.value[own[i], i] for i in (0, 2, 3)], atol=1e-12)


def test_the_spread_of_models_that_have_not_seen_an_example_is_relative_to_those_that_have():
    rng = np.random.default_rng(3)
    masks = subset_masks(6, 400, 0.5, seed=3)
    margins = np.where(masks, 1.0, 2.5) * rng.normal(size=(400, 6))
    margins = np.column_stack([margins, rng.normal(size=400)])
    margins[:, 5] = 7.0
    made = SubsetEnsemble(masks, margins, margins > 0, np.r_[np.arange(6), -1], 0.5)
    found = unseen_spread(made)
    assert found.shape == (6,)
    expected = [margins[~masks[:, i], i].std(ddof=1) / margins[masks[:, i], i].std(ddof=1) for i in range(5)]
    np.testing.assert_allclose(found[:5], expected)
    assert abs(found[:5].mean() - 2.5) < 0.3
    assert found[5] == 1.0


def test_standard_errors_of_influence_are_honest():
    rng = np.random.default_rng(1)
    masks = subset_masks(10, 40, 0.7, seed=1)
    margins = rng.normal(size=(40, 2000))
    made = SubsetEnsemble(masks, margins, margins > 0, np.full(2000, -1), 0.7)
    found = subset_influence(made, "margins")
    z = found.value / found.standard_error
    assert abs(z.mean()) < 0.05
    assert 0.97 < z.std() < 1.1  # Student's t with about 20 degrees of freedom


def test_too_few_subsets_with_or_without_an_example_are_refused():
    masks = np.ones((6, 3), bool)
    masks[:3, 0] = masks[:1, 1] = False
    made = SubsetEnsemble(masks, np.zeros((6, 3)), np.ones((6, 3), bool), np.arange(3), 0.5)
    with pytest.raises(InputError, match=r"example 1 is in 5 of 6 subsets \(2 examples"):
        memorisation(made)
    with pytest.raises(InputError, match="at least 2 with it"):
        subset_influence(made)
    with pytest.raises(InputError, match="no target is a training example"):
        memorisation(SubsetEnsemble(masks, np.zeros((6, 1)), np.ones((6, 1), bool), np.array([-1]), 0.5))
    with pytest.raises(InputError, match="of = 'loss'"):
        memorisation(made, "loss")
