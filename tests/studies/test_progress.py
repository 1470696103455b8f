"""The live line of progress keeps its clock at any width; a log file gets a line a step."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from expunge.studies.run.progress import Pulse, Reporter


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_clock_is_seen_at_any_width(width: int) -> None:
    file = io.StringIO()
    console = Console(width=width, force_terminal=True, file=file, color_system=None, legacy_windows=False)
    reporter = Reporter(console).start(100)
    with reporter:
        assert reporter._bar is not None
        reporter.step("train oracles of [random-70], members 0 to 100 of the whole thing")
        reporter.began -= 1200
        reporter.advance(13)
        reporter._bar.refresh()
        line = file.getvalue().rpartition("\x1b[2K")[2]
    assert len(line.rstrip("\n")) <= width
    assert line.split()[-1] == "0:00:00"
    assert "13%" in line
    assert "about 134 min left" in line
    assert ("[random-70]" in line) == (width >= 80)


def test_a_pipe_gets_a_line_a_step() -> None:
    file = io.StringIO()
    with Reporter(Console(file=file, width=30)).start(2) as reporter:
        reporter.step("train oracles of [random-70], members 0 to 100")
        reporter.advance(1)
        reporter.step("read")
    assert file.getvalue().splitlines() == ["[  0%] train oracles of [random-70], members 0 to 100", "[ 50%] read"]


def lines_of(file: io.StringIO, count: int) -> list[str]:
    """Return what was printed once it is so many lines; a minute is short here."""
    deadline = time.monotonic() + 60
    while len(file.getvalue().splitlines()) < count and time.monotonic() < deadline:
        time.sleep(0.005)
    return file.getvalue().splitlines()


def test_a_pipe_gets_a_line_a_minute_in_a_long_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("expunge.studies.run.progress.PULSE_SECONDS", 0.01)
    file = io.StringIO()
    with Reporter(Console(file=file, width=30)).start(4) as reporter:
        reporter.advance(1)
        reporter.step("train [oracles]")
        seen = lines_of(file, 4)
    assert "[ 25%] train [oracles]" in seen
    assert re.fullmatch(r"\[ 25%\] train \[oracles\], for 0 s now", seen[-1])
    time.sleep(0.05)
    after = len(file.getvalue())
    time.sleep(0.05)
    assert len(file.getvalue()) == after  # and none when it is over


def test_what_comes_before_a_run_has_a_pulse_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("expunge.studies.run.progress.PULSE_SECONDS", 0.01)
    file = io.StringIO()
    with Pulse(Console(file=file), lambda: "trying [forms]"):
        assert lines_of(file, 2)[:2] == ["trying [forms]"] * 2
    with Pulse(None, lambda: "nothing"):
        time.sleep(0.03)
