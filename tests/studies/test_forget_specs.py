"""Component forget sets by specification: read, computed once in the run's folder, with a calibration set beside."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.core import InputError
from expunge.dependence import subsets as subset_module
from expunge.ensembles import train
from expunge.papers.ascent_fails_to_forget.dependence import matching_targets
from expunge.studies.run.forget_specs import parse_component, resolve
from expunge.studies.run.subset_models import task_components, task_subsets
from reference.problems import forget_set, small_task


def test_a_component_set_comes_with_the_next_examples_for_calibration(tmp_path, monkeypatch):
    task, seen = small_task("mlp"), []
    choice = resolve(task, "component:1:top:6", tmp_path, subsets=40, progress=lambda done, _: seen.append(done))
    assert choice.task is task
    assert choice.forget.name == "component-1-top-6"
    assert choice.calibration.name == "component-1-top-6-next"
    assert seen[-1] == 40
    scores = task_components(task_subsets(task, tmp_path, subsets=40)).scores[:, 0]
    order = np.argsort(-scores)
    assert set(choice.forget.indices) == set(order[:6])
    assert set(choice.calibration.indices) == set(order[6:12])
    # Found again: nothing is trained for a second component, nor on resuming.
    monkeypatch.setattr(subset_module, "train", None)
    other = resolve(task, "component:2:both:6", tmp_path, subsets=40)
    assert not set(other.forget.indices) & set(other.calibration.indices)
    again = resolve(task, "component:1:top:6", tmp_path, subsets=40)
    assert again.forget.indices.tolist() == choice.forget.indices.tolist()


def test_everything_else_goes_to_the_choosers(tmp_path):
    task = small_task("mlp")
    assert resolve(task, "random:5", tmp_path, seed=3).forget.name == "random-5-seed-3"
    given = forget_set(task, 5)
    assert resolve(task, given, tmp_path).forget is given
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("component", "cannot be read"),
        ("component:1", "cannot be read"),
        ("component:one:top:5", "cannot be read"),
        ("component:1:top:5:5", "cannot be read"),
        ("component:1:top:-5", "cannot be read"),
        ("component:0:top:5", "component 0, expected 1 to 10"),
        ("component:11:top:5", "component 11, expected 1 to 10"),
        ("component:1:left:5", "side = 'left'"),
        ("component:1:top:0", "size 0"),
        ("component:1:top:25", "fewer than half"),
    ],
)
def test_bad_specifications_are_refused_before_any_training(tmp_path, spec, message):
    with pytest.raises(InputError, match=message):
        resolve(small_task("mlp"), spec, tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_a_size_the_papers_share_is_taken():
    assert parse_component("component:1:top", 50_000) == (1, "top", 100)
    assert parse_component("component:1:bottom", 1437) == (1, "bottom", 20)
    assert parse_component("component:2:both", 1437) == (2, "both", 40)


def test_targets_of_margin_matching_are_the_predicted_oracle_margins_at_their_true_cost(tmp_path):
    task = small_task("mlp")
    forget, pretrained = forget_set(task, 5), train(task, members=4)
    trained = task_subsets(task, tmp_path, subsets=60)
    made = matching_targets(task, pretrained, forget, trained)
    margins = pretrained.margins(task.train.x, task.train.y)
    moved = (made.targets - margins).numpy()
    np.testing.assert_allclose(moved.mean(0), made.removal.change, atol=1e-10)
    np.testing.assert_allclose(
        moved[:, forget.retain], np.tile(made.removal.change, (4, 1))[:, forget.retain], atol=1e-10
    )
    wider = (made.targets.std(0) / margins.std(0)).numpy()[forget.indices]
    for place, index in enumerate(forget.indices):
        seen = trained.masks[:, index]
        apart = trained.margins[~seen, index].std(ddof=1) / trained.margins[seen, index].std(ddof=1)
        assert wider[place] == pytest.approx(apart, rel=1e-4)
    assert moved[:, forget.indices].mean() < moved[:, forget.retain].mean()
    # 60 models on 25 examples against 4 on 45, for the same number of epochs.
    assert made.cost == pytest.approx(60 * 25 / (4 * 45))
