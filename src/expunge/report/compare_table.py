"""The comparison of runs in a terminal."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table
from rich.text import Text

from expunge.report import numbers
from expunge.report.comparison import NOT_CHOSEN, NOT_RUN, Answer, Comparison, Line
from expunge.report.fitting import print_fitting
from expunge.report.table import STYLES, TONES


def print_comparison(found: Comparison, console: Console) -> None:
    """Print what runs conclude, for each forget set a sentence and a table with a row a method and a column a run.

    Args:
        found: Of `compare`.
        console: Where to print; its width decides what the tables look like.
    """
    for answer in found.answers:
        console.print(Text(f"{answer.task}, {answer.forget_set}", "bold"))
        console.print(Text(answer.sentence, TONES[answer.tone]))
        if answer.differing:
            console.print(Text(f"Conclusions differ: {' '.join(answer.differing)}"))
        print_fitting(console, *(_table(found, answer, excess=excess) for excess in (True, False)))
        console.print()
    for sentence in found.differences:
        console.print(Text(f"Note: {sentence}", "dim"))
    console.print(
        Text(
            "Verdict and cost of retraining, at the setting chosen without the answer; in brackets, where there is "
            "room, the worst excess over the floor of the three splits: KLoM in nats, 95th percentile over examples.",
            "dim",
        )
    )


def comparison_text(found: Comparison, width: int = 120) -> str:
    """Return what `print_comparison` prints in a terminal of a width, without colours."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    print_comparison(found, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _table(found: Comparison, answer: Answer, *, excess: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("method", min_width=20)
    for run in found.columns:
        # Ranged right, so that a list, where the table does not fit, names the run beside its verdict.
        table.add_column(run, justify="right", no_wrap=True)
    own = [line for line in found.lines if (line.task, line.forget_set) == (answer.task, answer.forget_set)]
    expected = any(line.forecast for line in own)
    if expected:
        table.add_column("forecast", no_wrap=True)
    for method in dict.fromkeys(line.method for line in own):
        same = [line for line in own if line.method == method]
        name = Text(same[0].label + (" (control)" if same[0].control else ""), "dim" if same[0].control else "")
        outlooks = list(dict.fromkeys(line.forecast for line in same if line.forecast))
        cells = [_cell(line, excess) for line in same]
        table.add_row(name, *cells, *([Text(" / ".join(outlooks), "dim")] if expected else []))
    return table


def _cell(line: Line, excess: bool) -> Text:
    if line.verdict == NOT_RUN or line.verdict == NOT_CHOSEN:
        return Text(line.verdict, "dim")
    found = Text(line.verdict, STYLES[line.verdict])
    found.append(f" {numbers.percent(line.cost)}", "not bold default")
    if excess:
        found.append(f" [{numbers.signed(line.worst)}]", "dim")
    return found.append(" FAILED CHECK", "bold red") if line.failed_checks else found
