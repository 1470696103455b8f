"""The main jobs as one call each: run the audit or the forecast, then draw its page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from expunge import report, studies
from expunge.core import ForgetSet, InputError, Record, Task
from expunge.core.checks import as_path, described, instance, plain_arguments, positive, seeds, whole
from expunge.core.evidence import Verification
from expunge.core.forecast import ForecastRun
from expunge.core.plan import Plan
from expunge.core.record import ForgetRecord
from expunge.core.schema import write_atomically
from expunge.core.scoring import ScoreResult
from expunge.core.unlearning import Unlearning
from expunge.ensembles.train import TASK_EXPECTED
from expunge.methods import Method
from expunge.metrics.one_model import LEVEL, POWER, OneModel
from expunge.report.comparison import Comparison
from expunge.report.plan import plan_text
from expunge.report.score_table import score_text
from expunge.report.unlearning import unlearning_text
from expunge.report.verification import verification_text
from expunge.studies.audit import FEWEST_MEMBERS
from expunge.studies.audit.plan_costs import plan_costs
from expunge.studies.audit.recompute import Recomputed
from expunge.studies.audit.recompute import recompute as recomputed
from expunge.studies.evidence import make_bundle, verify_bundle
from expunge.studies.evidence.bundle import Made
from expunge.studies.request.judge import judge_by_models, judge_by_run
from expunge.studies.request.plan import plan_request
from expunge.studies.request.unlearn import one_forget_set
from expunge.studies.run.given import Models
from expunge.studies.score import score_arrays

ForgetItem = ForgetSet | str | Path
"""How a forget set is asked for."""

FORGET_EXPECTED = (
    "a forget set: text such as 'random:70', the path of a file of indices, or ForgetSet.of(task, indices, name=..., "
    "how=...)"
)
METHOD_EXPECTED = (
    "a method: a name such as 'gradient_ascent', one with its options such as GradientAscent(lr=0.01), or a function "
    "of your own as expunge.methods.from_function(fn)"
)


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


@dataclass(frozen=True)
class Unlearned:
    """One checkpoint unlearned."""

    folder: Path
    """Where everything was written."""
    record: Unlearning
    """What was done, and what changed."""
    model: Path
    """The unlearned checkpoint."""

    def __str__(self) -> str:
        """Return the table of `expunge unlearn`."""
        return unlearning_text(self.record)


class RequestPlan(Plan):
    """What `plan` found; printed, it is the text of `expunge plan`."""

    def __str__(self) -> str:
        """Return the text."""
        return plan_text(self)


class Scores(ScoreResult):
    """What `score` found; printed, it is the table of `expunge score`."""

    def __str__(self) -> str:
        """Return the table."""
        return score_text(self)


@dataclass(frozen=True)
class Evidence(Made):
    """A bundle that was written."""


class Verified(Verification):
    """What `verify` found; printed, it is what `expunge verify` says."""

    def __str__(self) -> str:
        """Return the words."""
        return verification_text(self)


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
    console: Console | None = None,
    command: str | None = None,
) -> Run:
    """Audit unlearning methods on a task: train, unlearn, score against retrained oracles, choose, judge, report.

    Args:
        task: Data, model and recipe.
        forget: One forget set or several: `ForgetSet`, a file of indices, or a chooser such as `"random:70"`.
        methods: Registry names (whole grids), methods with options, or functions of one's own
            (`methods.from_function(fn)`, or `"mine.py:fn"`), one or several; None tries all. Controls always run.
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
        console: Where progress is shown; None is silent.
        command: The shell command to put into the record; None writes the Python call.

    Returns:
        The run, with `record` and the path of the `report`.

    Raises:
        InputError: If something given cannot be used; before any training.
    """
    _check_request(task, out, seed, tolerance)
    folder, record = studies.audit(
        task,
        forget=_forget_sets(forget),
        methods=_methods(methods),
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
        methods: Registry names (whole grids) or methods with options, one or several; None tries all. Fine-tuning is
            always shown.
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
    _check_request(task, out, seed, tolerance)
    folder, record = studies.forecast_run(
        task,
        forget=_forget_sets(forget),
        methods=_methods(methods),
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


@plain_arguments
def unlearn_checkpoint(
    model: str | Path,
    task: Task,
    forget: ForgetItem,
    method: str | Method = "retrain",
    *,
    out: Path | str = "runs/unlearn",
    seed: int = 0,
    resume: bool = False,
    device: str = "auto",
    console: Console | None = None,
    command: str | None = None,
) -> Unlearned:
    """Unlearn rows from one checkpoint file, and write one of the same form with a record of what was done.

    Args:
        model: A checkpoint of the task's model, `.safetensors` or a PyTorch file that holds tensors alone.
        task: Its task.
        forget: The rows: a `ForgetSet`, or a file of positions.
        method: A method with its options, its name, a function of one's own (`methods.from_function(fn)`, or
            `"mine.py:fn"`), or `"audited:FOLDER"`: the cheapest setting that an audit of this task and forget set found
            indistinguishable from retraining.
        out: Folder of the run.
        seed: Decides all that is random; the result is that of member 0 of an ensemble.
        resume: Return what a finished run found, or do an interrupted one again.
        device: `auto`, `cpu` or `cuda`.
        console: Where progress is shown; None is silent.
        command: The shell command to put into the record; None writes the Python call.

    Returns:
        The run, with `record` and the path of the checkpoint in `model`.

    Raises:
        InputError: If something given cannot be used; before any work.
        DivergedError: If the unlearned model is not finite.
    """
    _check_request(task, out, seed, None)
    folder, record = studies.unlearn_checkpoint(
        task,
        one_forget_set(task, forget),
        model,
        method,
        out=Path(out),
        seed=seed,
        resume=resume,
        device=device,
        console=console,
        command=command,
    )
    assert record.after is not None
    return Unlearned(folder, record, folder / record.after.path)


@plain_arguments
def score(
    unlearned: Any,
    oracle: Any,
    *,
    held_out: Any = None,
    pretrained: Any = None,
    task: Task | None = None,
    forget: ForgetSet | None = None,
    labels: Any = None,
    tolerance: float | None = None,
    row_tolerance: float | None = None,
    seed: int = 0,
) -> Scores:
    """Score unlearned members against oracles: all metrics that what is given allows, and a verdict.

    Each side is an array on the forget examples, numpy or torch: margins (members, examples) or, with `labels`, logits
    (members, examples, classes); or a mapping of such arrays by split (`forget`, `retain`, `validation`), which a
    verdict needs; or an ensemble, with `task` and `forget`.

    Args:
        unlearned: The unlearned members, at least 5.
        oracle: Members retrained without the forget set, on the same examples in the same order, at least 5.
        held_out: Other retrained members, for an honest floor.
        pretrained: The members before unlearning, for the side of a verdict.
        task: The task of ensembles; all forget examples are scored, and a sample of retain and validation examples.
        forget: The forget set of ensembles.
        labels: Labels of the forget examples (examples,), or a mapping by split; needed with logits.
        tolerance: Largest excess over the floor, in nats, that the verdict counts as indistinguishable; None for the
            default.
        row_tolerance: Shift of a single forget row, in oracle standard deviations, that must not be missed; None for
            the default, 1.
        seed: Seed of everything random.

    Returns:
        What `expunge score` says: `lines`, `verdict`, `missing`, `notes`; `result["KLoM, p95"]` is one line, and
        `print(result)` the table.

    Raises:
        InputError: If shapes disagree, an oracle is not finite, a side has fewer than 5 members, or an ensemble comes
            without task and forget set.

    >>> import numpy as np
    >>> draw = np.random.default_rng(0)
    >>> result = score(draw.normal(2, 1, (30, 40)), oracle=draw.normal(0, 1, (30, 40)))
    >>> line = result["wasserstein"]
    >>> print(f"{line.value:.1f} {line.unit}, floor {line.floor:.1f}: {line.side}")
    2.0 oracle sd, floor 0.4: off the oracle
    """
    found = score_arrays(
        unlearned,
        oracle,
        held_out=held_out,
        pretrained=pretrained,
        task=task,
        forget=forget,
        labels=labels,
        tolerance=tolerance,
        row_tolerance=row_tolerance,
        seed=seed,
    )
    return Scores(**dict(found))


@plain_arguments
def plan(
    task: Task,
    *,
    forget: ForgetItem,
    checkpoint: Path | str | None = None,
    members: Sequence[int] = (20, 50, 100),
    workers: int = 1,
    methods: str | Method | Sequence[str | Method] | None = None,
    seed: int = 0,
    device: str = "auto",
    typed: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> RequestPlan:
    """Say what a request would take, before anything long: costs, whether its rows can matter, their twins, what next.

    Two models are trained where that takes minutes, and nothing is written.

    Args:
        task: The task.
        forget: The rows: a `ForgetSet`, or a file of positions.
        checkpoint: The deployed model, to be looked at: does it fit the task, does it look trained on the rows?
        members: Numbers of models for which costs are told, each at least 20.
        workers: Machines like this one on which times are told as well.
        methods: What an audit would try; None for all.
        seed: The study's seed.
        device: `auto`, `cpu` or `cuda`.
        typed: The words that say task and rows in a command, for the commands that are named.
        progress: Called with what is done next.

    Returns:
        The plan; printed, it is what `expunge plan` says.

    Raises:
        InputError: If something given cannot be used, or the checkpoint is not one of the task's models.
    """
    instance(Task, TASK_EXPECTED, task=task)
    seeds(seed=seed)
    whole(workers=workers)
    counts = _counts(members)
    rows = one_forget_set(task, forget)
    found = plan_request(
        task,
        rows,
        lambda: plan_costs(task, rows, counts, methods=_methods(methods), machines=workers, seed=seed, device=device),
        checkpoint=checkpoint,
        typed=typed,
        seed=seed,
        device=device,
        progress=progress,
    )
    return RequestPlan(**dict(found))


def _counts(members: Any) -> list[int]:
    """Return numbers of members in order, each once."""
    given = _listed(members, (int,), "members", "a whole number")
    if not given or min(given) < FEWEST_MEMBERS:
        raise InputError(f"members = {given}, expected numbers of at least {FEWEST_MEMBERS}, as an audit needs.")
    return sorted(set(given))


@plain_arguments
def judge(
    model: Any,
    *,
    task: Task | None = None,
    run: Path | str | None = None,
    forget: ForgetItem | None = None,
    oracle: Any = None,
    pretrained: Any = None,
    level: float = LEVEL,
    power: float = POWER,
    seed: int = 0,
) -> OneModel:
    """Judge one model: compatible with retraining, told from it, or more than these oracles can say.

    Args:
        model: The path of a checkpoint, a `torch.nn.Module`, an ensemble of one, or margins: a mapping by split
            (`forget`, `retain`, `validation`), each (examples,), or those of the forget set alone.
        task: Its task; without one everything that is given is margins.
        run: Folder of an audit of the task, whose retrained and pretrained models are taken.
        forget: The forget set: with a run its name in the audit, or the rows in any form (None: its only one); without
            a run a `ForgetSet`.
        oracle: Retrained models instead of a run: an ensemble, checkpoints, or margins, each (oracles, examples).
        pretrained: Models trained on everything, likewise; without them nothing is compatible, since no power is shown.
        level: Chance that a retrained model is told, 0.001 to 0.5; it takes 1 / level - 1 oracles.
        power: Share of the pretrained models that must be shown to be told before a model is compatible, 0.5 to 0.99.
        seed: Draws the examples that are scored, without a run.

    Returns:
        The verdict: `name`, `sentence` (also by `print`), `p_value`, `rows`, `power` with its interval, and
        `oracles_needed`.

    Raises:
        InputError: If something given cannot be used, or models come without task and forget set.

    >>> import numpy as np
    >>> draw = np.random.default_rng(0)
    >>> oracle, pretrained = draw.normal(0, 1, (40, 30)), draw.normal(1, 1, (40, 30))
    >>> judge(draw.normal(0, 1, 30), oracle=oracle, pretrained=pretrained).name
    'compatible'
    """
    if (run is None) == (oracle is None):
        raise InputError("expected one of run (the folder of an audit) and oracle (retrained models).")
    if run is None:
        instance((ForgetSet, type(None)), "a forget set, as tasks.random_forget_set makes", forget=forget)
        return judge_by_models(
            model,
            oracle,
            pretrained,
            task=task,
            forget=forget if isinstance(forget, ForgetSet) else None,
            level=level,
            power=power,
            seed=seed,
        )
    if pretrained is not None:
        raise InputError("run and pretrained were given, expected one of them: the audit has pretrained models.")
    instance(Task, TASK_EXPECTED, task=task)
    assert task is not None
    return judge_by_run(model, task, run, forget, level=level, power=power)


@plain_arguments
def evidence(
    run: Run | Path | str,
    out: Path | str,
    *,
    unlearned: Path | str | None = None,
    task: Task | None = None,
    salt: Path | str | None = None,
) -> Evidence:
    """Write what a third party needs to check a finished audit, in one file, and a page for the person who signs.

    Beside the bundle `out` stand the page (`.html`) and the salt (`.salt`), with which alone the bundle can be held
    against the data: keep it where the data are, and do not pass it on.

    Args:
        run: The audit, or its folder.
        out: The bundle, a file that ends in `.zip`; not overwritten.
        unlearned: Folder with the checkpoint that was made for the request (`expunge unlearn`); its digest goes in.
        task: The task of the audit; with `unlearned`, that checkpoint is held against the audit's oracles as well.
        salt: The salt of an earlier bundle; None draws a new one. The same run and salt give the same bytes.

    Returns:
        Where it is, with the `root` digest that names it: write that down, or sign the file.

    Raises:
        InputError: If the run is no audit, is not finished, or a file is there already.
        DamagedFileError: If a file of the run is not the one that it wrote.
    """
    instance((Run, str, Path), "an audit, or the path of its folder", run=run)
    if task is not None:
        instance(Task, TASK_EXPECTED, task=task)
        if unlearned is None:
            raise InputError("task was given without unlearned, expected both: it is the checkpoint that it judges.")
    made = make_bundle(
        run.folder if isinstance(run, Run) else as_path(run, "run"),
        as_path(out, "out"),
        report.draw_statement,
        unlearned=None if unlearned is None else as_path(unlearned, "unlearned"),
        task=task,
        salt=None if salt is None else as_path(salt, "salt"),
    )
    return Evidence(**vars(made))


@plain_arguments
def verify(
    bundle: Path | str,
    *,
    recompute: bool = False,
    task: Task | None = None,
    salt: Path | str | None = None,
    root: str | None = None,
    console: Console | None = None,
) -> Verified:
    """Check a bundle of evidence: is every byte as its manifest says, and does it say what follows from its margins?

    Nothing in the bundle is run, unpickled or written to disk.

    Args:
        bundle: The file.
        recompute: Compute every score and verdict once more from the margins.
        task: The data of the audit, to be compared row by row; needs the salt.
        salt: The salt that was kept; None takes the file beside the bundle.
        root: The root digest that was written down or signed. Without it, a bundle that somebody changed and made whole
            again passes, as far as its numbers follow from its margins.
        console: Where progress is shown; None is silent.

    Returns:
        What was found: `passed`, `differences`, what was `checked` and what was not.

    Raises:
        InputError: If the file is no bundle, or holds what is never opened (a name that leads out of it, a link,
            something compressed).
        DamagedFileError: If its directory cannot be read.
    """
    if task is not None:
        instance(Task, TASK_EXPECTED, task=task)

    def again(record: Record, forget: ForgetRecord, margins: Any, positions: Any) -> Recomputed:
        if console is not None:
            console.print(f"computing the scores and verdicts of {forget.name} again", style="dim", soft_wrap=True)
        return recomputed(record, forget, margins, positions)

    found = verify_bundle(
        as_path(bundle, "bundle"),
        report.draw_statement,
        again=again if recompute else None,
        task=task,
        salt=None if salt is None else as_path(salt, "salt"),
        root=root,
    )
    return Verified(**dict(found))


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


def _check_request(task: Task, out: Path | str, seed: int, tolerance: float | None) -> None:
    """Refuse what is of the wrong kind, in words, before a study meets it somewhere inside."""
    instance(Task, TASK_EXPECTED, task=task)
    instance((str, Path), "the path of a folder", out=out)
    seeds(seed=seed)
    if tolerance is not None:
        positive(tolerance=tolerance)


def _forget_sets(given: ForgetItem | Sequence[ForgetItem]) -> list[ForgetItem]:
    return _listed(given, (ForgetSet, str, Path), "forget", FORGET_EXPECTED)


def _methods(given: str | Method | Sequence[str | Method] | None) -> list[str | Method] | None:
    return None if given is None else _listed(given, (str, Method), "methods", METHOD_EXPECTED)


def _listed(given: Any, kinds: tuple[type, ...], name: str, expected: str) -> list[Any]:
    """Return one item, or several, as a list; a text is one item, never a sequence of letters."""
    if isinstance(given, kinds):
        return [given]
    if isinstance(given, type) or not isinstance(given, Iterable):
        raise InputError(f"{name} is {described(given)}, expected {expected}; or a list of them.")
    items = list(given)
    for place, item in enumerate(items):
        if not isinstance(item, kinds):
            raise InputError(f"{name}[{place}] is {described(item)}, expected {expected}.")
    return items
