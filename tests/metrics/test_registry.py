"""The registry: a metric of one file and one line is in the audit's table, in `score` and in the report."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from sklearn.datasets import load_digits
from torch import nn

import expunge as ex
from expunge.core.record import SPLITS, Record
from expunge.metrics import METRICS, Metric, Sample, Side
from expunge.metrics.registry import KLOM, PUBLIC, listing
from expunge.report import print_table
from expunge.report.score_table import print_scores
from expunge.studies.run.measure import kinds
from expunge.studies.run.parts import PartStore
from expunge.studies.score import score_files

TOY = """
import numpy as np

from expunge.metrics import Metric
from expunge.metrics.reading import compare


def read(sample):
    largest = [side.logits[sample.split].max(-1).mean(1) for side in (sample.unlearned, sample.oracle)]
    return compare(
        "toy", *largest, examples=sample.u.shape[1], smallest=-np.inf, largest=np.inf, over="neither", unit="logits"
    )


METRIC = Metric("largest logit", "toys", read, "closer", "The mean of the largest logit.", ("logits",), audited=True)
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A metric in a file of its own, and the line that registers it."""
    file = tmp_path / "toy.py"
    file.write_text(TOY)
    spec = importlib.util.spec_from_file_location("toy", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(METRICS, module.METRIC.name, module.METRIC)
    return module


def test_a_toy_metric_is_in_the_table_of_an_audit_and_in_its_report(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[Any] = []
    load = PartStore.load
    monkeypatch.setattr(PartStore, "load", lambda self, key: keys.append(key) or load(self, key))  # type: ignore[func-returns-value]
    digits = load_digits()
    x, y = (digits.data / 16).astype("float32"), digits.target
    task = ex.Task(
        name="small",
        train=(x[:120], y[:120]),
        validation=(x[200:260], y[200:260]),
        model=lambda: nn.Linear(64, 10),
        recipe=ex.Recipe(epochs=2, batch_size=32, lr=0.2, peak_epoch=1),
    )
    method = ex.methods.GradientAscent(lr=0.1, epochs=1)
    run = ex.audit(task, forget="random:20", methods=method, members=20, out=tmp_path / "run", forecast=False, chunk=20)
    forget = run.record.forget_sets[0]
    chosen = next(c for c in forget.configurations if c.id == forget.selections[0].chosen)
    results = chosen.others["largest logit"]
    assert set(results) == set(SPLITS)
    assert results["forget"].members == 20
    assert np.isfinite([results["forget"].value, results["forget"].floor]).all()
    assert all(key["measured"] == ["accuracy", "logits", "margins"] for key in keys if "method" in key)
    console = Console(file=io.StringIO(), width=80, color_system=None)
    print_table(run.record, console)
    number = f"{results['forget'].value:.2f} ({results['forget'].floor:.2f})"
    for text in (console.file.getvalue(), run.report.read_text()):  # type: ignore[attr-defined]
        assert "largest logit" in text
        assert number in text
    # It loads again, as every record does.
    assert Record.load(run.folder).forget_sets[0].configurations[0].others.keys() == {"largest logit"}


def test_a_toy_metric_is_in_score(toy: ModuleType, tmp_path: Path) -> None:
    draw, labels = np.random.default_rng(0), np.arange(12) % 3
    for who in ("u", "o"):
        np.save(tmp_path / f"{who}.npy", draw.normal(size=(8, 12, 3)))
    np.save(tmp_path / "y.npy", labels)
    result = score_files(tmp_path / "u.npy", tmp_path / "o.npy", labels=tmp_path / "y.npy")
    (line,) = [line for line in result.lines if line.metric == "largest logit"]
    assert line.group == "toys"
    assert line.value == pytest.approx(np.load(tmp_path / "u.npy").max(-1).mean())
    console = Console(file=io.StringIO(), width=100, color_system=None)
    print_scores(result, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.index("published elsewhere") < text.index("toys") < text.index("largest logit")
    assert json.loads(result.model_dump_json())["lines"][-1]["floor"] == line.floor


def test_what_is_measured_follows_from_what_is_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kinds() == ["accuracy", "margins"]
    assert [name for name, metric in METRICS.items() if metric.audited] == [KLOM, PUBLIC]
    silent = Metric("silent", "toys", lambda sample: None, "closer", "Nothing.", ("logits/retain",), audited=True)
    monkeypatch.setitem(METRICS, "silent", silent)
    assert kinds() == ["accuracy", "logits", "margins"]


def test_a_metric_is_read_where_it_has_what_it_needs_and_nowhere_else() -> None:
    draw = np.random.default_rng(0)
    sides = [Side({"forget": draw.normal(size=(10, 9))}, {"forget": draw.normal(size=(10, 9, 3))}) for _ in range(2)]
    sample = Sample("forget", *sides, labels={"forget": np.zeros(9, int)})
    for name, metric in METRICS.items():
        needs = all(need in ("margins", "logits", "logits/forget") for need in metric.needs)
        assert (metric.measured(sample) is not None) == needs, name
        assert name == metric.name
        assert metric.about.endswith(".")


def test_the_list_in_the_documentation_is_that_of_the_registry() -> None:
    page = Path(__file__).parents[2] / "docs/metrics/list.md"
    made = (
        'python -c "from expunge.metrics.registry import listing; print(listing(), end=str())" > docs/metrics/list.md'
    )
    assert page.read_text() == listing(), f"write it again: {made}"
