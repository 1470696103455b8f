"""The bundle: what somebody else needs to check a finished audit, in one file.

    manifest.json             SHA-256 of every other file; its own is the root digest, which names the bundle
    statement.html, .json     what is shown, assumed and not shown; the page for the person who signs
    record.json               every number of the audit's report; pictures, labels and ids of rows are left out
    margins/*.safetensors     what scores and verdicts are computed from
    rows.safetensors          a keyed digest of every row, and the places of those that were forgotten and scored
    checkpoints.json          digests of the models, none of which is in the bundle
    unlearned/unlearn.json    how the checkpoint for the request was made, where one was handed in
    unlearned/*               with the task as well, its margins, and its verdict as one model among the oracles

The same run with the same salt gives the same bytes, whenever and wherever it is made.

The salt is the key of the rows' digests (32 random bytes). In the bundle it would stop tables made for many bundles at
once, but not somebody who guesses a row and looks whether its digest is there. So it goes into a file of its own that
the owner of the data keeps: with it the rows can be checked against the data, without it the digests commit to the rows
and say nothing about them. The fingerprint of the data, by which a guess could be tested as well, is replaced by its
keyed digest wherever the record has it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from expunge.core import DamagedFileError, InputError, Record, Task
from expunge.core.checks import as_path
from expunge.core.digest import own_digest
from expunge.core.evidence import (
    FORMAT,
    NO_ROOT,
    Checkpoint,
    Checkpoints,
    CheckpointVerdict,
    FileFacts,
    Manifest,
    Models,
    Statement,
)
from expunge.core.record import inside, load_margins, write_atomically
from expunge.core.row_digests import keyed_rows, keyed_text
from expunge.core.unlearning import Unlearning
from expunge.studies.evidence.archive import Source, digest_source, refuse_name, write_parts
from expunge.studies.evidence.checkpoint import its_forget_set, judge_checkpoint, margins_of_checkpoint
from expunge.studies.evidence.statement import state
from expunge.version import __version__

SALT_BYTES = 32
PAGE, STATEMENT, MANIFEST, MODELS, ROWS = (
    "statement.html",
    "statement.json",
    "manifest.json",
    "checkpoints.json",
    "rows.safetensors",
)
RELEASE, RELEASE_MARGINS, RELEASE_VERDICT = (
    "unlearned/unlearn.json",
    "unlearned/margins.safetensors",
    "unlearned/verdict.json",
)
PRIVATE = ("pictures", "names")
"""Fields of a forget set in a record that show something of its rows."""

Draw = Callable[[Statement, Record, Checkpoint | None, str], str]
"""Draws the page from what the bundle holds, and the root digest."""


@dataclass(frozen=True)
class Made:
    """A bundle that was written."""

    path: Path
    root: str
    """The root digest: the number that names the bundle."""
    page: Path
    """The printable page, beside the bundle; the same is inside."""
    salt: Path
    """The file of the salt, to be kept by the owner of the data."""
    files: int
    bytes: int


def make_bundle(
    run: Path,
    out: Path,
    draw: Draw,
    *,
    unlearned: Path | None = None,
    task: Task | None = None,
    salt: Path | None = None,
) -> Made:
    """Write the bundle of a finished audit, its page, and the file of its salt.

    Args:
        run: Folder of the audit.
        out: The bundle, a file that ends in `.zip`.
        draw: Draws the page.
        unlearned: Folder that `expunge unlearn` wrote; the digest of its checkpoint goes in, and its record.
        task: The task of the audit, by which that checkpoint is held against the oracles; None does not.
        salt: A salt that was used before; None draws a new one.

    Raises:
        InputError: If the run is not an audit, not finished, or something is there already.
        DamagedFileError: If a file of the run is not the one that it wrote.
    """
    run = run.parent if run.is_file() else run
    if out.suffix.lower() != ".zip":
        raise InputError(f"--out {out}, expected a file that ends in .zip.")
    page, kept = out.with_suffix(".html"), out.with_suffix(".salt")
    _check_places(run, out, page, kept, salt)
    record = _finished(run)
    key = secrets.token_bytes(SALT_BYTES) if salt is None else read_salt(salt)
    fingerprint = str(record.task.get("fingerprint", ""))
    text = _record_text(record, fingerprint, key)
    files: dict[str, Source] = {"record.json": text}
    for forget in record.forget_sets:
        refuse_name(forget.margins, run)
        files[forget.margins] = _intact(inside(run, forget.margins), forget.margins_digest)
    rows = record.rows != ""
    if rows:
        files[ROWS] = _keyed(_intact(inside(run, record.rows), record.rows_digest), key)
    released = None
    if unlearned is not None:
        made = _released(unlearned, record)
        files[RELEASE] = how = _without(made.model_dump_json(indent=1), fingerprint, key).encode()
        released = Checkpoint(record=Unlearning.model_validate_json(how))
        if task is not None:
            files[RELEASE_MARGINS], released.verdict = _judged(run, record, unlearned, made, task)
            files[RELEASE_VERDICT] = canonical(released.verdict.model_dump())
    models = Models(audited=_kept_ensembles(run))
    shown = Record.model_validate_json(text)
    statement = state(shown, released, rows=rows)
    files |= {MODELS: canonical(models.model_dump()), STATEMENT: canonical(statement.model_dump())}
    blank = draw(statement, shown, released, NO_ROOT).encode()
    files[PAGE] = blank
    listed = {name: FileFacts(bytes=size, sha256=sha) for name, (size, sha) in _digests(files).items()}
    manifest = Manifest(format=FORMAT, expunge=__version__, salt=hashlib.sha256(key).hexdigest(), files=listed)
    listing = canonical(manifest.model_dump())
    root = hashlib.sha256(listing).hexdigest()
    files |= {MANIFEST: listing, PAGE: with_root(blank, root)}
    if salt is None:  # first: a bundle without its salt could never be held against the data
        write_atomically(kept, (key.hex() + "\n").encode(), private=True)
    try:
        write_atomically(out, write_parts(files))
    except BaseException:
        if salt is None:
            kept.unlink(missing_ok=True)
        raise
    write_atomically(page, with_root(blank, root))
    return Made(out, root, page, kept if salt is None else salt, len(files), out.stat().st_size)


def canonical(value: Any) -> bytes:
    """Return a JSON value as the only bytes that mean it: keys sorted, no spaces, ASCII, one line."""
    return (json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n").encode()


def with_root(page: bytes, root: str) -> bytes:
    """Return the page that shows the root digest."""
    return page.replace(NO_ROOT.encode(), root.encode())


def without_root(page: bytes, root: str) -> bytes:
    """Return the page of which the manifest holds the digest."""
    return page.replace(root.encode(), NO_ROOT.encode())


def read_salt(path: Path) -> bytes:
    """Return the salt in a file.

    Raises:
        InputError: If it holds none.
    """
    path = as_path(path, "the salt")
    try:
        found = bytes.fromhex(path.read_text(encoding="ascii").strip()) if path.stat().st_size < 1024 else b""
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a salt ({error}), expected 64 hexadecimal digits.") from error
    if len(found) != SALT_BYTES:
        raise InputError(f"{path} holds no salt, expected 64 hexadecimal digits, as expunge evidence wrote them.")
    return found


def _check_places(run: Path, out: Path, page: Path, kept: Path, salt: Path | None) -> None:
    for path in (out, page, *([kept] if salt is None else [])):
        if path.exists():
            raise InputError(f"{path} is there already and is not overwritten; move it away, or choose another --out.")
    if (run / "forecast.json").is_file() and not (run / Record.FILE).is_file():
        raise InputError(
            f"{run} holds forecasts alone, expected a finished audit: they are made before unlearning, so they are no "
            "evidence of it. Run: expunge audit"
        )


def _finished(run: Path) -> Record:
    record = Record.load(run)
    if record.status != "complete":
        raise InputError(
            f"the audit in {run} is not complete, expected a finished one; go on with it: {record.command} --resume"
        )
    if not record.forget_sets:
        raise InputError(f"the audit in {run} has no forget set, expected at least one.")
    return record


def _record_text(record: Record, fingerprint: str, key: bytes) -> bytes:
    """Return the record without what shows rows, or would let a guess about them be tested."""
    shown = record.model_copy(deep=True)
    for forget in shown.forget_sets:
        for name in PRIVATE:
            setattr(forget, name, {})
        for example in forget.worst:
            example.label = -1
    return _without(shown.model_dump_json(indent=1), fingerprint, key).encode()


def _without(text: str, fingerprint: str, key: bytes) -> str:
    return text.replace(fingerprint, keyed_text(fingerprint, key)) if fingerprint else text


def _intact(path: Path, digest: str) -> Path:
    if not path.is_file():
        raise InputError(f"{path} does not exist; the run's folder is incomplete: restore the file, or audit again.")
    if digest and digest_source(path)[1] != digest:
        raise DamagedFileError(f"{path} is not the file that the run wrote; restore it, or audit again.")
    return path


def _keyed(path: Path, key: bytes) -> bytes:
    """Return the file of the rows with keyed digests."""
    try:
        arrays: dict[str, np.ndarray[Any, Any]] = dict(load_arrays(path.read_bytes()))
        keyed = {part: keyed_rows(arrays[part], key, part) for part in ("train", "validation")}
    except (SafetensorError, KeyError, ValueError) as error:
        raise DamagedFileError(f"{path} cannot be read ({error}); restore it, or audit again.") from error
    return save_arrays(arrays | keyed)


def _kept_ensembles(run: Path) -> list[Checkpoints]:
    """Return digests of the models in the store of the run, as their manifests have them."""
    found = []
    for path in sorted((run / "ensembles").glob("*/manifest.json")):
        try:
            manifest = json.loads(_intact(inside(run, str(path.relative_to(run))), "").read_text())
            if own_digest(manifest) != manifest["sha256"]:
                raise ValueError("its checksum does not fit")
            made = manifest["specification"]
            files = {shard["file"]: shard["sha256"] for shard in manifest["shards"]}
            found.append(Checkpoints(seed=made.get("seed"), epochs=made.get("epochs"), files=files))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedFileError(f"{path} cannot be read ({error}); restore it, or audit again.") from error
    return sorted(found, key=lambda each: canonical(each.model_dump()))


def of_the_same(released: Unlearning, record: Record) -> str:
    """Return why an unlearned checkpoint is none of the audit's request; nothing where it is."""
    if released.task.get("fingerprint") != record.task.get("fingerprint"):
        return "the checkpoint was unlearned on another task (other data, model or recipe)"
    if its_forget_set(released, record) is None:
        return f"the checkpoint was unlearned for other rows ({released.forget.name}, {released.forget.size} rows)"
    return ""


