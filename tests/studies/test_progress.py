"""The live line of progress keeps its clock at any width; a log file gets a line a step."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from expunge.studies.run.progress import Reporter


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
