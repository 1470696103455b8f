"""One example run, drawn once for all tests of the report."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from expunge.core.record import Record
from expunge.report import draw


def load_example(file: str = "example_record") -> ModuleType:
    """Import a module beside this file; the test folders are not packages (import mode `importlib`)."""
    name = f"report_{file}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{file}.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def example() -> ModuleType:
    """The module that makes example records."""
    return load_example()


@pytest.fixture(scope="session")
def forecasts() -> ModuleType:
    """The module that makes example forecasts."""
    return load_example("example_forecast")


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory, example: ModuleType) -> tuple[Record, Path]:
    """A record and the path of its page; tests must not change either."""
    folder = tmp_path_factory.mktemp("run")
    record = example.write_example(folder)
    return record, draw(folder)


@pytest.fixture
def record(example: ModuleType) -> Record:
    """A fresh record that a test may change."""
    found = example.example_record(members=40, epochs=4)
    assert isinstance(found, Record)
    return found
