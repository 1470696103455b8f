"""UNSIR: a plain loop, what its noise does, what its requests must be, and the contract on whole classes."""

from __future__ import annotations

import pytest
import torch

import expunge as ex
from expunge.core import ForgetSet, InputError
from expunge.core.tree import distance
from expunge.ensembles import build_network, train
from expunge.methods import UNSIR, unlearn
from expunge.methods.problem import Problem
from expunge.studies.run.grid import plan_runs
from reference.one_by_one import stack
from reference.problems import small_task
from reference.unlearn_one_by_one import unsir

OPTIONS = {"lr": 0.02, "noise_steps": 5, "noise_size": 6, "noise_copies": 2, "batch_size": 9}


def rows_of(task, *classes, but=0):
    rows = [i for i, y in enumerate(task.train.y.tolist()) if y in classes]
    return ForgetSet.of(task, rows[but:], name="whole-classes", how="all rows of some classes")


SETTINGS = [
    UNSIR(**OPTIONS),
    UNSIR(**OPTIONS, epochs=3, repair=2.0, retain_share=0.6, optimizer="sgd", weight_decay=0.1),
    UNSIR(**{**OPTIONS, "noise_penalty": 0.0, "noise_lr": 0.5}, retain_share=1),
]


@pytest.mark.parametrize("method", SETTINGS, ids=range(len(SETTINGS)))
@pytest.mark.parametrize(
    ("name", "statistics"), [("mlp", "frozen"), ("cnn", "frozen"), ("resnet", "frozen"), ("mlp_norm", "updated")]
)
@pytest.mark.parametrize("classes", [(1,), (0, 2)])
def test_it_equals_its_slow_twin(method, name, statistics, classes):
    task = small_task(name)
    forget, pretrained = rows_of(task, *classes), train(task, members=3, seed=4)
    method = UNSIR(**{**method.options(), "statistics": statistics})
    found = unlearn(pretrained, task, forget, method, seed=11, chunk=2)
    expected = stack([unsir(pretrained.module(m), task, forget, method, 11, m) for m in range(3)])
    for key, tensor in {**found.params, **found.buffers}.items():
        assert float((tensor - expected[key]).abs().max()) < 1e-9
    assert float(distance(found.params, pretrained.params).min()) > 1e-3
    assert not [check for check in found.trace.failed_checks if check.name != "moved enough"]


@pytest.mark.parametrize("form", ["layers", "vmap", "one"])
def test_noise_climbs_the_loss_of_its_class_and_the_weights_stay(form):
    task = small_task("cnn")
    forget, pretrained = rows_of(task, 1), train(task, members=2, network=build_network(task, form), seed=3)
    before = pretrained.clone()
    losses = []
    for steps in (1, 40):
        problem = Problem(pretrained, task, forget, 0, "unsir")
        noise = UNSIR(noise_size=5, noise_steps=steps, noise_penalty=0).noise_of(problem, 1)
        assert noise.shape == (2, 5, 1, 8, 8)
        assert problem.ledger.examples == 5 * steps
        labels = torch.ones(2, 5, dtype=torch.long)
        logits = pretrained.network(pretrained.params, pretrained.buffers, noise)
        losses.append(task.outcome.loss(logits, labels).mean(1))
    assert bool((losses[1] > losses[0]).all())
    assert all(torch.equal(pretrained.params[key], tensor) for key, tensor in before.params.items())
    assert not torch.equal(noise[0], noise[1])
    short = UNSIR(noise_size=5, noise_penalty=1.0).noise_of(Problem(pretrained, task, forget, 0, "unsir"), 1)
    assert float(short.square().mean()) < 0.5 * float(noise.square().mean())


def test_it_forgets_the_class_and_reads_none_of_its_rows():
    task = small_task("mlp")
    forget, pretrained = rows_of(task, 1), train(task, members=3)
    method = UNSIR(noise_size=20, noise_copies=5, batch_size=16, lr=0.02, retain_share=1.0)
    found = unlearn(pretrained, task, forget, method)
    rows = torch.from_numpy(forget.indices)
    before, after = (e.margins(task.train.x[rows], task.train.y[rows]).mean() for e in (pretrained, found))
    assert float(after) < float(before)
    assert bool((found.trace.stops[-1].facts["visits"] == 0).all())
    x = task.train.x.clone()
    x[rows] = 1e6
    spoiled = ex.Task(
        name=task.name,
        train=(x, task.train.y),
        validation=(task.validation.x, task.validation.y),
        model=task.model,
        recipe=task.recipe,
        classes=3,
    )
    again = unlearn(pretrained, spoiled, rows_of(spoiled, 1), method)
    assert all(torch.equal(again.params[key], tensor) for key, tensor in found.params.items())


