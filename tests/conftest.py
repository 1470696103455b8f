"""What every test shares: the same random numbers in each run, unless one asks for others."""

from __future__ import annotations

import copy
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import settings

import expunge.ensembles  # noqa: F401  tells tasks how their models are computed
from expunge.core.seeds import seed_torch

# A failure must be there again on the next run. `EXPUNGE_TEST_SEED=random make test` explores instead.
EXPLORE = os.environ.get("EXPUNGE_TEST_SEED") == "random"
# A busy machine is not a failure: no deadlines.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("explore" if EXPLORE else "same")

# A shell starts what it runs in the background with Ctrl-C ignored, and so would everything that tests start be.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# PyTorch seeds itself from the machine's entropy. Files that make tensors when they are read come after this line.
if not EXPLORE:
    seed_torch(0)


def generators(module: ModuleType) -> Iterator[np.random.Generator]:
    return (value for value in vars(module).values() if isinstance(value, np.random.Generator))


@pytest.fixture(scope="module")
def states(request: pytest.FixtureRequest) -> list[object]:
    """How a file's own generators stand before its first test."""
    module = getattr(request.node, "module", None)  # an example in a docstring has none
    if module is None:
        return []
    return [
        (np.random.default_rng() if EXPLORE else copy.deepcopy(generator)).bit_generator.state
        for generator in generators(module)
    ]


@pytest.fixture(autouse=True)
def same_numbers(request: pytest.FixtureRequest, states: list[object]) -> Iterator[None]:
    """Start each test from the same state of every generator, whichever tests this process ran before it."""
    if not EXPLORE:
        seed_torch(0)
    if states:
        for generator, state in zip(generators(request.node.module), states, strict=True):
            generator.bit_generator.state = state
    yield
    flushed = not (np.array([5e-324]) * 1.0).any()
    torch.set_flush_denormal(False)
    assert not flushed, "subnormal numbers are 0 in the caller's thread; only threads that compute members may set that"


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """Runs `expunge WORDS` in this process, which spares seconds of imports; what it says and its code come back."""

    def run(*words: str, cwd: Path | None = None) -> SimpleNamespace:
        from expunge.cli import main

        if cwd is not None:
            monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["expunge", *words])
        code = 0
        with warnings.catch_warnings():
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
        said = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=said.out, stderr=said.err)

    return run
