"""The theory study: check every result by name and write what was found."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from expunge.core import InputError
from expunge.core.finding import Finding, TheoryRecord, save_arrays
from expunge.studies.theory import beyond, one, random_sets, two
from expunge.studies.theory.outcome import Outcome

STUDIES: dict[str, Callable[[int], Outcome]] = {
    "lemma-1": random_sets.lemma_1,
    "lemmas-2-5": one.lemmas_2_to_5,
    "corollary-1": one.corollary_1,
    "alternating": one.alternating,
    "two-directions": two.two_directions,
    "fig-4": two.figure_4,
    "app-j": two.appendix_j,
    "fig-5": beyond.figure_5,
    "teacher-mixture": beyond.mixture,
    "skew": beyond.skews,
    "exact-oracles": beyond.exact_oracles,
}

NAMES: tuple[str, ...] = (*STUDIES, "all")
"""What can be asked for; `all` is every result."""

Progress = Callable[[str, int, int], None]
"""Called before each result with its name, its position from 1, and the number of results."""

__all__ = ["NAMES", "STUDIES", "Outcome", "Progress", "run"]


def run(
    names: Sequence[str] = ("all",),
    out: Path | str = "runs/theory",
    progress: Progress | None = None,
    *,
    seed: int = 0,
) -> Path:
    """Check results and write `theory.json` and `arrays/` into a folder.

    Args:
        names: Some of `NAMES`, in any order.
        out: Folder; results of an earlier run there are replaced.
        progress: Called before each result.
        seed: Of every sweep and simulation.

    Returns:
        The folder.

    Raises:
        InputError: If a name is unknown; before anything runs.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        raise InputError(f"theory result {', '.join(unknown) or '(none)'}, expected one of: {', '.join(NAMES)}.")
    wanted = [name for name in STUDIES if "all" in names or name in names]
    folder = Path(out)
    begin = time.perf_counter()
    findings = []
    for position, name in enumerate(wanted, 1):
        if progress is not None:
            progress(name, position, len(wanted))
        started = time.perf_counter()
        found = STUDIES[name](seed)
        arrays = Path("arrays") / f"{name}.safetensors"
        save_arrays(folder / arrays, found.arrays)
        findings.append(
            Finding(
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
        )
    command = shlex.join(["expunge", "theory", *(["all"] if "all" in names else wanted), "--out", str(folder)])
    TheoryRecord(command=command, seconds=time.perf_counter() - begin, findings=findings).save(folder)
    return folder
