"""The law on the simplex: closed forms, quadrature over the simplex, meeting and distant parameters, gradients."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch

import expunge as ex
from expunge.core import InputError
from expunge.ensembles import train
from expunge.methods import BadTeacher, Scrub, unlearn
from expunge.methods.continuous_categorical import ContinuousCategorical, log_normaliser
from expunge.methods.distillation import Divergence
from reference.problems import forget_set, small_task
from reference.unlearn_one_by_one import log_normaliser as by_matrix


def one(*eta):
    log, mean = log_normaliser(torch.tensor(eta, dtype=torch.float64))
    return float(log), mean.tolist()


def divided_difference(eta):
    """By its recursion, with parameters 1e-20 apart and more digits than it loses."""
    with localcontext() as digits:
        digits.prec = 30 + 25 * len(eta)
        x = [Decimal(value) + Decimal(k) * Decimal("1e-20") for k, value in enumerate(eta)]
        rows = [value.exp() for value in x]
        for width in range(1, len(x)):
            rows = [(rows[k + 1] - rows[k]) / (x[k + width] - x[k]) for k in range(len(x) - width)]
        return rows[0]


@pytest.mark.parametrize("gap", [1e-9, 0.01, 0.5, 3.0, 40.0, 1e4])
def test_two_classes_are_the_continuous_bernoulli(gap):
    """Z = (exp(a) - exp(b)) / (a - b); mean of the first 1 / (1 - exp(-gap)) - 1 / gap."""
    log, (first, second) = one(1.5 + gap, 1.5)
    assert log == pytest.approx(1.5 + gap + math.log(-math.expm1(-gap) / gap), abs=1e-12)
    expected = 0.5 + gap / 12 if gap < 0.001 else 1 / -math.expm1(-gap) - 1 / gap
    assert first == pytest.approx(expected, abs=1e-12)
    assert first + second == pytest.approx(1, abs=1e-13)
    # In the published form, lambda = softmax: density C(lambda) lambda^y (1 - lambda)^(1 - y), C = 2 atanh(d) / d.
    if gap < 10:
        d = math.tanh(gap / 2)
        log_softmax = 1.5 + gap + math.log1p(math.exp(-gap))
        assert log - log_softmax == pytest.approx(-math.log(2 * math.atanh(d) / d), abs=1e-12)


@pytest.mark.parametrize("eta", [(0.3, -1.2, 0.9), (2.0, 2.0, -1.0), (0.0, 0.0, 0.0), (12.0, -3.0, 11.5)])
def test_three_classes_by_quadrature_over_the_simplex(eta):
    """The density sums to 1, and its mean is the gradient."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    nodes, weights = (nodes + 1) / 2, weights / 2
    a, b = np.meshgrid(nodes, nodes, indexing="ij")
    y = np.stack([a, (1 - a) * b, (1 - a) * (1 - b)])
    area = np.outer(weights, weights) * (1 - a)
    log, mean = one(*eta)
    density = np.exp(np.tensordot(np.array(eta), y, 1) - log) * area
    assert density.sum() == pytest.approx(1, abs=1e-11)
    np.testing.assert_allclose((density * y).sum((1, 2)), mean, rtol=1e-10)


def test_equal_parameters_have_the_volume_of_the_simplex():
    for classes in (2, 3, 10, 50):
        log, mean = one(*[0.7] * classes)
        assert log == pytest.approx(0.7 - math.lgamma(classes), abs=1e-11)
        assert mean == pytest.approx([1 / classes] * classes, rel=1e-12)


CASES = [
    [0.0] * 9 + [1e-7],
    [0.0] * 5 + [-50.0] * 5,
    [0.0] + [-1000.0] * 9,
    [0.0] * 9 + [-1000.0],
    [3.0, 2.9, -14.0, 0.0, 0.1, -7.0, 22.0, 1.0, -3.0, 5.0],
    [0.1 * k for k in range(30)],
]


@pytest.mark.parametrize("eta", CASES, ids=range(len(CASES)))
def test_meeting_and_distant_parameters_against_a_recursion_with_many_digits(eta):
    log, mean = one(*eta)
    exact = divided_difference(eta)
    assert log == pytest.approx(float(exact.ln()), rel=1e-12, abs=1e-12)
    for k in (0, len(eta) - 1):
        assert mean[k] == pytest.approx(float(divided_difference([*eta, eta[k]]) / exact), rel=1e-11)


