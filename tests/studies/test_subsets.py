"""Any methods, asked for together, reach their report on every built-in task.

Training and unlearning are replaced by drawing margins; what is planned, judged, chosen, written and drawn is real.
"""

from __future__ import annotations

import itertools

import pytest
import torch

import expunge as ex
from expunge.core import Record
from expunge.core.record import SPLITS, CheckRecord
from expunge.methods import METHODS, Stop
from expunge.studies.audit import forget_set
from expunge.studies.run import measure
from expunge.tasks.user_task import BUILT_IN

NAMES = list(METHODS)
MEMBERS = 20
PAIRS = [("digits:batchnorm", pair) for pair in itertools.combinations(NAMES, 2)]
SINGLES = [(task, (name,)) for task in BUILT_IN for name in NAMES]


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
        options = {key: options[key] for key in ("members", "seed", "network")}
        return ex.train(task, epochs=0, chunk=MEMBERS, **options)

    def stops(study, task, pretrained, method, forget, aims):
        assert "targets" not in method.needs or forget.name in aims
        measured = draw(pretrained, measure.Parts.of(task, forget, study.seed))
        check = CheckRecord(name="drawn", passed=True, detail="")
        cost = method.planned_cost(len(forget), len(forget.retain), task.recipe.epochs)
        return [Stop(epoch, cost, measured, {}, (check,)) for epoch in range(1, method.planned_stops + 1)]

    def predict(study, task, pretrained, choice, runs):
        return None, {choice.forget.name: None, choice.calibration.name: None}

    monkeypatch.setattr(measure, "RETAIN_EXAMPLES", 4)
    monkeypatch.setattr(measure, "VALIDATION_EXAMPLES", 4)
    monkeypatch.setattr(measure.Parts, "measure", lambda parts, ensemble: draw(ensemble, parts))
    monkeypatch.setattr(forget_set, "train", untrained)
    monkeypatch.setattr(forget_set, "_stops", stops)
    monkeypatch.setattr(forget_set, "_predict", predict)


@pytest.mark.parametrize(
    ("task", "names"), [*SINGLES, *PAIRS], ids=lambda value: value if isinstance(value, str) else "+".join(value)
)
def test_every_method_and_pair_of_methods_runs_to_its_report(task, names, quick, tmp_path):
    built = BUILT_IN[task]()
    asked = [METHODS[name].grid(built.recipe)[0] for name in names]
    if task != "digits:batchnorm" and "statistics_alone" in names:
        with pytest.raises(ex.InputError, match="statistics_alone needs normalisation statistics"):
            ex.audit(built, forget=["random:20"], methods=asked, members=MEMBERS, out=tmp_path / "run")
        return
    run = ex.audit(built, forget=["random:20"], methods=asked, members=MEMBERS, out=tmp_path / "run")
    forget = Record.load(run.folder).forget_sets[0]
    methods = {c.method for c in forget.configurations}
    controls = {name for name, kind in METHODS.items() if kind.role == "control"}
    assert methods >= set(names) | (controls - {"statistics_alone"})
    assert ("statistics_alone" in methods) == (task == "digits:batchnorm")
    assert {selection.method for selection in forget.selections} == methods
    assert run.report.is_file()
