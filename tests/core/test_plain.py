"""Numbers of other libraries as options: taken everywhere in place of Python's own, and never kept as they came."""

from __future__ import annotations

import dataclasses
import decimal
import fractions
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import expunge as ex
from expunge.core import InputError, Recipe, Record
from expunge.core.checks import between, non_negative, plain, positive, seeds, whole
from expunge.methods import METHODS
from reference.problems import forget_set, small_task

NUMBERS = [
    np.int64,
    np.int8,
    np.float32,
    np.float64,
    np.longdouble,
    np.array,
    torch.tensor,
    fractions.Fraction,
    decimal.Decimal,
    lambda value: torch.tensor(value, dtype=torch.float64),
]
WHOLE = [np.int64, np.uint8, np.int32, torch.tensor, np.array, lambda value: torch.tensor(value, dtype=torch.int32)]


def other(value, kind, whole_kind):
    """The same option as a number of another library."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return tuple(whole_kind(each) for each in value) if isinstance(value, tuple) else value
    if isinstance(value, float):
        return kind(value)
    return (np.int64 if whole_kind is np.uint8 and value > 255 else whole_kind)(value)


def own(options):
    """Whether the options are Python's own values, which a record can hold."""
    kinds = (bool, int, float, str, type(None))
    assert all(
        type(value) in kinds or (type(value) is tuple and {*map(type, value)} <= {int}) for value in options.values()
    )
    return json.loads(json.dumps(options))


@given(st.sampled_from([Recipe, *METHODS.values()]), st.sampled_from(NUMBERS), st.sampled_from(WHOLE))
def test_options_of_recipes_and_methods_become_pythons_own(kind, number, whole_number):
    if number in (np.int64, np.int8):
        number = float  # these cannot hold fractions
    usual = kind()
    given_ = {f.name: other(getattr(usual, f.name), number, whole_number) for f in dataclasses.fields(kind)}
    made = kind(**given_)
    options = dataclasses.asdict(made)
    for name, value in own(options).items():
        expected = getattr(usual, name)
        if isinstance(expected, float):
            assert value == pytest.approx(expected, rel=1e-6)  # float32 has 7 digits
        else:
            assert value == (list(expected) if isinstance(expected, tuple) else expected)


STRANGE = [True, np.bool_(1), 1j, np.timedelta64(3, "D"), "3", None, [3], np.ones(2), torch.ones(1), b"3", object()]
CHECKS = [positive, non_negative, whole, seeds, lambda **values: between(0, 9, **values)]


# Named by kind: the workers of a parallel run must agree on the names, and the text of an object holds its address.
@pytest.mark.parametrize("value", STRANGE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("check", CHECKS)
def test_what_is_no_number_is_refused_by_every_check(check, value):
    with pytest.raises(InputError, match="option = "):
        check(option=value)
    with pytest.raises(InputError):
        Recipe(epochs=value)


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), 10**400, np.float32("nan"), fractions.Fraction(-1, 3)],
    ids=["nan", "inf", "huge", "float32", "fraction"],
)
@pytest.mark.parametrize("check", [positive, non_negative, CHECKS[-1]])
def test_numbers_that_are_not_finite_or_out_of_range_are_refused(check, value):
    with pytest.raises(InputError, match="option = "):
        check(option=value)


@pytest.mark.parametrize("kind", [Recipe, *METHODS.values()], ids=lambda kind: kind.__name__)
def test_every_option_its_own_or_inherited_is_of_the_kind_that_it_is_declared_with(kind):
    for field in dataclasses.fields(kind):
        for value in (object(), "nonsense", b"sgd", ["sgd"], 1j):
            with pytest.raises(InputError, match=field.name):
                kind(**{field.name: value})


@pytest.mark.parametrize("value", [1e-320, -1e-310, 1e39, 1e300, 10**40])
def test_sizes_of_options_with_which_weights_cannot_be_computed_are_refused(value):
    for kind, name in ((ex.methods.Scrub, "alpha"), (ex.methods.EvidentialRepair, "annealing"), (Recipe, "lr")):
        with pytest.raises(InputError, match=f"{name} = "):
            kind(**{name: value})
    assert ex.methods.Scrub(alpha=1e38).alpha == 1e38
    assert ex.methods.Scrub(alpha=1e-300).alpha == 1e-300


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_no_momentum_as_a_whole_number_is_no_momentum(optimizer):
    one, other = (
        ex.train(small_task("cnn", optimizer=optimizer, momentum=zero, precision="bfloat16", lr=0.01), members=1)
        for zero in (0, 0.0)
    )
    assert all(torch.equal(one.params[name], other.params[name]) for name in one.params)


def test_plain_keeps_everything_else():
    items = [np.ones(3), torch.ones(2), "text", None, [np.int64(1)], torch.zeros((), device="meta")]
    assert all(plain(item) is item for item in items)
    assert plain(np.str_("a")) == "a"
    assert type(plain(np.bool_(True))) is bool


@pytest.mark.parametrize("as_", WHOLE)
def test_members_seeds_and_the_rest_are_taken_by_training_unlearning_and_choosers(as_):
    task = small_task()
    ensemble = ex.train(task, members=as_(3), seed=as_(4), first=as_(1), epochs=as_(1), chunk=as_(2), workers=as_(1))
    usual = ex.train(task, members=3, seed=4, first=1, epochs=1, chunk=2, workers=1)
    assert all(torch.equal(value, usual.params[name]) for name, value in ensemble.params.items())
    assert type(ensemble.seed) is int
    json.dumps(ensemble.provenance["specification"])
    forget = ex.tasks.random_forget_set(task, size=as_(5), seed=as_(2))
    assert forget.options == {"size": 5, "seed": 2}
    assert forget.name == "random-5-seed-2"
    assert ex.tasks.choose(task, "random:5", seed=as_(2)).forget.name == forget.name
    method = ex.methods.GradientAscent(lr=np.float32(0.01), epochs=as_(1))
    unlearned = ex.unlearn(ensemble, task, forget, method, seed=as_(1), chunk=as_(2), workers=as_(1))
    json.dumps(unlearned.provenance)


def test_an_audit_takes_them_and_its_record_can_be_read_again(tmp_path):
    x, y = torch.randn(60, 4), torch.arange(60) % 2
    task = ex.Task(
        name="small",
        train=(x, y),
        validation=(x[:30] + 1, y[:30]),
        model=lambda: torch.nn.Linear(4, 2),
        recipe=Recipe(epochs=np.int64(2), lr=fractions.Fraction(1, 10), batch_size=torch.tensor(20)),
        classes=np.int64(2),
    )
    run = ex.audit(
        task,
        forget=forget_set(task, 5),
        methods=[ex.methods.GradientAscent(lr=np.float32(0.01), epochs=np.int64(1))],
        members=np.int64(20),
        seed=torch.tensor(1),
        tolerance=np.float32(0.25),
        forecast=False,
        chunk=np.int32(10),
        out=tmp_path / "run",
    )
    again = Record.load(run.folder)
    assert again.tolerance == 0.25
    assert again.members == 20


@pytest.mark.parametrize("seed", [1.5, "1", None, True])
def test_seeds_that_are_none_are_refused_by_choosers(seed):
    task = small_task()
    for call in (
        lambda: ex.tasks.random_forget_set(task, 5, seed=seed),
        lambda: ex.tasks.choose(task, "random:5", seed=seed),
        lambda: ex.tasks.mislabelled(task, 5, seed=seed),
        lambda: ex.tasks.cluster(task, 5, seed=seed),
    ):
        with pytest.raises(InputError, match="seed = "):
            call()