def test_a_common_shift_and_an_order_do_not_matter_and_broken_members_stay_alone():
    eta = torch.randn(4, 5, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log, mean = log_normaliser(eta)
    shifted, same = log_normaliser(eta.flip(-1) - 7.0)
    torch.testing.assert_close(shifted + 7.0, log, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(same.flip(-1), mean, rtol=1e-12, atol=1e-12)
    eta[1, 2, 3] = float("nan")
    broken, _ = log_normaliser(eta)
    assert broken.isnan().nonzero().tolist() == [[1, 2]]
    assert torch.equal(broken.nan_to_num(nan=0.0), torch.where(broken.isnan(), 0.0, log))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("scale", [0.0, 0.1, 3.0])
def test_the_divergence_and_its_gradient_against_autograd_and_differences(scale, temperature):
    draw = torch.Generator().manual_seed(0)
    student, teacher = (scale * torch.randn(2, 3, 10, generator=draw, dtype=torch.float64) for _ in range(2))
    if scale == 0:
        student[0, 0, 0] = 0.01
    loss = ContinuousCategorical(temperature)
    found, gradient = loss.with_gradient(student, teacher)
    leaf = student.clone().requires_grad_(True)
    theirs = (teacher / temperature).requires_grad_(True)
    (mean,) = torch.autograd.grad(by_matrix(theirs.flatten(0, 1)).sum(), theirs)
    apart = by_matrix(leaf.flatten(0, 1) / temperature) - by_matrix(theirs.detach().flatten(0, 1))
    plain = apart.view(2, 3) - ((leaf - teacher) / temperature * mean).sum(-1)
    (expected,) = torch.autograd.grad(temperature**2 * plain.mean(1).sum(), leaf)
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found, (temperature**2 * plain.mean(1)).detach(), rtol=1e-8, atol=1e-10)
    for place in ((0, 0, 0), (1, 2, 7)):
        step = torch.zeros_like(student)
        step[place] = 1e-4
        ahead, behind = (loss(student + side * step, teacher).sum() for side in (1, -1))
        assert float(ahead - behind) / 2e-4 == pytest.approx(float(gradient[place]), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 30.0, 1e4])
def test_float32_is_safe_for_ten_classes(scale):
    draw = torch.Generator().manual_seed(1)
    student, teacher = (scale * torch.randn(2, 50, 10, generator=draw) for _ in range(2))
    loss = ContinuousCategorical(1.0)
    (found, gradient), (exact, slope) = (
        loss.with_gradient(student, teacher),
        loss.with_gradient(student.double(), teacher.double()),
    )
    assert found.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-6, atol=1e-9)
    assert bool((found >= 0).all())


def test_it_is_least_where_student_and_teacher_agree_which_the_likelihood_of_probabilities_is_not():
    teacher = torch.tensor([[[4.6, 0.0]]], dtype=torch.float64)  # .99
    apart, gradient = ContinuousCategorical(1.0).with_gradient(teacher, teacher)
    assert float(apart) == pytest.approx(0, abs=1e-14)
    assert float(gradient.abs().max()) < 1e-14
    # The gradient of -log p(y; eta) is mean - y: there it pulls, and is at rest at a logit of 100.
    y = torch.tensor([0.99, 0.01], dtype=torch.float64)
    assert float((log_normaliser(teacher[0, 0])[1] - y)[0]) < -0.19
    assert float((log_normaliser(torch.tensor([100.0, 0.0]))[1] - y).abs().max()) < 1e-12


def test_near_the_teacher_it_is_smaller_than_kl_by_the_spread_of_the_law():
    """Both are quadratic there: KL has the covariance of the softmax, 1/4 for two equal classes, this one has 1/12."""
    teacher, student = torch.zeros(1, 1, 2).double(), torch.tensor([[[1e-3, 0.0]]], dtype=torch.float64)
    one, other = (float(loss(student, teacher)) for loss in (ContinuousCategorical(1.0), Divergence(1.0)))
    assert one == pytest.approx(1e-6 / 24, rel=1e-5)
    assert other == pytest.approx(1e-6 / 8, rel=1e-5)


@pytest.mark.parametrize("kind", [Scrub, BadTeacher])
def test_outcomes_that_are_not_classes_are_refused(kind):
    task = small_task("mlp")
    line = ex.Task(
        name="line",
        model=lambda: torch.nn.Linear(6, 1),
        train=(task.train.x.float(), task.train.x[:, 0].float()),
        validation=(task.validation.x.float(), task.validation.x[:, 0].float()),
        recipe=ex.Recipe(epochs=1, lr=0.05, batch_size=8),
        outcome="regression",
    )
    said = "loss = 'continuous_categorical' compares logits of classes, and the outcome of line is 'regression'"
    with pytest.raises(InputError, match=said):
        unlearn(train(line, members=1), line, forget_set(line), kind(loss="continuous_categorical"))
    with pytest.raises(InputError, match="loss = 'huber'"):
        kind(loss="huber")
