"""The setting that an audit found, for one model: which is taken, and which audits are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import expunge as ex
from expunge.core import DamagedFileError, InputError, Record, Result
from expunge.core.passing import working
from expunge.core.record import (
    SPLITS,
    CheckRecord,
    ConfigurationRecord,
    ForgetRecord,
    SelectionRecord,
    VerdictRecord,
)
from expunge.core.unlearning import Unlearning
from expunge.methods import (
    DoNothing,
    EarlyStoppedRetrain,
    GradientAscent,
    MarginMatching,
    Method,
    Retrain,
    from_function,
)
from expunge.report.headline import headline
from expunge.studies.request.audited import audited
from expunge.studies.run.grid import relative_options, run_name
from expunge.studies.run.measure import Parts
from expunge.studies.run.seeds import digest_forget
from reference.problems import forget_set, small_task

TASK = small_task("mlp", precision="float32")
FORGET = forget_set(TASK)
PRETRAINED = ex.train(TASK, members=4, seed=2)
ASCENT, EARLY = GradientAscent(lr=0.02, epochs=5), EarlyStoppedRetrain(cost=0.5)


def own(model, retain_loader, forget_loader, validation_loader):
    """A function of the user's, which no record holds."""


Found = tuple[Method, str, float, bool]
"""A method, its verdict, its cost, and whether it passed its checks."""


def configuration(found: Found) -> ConfigurationRecord:
    method, verdict, cost, passed = found
    epoch = min(3, method.planned_stops)
    result = Result("klom", "p95", 0.2, 0.1, 0.3, 0.2, members=20)
    return ConfigurationRecord(
        id=f"{run_name(method)}@{epoch}",
        run=run_name(method),
        method=method.name,
        label=method.label,
        options=relative_options(method, TASK),
        statistics=method.statistics,
        epoch=epoch,
        cost=cost,
        control=method.role == "control",
        scores=dict.fromkeys(SPLITS, result),
        means={},
        shifts={},
        accuracy={},
        public={},
        checks=[CheckRecord(name="weights moved", passed=passed, detail="as told")],
        verdict=VerdictRecord(name=verdict, sentence=f"It is {verdict}.", tolerance=0.125),  # type: ignore[arg-type]
    )


