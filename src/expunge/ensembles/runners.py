"""Where shards are computed: on this machine, or on the machines of a Ray cluster.

A shard is some members' work of seconds to hours. A runner is given a function and shards; for each shard the function
leaves what it makes in a store, and whoever asked reads it from there and from nowhere else. So a runner knows nothing
that would be lost with it: when the one who asked ends, in whatever way, all that is finished is in the store, and
another goes on from there, here or elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import torch

from expunge.core import InputError
from expunge.core.checks import described

S = TypeVar("S")

EXPECTED = "local, ray, or ray:ADDRESS such as ray:10.0.0.1:6379"


@runtime_checkable
class Runner(Protocol):
    """What places shards on machines."""

    def check(self, store: Path) -> None:
        """Refuse machines on which the work would fail, or give other numbers; nothing has been computed yet.

        Args:
            store: Folder that the work writes to.

        Raises:
            InputError: If a machine cannot be reached, has other versions, or does not see the folder.
        """
        ...

    def run(
        self,
        work: Callable[[S], object],
        shards: Sequence[S],
        *,
        name: Callable[[S], str] = str,
        finished: Callable[[S], None] = lambda shard: None,
    ) -> None:
        """Do `work(shard)` for every shard, in any order and perhaps more than once.

        Args:
            work: Can be pickled, leaves what it makes in a store, and does nothing where that is there already. If it
                leaves alone what another is at, it has a method `beside(shard)` that does not.
            shards: What there is to do.
            name: How a message calls a shard.
            finished: Called here with each shard that is done.

        Raises:
            InputError: If a shard cannot be done; the message names it and says where its log is.
        """
        ...

    @property
    def device(self) -> torch.device:
        """Where its work computes."""
        ...


def read_runner(given: str | Runner | None) -> Runner | None:
    """Return the runner that is meant; None computes in this process.

    Args:
        given: `local` or None; `ray` for a cluster of this machine's cores, or the one that `RAY_ADDRESS` names;
            `ray:ADDRESS` for another; or a runner.

    Raises:
        InputError: If it is something else.
    """
    if given is None or given == "local":
        return None
    if isinstance(given, str):
        kind, _, address = given.partition(":")
        if kind == "ray":
            from expunge.ensembles.on_ray import RayRunner

            return RayRunner(address)
    elif isinstance(given, Runner):
        return given
    raise InputError(f"runner = {described(given)}, expected {EXPECTED}, or an expunge.ensembles.RayRunner(...).")
