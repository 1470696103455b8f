"""Certificates: their formulas, their assumptions as found, and what voids them.

Statistical tests have fixed seeds; see each for its chance of failure.
"""

from __future__ import annotations

import html
import io
import math

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import expunge as ex
from expunge.core import InputError, Record
from expunge.core.claim import Assumption, Claim, EpsilonRecord, beside, worst
from expunge.core.convex import HESSIAN_LIPSCHITZ, ConvexFit
from expunge.core.trade_off import gaussian_delta, gaussian_epsilon, gaussian_shift
from expunge.ensembles import train
from expunge.methods import DescentToDelete, unlearn
from expunge.methods.descent_to_delete import descent_to_delete_sigma
from expunge.report.table import print_table
from expunge.report.unlearning import unlearning_text
from reference.problems import forget_set, small_task


def rows(n=80, d=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    return x, (x[:, 0] + rng.normal(size=n) > 0).astype(int)


def convex_task(**options):
    return ex.tasks.logistic(rows(), **{"l2": 0.05, "validation": 20, **options})


@pytest.mark.parametrize(
    ("epsilon", "sigma"), [(0.1, 30.7496), (1, 3.73063), (5, 0.891868), (10, 0.499889), (40, 0.174854)]
)
def test_analytic_gaussian_golden_numbers(epsilon, sigma):
    mu = gaussian_shift(epsilon, 1e-5)
    assert 1 / mu == pytest.approx(sigma, rel=2e-6)
    assert gaussian_epsilon(mu, 1e-5) == pytest.approx(epsilon, rel=1e-6)
    assert gaussian_delta(epsilon, mu) == pytest.approx(1e-5, rel=1e-6)


def test_the_published_conversion_without_the_order_is_not_ours():
    # mu = sqrt 2 is a Renyi divergence of 1 at order 1; taken for one at every order it reads 1.0036.
    assert gaussian_epsilon(math.sqrt(2), 1e-5) == pytest.approx(6.5730, abs=1e-4)
    order = np.linspace(1.01, 1000, 200_000)
    assert min(1.0 + math.log(1e5) / (order - 1)) < 1.02
    assert min(order + math.log(1e5) / (order - 1)) > 6.5730  # rightly converted it is looser than the exact one


def test_the_source_s_noise_has_its_golden_number_and_is_safe():
    golden = {"lipschitz": 1.0, "convexity": 0.1, "smoothness": 0.35, "examples": 1000, "steps": 10}
    sigma = descent_to_delete_sigma(1.0, 1e-3, **golden)
    assert sigma == pytest.approx(8.6436e-4, rel=1e-4)
    shift = (0.25 / 0.45) ** 10 * 2 / (0.1 * 1000)
    assert gaussian_epsilon(shift / sigma, 1e-3) < 1.0
    assert descent_to_delete_sigma(1.0, 1e-3, **{**golden, "examples": 2000}) == pytest.approx(sigma / 2)


def test_the_optimum_is_one_and_its_constants_hold():
    task = convex_task(noise=0.1)
    fit, x, y = task.fit, task.train.x, task.train.y
    start = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    linear = 0.3 * start
    w = fit.solve(start, x, y, linear)
    assert float(fit.gradient(w, x, y, linear).norm()) < 1e-7
    assert torch.allclose(w, fit.solve(0 * start, x, y, linear), atol=1e-8)
    slow = w.clone().requires_grad_(True)
    loss = nn.functional.cross_entropy(x @ slow.T, y, reduction="sum") + 0.05 / 2 * len(x) * slow.square().sum()
    (own,) = torch.autograd.grad(loss + (linear * slow).sum(), slow)
    assert torch.allclose(own, fit.gradient(w, x, y, linear), atol=1e-9)
    hessian = torch.autograd.functional.hessian(
        lambda v: nn.functional.cross_entropy(x @ v.T, y, reduction="sum") + 0.05 / 2 * len(x) * v.square().sum(), w
    )
    assert torch.allclose(hessian.view(10, 10), fit.hessian(w, x), atol=1e-10)
    # The third derivative of log-sum-exp along any direction stays below its bound, and nearly reaches it.
    g = torch.Generator().manual_seed(1)
    z, h = 3 * torch.randn(20_000, 2, generator=g), torch.randn(20_000, 2, generator=g)
    p = z.softmax(1)
    centred = h - (p * h).sum(1, keepdim=True)
    third = (p * centred**3).sum(1).abs() / h.norm(dim=1) ** 3
    assert 0.95 * HESSIAN_LIPSCHITZ < float(third.max()) <= HESSIAN_LIPSCHITZ * (1 + 1e-5)


def test_members_differ_by_their_noise_alone_and_find_it_again():
    task = convex_task(noise=0.1)
    forget, pretrained = forget_set(task, 6), train(task, members=3, seed=1)
    done = unlearn(pretrained, task, forget, DescentToDelete(steps=300), seed=2)
    assert done.trace.claim.holds
    x, y = (part[torch.from_numpy(forget.retain)] for part in (task.train.x, task.train.y))
    start = pretrained.params["weight"][0]
    optimum = task.fit.solve(start, x, y, torch.zeros_like(start))
    noise = done.params["weight"] - optimum
    assert 0.05 < float(noise.std()) < 0.2
    assert not torch.allclose(noise[0], noise[1])
    # A later request of more rows starts from the secret state of the first.
    more = ex.ForgetSet.of(task, [*forget.indices, *forget.retain[:3]], name="more", how="nine rows")
    again = unlearn(done, task, more, DescentToDelete(steps=300), seed=3)
    assert again.trace.claim.holds
    # From a model that somebody else has changed the secret state is not known, and nothing is certified.
    moved = done.with_state({"weight": done.params["weight"] + 3.0}, {})
    lost = unlearn(moved, task, more, DescentToDelete(steps=300), seed=3).trace.claim
    assert [each.name for each in lost.broken] == ["distance of the start from the optimum of R"]


@pytest.mark.parametrize("steps", [1, 10, 60])
def test_descent_contracts_as_fast_as_it_is_said_to_and_epsilon_falls(steps):
    task = convex_task(noise=0.1)
    forget, pretrained = forget_set(task, 6), train(task, members=2, seed=1)
    short = unlearn(pretrained, task, forget, DescentToDelete(steps=steps)).trace
    assert short.claim.holds
    assert short.cost == pytest.approx(steps / 10)
    longer = unlearn(pretrained, task, forget, DescentToDelete(steps=steps + 20)).trace
    assert longer.claim.epsilon < short.claim.epsilon


def test_rows_that_are_too_long_void_the_claim():
    task = convex_task(noise=0.1)
    long = ex.Task(
        name="long",
        train=(4 * task.train.x, task.train.y),
        validation=(task.validation.x, task.validation.y),
        model=task.model,
        recipe=task.recipe,
        fit=task.fit,
    )
    claim = unlearn(train(long, members=2), long, forget_set(long, 6), DescentToDelete()).trace.claim
    assert not claim.holds
    assert {"norm of the longest row"} <= {each.name for each in claim.broken}
    assert claim.sentence.startswith("VOID, nothing is certified: norm of the longest row is 4, at most 1 is needed")


def test_models_without_a_proof_are_refused_with_what_would_be_needed():
    task = small_task("mlp")
    with pytest.raises(InputError, match=r"needs a strongly convex loss .* linear model without a bias"):
        unlearn(train(task, members=1), task, forget_set(task), DescentToDelete())
    with pytest.raises(InputError, match="expected one of them above 0: all models would be one"):
        ConvexFit(l2=0.1)
    perturbed = convex_task(perturbation=1.0)
    with pytest.raises(InputError, match=r"was trained with noise = 0; expected a task such as ex\.tasks\.logistic"):
        unlearn(train(perturbed, members=1), perturbed, forget_set(perturbed), DescentToDelete())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l2": 0.0}, "l2 = 0"),
        ({"validation": 79}, "validation = 79, expected at most 77"),
        ({"noise": 0.0}, "noise are both 0"),
        ({"data": "iris"}, "data = 'iris'"),
        ({"data": ([[1.0]], [0.5])}, "expected finite inputs"),
    ],
)
def test_tasks_refuse_what_they_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        ex.tasks.logistic(**{"data": rows(), **options})


