"""Audits and forecasts: run one, draw its page; and put finished ones beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from expunge import report, studies
from expunge.api.asked import (
    ForgetItem,
    check_request,
    forget_sets,
    method_list,
)
from expunge.core import Record, Task
from expunge.core.checks import as_path, plain_arguments
from expunge.core.forecast import ForecastRun
from expunge.core.schema import write_atomically
from expunge.ensembles import Runner
from expunge.methods import Method
from expunge.report.comparison import Comparison
from expunge.studies.run.given import Models


@dataclass(frozen=True)
class Run:
    """A finished audit."""

    folder: Path
    """Where everything was written."""
    record: Record
    """What was found."""
    report: Path
    """The report, one HTML file."""


@dataclass(frozen=True)
class Forecast:
    """A finished run of forecasts."""

    folder: Path
    """Where everything was written."""
    record: ForecastRun
    """What was predicted."""
    report: Path
    """The page, one HTML file."""


@plain_arguments
def audit(
    task: Task,
    *,
    forget: ForgetItem | Sequence[ForgetItem],
    methods: str | Method | Sequence[str | Method] | None = None,
    pretrained: Models | None = None,
    oracles: Models | Mapping[str, Models] | None = None,
    held_out: Models | Mapping[str, Models] | None = None,
    members: int = 100,
    out: Path | str = "runs/audit",
    seed: int = 0,
    tolerance: float | None = None,
    row_tolerance: float | None = None,
    resume: bool = False,
    forecast: bool = True,
    device: str = "auto",
    chunk: int | None = None,
    runner: str | Runner | None = None,
    console: Console | None = None,
    command: str | None = None,
) -> Run:
    """Audit unlearning methods on a task: train, unlearn, score against retrained oracles, choose, judge, report.

    Args:
        task: Data, model and recipe.
        forget: One forget set or several: `ForgetSet`, a file of indices, or a chooser such as `"random:70"`.
        methods: Registry names (whole grids), methods with options, or functions of one's own
            (`methods.from_function(fn)`, or `"mine.py:fn"`), one or several; `"all"` is the whole registry, None
            `methods.DEFAULT_METHODS`. Controls always run.
        pretrained: Models that were trained on all training examples, by whatever means, instead of training them: an
            `Ensemble`, a folder that `ensemble.save` wrote, or checkpoints as `Ensemble.from_files` takes them.
        oracles: Models trained on the retain set, likewise; for several forget sets a mapping from their names.
        held_out: More oracles, independent of those, for the floor. Without them the oracles that were given are
            halved.
        members: Members of every ensemble that is trained, at least 20: with fewer, the floor (what two sets of oracles
            read of each other) is as high as the effects to be seen.
        out: Folder of the run.
        seed: The study's seed.
        tolerance: Largest excess over the floor, in nats, that counts as indistinguishable; None for the default.
        row_tolerance: Shift of a single forget row, in oracle standard deviations, that must not be missed: where these
            numbers of members would miss it more than once in ten, the verdict is undecided; None for the default, 1.
        resume: Go on with a run that was interrupted, or draw the report of a finished one again.
        forecast: Predict the outcome of every method before any oracle is trained, and show both; methods that aim at
            predicted margins need it.
        device: `auto`, `cpu` or `cuda`.
        chunk: Members computed together; None measures the fastest. Two runs with the same chunk have identical
            numbers; with another they agree to rounding (and exactly for fully connected models on a CPU).
        runner: Where models are trained and unlearned: `local`, or `ray`, `ray:ADDRESS` or an
            `expunge.ensembles.RayRunner` for a cluster whose machines all see `out`. The numbers are the same.
        console: Where progress is shown; None is silent.
        command: The shell command to put into the record; None writes the Python call.

    Returns:
        The run, with `record` and the path of the `report`.

    Raises:
        InputError: If something given cannot be used; before any training.
    """
    check_request(task, out, seed, tolerance)
    folder, record = studies.audit(
        task,
        forget=forget_sets(forget),
        methods=method_list(methods),
        pretrained=pretrained,
        oracles=oracles,
        held_out=held_out,
        members=members,
        out=Path(out),
        seed=seed,
        tolerance=tolerance,
        row_tolerance=row_tolerance,
        resume=resume,
        forecast=forecast,
        device=device,
        chunk=chunk,
        runner=runner,
        console=console,
        command=command,
    )
    return Run(folder, record, report.draw(folder))


@plain_arguments
def forecast(
    task: Task,
    *,
    forget: ForgetItem | Sequence[ForgetItem],
    methods: str | Method | Sequence[str | Method] | None = None,
    pretrained: Models | None = None,
    members: int = 100,
    followed: int = 12,
    out: Path | str = "runs/forecast",
    seed: int = 0,
    tolerance: float | None = None,
    resume: bool = False,
    device: str = "auto",
    chunk: int | None = None,
    console: Console | None = None,
    command: str | None = None,
) -> Forecast:
    """Predict, from the pretrained models alone, what unlearning methods would reach on a task: no oracle is trained.

    Args:
        task: Data, model and recipe.
        forget: One forget set or several: `ForgetSet`, a file of indices, or a chooser such as `"random:70"`.
        methods: Registry names (whole grids) or methods with options, one or several; `"all"` is the whole
            registry, None `methods.DEFAULT_METHODS`. Fine-tuning is always shown.
        pretrained: Models that were trained on all training examples, by whatever means, instead of training them, as
            in `audit`, at least 2. Where they do not say how they were trained, oracles are predicted from the end of
            training alone, which is coarser; the notes say so.
        members: Members of the pretrained ensemble, at least 2, since differences between members are the scale of a
            prediction; 100 as in an audit.
        followed: Members whose training is retraced and whose weights are linearised, at least 2.
        out: Folder of the run; an audit of the same seed in the same folder finds the pretrained ensemble there.
        seed: The study's seed.
        tolerance: Excess over the floor, in nats, that counts as indistinguishable; None for that of an audit.
        resume: Go on with a run that was interrupted, or draw the page of a finished one again.
        device: `auto`, `cpu` or `cuda`.
        chunk: Members computed together; None measures the fastest.
        console: Where progress is shown; None is silent.
        command: The shell command to put into the record; None writes the Python call.

    Returns:
        The run, with `record` and the path of the page in `report`.

    Raises:
        InputError: If something given cannot be used, or the model cannot be linearised; before any training.
    """
    check_request(task, out, seed, tolerance)
    folder, record = studies.forecast_run(
        task,
        forget=forget_sets(forget),
        methods=method_list(methods),
        pretrained=pretrained,
        members=members,
        followed=followed,
        out=Path(out),
        seed=seed,
        tolerance=tolerance,
        resume=resume,
        device=device,
        chunk=chunk,
        console=console,
        command=command,
    )
    return Forecast(folder, record, report.draw_forecast(folder))


def compare(
    *runs: Run | Forecast | Path | str, out: Path | str | None = None, csv: Path | str | None = None
) -> Comparison:
    """Put audits beside each other: what passes in every run, where they conclude differently, and every number.

    Args:
        runs: Two or more finished runs, or their folders: audits, and forecasts that speak of the same forget sets.
        out: Draw a page into this file.
        csv: Write the table into this file.

    Returns:
        `answers`, `differences` and `lines`; printed, it is the table of `expunge compare`, and `.table` holds a flat
        mapping for each line, for a data frame.

    Raises:
        InputError: If a folder holds no such run, or a file cannot be written.
        DamagedFileError: If a record cannot be read.
    """
    folders = [
        run.folder if isinstance(run, Run | Forecast) else as_path(run, f"runs[{place}]")
        for place, run in enumerate(runs)
    ]
    found = report.compare(folders)
    if csv is not None:
        write_atomically(as_path(csv, "csv"), found.csv().encode())
    if out is not None:
        report.draw_comparison(found, as_path(out, "out"))
    return found
