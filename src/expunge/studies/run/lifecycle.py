"""The life of a run: its folder is opened, gone on with or refused; parts are kept; the record is completed at the end.

    with Run.open(Record, folder, request, resume=resume, command=command, device=device, console=console) as run:
        if run.finished:
            return run.record
        ...                     run.reporter says how far it is, run.parts keeps what is long, run.save() writes

The record says `running` from the first moment on, and `complete` only when the block ends without an error. What was
kept as parts is deleted then, since a finished record holds what matters.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import torch
from rich.console import Console

from expunge.core import DamagedFileError, DivergedError, InputError
from expunge.core.schema import RunRecord
from expunge.studies.run.environment import describe_environment
from expunge.studies.run.parts import PartStore
from expunge.studies.run.progress import Reporter
from expunge.studies.run.run_folder import check_folder

R = TypeVar("R", bound=RunRecord)


class Run(Generic[R]):
    """One run of a study; made by `open`, and used as a context."""

    folder: Path
    """Where everything is written."""
    record: R
    """What has been found; of a finished run, what was found."""
    earlier: R | None
    """The record of an earlier start of this run, or None."""
    finished: bool
    """Whether the earlier start was completed and is sound: nothing is left to do."""
    parts: PartStore
    """What is kept as it is made, by all that it depends on, so that a killed run goes on where it was."""
    reporter: Reporter
    """Where progress is shown."""

    @classmethod
    def open(
        cls,
        kind: type[R],
        folder: Path,
        request: Mapping[str, Any],
        *,
        resume: bool,
        command: str,
        device: torch.device,
        console: Console | None = None,
        work: float = 1.0,
        sound: Callable[[R], bool] = lambda record: True,
        keep_parts: bool = False,
        **facts: Any,
    ) -> Run[R]:
        """Open the folder of a run, for the first time or again.

        Args:
            kind: The class of the record.
            folder: The run's folder.
            request: What is asked for, defaults included; an earlier start with another request is not gone on with.
                What an older record does not know is not compared.
            resume: Whether an earlier start may be gone on with.
            command: What runs the study again.
            device: Where it computes.
            console: Where progress is shown; None is silent.
            work: Amount of work, in the unit in which the study reports it.
            sound: Whether a finished record still holds; one that does not is made again from its parts.
            keep_parts: Whether parts outlive the run.
            facts: Other fields of the record that are known from the start.

        Raises:
            InputError: If the folder must not or cannot be written, or holds another run.
        """
        check_folder(folder, kind.FILE, resume)
        earlier = kind.load(folder) if (folder / kind.FILE).exists() else None
        if earlier is not None:
            _refuse_another(earlier, folder, request)
        run = cls()
        run.folder, run.earlier, run.parts = folder, earlier, PartStore(folder / "parts")
        run.reporter = Reporter(console).start(work)
        run._keep_parts, run._before = keep_parts, earlier.seconds if earlier else 0.0
        if earlier is not None and earlier.status == "complete" and sound(earlier):
            run.finished, run.record = True, earlier
            run.reporter.note(f"{folder} holds this {kind.KIND}, finished; nothing to run.")
            return run
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        run.finished = False
        run.record = kind(
            status="running",
            started=earlier.started if earlier else now,
            seconds=run._before,
            command=command,
            request=dict(request),
            environment=describe_environment(device),
            **facts,
        )
        return run

    _keep_parts: bool
    _before: float
    """Seconds that earlier starts took."""
    _began: float

    def save(self) -> None:
        """Write the record with the time spent so far."""
        self.record.seconds = self._before + time.monotonic() - self._began
        self.record.save(self.folder)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        if not self.finished:
            self.save()
            self.reporter.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.finished:
            return
        self.reporter.__exit__(kind, error, trace)
        if error is not None and not isinstance(error, InputError | DamagedFileError | DivergedError):
            # For the command line, and for whoever called from Python.
            vars(error)["run_folder"] = self.folder
            error.add_note(f"What is finished is kept in {self.folder}: the same call with resume=True goes on there.")
        if kind is None:
            self.record.status = "complete"
            self.save()
            if not self._keep_parts:
                self.parts.clear()


def _refuse_another(record: RunRecord, folder: Path, request: Mapping[str, Any]) -> None:
    different = [key for key in request if record.request.get(key, request[key]) != request[key]]
    if different:
        raise InputError(
            f"{folder} holds another {record.KIND} (different: {', '.join(different)}); repeat its command "
            f"({record.command}), or choose another --out."
        )
