"""Loops of one's own, and estimators, from training to the report."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

import expunge as ex
from expunge.core import InputError
from reference.own_loops import careful_loop, loop, net, own_task


def test_a_careful_loop_is_audited_to_a_report(tmp_path):
    task = own_task(careful_loop, model=lambda: net(0.1))
    tried = [ex.methods.GradientAscent(lr=0.01, epochs=2), ex.methods.FineTune(lr=0.01, epochs=1)]
    options = {
        "forget": "random:12",
        "methods": tried,
        "members": 20,
        "forecast": False,
    }
    run = ex.audit(task, out=tmp_path / "run", **options)
    (forget,) = run.record.forget_sets
    assert {c.method for c in forget.configurations} >= {"retrain", "do_nothing", "fine_tune", "gradient_ascent"}
    assert "early_stopped_retrain" not in {c.method for c in forget.configurations}
    assert any("stopped early is left out: it needs epochs of a recipe" in note for note in run.record.notes)
    retrained = next(c for c in forget.configurations if c.method == "retrain")
    assert retrained.cost == 1
    assert retrained.scores["forget"].value < forget.pretrained["forget"].value + 1
    assert "careful_loop" in run.report.read_text()
    foreseen = ex.forecast(
        task, forget="random:12", methods="fine_tune", members=3, followed=2, out=tmp_path / "foreseen"
    )
    assert "a loop of its own" in foreseen.record.model_dump_json()


def test_retraining_is_a_fresh_draw_of_the_same_loop_and_is_found_again(tmp_path):
    calls = []

    def fit(model, dataset, seed):
        calls.append(dataset.rows.tolist())
        loop(model, dataset, seed)

    task = own_task(fit)
    forget = ex.tasks.random_forget_set(task, size=10, seed=0)
    pretrained = ex.train(task, members=3)
    oracles = ex.train(task, members=3, without=forget)
    made = [ex.unlearn(pretrained, task, forget, ex.methods.Retrain(), store=tmp_path, workers=1) for _ in range(2)]
    assert calls == [forget.retain.tolist()] * 3
    for name, tensor in made[0].params.items():
        assert torch.equal(tensor, made[1].params[name])
        assert not torch.equal(tensor, oracles.params[name])
    assert made[0].trace.cost == 1
    with pytest.raises(InputError, match=r"early_stopped_retrain needs epochs of a recipe, and clouds trains by a fit"):
        ex.unlearn(pretrained, task, forget, ex.methods.EarlyStoppedRetrain())
    descended = ex.unlearn(pretrained, task, forget, ex.methods.GradientAscent(lr=0.01, epochs=1))
    assert len(descended) == 3


def test_a_random_forest_is_audited_to_a_report(tmp_path):
    x, y = load_digits(return_X_y=True)
    forest = RandomForestClassifier(n_estimators=10, max_depth=6)
    task = ex.tasks.from_estimator(forest, x[:300], y[:300], validation=(x[300:400], y[300:400]))
    run = ex.audit(task, forget="random:20", members=20, out=tmp_path / "run")
    (forget,) = run.record.forget_sets
    assert {c.method for c in forget.configurations} == {"do_nothing", "retrain"}
    excess = {c.method: c.scores["forget"].excess for c in forget.configurations}
    assert excess["retrain"] < 0.3 < excess["do_nothing"]
    assert any(note.startswith("No forecast was made: a forecast needs weights") for note in run.record.notes)
    assert any("Fine-tune on R is left out" in note and "outputs alone" in note for note in run.record.notes)
    assert run.report.is_file()
    with pytest.raises(InputError, match=r"scrub needs weights, and the models of RandomForestClassifier are known by"):
        ex.audit(task, forget="random:20", methods=["scrub"], members=20, out=tmp_path / "other")
    assert not (tmp_path / "other").exists()
    ensemble = ex.train(task, members=2)
    chosen = ex.tasks.random_forget_set(task, size=10, seed=0)
    with pytest.raises(InputError, match="gradient_ascent needs weights"):
        ex.unlearn(ensemble, task, chosen, ex.methods.GradientAscent(lr=0.1))
    assert len(ex.unlearn(ensemble, task, chosen, ex.methods.Retrain())) == 2
    assert bool(torch.isfinite(ensemble.margins(task.train.x, task.train.y)).all())
