"""Any methods, asked for together, reach their report on every built-in task.

Training and unlearning are replaced by drawing margins; what is planned, judged, chosen, written and drawn is real.
"""

from __future__ import annotations

import functools
import itertools
import re

import pytest
import torch

import expunge as ex
from expunge.core import InputError, Record
from expunge.core.record import SPLITS, CheckRecord
from expunge.methods import METHODS, EarlyStoppedRetrain, FineTune, Scrub, Stop, Trained
from expunge.methods.method import lacking
from expunge.report.headline import headline
from expunge.studies.audit import forget_set
from expunge.studies.audit.illusion import Gap
from expunge.studies.audit.selection import LAST, select_all
from expunge.studies.run import measure
from expunge.studies.run.grid import on_scale, plan_runs
from expunge.tasks.user_task import BUILT_IN
from reference.problems import forget_set as forget_ten
from reference.problems import small_task

NAMES = [
    name
    for name, method in METHODS.items()
    if not method.needs & {"convex", "convex_descent", "whole_classes", "full_batch", "voters"}
]
MEMBERS = 20


@functools.cache
def built(spec):
    """A built-in task, made once: how its models are evaluated is tried out for each."""
    return BUILT_IN[spec]()


def draw(ensemble, parts):
    """Margins that nothing had to be learned for."""
    generator = torch.Generator().manual_seed(ensemble.seed)
    found = {}
    for split in SPLITS:
        found[f"margins/{split}"] = torch.randn(len(ensemble), len(parts.splits[split]), generator=generator)
        found[f"accuracy/{split}"] = torch.full((len(ensemble),), 0.5, dtype=torch.float64)
    return found


@pytest.fixture
def quick(monkeypatch):
    """Few examples are scored, nothing is trained, and a stopping time is a draw."""

    def untrained(task, **options):
        options = {key: options[key] for key in ("members", "seed")}
        return ex.train(task, epochs=0, chunk=MEMBERS, **options)

    def stops(study, task, pretrained, method, forget, aims):
        assert "targets" not in method.needs or forget.name in aims
        parts = measure.Parts.of(task, forget, study.seed)
        check = CheckRecord(name="drawn", passed=True, detail="")
        cost = method.planned_cost(len(forget), len(forget.retain), task.recipe.epochs)
        return [
            Stop(epoch, cost, draw(pretrained, parts), {}, (check,)) for epoch in range(1, method.planned_stops + 1)
        ]

    def predict(study, task, pretrained, choice, runs):
        return None, {choice.forget.name: None, choice.calibration.name: None}

    monkeypatch.setattr(FineTune, "grid", classmethod(lambda kind, recipe: [kind(epochs=3), kind(lr=0.1, epochs=2)]))
    monkeypatch.setattr(measure, "RETAIN_EXAMPLES", 4)
    monkeypatch.setattr(measure, "VALIDATION_EXAMPLES", 4)
    monkeypatch.setattr(measure.Parts, "measure", lambda parts, ensemble: draw(ensemble, parts))
    monkeypatch.setattr(forget_set, "train", untrained)
    monkeypatch.setattr(forget_set, "_stops", stops)
    monkeypatch.setattr(forget_set, "_predict", predict)


def audit(spec, names, folder):
    """Audit one setting of each method, and return the forget set's record."""
    task = built(spec)
    asked = [METHODS[name].grid(task.recipe)[0] for name in names]
    run = ex.audit(task, forget=["random:20"], methods=asked, members=MEMBERS, out=folder)
    assert run.report.is_file()
    return Record.load(run.folder).forget_sets[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_method_alone_runs_to_its_report(name, quick, tmp_path):
    forget = audit("digits:batchnorm", [name], tmp_path / "run")
    controls = {name for name, kind in METHODS.items() if kind.role == "control"}
    assert {c.method for c in forget.configurations} == {name} | controls
    assert {selection.method for selection in forget.selections} == {name} | controls


@pytest.mark.parametrize("spec", BUILT_IN)
def test_all_methods_run_to_their_report_on_every_task(spec, quick, tmp_path):
    """And from what they reached, every subset of them (the controls are always there) is chosen from and told."""
    task = built(spec)
    lacks = {"whole_classes", *lacking(task), *(["targets"] if task.voting is not None else [])}
    names = [name for name, method in METHODS.items() if not method.needs & lacks]
    forget = audit(spec, names, tmp_path / "run")
    assert [selection.method for selection in forget.selections if selection.method not in names] == []
    chosen = {name: kind.chosen for name, kind in METHODS.items()}
    candidates = [name for name in names if METHODS[name].role == "candidate"]
    for size in {0, 1, 2, len(candidates) - 2, len(candidates) - 1}:  # all subsets would double with every method
        for left_out in itertools.combinations(candidates, size):
            kept = [c for c in forget.configurations if c.method not in left_out]
            made = select_all(kept, chosen, lambda chosen, tried: Gap(0.0, 0.0, 0.0))
            assert {selection.method for selection in made} == set(names) - set(left_out)
            told = headline(forget.model_copy(update={"configurations": kept, "selections": made}))
            assert told.sentence


def test_whole_grids_off_scale_are_placed_and_settings_that_were_given_are_not():
    task = small_task("mlp")
    forget, pretrained = forget_ten(task, 10), ex.train(task, members=5)
    slow = small_task("mlp", lr=1e-9)
    runs = plan_runs(slow, ["gradient_ascent", Scrub(lr=1e-9, epochs=2)])
    placed, sentences = on_scale(runs, slow, pretrained, forget, 0)
    kept = {(one.name, one.lr == other.lr) for one, other in zip(runs, placed, strict=True) if isinstance(one, Trained)}
    assert kept == {("fine_tune", False), ("gradient_ascent", False), ("scrub", True)}
    assert len(sentences) == 1
    assert re.search(r"were put on scale.*: Fine-tune on R x [\de+.]+, Gradient ascent x [\de+.]+\.$", sentences[0])
    runs = plan_runs(task, None)
    assert on_scale(runs, task, pretrained, forget, 0) == (runs, [])


def test_what_the_model_lacks_is_refused_before_any_work(tmp_path):
    with pytest.raises(InputError, match="statistics_alone needs normalisation statistics, and the model keeps none"):
        ex.audit(
            ex.tasks.digits(), forget=["random:20"], methods=["statistics_alone"], members=MEMBERS, out=tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


def test_a_candidate_alone_beside_batch_norm_is_judged_for_real(tmp_path, monkeypatch):
    """The control of statistics has several stopping times and no calibration: nothing is chosen for it."""
    for control in (FineTune, EarlyStoppedRetrain):
        monkeypatch.setattr(control, "grid", classmethod(lambda kind, recipe: [kind()]))
    task = small_task("mlp_norm")
    arguments = {"forget": ["random:10"], "members": MEMBERS, "out": tmp_path / "run", "forecast": False}
    run = ex.audit(task, methods=[Scrub(lr=0.02, epochs=2, msteps=1)], **arguments)
    chosen = {selection.method: selection for selection in run.record.forget_sets[0].selections}
    assert chosen["statistics_alone"].rule == LAST
    assert chosen["statistics_alone"].chosen == "statistics_alone@10"
    assert run.report.is_file()
