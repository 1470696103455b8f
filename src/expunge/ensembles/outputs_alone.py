"""Ensembles that hold outputs alone: they answer for the examples of their task, and have no weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from expunge.core import InputError, Statistics, Task


class OutputsNetwork:
    """Looks up what each member put out for an example.

    Its `params` are `train` and `validation`, each (members, examples, ...), in the order of the task. Of examples with
    equal inputs the first counts, since outputs depend on the inputs alone.
    """

    kind = "outputs"
    reason = ""
    attributes: tuple[str, ...] = ()
    noisy = False

    def __init__(self, task: Task) -> None:
        self.template = task.build(0)
        self.interface = task.interface
        self.outcome = task.outcome
        self.widest = task.interface.run(self.template, task.train.x[:1]).numel()
        self._dtype = task.train.x.dtype
        self._place: dict[bytes, int] = {}
        for place, row in enumerate([*self._rows(task.train.x), *self._rows(task.validation.x)]):
            self._place.setdefault(row, place)

    def _rows(self, x: Tensor) -> list[bytes]:
        """Return the bytes of each example; 0 and -0 are equal."""
        array = np.ascontiguousarray(x.to(self._dtype).cpu().reshape(len(x), -1).numpy())
        return [row.tobytes() for row in (array + 0 if array.dtype.kind == "f" else array)]

    def __call__(
        self,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        x: Tensor,
        *,
        statistics: Statistics = "frozen",
        noise: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """Return outputs (members, batch, ...) for examples of the task; see `expunge.core.Network`."""
        if len(x) != 1:
            raise InputError("members have inputs of their own, expected the same for all: these are outputs alone.")
        train, validation = params["train"], params["validation"]
        found = [self._place.get(row, -1) for row in self._rows(x[0])]
        strange = sum(place < 0 for place in found)
        if strange:
            raise InputError(
                f"{strange} of {len(found)} examples are not among those of the task; these models are known by their "
                "outputs alone, so expected examples of task.train or task.validation."
            )
        place = torch.tensor(found, device=train.device)
        out = train.new_empty(len(train), len(place), *train.shape[2:])
        first = place < train.shape[1]
        out[:, first] = train[:, place[first]]
        out[:, ~first] = validation[:, place[~first] - train.shape[1]]
        return out