def _released(folder: Path, record: Record) -> Unlearning:
    """Return the record of an unlearned checkpoint, which must be there, whole, and of the same request."""
    released = Unlearning.load(folder)
    if released.status != "complete" or released.after is None:
        raise InputError(
            f"the unlearning in {folder} is not complete, expected a finished one; go on with it: {released.command} "
            "--resume"
        )
    other = of_the_same(released, record)
    if other:
        raise InputError(f"{folder}: {other}, expected the one of the audit.")
    _intact(inside(folder, released.after.path), released.after.sha256)
    return released


def _judged(
    run: Path, record: Record, folder: Path, released: Unlearning, task: Task
) -> tuple[bytes, CheckpointVerdict]:
    """Return the margins of the checkpoint, and its verdict as one model."""
    forget = its_forget_set(released, record)
    if forget is None or not record.rows or released.after is None:
        raise InputError(f"{run} kept no places of the rows, so the checkpoint cannot be judged; leave --task out.")
    rows = load_arrays(inside(run, record.rows).read_bytes())
    ours = margins_of_checkpoint(inside(folder, released.after.path), task, record, forget, rows)
    return save_arrays(ours), judge_checkpoint(ours, load_margins(run, forget))


def _digests(files: Mapping[str, Source]) -> dict[str, tuple[int, str]]:
    return {name: digest_source(source) for name, source in files.items()}
