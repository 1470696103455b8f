"""Examples of a task as a data set of PyTorch, for code that a user brings; what is read is counted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from expunge.core.interface import Interface
from expunge.core.task import Split


class Examples(Dataset[tuple[Any, Tensor]]):
    """Items (inputs, target) as the model is called: inputs a tensor, or a mapping from names to tensors.

    Args:
        split: The examples; on the device on which they are given out.
        interface: How the task's models are called (`task.interface`).
    """

    def __init__(self, split: Split, interface: Interface) -> None:
        self.split = split
        self.interface = interface
        self.reads = torch.zeros(len(split), dtype=torch.int64)
        """How often each example was given out."""

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, place: int) -> tuple[Any, Tensor]:
        """Return one example, and count it."""
        self.reads[place] += 1
        return self.interface.unpack(self.split.x[place]), self.split.y[place]
