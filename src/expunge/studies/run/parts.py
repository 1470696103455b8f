"""Parts: what a run of a method measured, or a forecast found, kept so that a killed study goes on where it was.

A part is one safetensors file with its SHA-256 in front; measurements of all stopping times are tensors, costs,
checks and claims are JSON in its header. It is written to a temporary name, flushed and renamed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from expunge.core import DamagedFileError
from expunge.core.claim import Claim
from expunge.core.digest import digest_json
from expunge.core.record import CheckRecord, write_atomically
from expunge.methods import Stop


class PartStore:
    """Measurements of finished runs, by what they depend on.

    Args:
        folder: Where the parts are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: Any) -> Path:
        """Return the file of a part; `key` is a JSON value that holds all that the part depends on."""
        return self.folder / f"{digest_json(key)[:24]}.part"

    def load(self, key: Any) -> list[Stop] | None:
        """Return the stopping times of a run, or None if it has not been finished.

        Raises:
            DamagedFileError: If the file was altered.
        """
        found = self.read(key)
        if found is None:
            return None
        tensors, header = found
        stops = []
        for number, facts in enumerate(json.loads(header["stops"])):
            prefix = f"{number}/"
            measured = {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
            checks = tuple(CheckRecord.model_validate(check) for check in facts["checks"])
            claim = Claim.model_validate(facts["claim"]) if facts.get("claim") else None
            prefix = f"facts/{number}/"
            known = {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
            stops.append(Stop(facts["epoch"], facts["cost"], measured, known, checks, claim))
        return stops

    def save(self, key: Any, stops: Sequence[Stop], *, facts: bool = False) -> None:
        """Write the stopping times of a finished run: measurements, cost, checks, claim, and if asked for the facts."""
        tensors: dict[str, torch.Tensor] = {}
        for number, stop in enumerate(stops):
            tensors.update({f"{number}/{name}": t for name, t in stop.measured.items()})
            tensors.update({f"facts/{number}/{name}": t for name, t in stop.facts.items() if facts})
        said = [
            {
                "epoch": stop.epoch,
                "cost": stop.cost,
                "checks": [check.model_dump() for check in stop.checks],
                "claim": None if stop.claim is None else stop.claim.model_dump(),
            }
            for stop in stops
        ]
        self.write(key, tensors, {"stops": json.dumps(said)})

    def read(self, key: Any) -> tuple[dict[str, torch.Tensor], dict[str, str]] | None:
        """Return the tensors and the words of a part, or None if it has not been written.

        Raises:
            DamagedFileError: If the file was altered.
        """
        path = self.path(key)
        if not path.is_file():
            return None
        content = path.read_bytes()
        digest, body = content[:32], content[32:]
        if hashlib.sha256(body).digest() != digest:
            raise DamagedFileError(f"{path} is damaged; delete this file and run again with --resume.")
        return load_tensors(body), json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])["__metadata__"]

    def write(self, key: Any, tensors: Mapping[str, torch.Tensor], words: dict[str, str]) -> None:
        """Write a part: tensors by name, and words by name."""
        body = save_tensors({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=words)
        write_atomically(self.path(key), hashlib.sha256(body).digest() + body)

    def clear(self) -> None:
        """Delete all parts; a finished record holds what matters."""
        for path in self.folder.glob("*.part"):
            path.unlink()
