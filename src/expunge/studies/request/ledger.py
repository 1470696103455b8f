"""A ledger of deletion requests: rows are entered, runs carry out what is pending, each from the last accepted model.

    ledger.jsonl       requests and accepted runs, line by line (`ledger_file`)
    models/001, ...    the checkpoint of each run, and its unlearn.json

A run forgets the rows of all pending requests from the last accepted model, keeps neither those nor any that was
removed before, and counts when its line is in the ledger, not earlier: a run that was killed is done again, or, where
its model was whole already, only entered.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from expunge.core import DamagedFileError, ForgetSet, InputError, Task
from expunge.core.checks import as_path, instance, plain_arguments, positive, seeds
from expunge.core.digest import digest_tensors
from expunge.core.limits import DEFAULT_TOLERANCE
from expunge.core.schema import inside, write_atomically
from expunge.core.seeds import derive
from expunge.core.unlearning import Unlearning
from expunge.ensembles.plan import TASK_EXPECTED
from expunge.methods import Method
from expunge.studies.request.ledger_file import Accepted, LedgerFile, Opened, Request
from expunge.studies.request.ledger_status import State, Status, status_of
from expunge.studies.request.unlearn import METHOD_EXPECTED, unlearn_checkpoint
from expunge.tasks.forget_sets import from_file

LONGEST_NOTE = 500
NAMED = 5
"""Rows that a message names at most."""


@dataclass(frozen=True)
class Added:
    """What became of rows that were entered."""

    request: int | None
    """Number of the new request; None where no row was new."""
    rows: tuple[int, ...]
    """Positions that are new, and pending now."""
    pending: tuple[int, ...]
    """Positions that an earlier request named, and that are still to be forgotten."""
    gone: tuple[int, ...]
    """Positions that were removed already."""
    same_as: int | None
    """The earlier request that named exactly these rows."""
    text: str
    """The same in words, rows by their ids where the task has them."""

    def __str__(self) -> str:
        """Return the text."""
        return self.text


@dataclass(frozen=True)
class Ran:
    """A run that was accepted."""

    run: int
    requests: tuple[int, ...]
    rows: int
    """Rows that it removed."""
    model: Path
    """The checkpoint."""
    record: Unlearning


class Ledger:
    """The deletion requests for one model, in a folder.

    Args:
        folder: Made when the first request is added.
        task: Whose training rows are meant. The ledger belongs to these data: positions must go on meaning the same
            rows, so rows stay in the task's data when they are forgotten.

    Raises:
        InputError: If the folder is no folder, or holds the ledger of other data.
        DamagedFileError: If a line of the ledger was changed.

    >>> import tempfile
    >>> from expunge.tasks import digits
    >>> ledger = Ledger(tempfile.mkdtemp() + "/ledger", digits())
    >>> print(ledger.add([3, 5], note="letter of 3 May"))
    Request 1: 2 rows are pending.
    >>> print(ledger.add([5, 3]))
    No row is new: these are the rows of request 1, which is pending.
    """

    def __init__(self, folder: Path | str, task: Task) -> None:
        instance(Task, TASK_EXPECTED, task=task)
        self.folder, self.task = as_path(folder, "the ledger").expanduser(), task
        for place in (self.folder, *self.folder.parents):
            if place.exists() and not place.is_dir():
                raise InputError(f"{place} is a file, expected the folder of a ledger, or a place for one.")
        self._file = LedgerFile(self.folder)
        self._data = digest_tensors({"x": task.train.x, "y": task.train.y})
        self._state()

    @plain_arguments
    def add(
        self, rows: ForgetSet | Sequence[int] | str | Path, *, id_column: str | None = None, note: str = ""
    ) -> Added:
        """Enter a request; rows that an earlier one named are not entered again.

        Args:
            rows: A file of positions in the training data, or of ids; positions; or a forget set.
            id_column: Name of the file's column that holds ids of the task (`Task(ids=...)`).
            note: A line that is kept with the request.

        Raises:
            InputError: If rows are no rows of the task (they are named), or nothing would be left to train on.
        """
        if len(note) > LONGEST_NOTE or not note.isprintable():
            raise InputError(f"note has {len(note)} letters, expected one line of at most {LONGEST_NOTE}.")
        asked, source = self._read(rows, id_column)
        with self._file.alone():
            state = self._state()
            first = {row: request.request for request in state.requests for row in request.rows}
            new = [row for row in asked if row not in first]
            if len(first) + len(new) == len(self.task.train):
                raise InputError("these requests name all training rows; nothing would be left to train on.")
            number = len(state.requests) + 1 if new else None
            if number is not None:
                if not state.head:
                    self._file.append(
                        Opened(at=_now(), task=self.task.name, data=self._data, examples=len(self.task.train))
                    )
                known = [row for row in asked if row in first]
                self._file.append(Request(at=_now(), request=number, rows=new, known=known, source=source, note=note))
        pending = tuple(row for row in asked if row in first and first[row] not in state.done)
        gone = tuple(row for row in asked if row in first and first[row] in state.done)
        same = next((one.request for one in state.requests if sorted(one.rows + one.known) == asked), None)
        text = self._said(number, new, pending, gone, same, state)
        return Added(number, tuple(new), pending, gone, same, text)

    def _read(self, rows: Any, id_column: str | None) -> tuple[list[int], str]:
        """Return positions, sorted, and where they came from."""
        if isinstance(rows, str | Path):
            return from_file(self.task, rows, id_column=id_column).indices.tolist(), printable(Path(rows).name)
        if id_column is not None:
            raise InputError(f"id_column = {id_column!r} without a file, expected the path of a .csv file of ids.")
        if isinstance(rows, ForgetSet):
            rows.check(self.task)
            return rows.indices.tolist(), printable(rows.name)
        return ForgetSet.of(self.task, rows, name="request", how="given").indices.tolist(), ""

    def _said(
        self,
        number: int | None,
        new: Sequence[int],
        pending: Sequence[int],
        gone: Sequence[int],
        same: int | None,
        state: State,
    ) -> str:
        if same is not None and number is None:
            run = state.done.get(same)
            became = "which is pending" if run is None else f"which run {run} carried out"
            return f"No row is new: these are the rows of request {same}, {became}."
        said = [f"Request {number}: {_rows(len(new))} pending." if number else "No row is new."]
        if pending:
            said.append(f"Asked for before and still pending: {self._named(pending)}.")
        if gone:
            said.append(f"Already gone: {self._named(gone)}.")
        return " ".join(said)

    def _named(self, rows: Sequence[int]) -> str:
        """Return rows by their ids, or positions, the first few of them."""
        ids = {} if self.task.ids is None else {position: name for name, position in self.task.ids.items()}
        some = ", ".join(repr(ids.get(row, row)) for row in rows[:NAMED])
        return some + (f" and {len(rows) - NAMED} more" if len(rows) > NAMED else "")

    def removed(self) -> ForgetSet:
        """Return all rows that the last accepted model was made without: what an oracle to compare it with leaves out.

        Raises:
            InputError: If no run was accepted yet.
        """
        rows = self._state().removed
        if not rows:
            raise InputError(f"no run of {self.folder} was accepted yet, so no row is gone.")
        return ForgetSet.of(self.task, rows, name="removed", how="all rows that a ledger removed")

    @plain_arguments
    def status(self, *, tolerance: float | None = None) -> Status:
        """Return the requests, what is pending, the last model, and when to retrain.

        Args:
            tolerance: Predicted drift in nats above which the advice is to retrain; None for that of an audit.
        """
        limit = DEFAULT_TOLERANCE if tolerance is None else tolerance
        positive(tolerance=limit)
        return status_of(self._state(), self.task, self.folder, limit)

    @plain_arguments
    def run(
        self,
        method: Method | str = "retrain",
        *,
        checkpoint: Path | str | None = None,
        seed: int = 0,
        device: str = "auto",
        console: Console | None = None,
        command: str | None = None,
    ) -> Ran | None:
        """Forget the rows of all pending requests, and accept the model; None if nothing is pending.

        Args:
            method: As in `expunge.unlearn_checkpoint`; `retrain` starts the drift at 0 again.
            checkpoint: The deployed model, the first time; later runs start from the last accepted one.
            seed: Decides all that is random; every run draws other numbers from it.
            device: `auto`, `cpu` or `cuda`.
            console: Where progress is shown; None is silent.
            command: The shell command to put into the record; None writes a Python call.

        Raises:
            InputError: If something given cannot be used, another process is at a run, or the method did not do what
                it says; the requests stay pending.
            DamagedFileError: If the ledger, or the last model, was changed.
            DivergedError: If the unlearned model is not finite; the requests stay pending.
        """
        seeds(seed=seed)
        instance((Method, str), METHOD_EXPECTED, method=method)
        with self._running():
            state = self._state()
            if not state.pending:
                return None
            number, chosen = len(state.runs) + 1, [one.request for one in state.pending]
            start = self._start(state, checkpoint)
            rows = sorted(row for one in state.pending for row in one.rows)
            how = f"pending requests of a ledger: {', '.join(map(str, chosen))}"
            forget = ForgetSet.of(self.task, rows, name=f"run-{number}", how=how, gone=state.removed)
            own = derive(seed, "ledger", number) % 2**31
            place = inside(self.folder, f"models/{number:03d}")
            asked = {
                "head": state.head,
                "start": _sha256(start),
                "method": method if isinstance(method, str) else method.describe(),
                "task": self.task.fingerprint,
                "seed": own,
            }
            self._clear(place, asked)
            _, record = unlearn_checkpoint(
                self.task,
                forget,
                start,
                method,
                out=place,
                seed=own,
                resume=True,
                device=device,
                console=console,
                command=command,
            )
            if record.failed_checks:
                names = ", ".join(check.name for check in record.failed_checks)
                raise InputError(
                    f"run {number} was not accepted: {record.label} did not do what it says (failed: {names}). Its "
                    f"requests stay pending; retrain (--method retrain), or read {place} and choose another method."
                )
            assert record.after is not None
            model = place / record.after.path
            self._accept(number, chosen, record, model)
        return Ran(number, tuple(chosen), len(rows), model, record)

    def _accept(self, number: int, requests: list[int], record: Unlearning, model: Path) -> None:
        with self._file.alone():
            if len(self._state().runs) != number - 1:
                raise InputError(f"another process accepted run {number} meanwhile; look at the status, and run again.")
            assert record.after is not None
            self._file.append(
                Accepted(
                    at=_now(),
                    run=number,
                    requests=requests,
                    method=record.method,
                    retrained=record.statistics == "retrained",
                    checkpoint=model.relative_to(self.folder).as_posix(),
                    checkpoint_sha256=record.after.sha256,
                    start_sha256=record.before.sha256,
                )
            )

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        if not (self._file.path.exists()):
            raise InputError(f"{self.folder} holds no ledger yet; add a request first.")
        with self._file.locked("run-lock", wait=False) as mine:
            if not mine:
                raise InputError(f"another process is at a run of {self.folder}; wait until it has ended.")
            yield

    def _start(self, state: State, checkpoint: Path | str | None) -> Path:
        """Return the checkpoint that a run starts from: the last accepted one, unchanged, or the first."""
        if not state.runs:
            if checkpoint is None:
                raise InputError(
                    "this is the first run of the ledger, expected --checkpoint MODEL: the deployed model."
                )
            return as_path(checkpoint, "the checkpoint")
        last = state.runs[-1]
        path = inside(self.folder, last.checkpoint)
        if not path.is_file() or _sha256(path) != last.checkpoint_sha256:
            raise DamagedFileError(
                f"{path} is {'another file than' if path.is_file() else 'missing, and was'} the model of run "
                f"{last.run}; restore it from a backup."
            )
        if checkpoint is not None and _sha256(as_path(checkpoint, "the checkpoint")) != last.checkpoint_sha256:
            raise InputError(
                f"--checkpoint {checkpoint} is not the last accepted model, from which a run starts ({path}); leave it "
                "out, or begin another ledger."
            )
        return path

    def _clear(self, place: Path, asked: dict[str, Any]) -> None:
        """Leave in the place of a run what an interrupted run of the very same wrote, and nothing else."""
        file, text = place / "asked.json", json.dumps(asked, indent=1)
        if place.exists() and not (file.is_file() and file.read_text() == text):
            shutil.rmtree(place)
        write_atomically(file, text.encode())

    def _state(self) -> State:
        """Read the ledger, and hold it against the task and the models beside it."""
        entries, digests = self._file.read()
        if not entries:
            if (self.folder / "models").exists():
                raise DamagedFileError(f"{self.folder} holds models and no {self._file.path.name}; restore it.")
            return State((), (), "")
        opened = entries[0]
        assert isinstance(opened, Opened)
        if opened.data != self._data:
            raise InputError(
                f"{self.folder} is the ledger of task {opened.task!r} with {opened.examples:,} training rows, and the "
                f"data of task {self.task.name!r} are others; expected the same rows in the same order. When rows were "
                "deleted from the data, begin a ledger in another folder, from a retrained model."
            )
        requests = tuple(entry for entry in entries if isinstance(entry, Request))
        runs = tuple(entry for entry in entries if isinstance(entry, Accepted))
        self._check_numbers(requests, runs)
        for file in sorted(self.folder.glob("models/*/asked.json")):
            head = _head_of(file)
            if head and head not in digests:
                raise DamagedFileError(
                    f"{self._file.path} lacks its last lines: {file.parent} was made when it had more; restore it."
                )
        return State(requests, runs, digests[-1])

    def _check_numbers(self, requests: Sequence[Request], runs: Sequence[Accepted]) -> None:
        rows = [row for one in requests for row in one.rows]
        carried = [number for run in runs for number in run.requests]
        sound = (
            [one.request for one in requests] == list(range(1, len(requests) + 1))
            and [run.run for run in runs] == list(range(1, len(runs) + 1))
            and len(set(rows)) == len(rows)
            and all(0 <= row < len(self.task.train) for row in rows)
            and len(set(carried)) == len(carried)
            and set(carried) <= {one.request for one in requests}
        )
        if not sound:
            raise DamagedFileError(f"{self._file.path} contradicts itself; restore it from a backup.")


def printable(text: str) -> str:
    """Return text that a terminal shows and does not obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _rows(count: int) -> str:
    return f"{count:,} row is" if count == 1 else f"{count:,} rows are"


def _head_of(file: Path) -> str:
    """Return the last line's digest at the time when a run began; what cannot be read is no ledger's."""
    try:
        return str(json.loads(as_path(file, "what a run was asked").read_text())["head"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _sha256(path: Path) -> str:
    try:
        with open(as_path(path, "the checkpoint"), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}), expected a checkpoint.") from error


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
