"""The life of a run, on a toy study: what is written when, what is gone on with, what is refused."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from typing import ClassVar

import pytest
import torch
from pydantic import Field
from rich.console import Console

from expunge.core import InputError
from expunge.core.schema import RunRecord
from expunge.studies.run.lifecycle import Run


class ToyRecord(RunRecord):
    FILE: ClassVar[str] = "toy.json"
    KIND: ClassVar[str] = "toy"
    schema_version: int = 1
    found: list[int] = Field(default_factory=list)


def count(folder, *, upto=3, stop_at=None, resume=False, **options):
    """Square some numbers; return the record and which were computed, not found."""
    computed = []
    with Run.open(
        ToyRecord, folder, {"upto": upto}, resume=resume, command="toy", device=torch.device("cpu"), **options
    ) as run:
        if run.finished:
            return run.record, computed
        for number in range(upto):
            if number == stop_at:
                raise KeyboardInterrupt
            if run.parts.read(number) is None:
                run.parts.write(number, {}, {"square": str(number**2)})
                computed.append(number)
            run.record.found.append(int(run.parts.read(number)[1]["square"]))
            run.save()
    return run.record, computed


def test_a_run_is_complete_at_its_end_only(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        count(out, stop_at=2)
    stopped = ToyRecord.load(out)
    assert (stopped.status, stopped.found) == ("running", [0, 1])
    record, computed = count(out, resume=True)
    assert (record.found, computed) == ([0, 1, 4], [2])
    written = ToyRecord.load(out)
    assert (written.status, written.started, written.found) == ("complete", stopped.started, [0, 1, 4])
    assert written.seconds >= stopped.seconds
    assert [path.name for path in out.rglob("*") if path.is_file()] == ["toy.json"]


def test_a_finished_run_costs_nothing_and_says_so(tmp_path):
    out = tmp_path / "a[/x]b"
    count(out)
    content, said = (out / "toy.json").read_bytes(), io.StringIO()
    record, computed = count(out, resume=True, console=Console(file=said, width=500))
    assert (record.found, computed) == ([0, 1, 4], [])
    assert (out / "toy.json").read_bytes() == content
    assert said.getvalue() == f"{out} holds this toy, finished; nothing to run.\n"


def test_what_is_not_sound_is_made_again_from_parts_that_were_kept(tmp_path):
    out = tmp_path / "run"
    count(out, keep_parts=True)
    record, computed = count(out, resume=True, keep_parts=True, sound=lambda record: False)
    assert (record.status, record.found, computed) == ("complete", [0, 1, 4], [])


def test_another_request_and_a_second_start_are_refused(tmp_path):
    out = tmp_path / "run"
    count(out)
    with pytest.raises(InputError, match="holds a run already; add --resume"):
        count(out)
    with pytest.raises(InputError, match=r"holds another toy \(different: upto\); repeat its command \(toy\)"):
        count(out, upto=4, resume=True)


def test_an_error_inside_leaves_the_record_running(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        Run.open(ToyRecord, tmp_path, {}, resume=False, command="toy", device=torch.device("cpu")),
    ):
        1 / 0  # noqa: B018
    assert ToyRecord.load(tmp_path).status == "running"


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_ends_at_once_and_says_how_to_go_on(tmp_path):
    out = tmp_path / "a[/x]b"
    words = ["audit", "digits", "--forget", "random:70", "--members", "400", "--chunk", "200", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "expunge.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if "training" in line:
            break
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - began < 20  # a chunk takes a minute
    assert process.returncode == 130
    assert said.strip() == "stopped; add --resume to go on where it was"
    assert json.loads((out / "record.json").read_text())["status"] == "running"
