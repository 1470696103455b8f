"""The call that a record keeps can be typed again."""

from __future__ import annotations

import inspect
from pathlib import Path

import expunge
from expunge.core import ForgetSet
from expunge.methods import GradientAscent
from expunge.studies.audit import DEFAULTS as AUDIT
from expunge.studies.audit import audit
from expunge.studies.forecast import DEFAULTS as FORECAST
from expunge.studies.forecast import forecast_run
from expunge.studies.run.python_call import python_call
from reference.problems import small_task


def test_every_argument_that_is_not_the_default_is_written():
    task = small_task()
    chosen = ForgetSet.of(task, [1, 2, 3], name="my set/1", how="by hand")
    options = {"members": 20, "out": Path("here"), "seed": 0, "tolerance": 0.3, "forecast": False}
    methods = ["do_nothing", GradientAscent(lr=0.5)]
    text = python_call("audit", "mine", [chosen, "random:20"], methods, options, AUDIT)
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


def test_defaults_are_those_of_the_functions():
    for study, defaults in ((audit, AUDIT), (forecast_run, FORECAST)):
        own = {name: p.default for name, p in inspect.signature(study).parameters.items()}
        assert {name: value for name, value in defaults.items() if name != "tolerance"} == {
            name: own[name] for name in defaults if name != "tolerance"
        }
        assert own["tolerance"] is None
