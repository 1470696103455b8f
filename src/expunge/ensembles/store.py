"""The store: members kept on disk in shards, found again by the specification they came from.

A folder an ensemble, named by the digest of its specification:

    manifest.json                      the full specification, for each shard its file, members and SHA-256, and a
                                       SHA-256 of all this
    members-<first>-<last>.safetensors parameters and buffers of consecutive members, keys `params/...`, `buffers/...`
    partial-<first>-<last>.safetensors training in progress, replaced as it goes and deleted when the shard is written
    lock                               held by the process that writes the manifest
    claim-<first>-<last>-<digest>      held by the process that is at these members

Every file is written to a temporary name, flushed, and renamed. A file whose checksum or contents do not fit is named
and refused. Nothing is ever unpickled. Processes may share a shelf: each reads the manifest again, under the lock,
before it enters its own shards, and what is there already is kept. Members that one process has claimed are left to it
by the others, which go on with what is free and then wait. Both are locks of open files, which the system takes away
from a process that ends, however it ends: the members of one that was killed are taken over. (Where there are no such
locks, on Windows and some network file systems, two processes at once may do the same work.)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from expunge.core import DamagedFileError, InputError
from expunge.core.checks import as_path
from expunge.core.digest import digest_json, own_digest
from expunge.core.locks import hold, open_lock
from expunge.core.record import inside, write_atomically
from expunge.core.tree import State

FORMAT = 1

POLL_SECONDS = 0.2
"""How often a process looks whether another is done with the members that it waits for."""

LEAST_MAPPED = 2**24
"""Bytes of a stacked tensor below which it is not worth a file."""


class Shelf:
    """The place of one ensemble in a store.

    Args:
        root: Folder of the store; created when needed.
        specification: What the members depend on, as a JSON value; equal specifications share a shelf.

    Raises:
        DamagedFileError: If the manifest there cannot be read or belongs to another specification.
        InputError: If a file lies where the folder should be.
    """

    def __init__(self, root: Path, specification: Mapping[str, Any]) -> None:
        self.specification = json.loads(json.dumps(dict(specification), sort_keys=True))
        self.key = digest_json(self.specification)[:20]
        self.folder = Path(root) / self.key
        for place in (self.folder, *self.folder.parents):
            if place.exists() and not place.is_dir():
                raise InputError(f"store = {str(root)!r}, but {place} is a file; expected a folder, or a new name.")
        self._lock = threading.Lock()
        self._shards: list[dict[str, Any]] = []
        self.chunk = 0
        """Members that are trained together on this shelf; 0 before training began."""
        self.refresh()

    def refresh(self) -> set[int]:
        """Read the manifest again, into which other processes may have entered shards, and return `members()`."""
        manifest = self.folder / "manifest.json"
        if as_path(manifest, "a file of the store").exists():
            self._shards = self._read_manifest(manifest)
        return self.members()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads and processes from changing the manifest, and know what is in it."""
        with self._lock, contextlib.ExitStack() as held:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                file = held.enter_context(open_lock(self.folder / "lock"))
            except OSError as error:
                raise InputError(
                    f"the store {self.folder} cannot be written to ({error.strerror}); choose another folder, or make "
                    "this one writable."
                ) from error
            hold(file)
            self.refresh()
            yield

    @contextlib.contextmanager
    def claim(self, ids: Sequence[int]) -> Iterator[list[int]]:
        """Take members for this thread, and yield those to make: none where another process or thread is at one.

        The claim lasts as long as the block; nobody else is given these members in the meantime.
        """
        name = f"claim-{min(ids):05d}-{max(ids):05d}-{digest_json(list(ids))[:8]}"
        with contextlib.ExitStack() as held:
            with self._alone():
                missing = [member for member in ids if member not in self.members()]
                if missing and not self._claimed() & set(missing):
                    try:
                        file = held.enter_context(open_lock(self.folder / name))
                        file.truncate()
                        file.write(json.dumps(missing))
                        file.flush()
                    except OSError as error:
                        raise InputError(f"{self.folder / name} cannot be written ({error.strerror}).") from error
                    hold(file)
                    held.callback((self.folder / name).unlink, missing_ok=True)
                else:
                    missing = []
            yield missing

    def _claimed(self) -> set[int]:
        """Return the members that somebody is at; claims of processes that ended are removed."""
        taken: set[int] = set()
        for path in self.folder.glob("claim-*"):
            with contextlib.suppress(FileNotFoundError), open_lock(path) as file:
                if hold(file, wait=False):
                    path.unlink(missing_ok=True)
                    continue
                with contextlib.suppress(ValueError):
                    taken.update(json.load(file))
        return taken

    def left(self, ids: Sequence[int]) -> set[int]:
        """Wait until nobody is at any of these members, and return those that are still to be made."""
        while True:
            with self._alone():
                missing = set(ids) - self.members()
                if not missing or not self._claimed() & missing:
                    return missing
            time.sleep(POLL_SECONDS)

    def _read_manifest(self, path: Path) -> list[dict[str, Any]]:
        cure = f"restore it, or delete the folder {self.folder} to train again."
        try:
            raw = json.loads(path.read_text())
            shards, specification, chunk = raw["shards"], raw["specification"], raw["chunk"]
            complete = all(_is_shard(shard) for shard in shards)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DamagedFileError(f"{path} is damaged ({error}); {cure}") from error
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}); make it readable, or {cure}") from error
        if raw.get("format") != FORMAT or not complete:
            raise DamagedFileError(f"{path} has another format; {cure}")
        # Manifests of earlier versions have no checksum, so what they say must at least agree with itself.
        if "sha256" in raw and raw["sha256"] != own_digest(raw):
            raise DamagedFileError(f"{path} was changed: its SHA-256 is not that of what it says; {cure}")
        if specification != self.specification:
            raise DamagedFileError(f"{path} belongs to another specification; delete the folder {self.folder}.")
        if type(chunk) is not int or chunk < 0:
            raise DamagedFileError(f"{path} is damaged (chunk {chunk!r}, expected a whole number); {cure}")
        for shard in shards:
            ids = shard["ids"]
            if ids != sorted(set(ids)) or ids[0] < 0:
                raise DamagedFileError(
                    f"{path} is damaged (members {ids[:3]}... of {shard['file']}, expected them in order); {cure}"
                )
        self.chunk = chunk
        return list(shards)

    def begin(self, chunk: int) -> int:
        """Enter the chunk size that all members of this shelf are trained in; return the one it began with."""
        with self._alone():
            self.chunk = self.chunk or chunk
            self._write_manifest()
        return self.chunk

    def _write_manifest(self) -> None:
        manifest = {
            "format": FORMAT,
            "specification": self.specification,
            "chunk": self.chunk,
            "shards": sorted(self._shards, key=lambda shard: shard["ids"]),
        }
        manifest["sha256"] = own_digest(manifest)
        write_atomically(self.folder / "manifest.json", json.dumps(manifest, indent=1).encode())

    def members(self) -> set[int]:
        """Return the indices of the members that are complete on disk."""
        return {member for shard in self._shards for member in shard["ids"]}

    def digest(self, member: int) -> str:
        """Return the SHA-256 of the shard that holds a member, or nothing where there is none."""
        return next((str(shard["sha256"]) for shard in self._shards if member in shard["ids"]), "")

    def load(
        self, ids: Sequence[int], *, mapped: bool = False, like: tuple[State, State] | None = None
    ) -> tuple[State, State]:
        """Return parameters and buffers of members, in the order asked.

        Args:
            ids: Indices of members.
            mapped: Keep what is returned in a file that is deleted when it is no longer used, not in memory.
            like: Parameters and buffers of one member, whose names and shapes the shards must have; by default those
                of the first shard.

        Raises:
            DamagedFileError: If a shard is missing, truncated, altered or of other shapes; the message names the file.
        """
        expected = None if like is None else {name: tuple(tensor.shape) for name, tensor in _named(*like).items()}
        place = {member: row for row, member in enumerate(ids)}
        whole: State = {}
        for shard in self._shards:
            pairs = [(place[member], row) for row, member in enumerate(shard["ids"]) if member in place]
            if not pairs:
                continue
            own = self._read(shard)
            came = {name: tuple(tensor.shape[1:]) for name, tensor in own.items()}
            expected = came if expected is None else expected
            if came != expected:
                name = next(name for name in [*expected, *came] if came.get(name) != expected.get(name))
                raise DamagedFileError(
                    f"{self.folder / shard['file']} is not of this model: {name} has shape {came.get(name, 'none')}, "
                    f"expected {expected.get(name, 'none')}; delete the folder {self.folder} to train again."
                )
            for name, tensor in own.items():
                if name not in whole:
                    whole[name] = self._empty((len(ids), *tensor.shape[1:]), tensor.dtype, mapped)
                there, here = zip(*pairs, strict=True)
                whole[name][list(there)] = tensor[list(here)]
        return _unpack(whole)

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype, mapped: bool) -> Tensor:
        count = math.prod(shape)
        if mapped and count * dtype.itemsize >= LEAST_MAPPED:
            # Room is taken first: a full disk would otherwise end the process when the weights are written.
            with (
                contextlib.suppress(OSError, AttributeError),
                tempfile.NamedTemporaryFile(dir=self.folder, prefix="mapped-") as file,
            ):
                os.posix_fallocate(file.fileno(), 0, count * dtype.itemsize)
                return torch.from_file(file.name, shared=True, size=count, dtype=dtype).view(shape)
        return torch.empty(shape, dtype=dtype)

    def _read(self, shard: Mapping[str, Any]) -> State:
        try:
            path = inside(self.folder, shard["file"])
        except DamagedFileError:
            path = self.folder
        if path.parent != self.folder:
            raise DamagedFileError(
                f"the manifest in {self.folder} names {shard['file']!r}, a file outside its own folder, which is not "
                "read; delete the folder to train its members again."
            )
        if not path.is_file():
            raise DamagedFileError(f"{path} is missing; delete the folder {self.folder} to train its members again.")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != shard["sha256"]:
            raise DamagedFileError(
                f"{path} is damaged: its SHA-256 is not the one in the manifest; "
                f"delete the folder {self.folder} to train again."
            )
        try:
            state: State = load_tensors(content)
        except Exception as error:
            raise DamagedFileError(f"{path} is not a shard ({error}); delete the folder {self.folder}.") from error
        rows = {len(tensor) if tensor.ndim else 0 for tensor in state.values()}
        if rows != {len(shard["ids"])}:
            raise DamagedFileError(
                f"{path} holds {sorted(rows)} members, the manifest names {len(shard['ids'])}; "
                f"delete the folder {self.folder} to train again."
            )
        return state

    def save(self, ids: list[int], params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
        """Write members as one shard, then the manifest that names it; threads and processes may do so at once."""
        name = f"members-{ids[0]:05d}-{ids[-1]:05d}.safetensors"
        content = save_tensors(_pack(params, buffers))
        with self._alone():
            if not set(ids) <= self.members():
                if any(shard["file"] == name for shard in self._shards):  # of other members between the same two
                    name = f"members-{ids[0]:05d}-{ids[-1]:05d}-{digest_json(ids)[:8]}.safetensors"
                write_atomically(self.folder / name, content)
                self._shards.append({"file": name, "sha256": hashlib.sha256(content).hexdigest(), "ids": list(ids)})
                self._write_manifest()
        self._partial(ids).unlink(missing_ok=True)

    def _partial(self, ids: list[int]) -> Path:
        return self.folder / f"partial-{ids[0]:05d}-{ids[-1]:05d}.safetensors"

    def save_partial(self, ids: list[int], epoch: int, state: Mapping[str, Tensor], step: int = 0) -> None:
        """Write training in progress after `epoch` epochs and `step` steps (weights, optimiser, generators)."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        # An earlier version, which knows whole epochs only, must not take the middle of one for its beginning.
        place = f"{epoch}:{step}" if step else str(epoch)
        body = save_tensors(tensors, metadata={"epoch": place, "ids": json.dumps(ids), "shelf": self.key})
        write_atomically(self._partial(ids), hashlib.sha256(body).digest() + body)

    def load_partial(self, ids: list[int]) -> tuple[int, int, State] | None:
        """Return epochs, steps and state of training in progress for exactly these members, or None.

        Raises:
            DamagedFileError: If the file is altered, or was written for another specification.
        """
        path = self._partial(ids)
        if not path.is_file():
            return None
        content = path.read_bytes()
        digest, body = content[:32], content[32:]
        if hashlib.sha256(body).digest() != digest:
            raise DamagedFileError(f"{path} is damaged; delete this file to start these members again.")
        header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])["__metadata__"]
        if header.get("shelf") != self.key:
            raise DamagedFileError(f"{path} belongs to another specification; delete this file.")
        if json.loads(header["ids"]) != ids:
            return None
        epoch, _, step = header["epoch"].partition(":")
        return int(epoch), int(step or 0), load_tensors(body)


def _is_shard(value: Any) -> bool:
    whole = {"file": str, "sha256": str, "ids": list}
    typed = isinstance(value, dict) and all(isinstance(value.get(key), kind) for key, kind in whole.items())
    return typed and bool(value["ids"]) and all(type(member) is int for member in value["ids"])


def _named(params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> State:
    out = {f"params/{name}": tensor for name, tensor in params.items()}
    return {**out, **{f"buffers/{name}": tensor for name, tensor in buffers.items()}}


def _pack(params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> State:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in _named(params, buffers).items()}


def _unpack(state: Mapping[str, Tensor]) -> tuple[State, State]:
    params = {name[len("params/") :]: t for name, t in state.items() if name.startswith("params/")}
    return params, {name[len("buffers/") :]: t for name, t in state.items() if name.startswith("buffers/")}
