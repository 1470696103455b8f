"""The theory study: check every result by name and write what was found."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from expunge.core import DamagedFileError, InputError
from expunge.core.checks import seeds
from expunge.papers.ascent_fails_to_forget.finding import Finding, TheoryRecord, load_arrays, save_arrays
from expunge.papers.ascent_fails_to_forget.theory_study import beyond, one, random_sets, two
from expunge.papers.ascent_fails_to_forget.theory_study.outcome import Outcome
from expunge.studies.run.run_folder import check_folder

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
    resume: bool = False,
) -> Path:
    """Check results and write `theory.json` and `arrays/` into a folder.

    Args:
        names: Some of `NAMES`, in any order.
        out: Folder; a new one, unless `resume`.
        progress: Called before each result that is not there yet.
        seed: Of every sweep and simulation.
        resume: Go on with a run that was interrupted; what is finished is kept.

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
    check_folder(folder, TheoryRecord.FILE, resume)
    words = ["expunge", "theory", *(["all"] if "all" in names else wanted), *(["--seed", str(seed)] if seed else [])]
    record = _opened(folder, words)
    begin, before = time.perf_counter(), record.seconds
    record.findings = [finding for finding in record.findings if finding.name in wanted and _sound(folder, finding)]
    kept = {finding.name for finding in record.findings}
    for position, name in enumerate(wanted, 1):
        if name in kept:
            continue
        if progress is not None:
            progress(name, position, len(wanted))
        started = time.perf_counter()
        found = STUDIES[name](seed)
        arrays = Path("arrays") / f"{name}.safetensors"
        save_arrays(folder / arrays, found.arrays)
        record.findings.append(
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
        record.findings.sort(key=lambda finding: wanted.index(finding.name))
        record.seconds = before + time.perf_counter() - begin
        record.save(folder)
    return folder


def _sound(folder: Path, finding: Finding) -> bool:
    """Return whether the arrays of a finding are there and can be read."""
    try:
        load_arrays(folder, finding)
    except (InputError, DamagedFileError):
        return False
    return True


def _opened(folder: Path, words: Sequence[str]) -> TheoryRecord:
    """Return the record of an earlier start of this run, or a new one; refuse to mix it with another."""
    if not (folder / TheoryRecord.FILE).exists():
        return TheoryRecord(command=shlex.join([*words, "--out", str(folder)]), seconds=0.0)
    record = TheoryRecord.load(folder)
    if shlex.split(record.command)[:-2] != list(words):
        raise InputError(
            f"{folder} holds another theory run; repeat its command ({record.command}), or choose another --out."
        )
    return record
