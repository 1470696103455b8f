"""The leaderboard: which forget sets, how methods stand, and a small one from its audits to its page."""

from __future__ import annotations

import csv
import json
import math
import re

import pytest

import expunge as ex
from expunge.core import InputError
from expunge.methods import EarlyStoppedRetrain, FineTune, NegGradPlus
from expunge.papers.leaderboard import report, study
from expunge.papers.leaderboard.board import answer, dial_answer, passes, standings
from expunge.papers.leaderboard.record import BoardRow, DialRow, LeaderboardRecord
from expunge.papers.leaderboard.sets import forget_specs
from expunge.tasks import choose
from reference.problems import small_task

PLAIN = {
    "task": "digits", "forget_set": "one", "kind": "random", "method": "good", "label": "Good", "control": False,
    "climbs": False, "needs": ["retain"], "certificate": None, "setting": "good/lr=1@2", "cost": 0.5,
    "verdict": "indistinguishable", "worst": "forget", "excess": 0.1, "low": 0.0, "high": 0.2, "gap": 0.0,
    "failed_checks": [], "failed_members": 0, "at_equal_cost": 0.3,
}  # fmt: skip


def row(**changed):
    return BoardRow(**{**PLAIN, **changed})


def record(rows, dial=()):
    facts = {"status": "complete", "started": "2026-01-01T00:00:00", "seconds": 1.0, "command": "expunge leaderboard"}
    board = {"members": 100, "tolerance": 0.125, "rows": list(rows), "dial": list(dial)}
    return LeaderboardRecord(**facts, request={}, environment={}, **board)


def test_a_method_passes_by_verdict_and_checks_and_cost():
    assert passes(row())
    assert not passes(row(verdict="undecided"))
    assert not passes(row(failed_checks=["weights moved"]))
    assert passes(row(cost=0.5), 0.5)
    assert not passes(row(cost=0.51), 0.5)


def test_methods_stand_in_the_order_in_which_one_would_try_them():
    rows = [row(forget_set=name, cost=cost) for name, cost in (("one", 0.2), ("two", 0.4), ("three", 0.9))]
    rows += [row(method="dear", label="Dear", forget_set=name, cost=0.8) for name in ("one", "two", "three")]
    rows += [row(method="far", forget_set=name, cost=0.01, verdict="damaged", excess=9.0) for name in ("one", "two")]
    rows += [row(method="none", forget_set=name, cost=0.5, verdict="damaged", excess=2.0) for name in ("one", "two")]
    assert [each.method for each in standings(rows)] == ["good", "dear", "none", "far"]
    good = standings(rows)[0]
    assert (good.passing, good.sets, good.cost, good.excess) == (3, 3, 0.4, 0.1)
    assert good.within == {0.25: 1, 0.5: 2, 0.9: 3}
    assert (good.ahead, good.compared) == (3, 3)
    limited = {each.method: each for each in standings(rows, 0.5)}
    assert limited["good"].passing == 2
    assert limited["good"].cost == pytest.approx(0.3)  # of those that pass
    assert limited["dear"].passing == 0


def test_a_diverged_method_is_last_and_its_numbers_do_not_become_good():
    rows = [row(), row(method="nan", verdict="diverged", excess=math.nan, at_equal_cost=0.1)]
    rows += [row(method="inf", verdict="diverged", excess=math.inf, at_equal_cost=math.inf)]
    found = standings(rows)
    assert found[0].method == "good"
    assert [each.excess for each in found[1:]] == [math.inf, math.inf]
    assert [each.ahead for each in found[1:]] == [0, 0]


def test_the_answer_names_the_best_gentle_method_and_the_best_that_climbs():
    rows = [row(forget_set=name) for name in ("one", "two")]
    rows += [row(method="up", label="Up", climbs=True, verdict="damaged", forget_set=name) for name in ("one", "two")]
    rows += [row(method="early_stopped_retrain", label="Early", control=True, cost=0.9, at_equal_cost=None)]
    rows += [row(method="retrain", label="Retrain", control=True, cost=1.0, verdict="undecided", at_equal_cost=None)]
    sentences = answer(record(rows))
    assert sentences[0] == (
        "Instead of ascent, on 2 forget sets of digits: Good cannot be told from retraining on 2 of 2, at 50 % of its "
        "cost (median)."
    )
    assert "The best method that climbs is Up, on 0 of 2." in sentences
    assert "Retraining stopped early passes on 1 of 1, at 90 % of its cost (median)." in sentences
    assert "With 100 models even retraining is undecided on 1 of 1: more would say more." in sentences
    assert "At no more than 50 % of the cost: Good, on 2 of 2." in sentences
    nobody = answer(record([row(verdict="damaged")]))
    assert nobody[0].endswith("no method that does not climb is shown to be like retraining.")
    assert nobody[-1] == "At no more than 50 % of the cost nothing passes."
    assert answer(record([])) == ["No method was run."]


def dial(weight, excess, low, high, forget_set="one"):
    facts = {"task": "digits", "kind": "random", "setting": "x", "cost": 0.1}
    return DialRow(forget_set=forget_set, retain_weight=weight, excess=excess, low=low, high=high, **facts)


