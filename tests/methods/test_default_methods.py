"""What is run where no method is named: a declared list, which a new entry of the registry does not lengthen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from expunge.api.asked import method_list
from expunge.cli import shared
from expunge.core import InputError
from expunge.methods import DEFAULT_METHODS, METHODS, GradientAscent
from expunge.methods.method import lacking
from expunge.studies.run.grid import plan_runs
from reference.problems import small_task

DECLARED = ["gradient_ascent", "gradient_descent_ascent", "scrub", "margin_matching"]
DEMO = re.search(r"^DEMO \?= (\S+)$", (Path(__file__).parents[2] / "Makefile").read_text(), re.MULTILINE)


class Another(GradientAscent):
    """A method that was added later."""

    name = "another"


def planned(methods, task=None, **options):
    return plan_runs(task or small_task("mlp_norm"), methods, **{"predicted": True, **options})


def names(runs):
    return list(dict.fromkeys(run.name for run in runs))


LACKS = {"whole_classes", *lacking(small_task("mlp_norm"))}
EVERYWHERE = {name for name, kind in METHODS.items() if not kind.needs & LACKS}
"""Those that ask for nothing that the tasks here lack, such as a convex loss."""
CONTROLS = [name for name, kind in METHODS.items() if kind.role == "control"]


def test_none_is_the_declared_list_beside_the_controls():
    assert list(DEFAULT_METHODS) == DECLARED
    assert names(planned(None)) == CONTROLS + DECLARED
    assert all(METHODS[name].role == "candidate" for name in DEFAULT_METHODS)


def test_all_is_the_registry():
    assert set(names(planned(["all"]))) == EVERYWHERE
    assert planned(method_list("all")) == planned(["all"])
    assert GradientAscent(lr=0.123) in planned(["all", GradientAscent(lr=0.123)])


def test_what_a_task_lacks_is_left_out_of_both():
    without = {"statistics_alone", "margin_matching"}
    for methods, expected in ((None, {*CONTROLS, *DECLARED}), (["all"], EVERYWHERE)):
        runs = planned(methods, small_task("mlp"), predicted=False)
        assert set(names(runs)) == expected - without


def test_a_new_entry_changes_neither_the_default_nor_the_demonstration(monkeypatch):
    demo = DEMO[1].split(",")
    before = planned(None), planned(demo)
    monkeypatch.setitem(METHODS, "another", Another)
    assert (planned(None), planned(demo)) == before
    assert "another" in names(planned(["all"]))
    assert "another" in names(planned(["another"]))


def test_names_that_are_none_are_refused():
    with pytest.raises(InputError, match=r"method 'ascend' is unknown, expected one of: do_nothing.*; all; or mine"):
        planned(["ascend"])


def test_an_answer_is_asked_only_of_what_is_run(monkeypatch):
    monkeypatch.setitem(METHODS, "another", Another)
    with pytest.raises(InputError, match="'another' is not run"):
        shared.check_runs("another=indistinguishable", None)
    for methods in (["all"], ["another"], ["mine.py:fn", "all"]):
        shared.check_runs("another=indistinguishable", methods)