def claim(epsilon=1.0, value=0.5, **changes):
    made = {
        "epsilon": epsilon,
        "delta": 1e-5,
        "mechanism": "noise",
        "reference": "retraining",
        "retraining": True,
        "assumptions": [Assumption(name="distance", value=value, side="at most", bound=1.0)],
    }
    return Claim(**{**made, **changes})


def test_claims_of_members_join_to_the_worst_and_are_never_better_than_their_assumptions():
    joined = worst([claim(1.0, 0.5), claim(2.0, 0.1), claim(0.5, 3.0)])
    assert (joined.epsilon, joined.assumptions[0].value, joined.holds) == (2.0, 3.0, False)
    assert worst([claim(value=math.nan), claim(value=2.0)]).assumptions[0].slack == -math.inf
    assert not claim(value=math.nan).holds
    least = Assumption(name="m", value=0.1, side="at least", bound=0.2)
    assert not least.holds
    assert str(least) == "m is 0.1, at least 0.2 is needed"


def test_what_was_measured_stands_beside_what_is_claimed():
    found = EpsilonRecord(epsilon=1.5, delta=1e-5, significance=0.05, largest=3.0, members=50, oracles=50)
    assert "CONTRADICTED, measured: epsilon is at least 1.5 (95% confidence" in beside(claim(1.0), found)
    assert "CONTRADICTED" not in beside(claim(2.0), found)
    assert "not what is claimed" in beside(claim(1.0, retraining=False), found)
    assert "No lower bound was measured" in beside(claim(), None)


def test_an_audit_records_the_claim_and_shows_the_measured_bound_beside_it(tmp_path):
    task = convex_task(noise=0.1)
    forget = forget_set(task, 6)
    asked = [DescentToDelete(steps=100)]
    run = ex.audit(task, forget=[forget], methods=asked, members=20, out=tmp_path / "run", forecast=False)
    (found,) = [each for each in Record.load(run.folder).forget_sets[0].configurations if each.method == asked[0].name]
    assert found.claim.holds
    assert (found.epsilon.delta, found.epsilon.members) == (1e-5, 10)
    text = beside(found.claim, found.epsilon)
    assert text in html.unescape(run.report.read_text())
    console = Console(file=io.StringIO(), width=1000, color_system=None)
    print_table(Record.load(run.folder), console)
    assert text in console.file.getvalue()


def test_a_checkpoint_is_unlearned_with_its_claim_beside_it(tmp_path):
    task = convex_task(noise=0.1)
    module = train(task, members=1).module(0)
    torch.save(module.state_dict(), tmp_path / "model.pt")
    method = DescentToDelete(steps=100)
    done = ex.unlearn_checkpoint(tmp_path / "model.pt", task, forget_set(task, 6), method, out=tmp_path / "out")
    assert done.record.claim is not None
    text = unlearning_text(done.record, 400)
    assert done.record.claim.sentence in text
    assert "holds: norm of the longest row is 1" in text
