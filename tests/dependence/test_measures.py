"""The measures together: names, twins, what must not change them, and what they say where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dependence.common import LinearRegression, LogisticRegression, modules, of_weights, trained
from expunge.core import InputError
from expunge.dependence.angles import _cosine, angles
from expunge.dependence.inputs import complement
from expunge.dependence.kernel import Kernel
from expunge.dependence.losses import SquaredError
from expunge.dependence.measures import MEASURES, measure_dependence, measure_kernel
from expunge.ensembles import train
from expunge.papers.ascent_fails_to_forget.theory.logistic import logistic_problem
from expunge.papers.ascent_fails_to_forget.theory.ridge import ridge_problem
from reference.influence_slow import loss_gradients, margin_curvature, margin_gradients
from reference.problems import forget_set, small_task

INDEX = torch.tensor([1, 8, 9, 40])
REST = complement(INDEX, 50)


def rms(values):
    return float((values**2).mean().sqrt())


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def test_angles_equal_those_of_explicit_gradients():
    task, ensemble = trained("mlp")
    kernel = Kernel(ensemble, task, damping=0.3)
    v = task.validation
    for member, module in zip(kernel, modules(ensemble), strict=True):
        x, y = task.train.x, task.train.y
        g = loss_gradients(module, x, y)
        held = loss_gradients(module, v.x, v.y).sum(0)
        m = margin_gradients(module, x, y)
        matrix = margin_curvature(module, x, y)
        matrix.diagonal().add_(kernel.ridge)
        root = torch.linalg.cholesky(torch.linalg.inv(matrix))
        found = angles(member, INDEX)
        forget = g[INDEX].sum(0)
        assert found.forget_validation == pytest.approx(cosine(forget, held), abs=1e-9)
        assert found.forget_validation_curved == pytest.approx(cosine(root.T @ forget, root.T @ held), abs=1e-7)
        nearest = [max(cosine(m[i], m[j]) for j in REST) for i in INDEX]
        assert found.nearest_retained == pytest.approx(np.mean(nearest), abs=1e-9)
        across, own, others = m[INDEX] @ m[REST].T, m[INDEX] @ m[INDEX].T, m[REST] @ m[REST].T
        assert found.alignment == pytest.approx(float(across.norm() ** 2 / (own.norm() * others.norm())), abs=1e-9)


def test_copies_that_stay_have_nearest_cosine_one():
    task, ensemble = trained("mlp")
    x, y = task.train.x, task.train.y
    twice = torch.cat([x, x[INDEX]]), torch.cat([y, y[INDEX]])
    kernel = Kernel(ensemble, twice, others=(task.validation.x, task.validation.y), damping=1.0)
    for member in kernel:
        assert angles(member, INDEX).nearest_retained == pytest.approx(1.0)


@pytest.mark.parametrize("problem", ["ridge", "logistic"])
def test_the_raw_cosine_of_forget_and_retain_is_minus_one_at_a_minimum(problem):
    # Whatever the data: which is why it is not among the measures.
    if problem == "ridge":
        data = ridge_problem(seed=5, ridge=1e-8)
        ensemble, loss = of_weights(LinearRegression(8), data.solve()[None]), SquaredError()
        y = torch.as_tensor(data.y)
    else:
        data = logistic_problem(seed=5, ridge=1e-6, examples=200)
        ensemble, loss = of_weights(LogisticRegression(6), data.solve()[None]), None
        y = torch.as_tensor((data.y + 1) / 2).long()
    kernel = Kernel(ensemble, (torch.as_tensor(data.x), y), damping=1.0, loss=loss)
    index = torch.tensor([0, 4, 7])
    (member,) = kernel.members
    summed = torch.zeros(len(y), 2, dtype=member.kernel.dtype)
    summed[index, 0], summed[complement(index, len(y)), 1] = (
        member.slope[index],
        member.slope[complement(index, len(y))],
    )
    assert _cosine(summed.T @ member.kernel @ summed) == pytest.approx(-1, abs=1e-4)
    assert "cosine_retain" not in MEASURES


def test_every_measure_has_a_value_and_a_description():
    task, ensemble = trained("mlp")
    found = measure_dependence(ensemble, task, forget_set(task, size=12))
    assert list(found.values) == list(MEASURES)
    # Three members are too few for a statistic over members; all else is a number.
    assert [name for name, value in found.values.items() if not math.isfinite(value)] == ["member_hsic"]
    assert all(measure.text.endswith(".") for measure in MEASURES.values())
    assert (found.members, found.left_out) == (3, ())
    for name, values in found.per_member.items():
        assert values.shape == (3,)
        assert found.values[name] == pytest.approx(float(values.mean()))


def test_the_measures_equal_dense_algebra():
    task, ensemble = trained("mlp")
    found = measure_dependence(ensemble, task, INDEX, damping=0.4)
    ridge = 50 * task.recipe.weight_decay + 0.4
    x, y, v = task.train.x, task.train.y, task.validation
    spread = torch.cat([ensemble.margins(x, y), ensemble.margins(v.x, v.y)], 1).std(0)
    blocks = []
    for member, module in enumerate(modules(ensemble)):
        own = {name: float(values[member]) for name, values in found.per_member.items()}
        m, held = margin_gradients(module, x, y), margin_gradients(module, v.x, v.y)
        g = loss_gradients(module, x[INDEX], y[INDEX])
        matrix, part = margin_curvature(module, x, y), margin_curvature(module, x[INDEX], y[INDEX])
        matrix.diagonal().add_(ridge)
        move = torch.linalg.solve(matrix - part, g.sum(0))
        block = m[REST] @ torch.linalg.solve(matrix, g.T)
        blocks.append(block)
        ascent = g.sum(0)
        step = max(0.0, float((m[INDEX] @ ascent) @ (m[INDEX] @ move) / (m[INDEX] @ ascent).norm() ** 2))
        expected = {
            "shift_forget": float((m[INDEX] @ move).mean()),
            "shift_retain": rms(m[REST] @ move),
            "shift_validation": rms(held @ move),
            "shift_in_spreads": abs(float((m[INDEX] @ move).mean())) / float(spread[INDEX].mean()),
            "shift_ratio": rms(held @ move) / rms(m[INDEX] @ move),
            "spectral_retain": float(torch.linalg.matrix_norm(block, ord=2)),
            "effect_retain": float(block.sum(1).norm()),
            "leverage": float(torch.trace(torch.linalg.solve(matrix, part))),
            "ascent_retain": rms(m[REST] @ ascent) / rms(m[INDEX] @ ascent),
            "ascent_validation": rms(held @ ascent) / rms(m[INDEX] @ ascent),
            "ascent_misfit": rms(m[INDEX] @ (step * ascent - move)) / rms(m[INDEX] @ move),
            "ascent_excess": rms(held @ (step * ascent - move)) / float(spread[50:].mean()),
        }
        for name, value in expected.items():
            assert own[name] == pytest.approx(value, rel=1e-5), name
    mean = float(torch.linalg.matrix_norm(sum(blocks) / 3, ord=2))
    assert found.values["spectral_norm_of_mean"] == pytest.approx(mean, rel=1e-6)
    assert found.values["spectral_norm_of_mean"] <= found.values["spectral_retain"]
    logits = ensemble.logits(x[INDEX])
    losses = [float(F.cross_entropy(z, y[INDEX])) for z in logits]
    assert found.values["mean_loss"] == pytest.approx(np.mean(losses))
    shares = torch.bincount(y, minlength=3) / 50 - torch.bincount(y[INDEX], minlength=3) / 4
    assert found.values["class_skew"] == pytest.approx(float(shares.abs().sum() / 2), abs=1e-6)
    assert found.values["size"] == 4


def test_one_kernel_serves_many_forget_sets_and_gives_the_same_numbers():
    task, ensemble = trained("mlp")
    kernel = measure_kernel(ensemble, task, members=2)
    for seed in range(2):
        forget = forget_set(task, size=12, seed=seed)
        assert measure_dependence(ensemble, task, forget, kernel=kernel).values == pytest.approx(
            measure_dependence(ensemble, task, forget, members=2).values, nan_ok=True
        )


def test_a_broken_member_is_left_out_and_named():
    task, ensemble = trained("mlp")
    broken = ensemble.clone()
    next(iter(broken.params.values()))[1] = float("nan")
    found = measure_dependence(broken, task, INDEX)
    whole = measure_dependence(ensemble, task, INDEX)
    assert (found.members, found.left_out) == (2, (1,))
    for name, values in found.per_member.items():
        assert bool(values[1].isnan())
        if name not in ("shift_in_spreads", "ascent_excess"):
            torch.testing.assert_close(values[[0, 2]], whole.per_member[name][[0, 2]], rtol=1e-6, atol=1e-9)


def test_more_members_do_not_change_those_there_are():
    task, ensemble = trained("mlp")
    one = measure_dependence(ensemble, task, INDEX, members=1)
    three = measure_dependence(ensemble, task, INDEX, members=3)
    for name, values in one.per_member.items():
        assert float(values[0]) == pytest.approx(float(three.per_member[name][0]), rel=1e-8), name


def test_bad_input_is_refused():
    task, ensemble = trained("mlp")
    other = small_task("mlp", n=40)
    with pytest.raises(InputError, match="at least one position"):
        measure_dependence(ensemble, task, [])
    with pytest.raises(InputError, match="kernel was made for other training data"):
        measure_dependence(ensemble, other, INDEX[:2], kernel=measure_kernel(ensemble, task))
    with pytest.raises(InputError, match="kernel was made for members"):
        measure_dependence(ensemble[:1], task, INDEX, kernel=measure_kernel(ensemble, task))
    with pytest.raises(InputError, match="no member is better than guessing"):
        measure_dependence(train(task, members=2, seed=0, epochs=0), task, INDEX)
    with pytest.raises(InputError, match="training examples only"):
        angles(Kernel(ensemble, (task.train.x, task.train.y), damping=1.0).members[0], INDEX)
