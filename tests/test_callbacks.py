"""Callbacks, numbers of members, methods: refused before any work; and errors of one's own come through."""

from __future__ import annotations

import pytest

import expunge as ex
from expunge.core import ForgetSet, InputError
from expunge.dependence import train_subsets
from expunge.ensembles.plan import MOST_MEMBERS
from expunge.methods import GradientAscent, Method, Trained
from reference.problems import forget_set, small_task

TASK = small_task("mlp")
FORGET = forget_set(TASK)
ASCENT = GradientAscent(epochs=1)
PRETRAINED = ex.train(TASK, members=2)

CALLS = {
    "train": lambda **given: ex.train(TASK, members=2, **given),
    "unlearn": lambda **given: ex.unlearn(PRETRAINED, TASK, FORGET, ASCENT, **given),
    "check": lambda **given: ex.check(TASK, **given),
    "plan": lambda **given: ex.plan(TASK, forget=FORGET, **given),
    "train_subsets": lambda **given: train_subsets(TASK, subsets=2, **given),
}
STUDIES = {
    "audit": lambda out, **given: ex.audit(TASK, forget=FORGET, out=out, **given),
    "forecast": lambda out, **given: ex.forecast(TASK, forget=FORGET, out=out, **given),
}


@pytest.mark.parametrize("wrong", ["text", 5, [1]])
@pytest.mark.parametrize("name", list(CALLS))
def test_what_is_called_back_is_a_function(name, wrong):
    with pytest.raises(InputError, match=r"progress = .*, expected a function, or None"):
        CALLS[name](progress=wrong)
    if name == "unlearn":
        with pytest.raises(InputError, match=r"evaluate = .*, expected a function, or None"):
            CALLS[name](evaluate=wrong)


@pytest.mark.parametrize("name", list(STUDIES))
def test_a_console_is_a_console(name, tmp_path):
    with pytest.raises(InputError, match=r"console = 'loud', expected a rich.console.Console, or None"):
        STUDIES[name](tmp_path / "run", console="loud")
    assert not (tmp_path / "run").exists()


class MineError(Exception):
    """An error of the user's own."""


def raises(*_):
    raise MineError("mine")


@pytest.mark.parametrize(
    ("name", "callback"),
    [("train", "progress"), ("plan", "progress"), ("train_subsets", "progress"), ("unlearn", "evaluate")],
)
def test_an_error_of_ones_own_comes_through_with_a_note(name, callback):
    with pytest.raises(MineError, match="mine") as caught:
        CALLS[name](**{callback: raises})
    assert len(caught.value.__notes__) == 1
    assert caught.value.__notes__[0].startswith(f"raised by {callback}, which {name} called")


def test_the_note_of_evaluate_names_the_method():
    with pytest.raises(MineError) as caught:
        CALLS["unlearn"](evaluate=raises)
    assert "evaluate, which unlearn called at a stopping time of gradient_ascent(" in caught.value.__notes__[0]


@pytest.mark.parametrize("members", [MOST_MEMBERS + 1, 10**6, 10**12, 2**62])
def test_too_many_members_are_refused_before_any_of_them_is_made(members, tmp_path):
    for call in (
        lambda: ex.train(TASK, members=members),
        lambda: ex.plan(TASK, forget=FORGET, members=[20, members]),
        lambda: STUDIES["audit"](tmp_path, members=members),
        lambda: STUDIES["forecast"](tmp_path, members=members),
    ):
        with pytest.raises(InputError, match=rf"members = {members:,}, expected at most {MOST_MEMBERS:,} in one"):
            call()


def test_what_does_not_fit_into_memory_is_refused_with_the_sizes(monkeypatch, tmp_path):
    monkeypatch.setattr("expunge.core.reading.available_memory", lambda: 10**5)
    for call, what in (
        (lambda: ex.train(TASK, members=5000), "an ensemble of 5,000 members"),
        (lambda: STUDIES["forecast"](tmp_path, members=5000), "an ensemble of 5,000 members"),
        (lambda: train_subsets(TASK, subsets=10**12), "the margins of 1,000,000,000,000 subset models"),
    ):
        with pytest.raises(
            InputError, match=rf"{what} needs? [\d.,]+ (GiB|bytes) of memory and 100,000 bytes are free"
        ):
            call()


class Nameless(Method):
    """A subclass that declares nothing."""


class Idle(Method):
    """A subclass that does not say how it unlearns."""

    name, label = "idle", "Idle"


class Steps(Trained):
    """A subclass of the base of methods that take steps."""


@pytest.mark.parametrize("method", [Method(), Nameless(), Idle(), Steps()], ids=lambda method: type(method).__name__)
def test_a_method_that_is_not_finished_is_refused(method, tmp_path):
    said = rf"method is an? {type(method).__name__}, which does not declare .*stops; expected one of expunge.methods"
    for call in (
        lambda: ex.unlearn(PRETRAINED, TASK, FORGET, method),
        lambda: STUDIES["audit"](tmp_path, methods=method),
        lambda: STUDIES["forecast"](tmp_path, methods=[method]),
    ):
        with pytest.raises(InputError, match=said):
            call()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"options": [1]}, "options is a list, expected a mapping"),
        ({"options": "text"}, "options is the text 'text', expected a mapping"),
        ({"options": 0}, "options is an int, expected a mapping"),
        ({"gone": 5}, "'f: gone' has shape"),
        ({"gone": None}, "'f: gone' is None"),
        ({"chooser": 5}, "chooser = 5, expected a text"),
    ],
)
def test_the_provenance_of_a_forget_set_is_checked(given, said):
    with pytest.raises(InputError, match=said):
        ForgetSet.of(TASK, [1, 2], name="f", how="given", **given)