def audit_folder(folder: Path, *found: Found, forget: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write the folder of an audit that found this."""
    configurations = [configuration(each) for each in found]
    selections = [
        SelectionRecord(
            method=c.method, rule="as told", chosen=c.id, best=c.id, illusion_gap=0.0, objective="least", edge=[]
        )
        for c in configurations
    ]
    of_set: dict[str, Any] = {
        "name": FORGET.name,
        "size": len(FORGET),
        "how": FORGET.how,
        "chooser": FORGET.chooser,
        "classes": [3, 2, 2],
        "calibration_name": "other",
        "calibration_how": "drawn",
        "retain_examples": 43,
        "floor": {},
        "pretrained": {},
        "pretrained_public": {},
        "floor_public": {},
        "nothing_to_unlearn": False,
        "checklist": [],
        "oracle_accuracy": {},
        "pretrained_accuracy": {},
        "configurations": configurations,
        "selections": selections,
        "worst": [],
        "margins": "margins/some-7.safetensors",
    }
    fields: dict[str, Any] = {
        "status": "complete",
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": 1.0,
        "command": "expunge audit mine",
        "request": {
            "fingerprint": TASK.fingerprint,
            "forget": [{"name": FORGET.name, "digest": digest_forget(FORGET)}],
            "seed": 0,
        },
        "environment": {},
        "study": "audit",
        "task": {"name": TASK.name},
        "members": 20,
        "tolerance": 0.125,
        "forget_sets": [ForgetRecord(**{**of_set, **(forget or {})})],
    }
    Record(**{**fields, **changes}).save(folder)
    (folder / "margins").mkdir()
    measured = Parts.of(TASK, FORGET, 0).measure(PRETRAINED)
    save_file({f"pretrained/{s}": measured[f"margins/{s}"] for s in SPLITS}, folder / "margins" / "some-7.safetensors")
    return folder


GOOD: tuple[Found, ...] = (
    (DoNothing(), "under-forgotten", 0.0, True),
    (ASCENT, "indistinguishable", 0.2, True),
    (EARLY, "indistinguishable", 0.5, True),
    (Retrain(), "indistinguishable", 1.0, True),
)


def test_the_cheapest_that_passed_is_stopped_where_the_audit_stopped_it(tmp_path: Path) -> None:
    run, model = audit_folder(tmp_path / "audit", *GOOD), PRETRAINED.export(0, tmp_path / "model.pt")
    done = ex.unlearn_checkpoint(model, TASK, FORGET, f"audited:{run}", out=tmp_path / "out", device="cpu")
    record = done.record
    assert (record.method, record.stop, record.source) == ("gradient_ascent", 3, "audit")
    assert record.audit is not None
    assert record.audit.run == str(run)
    assert record.options["lr"] == 0.02
    assert len(record.splits) == 3
    by_hand = ex.unlearn(PRETRAINED[:1], TASK, FORGET, GradientAscent(lr=0.02, epochs=3))
    state = torch.load(done.model, weights_only=True)
    torch.testing.assert_close(state["0.weight"], by_hand.params["0.weight"][0])
    assert any("An audit of 20 models found this setting" in sentence for sentence in record.advice)
    assert not any("like none of the pretrained" in note for note in record.notes)


def test_what_the_headline_recommends_is_what_is_used(tmp_path: Path) -> None:
    run = audit_folder(tmp_path / "audit", *GOOD)
    forget = Record.load(run).forget_sets[0]
    found = audited(run, TASK, FORGET)
    assert working(forget)[0].method == found.method.name == "gradient_ascent"
    assert headline(forget).sentence.startswith(found.method.label)


@pytest.mark.parametrize(
    ("found", "method"),
    [
        ((*GOOD[:1], (ASCENT, "indistinguishable", 0.2, False), *GOOD[2:]), EARLY),
        ((*GOOD[:1], (ASCENT, "undecided", 0.2, True), *GOOD[2:]), EARLY),
        (((MarginMatching(), "indistinguishable", 0.4, True), *GOOD[2:]), EARLY),
        ((*GOOD[:1], GOOD[3]), Retrain()),
        (((DoNothing(), "indistinguishable", 0.0, True), GOOD[3]), Retrain()),
    ],
)
def test_what_cannot_be_used_is_passed_over(tmp_path: Path, found: tuple[Found, ...], method: Method) -> None:
    setting = audited(audit_folder(tmp_path / "audit", *found), TASK, FORGET)
    assert setting.method == method
    assert setting.stop is None
    assert bool(setting.notes) == isinstance(found[0][0], MarginMatching)


OTHER = {"fingerprint": TASK.fingerprint, "forget": [{"name": FORGET.name, "digest": "another"}]}


@pytest.mark.parametrize(
    ("found", "changes", "message"),
    [
        (GOOD[:1], {}, "found nothing to use on some-7: none was indistinguishable .*Do nothing is under-forgotten"),
        (
            ((ASCENT, "indistinguishable", 0.2, False),),
            {},
            r"cannot be used \(Gradient ascent failed: weights moved\); retrain",
        ),
        (GOOD, {"status": "running"}, "holds an audit that is not complete; finish it first"),
        (GOOD, {"request": {**OTHER, "fingerprint": "x"}}, "with other data, another model or another training"),
        (GOOD, {"request": OTHER}, r"an audit of other forget sets \(some-7 \(7 rows\)\) than the 7 rows of some-7"),
        (GOOD, {"request": {"fingerprint": TASK.fingerprint}}, "an audit of other forget sets"),
        (GOOD, {"forget": {"nothing_to_unlearn": True}}, "found nothing to unlearn in some-7"),
        (GOOD, {"forget": {"chooser": "mislabelled"}}, "on data in which wrong labels were planted"),
        (((from_function(own), "indistinguishable", 0.1, True), *GOOD), {}, "is own, a function of your own"),
    ],
)
def test_audits_that_cannot_answer_are_refused(tmp_path, found, changes, message):
    run = audit_folder(tmp_path / "audit", *found, **changes)
    with pytest.raises(InputError, match=message):
        audited(run, TASK, FORGET)


def test_options_of_another_version_are_refused(tmp_path: Path) -> None:
    run = audit_folder(tmp_path / "audit", GOOD[1])
    record = Record.load(run)
    record.forget_sets[0].configurations[0].options["speed"] = 3
    record.save(run)
    with pytest.raises(DamagedFileError, match="options of gradient_ascent that this version"):
        audited(run, TASK, FORGET)


def test_a_model_unlike_those_of_the_audit_is_told(tmp_path: Path) -> None:
    run = audit_folder(tmp_path / "audit", *GOOD)
    sharp = PRETRAINED.module(0)
    with torch.no_grad():
        for tensor in sharp[2].parameters():
            tensor *= 6
    torch.save(sharp.state_dict(), tmp_path / "model.pt")
    words = ["unlearn", str(tmp_path / "model.pt"), "x.py", "--forget", "x.csv", "--method", "audited", str(run)]
    done = ex.unlearn_checkpoint(tmp_path / "model.pt", TASK, FORGET, f"audited {run}", out=tmp_path / "out")
    assert "like none of the pretrained models of the audit" in " ".join(done.record.notes)
    from expunge.cli import app

    result = CliRunner().invoke(app, words)
    assert "x.py does not exist" in str(result.exception)  # both words were read as the method
    assert Unlearning.load(tmp_path / "out").request["method"].startswith("gradient_ascent")
