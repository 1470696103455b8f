"""Do nothing: the pretrained ensemble itself, the row that shows how far there is to go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from expunge.core import Recipe
from expunge.methods.method import Method, Need, Role
from expunge.methods.problem import Checkpoint, Problem


@dataclass(frozen=True, kw_only=True)
class DoNothing(Method):
    """Return the pretrained models unchanged, at no cost."""

    name: ClassVar[str] = "do_nothing"
    label: ClassVar[str] = "Do nothing"
    role: ClassVar[Role] = "control"
    needs: ClassVar[frozenset[Need]] = frozenset()
    checks: ClassVar[tuple[str, ...]] = ("still", "statistics", "finite")
    forecastable: ClassVar[bool] = False

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield the start."""
        yield problem.stop(0, problem.start)

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return the one setting there is."""
        return [cls()]
