"""Which rows an audit was about: digests of all of them, and the places of those that were forgotten and scored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors

from expunge.core import Task
from expunge.core.record import SPLITS, write_atomically
from expunge.core.row_digests import digest_rows
from expunge.studies.run.measure import Parts
from expunge.tasks import Choice

FILE = "rows.safetensors"


def save_rows(folder: Path, task: Task, choices: Sequence[Choice], seed: int) -> tuple[str, str]:
    """Write what can be said of the rows without showing one, and return the name of the file and its SHA-256.

    Args:
        folder: The run's.
        task: As it was given; a kind of forget set that plants wrong labels does so afterwards.
        choices: The forget sets.
        seed: The study's.
    """
    tensors = {
        "train": torch.from_numpy(digest_rows(task.train).copy()),
        "validation": torch.from_numpy(digest_rows(task.validation).copy()),
    }
    for choice in choices:
        places = Parts.of(choice.task, choice.forget, seed).positions
        tensors |= {f"{choice.forget.name}/{split}": places[split].clone() for split in SPLITS}
    content = save_tensors(tensors)
    write_atomically(folder / FILE, content)
    return FILE, hashlib.sha256(content).hexdigest()
