"""The slow obvious twin of models that vote: every voter is one plain training, and probabilities are averaged."""

from __future__ import annotations

import hashlib

import numpy as np
from torch import nn

from expunge.core import Task
from expunge.core.seeds import derive
from reference.one_by_one import member_seed, train_with_seed


def places(x: np.ndarray, voters: int) -> list[int]:
    """Return the voter of each row: the first 8 bytes of a SHA-256 of its inputs, as a number."""
    found = []
    for row in x:
        head = f"torch.{row.dtype}|{row.shape}|torch.float32|(0,)|".encode()
        found.append(int.from_bytes(hashlib.sha256(head + row.tobytes()).digest()[:8], "big") % voters)
    return found


def train_voters(task: Task, base: Task, kept: np.ndarray, member: int, seed: int) -> list[nn.Module]:
    """Train the voters of one member on those of the rows `kept` that are theirs."""
    assert task.voting is not None
    made = []
    for voter in range(task.voting.voters):
        rows = np.array([row for row in kept if int(task.voting.place[row]) == voter])
        own = member_seed(derive(seed, "voter", voter), rows, member)
        made.append(train_with_seed(base, rows, own, base.recipe, base.recipe.epochs))
    return made
