"""The theory study: check every result by name and write what was found."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import torch
from rich.console import Console

from expunge.core import DamagedFileError, InputError
from expunge.core.checks import seeds
from expunge.papers.ascent_fails_to_forget.finding import Finding, TheoryRecord, load_arrays, save_arrays
from expunge.papers.ascent_fails_to_forget.names import RESULTS
from expunge.papers.ascent_fails_to_forget.theory_study.outcome import Outcome
from expunge.studies.run.lifecycle import Run


def _read(place: str) -> Callable[[int], Outcome]:
    module, _, name = place.partition(".")
    found: Callable[[int], Outcome] = getattr(import_module(f"{__name__}.{module}"), name)
    return found


STUDIES = {name: _read(place) for name, place in RESULTS.items()}
"""Every result by its name."""

NAMES: tuple[str, ...] = (*STUDIES, "all")
"""What can be asked for; `all` is every result."""

__all__ = ["NAMES", "STUDIES", "Outcome", "run"]


def run(
    names: Sequence[str] = ("all",),
    out: Path | str = "runs/theory",
    *,
    seed: int = 0,
    resume: bool = False,
    console: Console | None = None,
) -> Path:
    """Check results and write `theory.json` and `arrays/` into a folder.

    Args:
        names: Some of `NAMES`, in any order.
        out: Folder; a new one, unless `resume`.
        seed: Of every sweep and simulation.
        resume: Go on with a run that was interrupted; what is finished is kept.
        console: Where progress is shown; None is silent.

    Returns:
        The folder.

    Raises:
        InputError: If a name is unknown, the folder cannot be written, or it holds another run; before anything runs.
    """
    names = [names] if isinstance(names, str) else names
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        raise InputError(f"theory result {', '.join(unknown) or '(none)'}, expected one of: {', '.join(NAMES)}.")
    wanted = [name for name in STUDIES if "all" in names or name in names]
    seeds(seed=seed)
    folder = Path(out)
    words = ["expunge", "theory", *(["all"] if "all" in names else wanted), *(["--seed", str(seed)] if seed else [])]
    with Run.open(
        TheoryRecord,
        folder,
        {"names": wanted, "seed": seed},
        resume=resume,
        command=shlex.join([*words, "--out", str(folder)]),
        device=torch.device("cpu"),
        console=console,
        work=len(wanted),
        sound=lambda record: all(_sound(folder, finding) for finding in record.findings),
    ) as going:
        if going.finished:
            return folder
        earlier = going.earlier.findings if going.earlier else []
        kept = {one.name: one for one in earlier if one.name in wanted and _sound(folder, one)}
        for name in wanted:
            going.reporter.step(name)
            going.record.findings.append(kept.get(name) or _check(name, folder, seed))
            going.reporter.advance(1.0, spent=name not in kept)
            going.save()
    return folder


def _check(name: str, folder: Path, seed: int) -> Finding:
    """Check one result and write its arrays."""
    started = time.perf_counter()
    found = STUDIES[name](seed)
    arrays = Path("arrays") / f"{name}.safetensors"
    save_arrays(folder / arrays, found.arrays)
    return Finding(
        name=name,
        title=found.title,
        source=found.source,
        statement=found.statement,
        verdict=found.verdict,
        sentence=found.sentence,
        parameters=found.parameters,
        tables=found.tables,
        arrays=arrays.as_posix(),
        seconds=time.perf_counter() - started,
    )


def _sound(folder: Path, finding: Finding) -> bool:
    """Return whether the arrays of a finding are there and can be read."""
    try:
        load_arrays(folder, finding)
    except (InputError, DamagedFileError):
        return False
    return True
