"""The command line in a pipeline: run files, answers as JSON, exit codes, silence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from expunge import api
from expunge.core import InputError
from expunge.core.record import Record
from expunge.report.answer import audit_answer, check_hope, forecast_answer, shortfalls

Shell = Callable[..., SimpleNamespace]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, record: Record, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What the command line asks of an audit, which then finds the example record."""
    seen: dict[str, Any] = {}

    def audit(task: Any, **options: Any) -> api.Run:
        seen.update(options, task=task)
        options["console"] and options["console"].print("working")
        return api.Run(tmp_path, record, tmp_path / "report.html")

    monkeypatch.setattr("expunge.api.audit", audit)
    monkeypatch.setattr("expunge.cli.shared.task_named", lambda name, train: name)
    return seen


def test_a_run_file_gives_every_option_by_its_name(tmp_path: Path, shell: Shell, asked: dict[str, Any]) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "run.toml").write_text(
        """
        task = "task.py:make"
        forget = ["random:70", "rows.csv"]
        methods = ["gradient_ascent", "mine.py:fn"]
        pretrained = "models/*.pt"
        oracles = { random-70 = "a", rows = "/b" }
        held-out = ["random-70=c", "rows=d"]
        members = 30
        tolerance = 0.5
        forecast = false
        seed = 4
        out = "runs/x"
        """
    )
    done = shell("audit", "--config", "conf/run.toml", "--seed", "9", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    wanted = {
        "task": "conf/task.py:make",
        "forget": ["random:70", "conf/rows.csv"],
        "methods": ["gradient_ascent", "conf/mine.py:fn"],
        "pretrained": "conf/models/*.pt",
        "oracles": {"random-70": "conf/a", "rows": "/b"},
        "held_out": {"random-70": "conf/c", "rows": "conf/d"},
        "members": 30,
        "tolerance": 0.5,
        "forecast": False,
        "seed": 9,
        "out": Path("conf/runs/x"),
        "resume": False,
    }
    assert {key: asked[key] for key in wanted} == wanted
    # The record can be replayed without that file.
    assert "--config" not in asked["command"]
    assert "--no-forecast" in asked["command"]
    assert "--seed 9" in asked["command"]


def test_a_record_is_run_again(tmp_path: Path, shell: Shell, asked: dict[str, Any]) -> None:
    words = ["tabular", "--forget", "my rows.csv", "--forget", "random:9", "--no-forecast", "--members", "25"]
    assert shell("audit", *words, "--resume", "--quiet", "--out", "a", cwd=tmp_path).returncode == 0
    first = dict(asked)
    assert "--resume" not in first["command"]
    assert "--quiet" not in first["command"]
    (tmp_path / "record.json").write_text(json.dumps({"command": first["command"], "members": 25}))
    assert shell("audit", "--config", "record.json", "--out", "b", cwd=tmp_path).returncode == 0
    same = set(first) - {"out", "command", "console", "resume"}
    assert {key: asked[key] for key in same} == {key: first[key] for key in same}
    assert (asked["out"], asked["resume"]) == (Path("b"), False)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "membres = 3", "'membres', which is no option of expunge audit; expected some of: task, forget"),
        ("a.toml", "members 3", "is no TOML"),
        ("a.toml", "members = [3, 4]", "members has 2 values, expected one"),
        ("a.toml", "members = 20.5", "Invalid value for '--members'"),
        ("a.toml", "forecast = 'no'", "forecast is 'no', expected true or false"),
        ("a.toml", "members = 2000-01-01", "members is 2000-01-01, expected"),
        ("a.toml", "config = 'a.toml'", "'config', which is no option"),
        ("a.json", "{}", "is no record of a run"),
        ("a.json", '{"command": "expunge forecast digits"}', "is of expunge forecast, and this is expunge audit"),
        ("a.json", '{"command": "expunge.audit(task)  # task: digits"}', "was started from Python"),
    ],
)
def test_a_file_that_is_not_understood_is_named(
    tmp_path: Path, shell: Shell, asked: dict[str, Any], name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    done = shell("audit", "--config", name, cwd=tmp_path)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert not asked


def test_json_is_alone_on_stdout_and_quiet_is_silent(tmp_path: Path, shell: Shell, asked: dict[str, Any]) -> None:
    done = shell("audit", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["report"].endswith("report.html")
    assert "working" in done.stderr
    done = shell("audit", "--json", "--quiet", cwd=tmp_path)
    assert json.loads(done.stdout)["forget_sets"]
    assert done.stderr == ""
    assert shell("audit", "--quiet", cwd=tmp_path).stdout == ""


def test_the_answer_is_what_the_record_says(record: Record, forecasts: ModuleType, tmp_path: Path) -> None:
    forget = record.forget_sets[0]
    for c in forget.configurations:
        c.scores["forget"] = replace(c.scores["forget"], high=float("inf"))
    answer = audit_answer(record, tmp_path, tmp_path / "report.html")
    json.dumps(answer, allow_nan=False)
    assert answer["forget_sets"][0]["methods"][0]["scores"]["forget"]["high"] is None
    chosen = {s.method: next(c for c in forget.configurations if c.id == s.chosen) for s in forget.selections}
    found = {method["method"]: method["verdict"] for method in answer["forget_sets"][0]["methods"]}
    assert {name: found[name] for name in chosen} == {name: c.verdict.name for name, c in chosen.items()}
    run = forecasts.example_run()
    told = forecast_answer(run, tmp_path, tmp_path / "forecast.html")
    json.dumps(told, allow_nan=False)
    assert [m["outlook"] for m in told["forget_sets"][0]["methods"]] == [
        m.outlook for m in run.forget_sets[0].forecast.methods
    ]


def verdicts(record: Record, name: str) -> None:
    """Give every chosen candidate one verdict, with all of its checks passed."""
    for forget in record.forget_sets:
        for c in forget.configurations:
            if not c.control:
                c.verdict = c.verdict.model_copy(update={"name": name})
                c.checks = [check.model_copy(update={"passed": True}) for check in c.checks]


def test_one_candidate_must_be_indistinguishable_on_every_forget_set(record: Record) -> None:
    verdicts(record, "under-forgotten")
    assert len(shortfalls(record, "indistinguishable")) == len(record.forget_sets) > 1
    forget, *others = record.forget_sets
    selection = next(s for s in forget.selections if s.method == "scrub")
    chosen = next(c for c in forget.configurations if c.id == selection.chosen)
    chosen.verdict = chosen.verdict.model_copy(update={"name": "indistinguishable"})
    missed = shortfalls(record, "indistinguishable")
    assert all(text.startswith(other.name) for text, other in zip(missed, others, strict=True))
    assert len(shortfalls(record, "scrub=indistinguishable")) == len(others)
    assert len(shortfalls(record, "gradient_ascent=indistinguishable")) == len(record.forget_sets)
    # A check that failed is not hidden by the verdict beside it.
    chosen.checks[0].passed = False
    assert f"(failed: {chosen.checks[0].name})" in shortfalls(record, "scrub=indistinguishable")[0]
    verdicts(record, "indistinguishable")
    assert shortfalls(record, "indistinguishable") == []
    with pytest.raises(InputError, match="ran no 'rewind', expected one of: "):
        shortfalls(record, "rewind=indistinguishable")


def test_a_control_counts_only_where_it_is_named(record: Record) -> None:
    verdicts(record, "damaged")
    for forget in record.forget_sets:
        for c in forget.configurations:
            if c.method == "fine_tune":
                c.verdict = c.verdict.model_copy(update={"name": "indistinguishable"})
    assert shortfalls(record, "fine_tune=indistinguishable") == []
    assert shortfalls(record, "indistinguishable")


@pytest.mark.parametrize("asked_for", ["good", "", "scrub", "=indistinguishable", "scrub=damaged"])
def test_other_hopes_are_refused(asked_for: str) -> None:
    with pytest.raises(InputError, match="expected indistinguishable or METHOD=indistinguishable"):
        check_hope(asked_for)


def test_the_exit_code_says_whether_it_is_so(
    tmp_path: Path, shell: Shell, asked: dict[str, Any], record: Record
) -> None:
    verdicts(record, "under-forgotten")
    done = shell("audit", "--fail-unless", "indistinguishable", "--json", "--quiet", cwd=tmp_path)
    assert done.returncode == 3
    assert len(json.loads(done.stdout)["missed"]) == len(record.forget_sets)
    assert done.stderr.startswith("not so: --fail-unless indistinguishable\n")
    verdicts(record, "indistinguishable")
    assert shell("audit", "--fail-unless", "indistinguishable", cwd=tmp_path).returncode == 0
    asked.clear()
    assert shell("audit", "--fail-unless", "fine", cwd=tmp_path).returncode == 2
    done = shell("audit", "--methods", "scrub", "--fail-unless", "gradient_ascent=indistinguishable", cwd=tmp_path)
    assert done.stderr.startswith(
        "error: --fail-unless gradient_ascent=indistinguishable: 'gradient_ascent' is not run"
    )
    assert not asked  # refused before the work


def test_a_score_exits_by_its_verdict(tmp_path: Path, shell: Shell) -> None:
    rng = np.random.default_rng(0)
    shift = rng.normal(0, 3, 30)
    for who, moved in (("oracle", 0.0), ("far", 4.0)):
        for split in ("forget", "retain", "validation"):
            np.save(tmp_path / f"{who}-{split}.npy", shift + moved + rng.normal(size=(60, 30)))
    words = ["--unlearned", "far-forget.npy", "--oracle", "oracle-forget.npy", "--fail-unless", "indistinguishable"]
    done = shell("score", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "needs --retain and --validation" in done.stderr
    for split in ("retain", "validation"):
        for who, file in (("unlearned", "far"), ("oracle", "oracle")):
            words += [f"--{split}", f"{who}={file}-{split}.npy"]
    done = shell("score", *words, "--quiet", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stdout == ""
    assert "not so: " in done.stderr
    assert shell("score", *words, "--fail-unless", "scrub=indistinguishable", cwd=tmp_path).returncode == 2
