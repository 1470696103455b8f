"""Examples of a task as a data set of PyTorch, for code that a user brings; what is read is counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from expunge.core.interface import Interface
from expunge.core.task import Split


class Examples(Dataset[tuple[Any, Tensor]]):
    """Items (inputs, target) as the model is called: inputs a tensor, or a mapping from names to tensors.

    A slice or an array of places gives several at once, stacked.

    Args:
        split: The examples; on the device on which they are given out.
        interface: How the task's models are called (`task.interface`).
        rows: Their positions in the task's training data; for other examples None.
    """

    def __init__(self, split: Split, interface: Interface, rows: np.ndarray[Any, Any] | None = None) -> None:
        self.split = split
        self.interface = interface
        self.rows = rows
        self.reads = torch.zeros(len(split), dtype=torch.int64)
        """How often each example was given out as an item."""

    @property
    def x(self) -> Any:
        """All inputs, (examples, ...), or a mapping of named ones."""
        return self.interface.unpack(self.split.x)

    @property
    def y(self) -> Tensor:
        """All targets, (examples, ...)."""
        return self.split.y

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, place: Any) -> tuple[Any, Tensor]:
        """Return one example, or several, and count them."""
        if isinstance(place, int):
            self.reads[place] += 1
        else:  # a sampler may draw an example twice
            self.reads += torch.bincount(torch.arange(len(self))[place].reshape(-1), minlength=len(self))
        return self.interface.unpack(self.split.x[place]), self.split.y[place]

    def __getitems__(self, places: list[int]) -> list[tuple[Any, Tensor]]:
        """Return several items; a `DataLoader` fetches its batches by this."""
        x, y = self[torch.tensor(places)]
        if isinstance(x, dict):
            return [({name: tensor[n] for name, tensor in x.items()}, y[n]) for n in range(len(places))]
        return list(zip(x, y, strict=True))
