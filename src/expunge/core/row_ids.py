"""Names of training examples, by which a user knows them: customer numbers, file names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from expunge.core.checks import described
from expunge.core.errors import InputError


def read_ids(given: Any, examples: int) -> dict[str, int]:
    """Return the position of each training example by its name, as text.

    Args:
        given: A name for each example in the order of the training data: texts or whole numbers, in a list, an array
            or a pandas column.
        examples: How many there are.

    Raises:
        InputError: If their number is another, one is neither, or one stands there twice.

    >>> read_ids(np.array([17, 4]), 2)
    {'17': 0, '4': 1}
    """
    if isinstance(given, str | bytes | dict) or not isinstance(given, Iterable):
        raise InputError(
            f"ids is {described(given)}, expected a list of texts or whole numbers, one a training example."
        )
    names = given.tolist() if isinstance(given, np.ndarray | np.generic | torch.Tensor) else list(given)
    if not isinstance(names, list) or len(names) != examples:
        came = len(names) if isinstance(names, list) else 1
        raise InputError(f"ids has {came} entries for {examples} training examples, expected one for each.")
    found: dict[str, int] = {}
    for position, name in enumerate(names):
        if isinstance(name, bool | np.bool_) or not isinstance(name, str | int | np.integer) or not str(name).strip():
            raise InputError(f"ids[{position}] is {repr(name)[:60]}, expected a text or a whole number.")
        first = found.setdefault(str(name).strip(), position)
        if first != position:
            raise InputError(
                f"ids[{first}] and ids[{position}] are both {str(name).strip()!r}, expected another for each example."
            )
    return found
