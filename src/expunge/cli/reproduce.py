"""`expunge reproduce`: the study of a paper, computed again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expunge.cli import shared
from expunge.cli.options import Device, Json, Quiet, Resume, Seed
from expunge.papers import sequential_drift
from expunge.papers.ascent_fails_to_forget import reproduction
from expunge.run_file import typed_again

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Paper:
    """A study that can be run again by name."""

    presets: tuple[str, ...]
    """Sizes, from the smallest."""
    default: str
    """The one that is run where none is named."""
    options: tuple[str, ...]
    """Which of `only`, `sets` and `data` it takes."""
    plan: Callable[..., Any]
    """From `preset`, `seed` and `device` to what it would take, a dataclass that prints as a line."""
    run: Callable[..., tuple[Path, Any]]
    """Runs it, and returns folder and record."""
    draw: Callable[[Path], Path]
    """From the folder to the page."""
    tell: Callable[[Path, Console], None]
    """Prints answer and tables."""
    answer: Callable[[Any], list[str]]
    """The answer in sentences."""


PAPERS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "ascent-fails-to-forget": reproduction.paper,
    "sequential-drift": sequential_drift.paper,
}
"""From a name to what returns the fields of `Paper`, once they are needed; a new one is a line."""


def reproduce(
    context: typer.Context,
    paper: Annotated[str, typer.Argument(help=f"Which: {', '.join(PAPERS)}.")],
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="How much: tiny (minutes), cpu (two cores) or paper.  [default: cpu]"),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Items of the paper, with commas between; --plan names them.  [default: all]"
        ),
    ] = None,
    sets: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help="Forget sets: 1 to 9 of the paper, published-1 to published-10.  [default: the preset's]",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with MNIST, Fashion-MNIST and CIFAR-10; nothing is downloaded."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the run.  [default: runs/ and the name]")
    ] = None,
    seed: Seed = 0,
    resume: Resume = False,
    plan: Annotated[bool, typer.Option("--plan", help="Say how long it would take here; nothing is written.")] = False,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the study of a paper again.

    ascent-fails-to-forget: every claim, figure and table of the paper, with what was found.

    sequential-drift: do models drift away from retraining, request after request, and do real labels stop it?
    """
    from expunge.core import InputError
    from expunge.core.checks import one_of

    one_of(PAPERS, paper=paper)
    chosen, console = Paper(**PAPERS[paper]()), shared.progress(json, quiet)
    size = preset or chosen.default
    one_of(chosen.presets, preset=size)
    given = {"only": _names(only), "sets": _names(sets), "data": data}
    wrong = [name for name, value in given.items() if value and name not in chosen.options]
    if wrong:
        raise InputError(f"--{wrong[0]} was given, which {paper} does not take; leave it out.")
    more = {name: given[name] for name in chosen.options}
    where = out or Path("runs") / paper
    if plan:
        found = chosen.plan(size, seed=seed, device=device, **({"out": where} if more else {}), **more)
        if json:
            shared.print_json(asdict(found))
        elif console is not None:
            console.print(str(found))
        return
    folder, record = chosen.run(
        size,
        out=where,
        seed=seed,
        resume=resume,
        device=device,
        console=console,
        command=typed_again(context),
        **more,
    )
    page = chosen.draw(folder)
    if json:
        answer = {"run": str(folder), "report": str(page), "answer": chosen.answer(record)}
        shared.print_json({**answer, "record": record.model_dump(mode="json", exclude={"environment"})})
    elif console is not None:
        chosen.tell(folder, console)
        console.print(f"\nReport: {page}", soft_wrap=True)


def _names(text: str | None) -> tuple[str, ...]:
    """Return what stands between commas."""
    return tuple(name for name in (part.strip() for part in (text or "").split(",")) if name)
