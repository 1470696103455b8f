"""What stands for what is retained: nothing is sampled where there is room, and what is sampled counts for the rest."""

from __future__ import annotations

import pytest
import torch

from dependence.common import trained
from expunge.core import ForgetSet, Split
from expunge.dependence import representatives
from expunge.dependence.curvature import damped
from expunge.dependence.kernel import Kernel
from expunge.dependence.linearised import Linearised
from expunge.dependence.measures import measure_dependence, measure_kernel
from expunge.dependence.representatives import represent, smaller
from expunge.dependence.unrolled import Segment, unrolled_removal

COPIES = 4
INDEX = torch.tensor([1, 8, 9, 40])


@pytest.fixture
def copied(monkeypatch):
    """A task whose retained examples are each there four times, and the task with one of each."""
    task, ensemble = trained("mlp")
    rest = torch.tensor([i for i in range(len(task.train)) if i not in INDEX])
    order = torch.cat([INDEX, rest.repeat(COPIES)])
    many = task.with_data(task.train[order], task.validation)
    one = task.with_data(task.train[torch.cat([INDEX, rest])], task.validation)
    counts = torch.ones(len(one.train), dtype=torch.float64)
    counts[len(INDEX) :] = COPIES
    return many, one, counts, ensemble


def test_nothing_is_sampled_up_to_the_limit_and_the_sample_is_fixed_and_even():
    kept = torch.arange(10, representatives.LARGE + 10)
    assert torch.equal(represent(kept).rows, kept)
    assert represent(kept).each == 1
    more = torch.arange(10, 50_010)
    found = represent(more)
    assert len(found.rows) == representatives.SAMPLE == len(set(found.rows.tolist()))
    assert found.each == pytest.approx(50_000 / representatives.SAMPLE)
    assert torch.equal(found.rows, found.rows.sort().values)
    assert torch.equal(found.rows, represent(more).rows)
    # Uniform: each tenth of the positions has its share, within five standard deviations of a binomial.
    shares = torch.histc(found.rows.double(), 10, 10, 50_010) / representatives.SAMPLE
    assert float((shares - 0.1).abs().max()) < 5 * (0.09 / representatives.SAMPLE) ** 0.5


def test_curvature_of_examples_that_count_is_that_of_their_copies(copied):
    many, one, _, ensemble = copied
    linearised = Linearised(ensemble)
    v = linearised.params
    rest = slice(len(INDEX), None)
    expected = damped(linearised, many.train.x[rest], 0.7)(v)
    found = damped(linearised, one.train.x[rest], 0.7, float(COPIES))(v)
    for name in v:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)


def test_influence_and_measures_of_examples_that_count_are_those_of_their_copies(copied):
    many, one, counts, ensemble = copied
    index = torch.arange(len(INDEX))
    whole = Kernel(ensemble, many, damping=0.3)
    few = Kernel(ensemble, one, damping=0.3, counts=counts)
    assert few.ridge == pytest.approx(whole.ridge)
    rows = len(one.train)
    for a, b in zip(whole, few, strict=True):
        torch.testing.assert_close(b.removal(index)[:rows], a.removal(index)[:rows], rtol=1e-5, atol=1e-8)
    found = measure_dependence(
        ensemble, one, index, kernel=measure_kernel(ensemble, one, damping=0.3, counts=counts), permutations=2
    )
    expected = measure_dependence(
        ensemble, many, index, kernel=measure_kernel(ensemble, many, damping=0.3), permutations=2
    )
    for name in ("spectral_retain", "spectral_validation", "spectral_forget", "shift_forget", "leverage", "kappa"):
        assert found.values[name] == pytest.approx(expected.values[name], rel=1e-5), name


def test_a_sample_of_copies_predicts_what_all_of_them_do(copied, monkeypatch):
    many, _, _, ensemble = copied
    index = torch.arange(len(INDEX))
    forget = ForgetSet.of(many, index.numpy(), name="f", how="chosen")
    expected = unrolled_removal([Segment(ensemble, 5.0)], many, forget)
    rest = len(many.train) - len(INDEX)
    monkeypatch.setattr(representatives, "LARGE", rest - 1)
    monkeypatch.setattr(representatives, "SAMPLE", rest // COPIES)
    # The sample is taken so that one of each is in it.
    monkeypatch.setattr(torch, "randperm", lambda n, generator=None: torch.arange(n))
    found = unrolled_removal([Segment(ensemble, 5.0)], many, forget)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5)
    few, inside, counts = smaller(many, index)
    assert torch.equal(few.train.x[inside], many.train.x[index])
    assert float(counts.sum()) == pytest.approx(len(many.train))
    assert isinstance(few.train, Split)
    assert few.fingerprint != many.fingerprint
