"""Checking a bundle: is every byte what its manifest says, and does every score and verdict follow from its margins?

    digests         always: the form of the archive, the SHA-256 of every file, the statement written once more
    recompute       every score, floor and verdict from the margins, by the judge of the audit
    task and salt   the digest of every row of the data

Whoever changes a file and writes all digests anew makes another bundle that is whole in itself. Recomputing finds what
he changed in scores and verdicts; what does not follow from margins (costs, accuracies, seeds, the margins themselves)
only the root digest gives away, held against the one that was written down or signed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays

from expunge.core import InputError, Record, Task
from expunge.core.evidence import (
    NO_ROOT,
    Checkpoint,
    CheckpointVerdict,
    Difference,
    Manifest,
    Models,
    Statement,
    Verification,
)
from expunge.core.reading import check_memory
from expunge.core.record import SPLITS, ForgetRecord
from expunge.core.row_digests import digest_rows, keyed_rows, keyed_text
from expunge.core.unlearning import Unlearning
from expunge.studies.evidence.archive import Archive
from expunge.studies.evidence.bundle import (
    MANIFEST,
    MODELS,
    PAGE,
    RELEASE,
    RELEASE_MARGINS,
    RELEASE_VERDICT,
    ROWS,
    STATEMENT,
    Draw,
    canonical,
    of_the_same,
    read_salt,
    without_root,
)
from expunge.studies.evidence.checkpoint import its_forget_set, judge_checkpoint
from expunge.studies.evidence.statement import state
from expunge.version import __version__

MOST_JSON = 2**27
"""Bytes of a record."""
MOST_SMALL = 2**24
"""Bytes of any other file of text."""
NAMED = 6
"""Rows that a sentence names."""
MOST_DIFFERENCES = 100
"""Differences that are listed; the others are counted."""

Again = Callable[[Record, ForgetRecord, Mapping[str, Any], Mapping[Any, Any] | None], Any]
"""Computes what a record says of a forget set once more (`studies.audit.recompute`)."""

CANONICAL = (Manifest, Models, Statement, CheckpointVerdict)
"""Files of which only one way of writing counts."""

M = TypeVar("M", bound=BaseModel)


def verify_bundle(
    path: Path,
    draw: Draw,
    *,
    again: Again | None = None,
    task: Task | None = None,
    salt: Path | None = None,
    root: str | None = None,
) -> Verification:
    """Check a bundle; nothing of it is written to disk, and nothing in it is run.

    Args:
        path: The bundle.
        draw: Draws the page, to be compared with the one inside.
        again: Computes scores and verdicts once more; None does not.
        task: The data that the audit was about; None does not look at rows.
        salt: The key of the rows' digests; None takes the file beside the bundle.
        root: The root digest that was written down or signed; None has nothing to hold against.

    Raises:
        InputError: If the file is no bundle, or holds what is never opened.
        DamagedFileError: If its directory cannot be read.
    """
    with Archive(path) as archive:
        return _Check(archive, draw).run(again, task, salt, root)


class _Check:
    """One check of one bundle."""

    def __init__(self, archive: Archive, draw: Draw) -> None:
        self.archive, self.draw = archive, draw
        self.wrong: list[tuple[str, str]] = []
        self.damaged: set[str] = set()
        """Files that are not as the manifest says, from which nothing is read on."""

    def run(self, again: Again | None, task: Task | None, salt: Path | None, root: str | None) -> Verification:
        archive = self.archive
        if MANIFEST not in archive.entries:
            raise InputError(f"{archive.path} has no {MANIFEST}, expected a bundle that expunge evidence wrote.")
        listing = archive.read(MANIFEST, MOST_SMALL)
        own = archive.digest(MANIFEST)
        out = Verification(
            bundle=str(archive.path),
            root=own,
            root_expected=root,
            written_by="",
            files=len(archive.entries),
            bytes=archive.size,
        )
        if root is not None and root.strip().lower() != own:
            self.add(MANIFEST, f"its root digest is {own}, expected {root}: this is another bundle")
        manifest = self.parse(Manifest, MANIFEST, listing)
        if manifest is not None:
            out.written_by = manifest.expunge
            self.digests(manifest, own, out)
            record = self.parse(Record, "record.json")
            try:
                self.statement(record, manifest, own, out)
            except Exception as error:  # whatever a record made to mislead brings the page to
                self.add("record.json", f"no statement can be made of it: {type(error).__name__}, {error!s:.300}")
            if record is not None:
                self.margins(record, again, out)
                self.rows(record, manifest, task, salt, out)
        every = [*archive.wrong, *self.wrong]
        out.differences = [Difference(where=where, what=what) for where, what in dict.fromkeys(every)]
        if root is None:
            out.unchecked.append(
                "whose bundle this is: hold the root digest against the one that was written down or signed (--root)"
            )
        return out

    def add(self, where: str, what: str) -> None:
        """Enter something that is wrong."""
        self.wrong.append((where, what))

    def parse(self, kind: type[M], name: str, content: bytes | None = None) -> M | None:
        """Return a file of JSON as what it should be, or None, entered as wrong."""
        if name in self.damaged or name not in self.archive.entries:
            return None
        try:
            check_memory(20.0 * self.archive.entries[name].size, f"reading {name}")
            raw = self.archive.read(name, MOST_JSON if name == "record.json" else MOST_SMALL)
            value = json.loads(raw if content is None else content, object_pairs_hook=_once)
            found = kind.model_validate(value)
        except (ValidationError, ValueError, RecursionError) as error:
            first = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
            why = str(error) if first is None else f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            self.add(name, f"cannot be read ({why.splitlines()[0][:200]})")
            return None
        if kind in CANONICAL and raw != canonical(value):
            self.add(name, "is not written as expunge writes it")
        return found

    def digests(self, manifest: Manifest, root: str, out: Verification) -> None:
        """Hold every file against the manifest."""
        there, listed = set(self.archive.entries) - {MANIFEST}, set(manifest.files)
        for name in sorted(listed - there):
            self.add(name, "is missing: the manifest lists it")
            self.damaged.add(name)
        for name in sorted(there - listed):
            self.add(name, "is extra: the manifest does not list it")
            self.archive.digest(name)
        for name in sorted(there & listed):
            entry, facts = self.archive.entries[name], manifest.files[name]
            found = self.archive.digest(name)
            size, page = entry.size, b""
            if name == PAGE and size <= MOST_SMALL:
                page = self.archive.read(name, MOST_SMALL)
                found = hashlib.sha256(without_root(page, root)).hexdigest()
                if root.encode() not in page:
                    self.add(MANIFEST, "its root digest is not the one that the page shows: one of the two was changed")
            if size != facts.bytes:
                self.add(name, f"has {size:,} bytes, the manifest says {facts.bytes:,}")
            elif name == PAGE and NO_ROOT.encode() in page:
                self.add(name, "shows zeros where the root digest should be")
            elif found != facts.sha256:
                self.add(name, f"was changed: its SHA-256 is {found[:16]}..., the manifest says {facts.sha256[:16]}...")
            else:
                continue
            self.damaged.add(name)
        if not self.wrong and not self.archive.wrong:
            out.checked.append(f"the SHA-256 of all {len(there)} files, and every byte of the archive around them")

    def statement(self, record: Record | None, manifest: Manifest, root: str, out: Verification) -> None:
        """Write the statement and its page once more, where this version is the one that wrote them."""
        self.parse(Models, MODELS)
        statement, made = self.parse(Statement, STATEMENT), self.parse(Unlearning, RELEASE)
        verdict = self.parse(CheckpointVerdict, RELEASE_VERDICT)
        if record is None or statement is None or (made is None and RELEASE in self.archive.entries):
            return
        released = None if made is None else Checkpoint(record=made, verdict=verdict)
        other = "" if made is None else of_the_same(made, record)
        if other:
            self.add(RELEASE, other)
        if manifest.expunge != __version__:
            out.unchecked.append(
                f"whether statement and page say what the record says: expunge {manifest.expunge} wrote them, "
                f"this is {__version__}"
            )
            return
        expected = state(record, released, rows=record.rows != "")
        if canonical(expected.model_dump()) != canonical(statement.model_dump()):
            self.add(STATEMENT, f"does not say what the record says: {_first_other(statement, expected)}")
        if PAGE not in self.damaged and PAGE in self.archive.entries:
            page = self.archive.read(PAGE, MOST_SMALL)
            if page != self.draw(expected, record, released, root).encode():
                self.add(PAGE, "does not show what the record says")
                return
            out.checked.append("the statement and its page, written once more from the record")

    def margins(self, record: Record, again: Again | None, out: Verification) -> None:
        """Compute scores and verdicts once more."""
        if again is None:
            out.unchecked.append("whether scores and verdicts follow from the margins (--recompute)")
            return
        positions = self.positions(record)
        numbers = settings = left = 0
        for forget in record.forget_sets:
            arrays = self.arrays(forget.margins)
            if arrays is None:
                continue
            try:
                found = again(record, forget, arrays, None if positions is None else positions.get(forget.name))
            except Exception as error:  # whatever a record made to mislead brings the judge to
                self.add(
                    "record.json", f"{forget.name} cannot be computed again: {type(error).__name__}, {error!s:.300}"
                )
                continue
            for where, what in found.differences[:MOST_DIFFERENCES]:
                self.add("record.json", f"{where} {what}")
            rest = len(found.differences) - MOST_DIFFERENCES
            if rest > 0:
                self.add("record.json", f"{forget.name}: {rest} more numbers differ")
            numbers, settings, left = numbers + found.numbers, settings + found.settings, left + found.left
            self.checkpoint(record, forget, arrays, out)
        out.checked.append(
            f"scores and verdicts of {settings} settings, computed again from the margins ({numbers:,} values)"
        )
        if out.written_by != __version__:
            out.unchecked.append(
                f"whether what differs is the version's doing: expunge {out.written_by} judged, this is {__version__}"
            )
        beside = f", and the scores of {left} settings that were tried and whose margins were not kept" * bool(left)
        out.unchecked.append(
            f"what does not follow from the margins: costs, accuracies, forecasts, calibration readings{beside}"
        )

    def checkpoint(self, record: Record, forget: ForgetRecord, arrays: Mapping[str, Any], out: Verification) -> None:
        """Judge the checkpoint once more, where it is one for this forget set and was judged."""
        made, verdict = self.parse(Unlearning, RELEASE), self.parse(CheckpointVerdict, RELEASE_VERDICT)
        if made is None or verdict is None:
            return
        try:
            ours = self.arrays(RELEASE_MARGINS) if its_forget_set(made, record) is forget else None
            if ours is None:
                return
            found = judge_checkpoint(ours, arrays)
        except Exception as error:  # as above
            self.add(RELEASE_VERDICT, f"cannot be computed again: {type(error).__name__}, {error!s:.300}")
            return
        before = len(self.wrong)
        for name in CheckpointVerdict.model_fields:
            one, other = getattr(verdict, name), getattr(found, name)
            close = isinstance(one, float) and isinstance(other, float) and math.isclose(one, other, rel_tol=1e-6)
            if one != other and not close:
                self.add(RELEASE_VERDICT, f"{name} is {one!r}, the margins say {other!r}")
        if len(self.wrong) == before:
            out.checked.append(f"the verdict on the checkpoint among {found.oracles} oracles, computed again")

    def positions(self, record: Record) -> dict[str, dict[Any, Any]] | None:
        """Return the places of the scored rows by forget set and split, or None where the bundle has none."""
        arrays = self.arrays(ROWS) if record.rows else None
        if arrays is None:
            return None
        lacking = [f"{f.name}/{s}" for f in record.forget_sets for s in SPLITS if f"{f.name}/{s}" not in arrays]
        if lacking:
            self.add(ROWS, f"has no {', '.join(lacking[:NAMED])}")
            return None
        return {f.name: {s: arrays[f"{f.name}/{s}"] for s in SPLITS} for f in record.forget_sets}

    def arrays(self, name: str) -> dict[str, np.ndarray[Any, Any]] | None:
        """Return the arrays of a file, or None, entered as wrong."""
        if name in self.damaged:
            return None
        if name not in self.archive.entries:
            self.add(name, "is missing: the record names it")
            return None
        check_memory(3.0 * self.archive.entries[name].size, f"reading {name}")
        try:
            return dict(load_arrays(self.archive.read(name, self.archive.size)))
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            self.add(name, f"cannot be read as safetensors ({error})")
            return None

    def rows(self, record: Record, manifest: Manifest, task: Task | None, salt: Path | None, out: Verification) -> None:
        """Hold the rows of the data against their digests."""
        if task is None:
            out.unchecked.append("whether the data are those of the audit (--task, with the salt)")
            return
        if not record.rows:
            out.unchecked.append("whether the data are those of the audit: the run kept no digests of its rows")
            return
        path = self.archive.path.with_suffix(".salt") if salt is None else salt
        if not path.is_file():
            raise InputError(
                f"{path} does not exist; the rows' digests are under a key, expected --salt FILE, which whoever made "
                "the bundle kept."
            )
        key = read_salt(path)
        if hashlib.sha256(key).hexdigest() != manifest.salt:
            raise InputError(f"{path} is the salt of another bundle, expected the one that was written with this one.")
        arrays = self.arrays(ROWS)
        if arrays is None:
            return
        before = len(self.wrong)
        for part, split in (("train", task.train), ("validation", task.validation)):
            self.compare_rows(part, arrays.get(part), keyed_rows(digest_rows(split), key, part))
        if keyed_text(task.fingerprint, key) != record.task.get("fingerprint") and len(self.wrong) == before:
            self.add("record.json", "the task has the rows of the audit, and another model, recipe or fit")
        if len(self.wrong) == before:
            total = len(task.train) + len(task.validation)
            out.checked.append(f"all {total:,} rows of the data, the model and how it is trained")

    def compare_rows(self, part: str, kept: Any, found: np.ndarray[Any, Any]) -> None:
        """Name the rows that differ."""
        if kept is None or kept.ndim != 2 or kept.dtype != np.uint8 or kept.shape[1:] != found.shape[1:]:
            self.add(ROWS, f"has no digests of the {part} rows")
            return
        if len(kept) != len(found):
            self.add(ROWS, f"is of {len(kept):,} {part} rows, the task has {len(found):,}")
        most = min(len(kept), len(found))
        others = np.flatnonzero((kept[:most] != found[:most]).any(1))
        if others.size:
            rest = f" and {others.size - NAMED:,} more" if others.size > NAMED else ""
            named = ", ".join(map(str, others[:NAMED].tolist()))
            self.add(ROWS, f"{part} rows of the task are not those of the audit: {named}{rest} (counted from 0)")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a table, and refuse a name that is there twice: readers would differ in which counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _first_other(found: Statement, expected: Statement) -> str:
    for name in Statement.model_fields:
        one, other = getattr(found, name), getattr(expected, name)
        for left, right in zip(one, other, strict=False):
            if left != right:
                return f"it has {left[:160]!r} where the record gives {right[:160]!r}"
        if len(one) != len(other):
            return f"it has {len(one)} sentences under {name!r}, the record gives {len(other)}"
    return "another order"
