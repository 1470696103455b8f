"""The file of a ledger: one JSON line an entry, each with the digest of the line before; nothing is ever changed in it.

    {"before": "", "kind": "opened", "number": 1, ..., "sha256": "a1..."}
    {"before": "a1...", "kind": "request", "number": 2, ..., "sha256": "b2..."}

An entry is added under a lock, by writing the file with one more line beside the old one, flushing it to the disk and
renaming it: whoever is killed leaves the old file or the new one. A line that was edited, left out, or put elsewhere is
named when the ledger is read.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from expunge.core import DamagedFileError, InputError
from expunge.core.checks import as_path
from expunge.core.digest import own_digest
from expunge.core.locks import hold, open_lock
from expunge.core.schema import Strict, write_atomically

NAME = "ledger.jsonl"
"""Name of the file in a ledger's folder."""

CURE = "restore the file from a backup; a ledger that was changed proves nothing"


class Opened(Strict):
    """The first line: which data the rows are rows of."""

    kind: Literal["opened"] = "opened"
    at: str
    task: str
    data: str
    """Digest of the training data."""
    examples: int


class Request(Strict):
    """Rows that are to be forgotten."""

    kind: Literal["request"] = "request"
    at: str
    request: int
    """Counts from 1."""
    rows: list[int] = Field(min_length=1)
    """Positions in the training data that no request before named, sorted."""
    known: list[int] = Field(default_factory=list)
    """Positions that were asked for as well, and that an earlier request had named."""
    source: str = ""
    """Where the rows came from, such as the name of a file."""
    note: str = ""


class Accepted(Strict):
    """A run that ended well: its model takes the place of the last one."""

    kind: Literal["accepted"] = "accepted"
    at: str
    run: int
    """Counts from 1."""
    requests: list[int] = Field(min_length=1)
    """Requests that it carried out."""
    method: str
    retrained: bool
    """Whether its weights were made anew, from nothing but the rows that are kept."""
    checkpoint: str
    """The model's file, below the ledger's folder."""
    checkpoint_sha256: str
    start_sha256: str
    """Of the checkpoint that it started from."""


Entry = Opened | Request | Accepted
ENTRY: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, Field(discriminator="kind")])


class LedgerFile:
    """The lines of one ledger.

    Args:
        folder: Its folder, made when the first entry is added.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def read(self) -> tuple[list[Entry], list[str]]:
        """Return all entries, and the digest of each line.

        Raises:
            DamagedFileError: If a line is not what was written; the message names it.
        """
        try:
            content = as_path(self.path, "the ledger").read_bytes()
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise InputError(f"{self.path} cannot be read ({error.strerror}); make it readable.") from error
        *lines, rest = content.split(b"\n")
        if rest or not lines:
            raise self._damaged(len(lines) + 1, "is incomplete")
        entries, digests = [], [""]
        for number, line in enumerate(lines, start=1):
            entry, digest = self._entry(number, line, digests[-1])
            if (number == 1) != isinstance(entry, Opened):
                raise self._damaged(number, f"is of kind {entry.kind}, which does not belong there")
            entries.append(entry)
            digests.append(digest)
        return entries, digests[1:]

    def _entry(self, number: int, line: bytes, before: str) -> tuple[Entry, str]:
        try:
            raw = json.loads(line)
            if not isinstance(raw, dict) or line != _written(raw):
                raise ValueError("it is not written as expunge writes")
            digest = raw.pop("sha256", "")
            if digest != own_digest(raw):
                raise ValueError("its SHA-256 is not that of what it says")
            if raw.pop("number", None) != number or raw.pop("before", None) != before:
                raise ValueError("it does not follow from the line before it")
            return ENTRY.validate_python(raw), digest
        except ValidationError as error:
            raise self._damaged(number, f"is no entry ({error.errors()[0]['msg']})") from error
        except (ValueError, RecursionError) as error:
            raise self._damaged(number, f"is damaged or was changed ({error})") from error

    def _damaged(self, number: int, what: str) -> DamagedFileError:
        return DamagedFileError(f"{self.path}, line {number} {what}; {CURE}.")

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other threads and processes from adding entries."""
        with self.locked("lock"):
            yield

    @contextlib.contextmanager
    def locked(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold a lock in the folder, and yield whether it could be had.

        Args:
            name: Of the lock's file.
            wait: Whether to wait for whoever has it.
        """
        with contextlib.ExitStack() as held:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                file = held.enter_context(open_lock(self.path.parent / name))
            except OSError as error:
                raise InputError(
                    f"the ledger {self.path.parent} cannot be written to ({error.strerror}); choose another folder, or "
                    "make this one writable."
                ) from error
            yield hold(file, wait=wait)

    def append(self, entry: Entry) -> None:
        """Add an entry; called by whoever is `alone`."""
        _, digests = self.read()
        raw = {"number": len(digests) + 1, "before": digests[-1] if digests else "", **entry.model_dump()}
        raw["sha256"] = own_digest(raw)
        earlier = self.path.read_bytes() if digests else b""
        write_atomically(self.path, earlier + _written(raw) + b"\n")


def _written(raw: dict[str, Any]) -> bytes:
    return json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
