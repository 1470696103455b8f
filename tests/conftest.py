"""What every test shares: the same random numbers in each run, unless one asks for others."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

# A failure must be there again on the next run. `EXPUNGE_TEST_SEED=random make test` explores instead.
EXPLORE = os.environ.get("EXPUNGE_TEST_SEED") == "random"
# A busy machine is not a failure: no deadlines.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("explore" if EXPLORE else "same")

# PyTorch seeds itself from the machine's entropy. Files that make tensors when they are read come after this line.
if not EXPLORE:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def same_torch_numbers() -> None:
    """Start each test from the same state of PyTorch's generator, whichever tests ran before it."""
    if not EXPLORE:
        torch.manual_seed(0)
