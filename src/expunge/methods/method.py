"""What every unlearning method is: frozen options, a few declarations, and a generator of stopping times."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from expunge.core import Recipe
from expunge.core.checks import between, non_negative, one_of, plain_fields, whole
from expunge.methods.problem import Checkpoint, Problem

Raises = Literal["forget loss", "forget divergence", ""]


@dataclass(frozen=True, kw_only=True)
class Method:
    """Base of all methods; the fields of a subclass are its options.

    A subclass declares the class variables below, implements `stops`, and says in `grid` what an audit tries.
    """

    name: ClassVar[str]
    """Name in the registry, in records and on the command line."""
    label: ClassVar[str]
    """Name for people."""
    control: ClassVar[bool] = False
    """Whether it is a baseline that every table shows, not a candidate."""
    raises: ClassVar[Raises] = ""
    """What its ascent passes are meant to raise; empty if it never ascends."""
    visits_forget: ClassVar[bool] = True
    """Whether steps are taken on forget examples."""
    from_scratch: ClassVar[bool] = False
    """Whether it throws the pretrained weights away."""
    needs_targets: ClassVar[bool] = False
    """Whether it needs predicted oracle margins (`targets` of `unlearn`)."""

    def __init_subclass__(cls) -> None:
        """Let options be numbers of any library: they are Python's own before a subclass checks them."""
        super().__init_subclass__()
        if "__post_init__" in cls.__dict__:
            check = cls.__post_init__

            def checked(self: Method) -> None:
                plain_fields(self)
                check(self)

            cls.__post_init__ = checked  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        """Convert the options; a subclass checks them here."""
        plain_fields(self)

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Unlearn, and yield a checkpoint at every stopping time, in order.

        Args:
            problem: The pretrained stack, its data, and the ledger.
        """
        raise NotImplementedError

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return the settings that an audit tries, with rates relative to the recipe's peak rate."""
        raise NotImplementedError

    def check_steps(self) -> None:
        """Check the options that all methods of SGD steps share, by their names."""
        options = self.options()
        non_negative(**{name: options[name] for name in ("lr", "weight_decay")})
        whole(**{name: options[name] for name in ("epochs", "batch_size", "forget_batch_size") if name in options})
        between(0.0, 0.9999, momentum=options["momentum"])
        one_of(("frozen", "updated", "recalibrated"), statistics=options["statistics"])

    @property
    def moves(self) -> bool:
        """Whether the options allow the weights to move at all."""
        return float(getattr(self, "lr", 1.0)) > 0

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Batch sizes by the set they are drawn from (`forget`, `retain`), for checks before the work."""
        return {}

    @property
    def repairs(self) -> bool:
        """Whether it descends on R as well as it climbs on F."""
        return bool(self.raises) and "retain" in self.batch_sizes

    def examples_an_epoch(self, forget: int, retain: int) -> int:
        """Return about how many examples an epoch visits, for progress.

        Args:
            forget: Size of F.
            retain: Size of R.
        """
        return sum({"forget": forget, "retain": retain}[part] for part in self.batch_sizes)

    def options(self) -> dict[str, Any]:
        """Return all options, defaults included, as plain values."""
        return dataclasses.asdict(self)

    def describe(self) -> str:
        """Return the method with its options on one line.

        >>> from expunge.methods import GradientAscent
        >>> GradientAscent(lr=0.01, epochs=3).describe()
        'gradient_ascent(lr=0.01, epochs=3, batch_size=64, momentum=0.0, weight_decay=0.0, statistics=frozen)'
        """
        inside = ", ".join(f"{key}={value}" for key, value in self.options().items())
        return f"{self.name}({inside})"
