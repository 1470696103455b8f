"""Old names of options work for one release and warn; both names, or a name that never was, are refused."""

from __future__ import annotations

import dataclasses
import warnings

import pytest
import torch

from expunge.core import InputError, Recipe
from expunge.core.renamed import OLD
from expunge.ensembles import Steps, recalibrate, train
from expunge.methods import FineTune, GradientAscent, GradientDescentAscent, MarginMatching, Scrub
from expunge.tasks import digits
from reference.problems import small_task

OPTIONS = [Recipe, Steps, FineTune, GradientAscent, GradientDescentAscent, MarginMatching, Scrub]
NEW_TO_IT = (FineTune, GradientAscent, GradientDescentAscent, Scrub)
"""Methods that had no such option when it was still called `optimiser`."""
CASES = [
    (kind, old, {"optimiser": "adam"}.get(old, 7))
    for kind in OPTIONS
    for old, new in OLD.items()
    if new in kind.__dataclass_fields__ and not (old == "optimiser" and kind in NEW_TO_IT)
]


@pytest.mark.parametrize(("kind", "old", "value"), CASES)
def test_an_old_name_warns_and_gives_an_equal_object(kind, old, value):
    with pytest.warns(FutureWarning, match=f"{old} is now called {OLD[old]}") as caught:
        made = kind(**{old: value})
    assert made == kind(**{OLD[old]: value})
    with pytest.warns(FutureWarning, match=f"{old} is now called {OLD[old]}") as read:
        assert getattr(made, old) == value
    assert {warning.filename for warning in [*caught, *read]} == {__file__}


@pytest.mark.parametrize(("kind", "old", "value"), CASES)
def test_both_names_are_refused(kind, old, value):
    with pytest.raises(InputError, match=f"expected {OLD[old]} alone"):
        kind(**{old: value, OLD[old]: value})


@pytest.mark.parametrize("kind", OPTIONS)
def test_new_names_are_silent_and_unknown_ones_are_refused(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = kind()
        assert not set(dataclasses.asdict(made)) & set(OLD)
        assert dataclasses.replace(made) == made
    with pytest.raises(TypeError, match="batchsize"):
        kind(batchsize=7)


def test_functions_take_old_names_too():
    task = small_task("mlp_norm")
    ensemble = train(task, members=1)
    with pytest.warns(FutureWarning, match="batch is now called batch_size"):
        old = recalibrate(ensemble, task.train.x, batch=16)
    new = recalibrate(ensemble, task.train.x, batch_size=16)
    assert all(torch.equal(old.buffers[name], new.buffers[name]) for name in new.buffers)
    with pytest.warns(FutureWarning, match="batch is now called batch_size"):
        assert digits(batch=32).recipe == digits(batch_size=32).recipe
