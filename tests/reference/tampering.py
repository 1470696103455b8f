"""Changes to a bundle of evidence: of one byte, of one number, and of one number with all digests written anew."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from expunge.core import Record
from expunge.core.evidence import NO_ROOT, Checkpoint, CheckpointVerdict
from expunge.core.unlearning import Unlearning
from expunge.report import draw_statement
from expunge.studies.evidence.archive import write_parts
from expunge.studies.evidence.bundle import MANIFEST, PAGE, RELEASE, RELEASE_VERDICT, STATEMENT, canonical, with_root
from expunge.studies.evidence.statement import state

NUMBER = re.compile(rb"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.])")
FOLLOW = ("scores", "means", "shifts", "public", "verdict", "failed")
"""What of a setting follows from its margins."""


def contents(bundle: Path) -> dict[str, bytes]:
    """Read all files, by Python's own reader of zip files."""
    with zipfile.ZipFile(bundle) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def write(bundle: Path, files: Mapping[str, bytes]) -> Path:
    """Write files as the archive of a bundle."""
    bundle.write_bytes(b"".join(write_parts(files)))
    return bundle


def one_byte(bundle: Path, out: Path, draw: np.random.Generator) -> str:
    """Change one byte anywhere in the archive."""
    content = bytearray(bundle.read_bytes())
    place, change = int(draw.integers(len(content))), int(draw.integers(1, 256))
    content[place] ^= change
    out.write_bytes(content)
    return f"byte {place} xor {change}"


def one_number(bundle: Path, out: Path, draw: np.random.Generator) -> str:
    """Change one digit of one number in a file of text, and put the file back with its checksum in the archive."""
    files = contents(bundle)
    name = str(draw.choice([name for name in files if name.endswith((".json", ".html"))]))
    found = list(NUMBER.finditer(files[name]))
    match = found[int(draw.integers(len(found)))]
    places = [i for i in range(match.start(), match.end()) if files[name][i : i + 1].isdigit()]
    place = int(draw.choice(places))
    digit = str((int(files[name][place : place + 1]) + int(draw.integers(1, 10))) % 10).encode()
    files[name] = files[name][:place] + digit + files[name][place + 1 :]
    write(out, files)
    return f"{name}: {match.group().decode()}, another digit at {place}"


def forge(bundle: Path, out: Path, change: Callable[[dict[str, Any]], str]) -> str:
    """Change the record, and write statement, page and all digests anew, as somebody does who means it."""
    files = contents(bundle)
    raw = json.loads(files["record.json"])
    said = change(raw)
    files["record.json"] = json.dumps(raw, indent=1).encode()
    return said if remake(files, out) else ""


def remake(files: dict[str, bytes], out: Path) -> Path:
    """Write a bundle that is whole in itself around a record."""
    record = Record.model_validate_json(files["record.json"])
    released = None
    if RELEASE in files:
        verdict = files.get(RELEASE_VERDICT)
        released = Checkpoint(
            record=Unlearning.model_validate_json(files[RELEASE]),
            verdict=None if verdict is None else CheckpointVerdict.model_validate_json(verdict),
        )
    statement = state(record, released, rows=record.rows != "")
    files[STATEMENT] = canonical(statement.model_dump())
    page = draw_statement(statement, record, released, NO_ROOT).encode()
    manifest = json.loads(files.pop(MANIFEST))
    manifest["files"] = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in (files | {PAGE: page}).items()
    }
    listing = canonical(manifest)
    return write(out, {**files, MANIFEST: listing, PAGE: with_root(page, hashlib.sha256(listing).hexdigest())})


def one_that_follows(draw: np.random.Generator, kept: set[str]) -> Callable[[dict[str, Any]], str]:
    """Return what changes one number of the record that follows from the margins of one of these settings."""

    def change(raw: dict[str, Any]) -> str:
        forget = raw["forget_sets"][int(draw.integers(len(raw["forget_sets"])))]
        own = [c for c in forget["configurations"] if c["id"] in kept]
        places = [
            (holder, key, f"{where}.{what}")
            for part, what in [
                *((c, f"{name}") for c in own for name in FOLLOW),
                (forget, "floor"),
                (forget, "pretrained"),
                (forget, "floor_public"),
                (forget, "pretrained_public"),
            ]
            for holder, key, where in _numbers(part, what, part.get("id", forget["name"]))
        ]
        holder, key, where = places[int(draw.integers(len(places)))]
        before = holder[key]
        holder[key] = before + 1 if isinstance(before, int) else before + 0.01 * max(abs(before), 0.1)
        return f"{where}.{key}: {before} became {holder[key]}"

    return change


def _numbers(holder: Any, key: Any, where: str) -> Iterator[tuple[Any, Any, str]]:
    value = holder[key]
    if isinstance(value, bool):
        return
    if isinstance(value, int | float) and np.isfinite(value):
        yield holder, key, where
    elif isinstance(value, dict | list):
        for inner in value if isinstance(value, dict) else range(len(value)):
            yield from _numbers(value, inner, f"{where}.{key}")
