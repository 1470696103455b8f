"""The doors of the package: arguments of the wrong kind are named before anything is computed or written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import expunge as ex
from expunge import studies
from expunge.core import InputError
from expunge.methods import GradientAscent
from reference.problems import forget_set, small_task

TASK = small_task("mlp")


@pytest.mark.parametrize("door", [ex.audit, ex.forecast])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "digits"}, r"task is the text 'digits', expected an expunge\.Task, such as"),
        ({"forget": 7}, "forget is an int, expected a forget set: text such as 'random:70'"),
        ({"forget": None}, "forget is None, expected a forget set"),
        ({"forget": np.arange(3)}, r"forget\[0\] is an int64, expected a forget set.*ForgetSet\.of"),
        ({"forget": ["random:5", 3]}, r"forget\[1\] is an int, expected"),
        ({"forget": "randm:5"}, "forget set 'randm:5' is not known"),
        ({"methods": "ascend"}, "method 'ascend' is unknown"),
        ({"methods": GradientAscent}, "methods is the class GradientAscent, expected a method"),
        ({"methods": ["scrub", 3]}, r"methods\[1\] is an int, expected a method"),
        ({"seed": "x"}, "seed = 'x', expected a whole number"),
        ({"tolerance": "low"}, "tolerance = 'low', expected"),
        ({"tolerance": 0.0}, r"tolerance = 0\.0, expected"),
        ({"out": 3}, "out is an int, expected the path of a folder"),
        ({"device": "tpu"}, "device = 'tpu', expected one of"),
        ({"members": "many"}, "members = 'many', expected"),
    ],
)
def test_arguments_of_the_wrong_kind_are_named(tmp_path, door, changes, message):
    arguments = {"task": TASK, "forget": "random:5", "members": 20, "out": tmp_path / "run", **changes}
    with pytest.raises(InputError, match=message):
        door(arguments.pop("task"), **arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("door", ["audit", "forecast_run"])
@pytest.mark.parametrize("forget", ["random:5", Path("sets/five.npy"), forget_set(TASK)])
@pytest.mark.parametrize("methods", [None, "gradient_ascent", GradientAscent(lr=0.1)])
def test_one_item_alone_is_a_list_of_one(monkeypatch, door, forget, methods):
    class ReachedError(Exception):
        pass

    seen = {}

    def study(task, **arguments):
        seen.update(arguments)
        raise ReachedError

    monkeypatch.setattr(studies, door, study)
    with pytest.raises(ReachedError):
        (ex.audit if door == "audit" else ex.forecast)(TASK, forget=forget, methods=methods)
    assert seen["forget"] == [forget]
    assert seen["methods"] == (None if methods is None else [methods])
