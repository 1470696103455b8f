"""The call that a record keeps can be typed again."""

from __future__ import annotations

import inspect
from pathlib import Path

import expunge
from expunge.core import ForgetSet
from expunge.methods import GradientAscent
from expunge.studies.audit import audit
from expunge.studies.forecast import forecast_run
from expunge.studies.run.python_call import python_call
from reference.problems import small_task


def test_every_argument_that_is_not_the_default_is_written():
    task = small_task()
    chosen = ForgetSet.of(task, [1, 2, 3], name="my set/1", how="by hand")
    options = {"members": 20, "out": Path("here"), "seed": 0, "tolerance": 0.3, "forecast": False}
    methods = ["do_nothing", GradientAscent(lr=0.5)]
    text = python_call("audit", "mine", [chosen, "random:20"], methods, options, audit)
    call, given = text.split("  # ")
    seen = {}
    kept = {"task": task, "my_set_1": chosen, "expunge": expunge}

    def capture(*args, **kwargs):
        seen.update(inspect.signature(expunge.audit).bind(*args, **kwargs).arguments)

    eval(call.replace("expunge.audit(", "capture("), {**kept, "capture": capture})
    assert seen == {
        "task": task,
        "forget": [chosen, "random:20"],
        "methods": methods,
        "members": 20,
        "out": "here",
        "tolerance": 0.3,
        "forecast": False,
    }
    assert given == "task: mine; my_set_1: by hand"


def test_the_doors_have_the_defaults_of_the_studies():
    """What a record leaves out is what `expunge.audit` and `expunge.forecast` do when they are not told."""
    for study, door in ((audit, expunge.audit), (forecast_run, expunge.forecast)):
        inner, outer = inspect.signature(study).parameters, inspect.signature(door).parameters
        assert inner.keys() == outer.keys()
        for name, parameter in inner.items():
            assert str(parameter.default) == str(outer[name].default)
