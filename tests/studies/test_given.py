"""Audits of models that were given: the same numbers as if they had been trained there, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.reference.problems import mlp, small_task

import expunge as ex
from expunge.cli import app
from expunge.cli.shared import by_forget_set
from expunge.core import Ensemble, InputError, Record
from expunge.core.seeds import derive
from expunge.methods import FineTune, GradientAscent, from_function
from expunge.studies.run.given import Given
from expunge.studies.run.seeds import pretrained_seed
from expunge.tasks import choose

TASK = small_task("mlp_norm", n=90, precision="float32")
FORGET = ex.ForgetSet.of(TASK, range(10), name="ten", how="the first ten rows")
MEMBERS, SEED = 20, 3


def head_down(model, retain_loader, forget_loader, validation_loader, scale=0.9):  # type: ignore[no-untyped-def]
    model[3].weight.data.mul_(scale)


METHODS: list[Any] = [
    GradientAscent(lr=0.05, epochs=2),
    FineTune(lr=0.02, epochs=1),
    from_function(head_down),
    from_function(head_down, scale=0.5),
]


@pytest.fixture(scope="module")
def made() -> dict[str, Ensemble]:
    """The ensembles that an audit with this seed trains."""
    seeds = {kind: derive(SEED, "audit", kind) % 2**31 for kind in ("oracle", "held-out oracle")}
    return {
        "pretrained": ex.train(TASK, members=MEMBERS, seed=pretrained_seed(SEED), chunk=10),
        "oracles": ex.train(TASK, members=MEMBERS, without=FORGET, seed=seeds["oracle"], chunk=10),
        "held_out": ex.train(TASK, members=MEMBERS, without=FORGET, seed=seeds["held-out oracle"], chunk=10),
    }


@pytest.fixture(scope="module")
def files(made: dict[str, Ensemble], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same as a training script leaves them: PyTorch's files, safetensors files, a saved ensemble."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "oracles").mkdir()
    for k in range(MEMBERS):
        torch.save({"epoch": 3, "state_dict": made["pretrained"].module(k).state_dict()}, folder / f"{k}.pt")
        made["oracles"].export(k, folder / "oracles" / f"oracle-{k}.safetensors")
    return {
        "pretrained": f"{folder}/*.pt",
        "oracles": folder / "oracles",
        "held_out": made["held_out"].save(folder / "held_out"),
    }


def audit(out: Path, methods: Any = METHODS, **options: Any) -> ex.Run:
    options = {"members": MEMBERS, "seed": SEED, "forecast": False, "chunk": 10, "forget": [FORGET], **options}
    return ex.audit(TASK, methods=methods, out=out, **options)


@pytest.fixture(scope="module")
def given(files: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> ex.Run:
    return audit(tmp_path_factory.mktemp("audit") / "given", **files)


def test_given_models_give_the_numbers_of_trained_ones(given: ex.Run, tmp_path: Path) -> None:
    trained = audit(tmp_path / "trained")
    mine, theirs = given.record.forget_sets[0], trained.record.forget_sets[0]
    different = {"margins_digest", "checklist"}
    assert mine.model_dump_json(exclude=different) == theirs.model_dump_json(exclude=different)
    assert mine.checklist[:-1] == theirs.checklist
    assert mine.checklist[-1].name == "the recipe trains models like those given"
    assert mine.checklist[-1].passed
    assert given.report.is_file()


def test_the_record_says_what_was_given(given: ex.Run) -> None:
    record = Record.load(given.folder)
    entries = {e.role: e.given for e in record.ensembles}
    assert entries == {
        "pretrained": True,
        "oracle, ten": True,
        "held-out oracle, ten": True,
        "oracle, ten, calibration": False,
        "held-out oracle, ten, calibration": False,
    }
    assert any("Given, not trained here: pretrained models, oracle models of ten" in note for note in record.notes)
    assert set(record.request["given"]) == {"pretrained", "oracle ten", "held-out oracle ten"}
    assert "pretrained='" in record.command
    page = given.report.read_text()
    assert "Given, not trained here" in page
    assert "<td>given</td>" in page


def test_own_functions_are_chosen_among_like_other_methods(given: ex.Run) -> None:
    forget = given.record.forget_sets[0]
    own = [c for c in forget.configurations if c.method == "head_down"]
    assert [c.id for c in own] == ["head_down/scale=0.9@1", "head_down/scale=0.5@1"]
    assert len({c.id for c in forget.configurations}) == len(forget.configurations)
    assert all(c.calibration is not None for c in own)
    assert [s.method for s in forget.selections].count("head_down") == 1


def test_it_is_gone_on_with_for_the_same_models_alone(given: ex.Run, files: dict[str, Any], made: Any) -> None:
    before = (given.folder / "record.json").read_bytes()
    assert audit(given.folder, resume=True, **files).record.status == "complete"
    assert (given.folder / "record.json").read_bytes() == before
    for other in ({**files, "held_out": None, "oracles": None}, {**files, "pretrained": None}, {}):
        with pytest.raises(InputError, match=r"holds another audit \(different: given"):
            audit(given.folder, resume=True, **other)


def test_oracles_are_halved_for_want_of_others_and_numbers_of_members_may_differ(tmp_path: Path) -> None:
    oracles = ex.train(TASK, members=40, without=FORGET, seed=5, chunk=10)
    other = dataclasses.replace(TASK.recipe, epochs=12)
    trained = ex.train(TASK, members=25, seed=77, chunk=10, recipe=other)
    pretrained = Ensemble.from_modules([trained.module(k) for k in range(25)], TASK)
    methods = [GradientAscent(lr=0.05, epochs=1)]
    run = audit(tmp_path / "halves", methods, pretrained=pretrained, oracles={"ten": oracles}, forecast=True)
    members = {e.role: e.members for e in run.record.ensembles}
    assert members["oracle, ten"] == members["held-out oracle, ten"] == members["oracle, ten, calibration"] == 20
    assert members["pretrained"] == run.record.members == 25
    assert run.record.forget_sets[0].configurations[0].scores["forget"].members == 25
    assert any("No held-out oracles of ten were given" in note for note in run.record.notes)
    assert "pretrained=pretrained, oracles={'ten': oracles_0}" in run.record.command
    assert run.record.forget_sets[0].floor["forget"].value > 0
    assert not run.record.forget_sets[0].checklist[-1].passed
    forecast = run.record.forget_sets[0].forecast
    assert forecast is not None
    assert forecast.members == 25


def test_the_command_line_takes_files_and_functions(files: dict[str, Any], tmp_path: Path) -> None:
    from typer.testing import CliRunner

    (tmp_path / "mine.py").write_text(
        "from tests.studies.test_given import TASK as task\n\n\n"
        "def forget_head(model, retain_loader, forget_loader, validation_loader):\n"
        "    for inputs, targets in forget_loader:\n"
        "        assert model(inputs).shape == (len(targets), 3)\n"
        "    model[3].weight.data.mul_(0.5)\n"
    )
    (tmp_path / "rows.csv").write_text("\n".join(str(row) for row in range(10)) + "\n")
    words = ["audit", f"{tmp_path}/mine.py", "--forget", f"{tmp_path}/rows.csv", "--no-forecast", "--chunk", "10"]
    words += ["--members", "20", "--methods", f"{tmp_path}/mine.py:forget_head", "--out", f"{tmp_path}/run"]
    words += ["--pretrained", files["pretrained"], "--oracles", f"rows={files['oracles']}"]
    words += ["--held-out", str(files["held_out"])]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    record = Record.load(tmp_path / "run")
    assert {c.method for c in record.forget_sets[0].configurations} >= {"forget_head", "retrain"}
    assert sum(e.given for e in record.ensembles) == 3


def test_what_cannot_be_used_is_said_before_any_work(made: dict[str, Ensemble], tmp_path: Path) -> None:
    pretrained, oracles, held_out = made["pretrained"], made["oracles"], made["held_out"]
    other = small_task("mlp", precision="float32")
    for number in range(20):
        torch.save(mlp(), tmp_path / f"pickled-{number}.pt")
    two = [FORGET, ex.ForgetSet.of(TASK, range(20, 30), name="other", how="ten more rows")]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"pretrained": pretrained[:19]}, "pretrained has 19 members, expected at least 20"),
        ({"oracles": oracles}, "oracles, to be halved for want of held_out, has 20 members, expected at least 40"),
        ({"held_out": held_out}, "held_out was given without oracles"),
        ({"oracles": oracles, "held_out": oracles}, "oracle 0 of ten and held-out oracle 0 of ten are the same model"),
        (
            {"pretrained": oracles, "oracles": oracles, "held_out": held_out},
            "pretrained 0 and oracle 0 of ten are the same",
        ),
        ({"pretrained": ex.train(other, members=20)}, r"pretrained\[0\] does not fit the model of task"),
        ({"pretrained": f"{tmp_path}/*.pt"}, "pickled-0.pt holds pickled Python objects"),
        ({"pretrained": 3}, "pretrained is an int, expected an expunge.Ensemble"),
        ({"pretrained": "nowhere/*.pt"}, r"no file matches 'nowhere/\*.pt'"),
        (
            {"oracles": {"elf": oracles}, "held_out": {"elf": held_out}},
            "oracles were given for 'elf', expected a mapping with names among ten",
        ),
        (
            {"forget": two, "oracles": oracles, "held_out": held_out},
            "without the name of a forget set, expected a mapping with names among ten, other",
        ),
        ({"forget": ["mislabelled:10"], "pretrained": pretrained}, "plants wrong labels before training"),
    ]
    for options, message in cases:
        with pytest.raises(InputError, match=message):
            audit(tmp_path / "run", **options)
        assert not (tmp_path / "run").exists()


def test_a_trained_ensemble_stays_what_it_was(made: dict[str, Ensemble]) -> None:
    found = Given.of(TASK, made["pretrained"], None, None, 20).models["pretrained", ""]
    assert found.provenance["specification"] == made["pretrained"].provenance["specification"]
    assert json.dumps(Given.of(TASK, None, None, None, 20).digests()) == "{}"


def test_several_forget_sets_have_their_models_by_name(made: dict[str, Ensemble]) -> None:
    other = ex.ForgetSet.of(TASK, range(20, 30), name="other", how="ten more rows")
    choices = [choose(TASK, forget, seed=0) for forget in (FORGET, other, "random:10")]
    more = ex.train(TASK, members=41, without=other, seed=8, chunk=10)
    held_out = {"ten": made["held_out"]}
    given = Given.of(TASK, None, {"ten": made["oracles"], "other": more}, held_out, 20).of_sets(TASK, choices, 20)
    assert {key: len(models) for key, models in given.models.items()} == {
        ("oracle", "ten"): 20,
        ("held-out oracle", "ten"): 20,
        ("oracle", "other"): 21,
        ("held-out oracle", "other"): 20,
    }
    assert given.halved == ("other",)
    assert any("rest on 21 oracles on one side and 20 on the other" in note for note in given.notes(TASK))


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (None, None),
        (["models/*.pt"], "models/*.pt"),
        (["runs/epoch=3/"], "runs/epoch=3/"),
        (["ten=a/b", "other=c=d"], {"ten": "a/b", "other": "c=d"}),
    ],
)
def test_models_of_forget_sets_on_the_command_line(words: list[str] | None, found: Any) -> None:
    assert by_forget_set(words) == found
    with pytest.raises(InputError, match="models of 2 forget sets were given"):
        by_forget_set(["ten=a", "b"])


def test_a_function_that_fails_is_known_before_any_training(tmp_path: Path) -> None:
    def wrong(model, retain_loader, forget_loader, validation_loader):  # type: ignore[no-untyped-def]
        return model.no_such_layer

    with pytest.raises(InputError, match=r"member 0: AttributeError: .*\(test_given\.py, line \d+: return model"):
        audit(tmp_path / "run", [from_function(wrong)])
    assert not (tmp_path / "run").exists()