def test_what_is_not_whole_classes_is_refused_with_what_is_missing():
    task = small_task("mlp", n=200)
    pretrained = train(task, members=1, epochs=0)
    every = len(rows_of(task, 1))
    unlearn(pretrained, task, rows_of(task, 1, but=1), UNSIR(**OPTIONS))  # nearly all
    missing = every // 10
    said = (
        f"holds {every - missing} of {every} training rows of class 1; expected at least 95% of every class that it "
        rf"holds any of \(here {missing} more"
    )
    with pytest.raises(InputError, match=said):
        unlearn(pretrained, task, rows_of(task, 1, but=missing), UNSIR(**OPTIONS))
    mixed = ForgetSet.of(task, [*rows_of(task, 1).indices, rows_of(task, 2).indices[0]], name="mixed", how="a test")
    with pytest.raises(InputError, match=r"mixed holds 1 of \d+ training rows of class 2"):
        unlearn(pretrained, task, mixed, UNSIR(**OPTIONS))


def test_all_leaves_it_out_and_its_name_does_not():
    task = small_task("mlp")
    assert "unsir" not in {run.name for run in plan_runs(task, ["all"])}
    assert "unsir" in {run.name for run in plan_runs(task, ["unsir"])}
    (setting,) = UNSIR.grid(task.recipe)
    assert setting.lr == pytest.approx(0.3 * task.recipe.lr)
    assert UNSIR(**setting.options()) == setting


def test_whole_numbers_for_inputs_and_outcomes_that_are_not_classes_are_refused():
    x, y = torch.arange(120).view(30, 4) % 4, torch.arange(30) % 2
    task = ex.Task(
        name="tokens",
        model=lambda: torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Flatten(), torch.nn.Linear(12, 2)),
        train=(x, y),
        validation=(torch.full((2, 4), 4), y[:2]),
        recipe=ex.Recipe(epochs=1, lr=0.05, batch_size=8),
        classes=2,
    )
    forget = ForgetSet.of(task, range(1, 30, 2), name="odd", how="a test")
    with pytest.raises(InputError, match="unsir needs inputs of real numbers"):
        unlearn(train(task, members=1), task, forget, UNSIR())
    for options in ({"repair": -1.0}, {"retain_share": 0.0}, {"noise_size": 0}, {"noise_steps": 1.5}):
        with pytest.raises(InputError, match=f"{next(iter(options))} = "):
            UNSIR(**options)


def test_costs_seeds_chunks_and_neighbours():
    """What the contract asks of methods that take any forget set."""
    task = small_task("resnet")
    forget, pretrained = rows_of(task, 1), train(task, members=3, seed=1)
    method = UNSIR(**OPTIONS, epochs=2, retain_share=0.5, statistics="recalibrated")
    one, same, parts = (unlearn(pretrained, task, forget, method, seed=2, chunk=size) for size in (3, 3, 1))
    other = unlearn(pretrained, task, forget, method, seed=3)
    retain, kept = len(forget.retain), round(0.5 * len(forget.retain))
    expected = [(6 * (5 + 2) + (1 + t) * kept + t * retain / 3) / (retain * 3) for t in (1, 2)]
    assert [stop.cost for stop in one.trace.stops] == pytest.approx(expected)
    frozen = UNSIR(**OPTIONS, epochs=2, retain_share=0.5)
    assert frozen.planned_cost(len(forget), retain, 3) == pytest.approx((6 * 7 + 3 * kept) / (retain * 3))
    for key, tensor in one.params.items():
        assert torch.equal(tensor, same.params[key])
        assert float((tensor - parts.params[key]).abs().max()) < 1e-9
    assert not all(torch.equal(tensor, other.params[key]) for key, tensor in one.params.items())
    alone = unlearn(pretrained[1:2], task, forget, method, seed=2)
    spoiled = pretrained.clone()
    for tensor in spoiled.params.values():
        tensor[1] = float("nan")
    beside = unlearn(spoiled, task, forget, method, seed=2)
    for key, tensor in one.params.items():
        assert float((alone.params[key][0] - tensor[1]).abs().max()) < 1e-9
        assert torch.equal(beside.params[key][[0, 2]], tensor[[0, 2]])
    still = unlearn(pretrained, task, forget, UNSIR(**{**OPTIONS, "lr": 0.0}))
    assert all(torch.equal(still.params[key], tensor) for key, tensor in pretrained.params.items())
    assert "weights moved" in {check.name for check in still.trace.failed_checks}
