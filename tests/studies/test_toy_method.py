"""A method is one file and one line of registry: this is the file, and it goes through an audit to its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

import expunge as ex
from expunge.core import Recipe
from expunge.core.seeds import generator
from expunge.methods import METHODS, Checkpoint, EarlyStoppedRetrain, FineTune, Method, Problem
from expunge.methods.method import Need
from reference.problems import small_task


@dataclass(frozen=True, kw_only=True)
class Shake(Method):
    """Add noise to every weight, twice."""

    size: float = 0.01

    name: ClassVar[str] = "shake"
    label: ClassVar[str] = "Shake"
    needs: ClassVar[frozenset[Need]] = frozenset({"weights"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "finite", "enough")
    forecastable: ClassVar[bool] = False

    @property
    def planned_stops(self) -> int:
        return 2

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        state = {name: tensor.clone() for name, tensor in problem.start.params.items()}
        for time in (1, 2):
            for name, tensor in state.items():
                for member, seed in zip(tensor, problem.seeds, strict=True):
                    member += self.size * torch.randn(member.shape, generator=generator(seed, name, time))
            weights = {name: tensor.clone() for name, tensor in state.items()}
            yield problem.stop(time, problem.start.with_state(weights, problem.start.buffers))

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        return [cls(size=size) for size in (1e-6, 0.1, 0.3)]


def test_a_method_of_one_file_and_one_line_goes_through_an_audit_to_a_report(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, Shake.name, Shake)
    for control in (FineTune, EarlyStoppedRetrain):  # all settings of the controls would take most of the time
        monkeypatch.setattr(control, "grid", classmethod(lambda kind, recipe: [kind()]))
    task = small_task(precision="float32")
    run = ex.audit(task, forget=["random:10"], methods=["shake"], members=20, out=tmp_path / "run")
    forget = run.record.forget_sets[0]
    made = [c for c in forget.configurations if c.method == "shake"]
    assert [c.id for c in made] == [f"shake/size={size:g}@{stop}" for size in (1e-6, 0.1, 0.3) for stop in (1, 2)]
    assert all(c.calibration and not c.control and c.cost == 0 for c in made)
    assert [[check.name for check in c.checks] for c in made] == [
        ["weights moved", "weights finite", "moved enough"]
    ] * 6
    assert [all(check.passed for check in c.checks) for c in made] == [False] * 2 + [True] * 4
    assert next(s for s in forget.selections if s.method == "shake").chosen in {c.id for c in made}
    page = run.report.read_text()
    assert "Shake" in page
    assert page.count("exact: nothing was ever computed from the forget set") == 1  # Retrain's certificate
    assert "shake" not in {m.method for m in forget.forecast.methods}