def test_a_weight_helps_only_where_intervals_do_not_meet():
    rows = [dial(0.9, 0.1, 0.0, 0.2), dial(0.99, 0.3, 0.2, 0.4), dial(1.0, 0.5, 0.4, 0.6)]
    rows += [dial(0.9, 0.5, 0.3, 0.7, "two"), dial(1.0, 0.6, 0.5, 0.8, "two")]
    rows += [dial(0.9, math.inf, math.inf, math.inf, "three"), dial(1.0, 0.6, 0.5, 0.8, "three")]
    assert dial_answer(rows)[0].endswith("better on 1 forget set (one), worse on 1, not told apart on 1.")
    assert dial_answer([]) == []
    assert dial_answer([dial(1.0, 0.5, 0.4, 0.6)]) == []


@pytest.mark.parametrize("name", ["digits", "tabular"])
def test_twelve_sets_of_six_kinds_fit_the_tasks(name):
    task = ex.tasks.load_task(name)
    specs = forget_specs(task)
    assert len(specs) == 12
    assert len(set(specs.values())) == 6
    names = [choose(task, spec).forget.name for spec in specs if not spec.startswith("component")]
    assert len(set(names)) == 8


def test_kinds_that_a_task_cannot_have_are_left_out():
    assert set(forget_specs(small_task("mlp", n=120).with_fit(lambda model, data, seed: model)).values()) == {
        "random", "cluster", "class part", "mislabelled",
    }  # fmt: skip
    with pytest.raises(InputError, match="has 50 training examples, expected at least 100"):
        forget_specs(small_task("mlp"))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A leaderboard of one task, with a method of one's own."""
    with pytest.MonkeyPatch.context() as patched:
        for control in (FineTune, EarlyStoppedRetrain):  # all settings of the controls would take most of the time
            patched.setattr(control, "grid", classmethod(lambda kind, recipe: [kind()]))
        weights = [NegGradPlus(lr=0.1, retain_weight=weight, epochs=2, batch_size=16) for weight in (0.8, 0.99)]
        task = small_task(precision="float32")
        out = tmp_path_factory.mktemp("board") / "run"
        asked = {"forget": ["random:10"], "methods": weights, "members": 20, "out": out}
        first = study.run([task], **asked, command="expunge leaderboard")
        again = study.run([task], **asked, resume=True)
    return first, again


def test_the_board_holds_what_the_audits_found(done):
    (folder, found), (_, again) = done
    assert again == found
    (name,) = found.audits
    audit = ex.core.Record.load(folder / found.audits[name])
    forget = audit.forget_sets[0]
    assert [each.method for each in found.rows] == [each.method for each in forget.selections]
    chosen = {c.id: c for c in forget.configurations}
    for each in found.rows:
        own = chosen[each.setting]
        assert (each.cost, each.verdict) == (own.cost, own.verdict.name)
        assert each.excess == max(score.excess for score in own.scores.values())
        assert each.climbs == (each.method == "neg_grad_plus")
    early = [c for c in forget.configurations if c.method == "early_stopped_retrain"]
    cheap = next(each for each in found.rows if each.method == "fine_tune")
    nearest = min((c for c in early if c.cost >= cheap.cost), key=lambda c: c.cost)
    assert cheap.at_equal_cost == max(score.excess for score in nearest.scores.values())
    assert [each.retain_weight for each in found.dial] == [0.8, 0.99, 1.0]


def test_the_page_and_the_table_are_drawn_from_the_record_alone(done):
    (folder, found), _ = done
    page = report.draw(folder).read_text()
    assert "What should one use instead of ascent" in page
    assert page.count("data-method=") == len(found.rows)
    assert "default-src 'none'" in page
    assert not re.search(r"https?://(?!www\.w3\.org)", page.split("<script")[0])
    with (folder / report.TABLE).open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["method"] for line in lines] == [each.method for each in found.rows]
    assert float(lines[0]["excess"]) == found.rows[0].excess
    payload = json.loads(re.search(r'id="payload">(.*?)</script>', page, re.DOTALL).group(1))
    assert [each["good"] for each in payload["rows"]] == [passes(each) for each in found.rows]


def test_the_command_prints_answer_and_standings(done, shell, monkeypatch):
    (folder, found), _ = done
    monkeypatch.setenv("COLUMNS", "80")
    shown = shell("report", str(folder))
    assert shown.returncode == 0, shown.stderr
    assert "Instead of ascent" in shown.stdout
    assert all(len(line) <= 80 for line in shown.stdout.splitlines() if "leaderboard" not in line)
    for each in found.rows:
        assert each.label.split()[0] in shown.stdout
    table = shell("report", str(folder), "--markdown").stdout.splitlines()
    assert len([line for line in table if line.startswith("|")]) == len(found.rows) + 2
    assert len({line.count("|") for line in table if line.startswith("|")}) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tasks": []}, "no task was given"),
        ({"tasks": ["digits", "digits"]}, "is given twice"),
        ({"tasks": ["nowhere"]}, "nowhere"),
        ({"members": 19}, "members = 19"),
        ({"methods": ["nothing"]}, "method 'nothing' is unknown"),
        ({"forget": ["random:0"]}, "size = 0"),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_work(tmp_path, changed, message):
    asked = {"tasks": ["tabular"], "members": 20, "out": tmp_path / "run", **changed}
    with pytest.raises(InputError, match=re.escape(message)):
        study.run(**asked)
    assert not (tmp_path / "run").exists()
