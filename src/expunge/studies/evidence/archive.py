"""The archive of a bundle: a zip file of exactly one form, so that there is no byte in it that could be anything else.

Files are stored as they are (never compressed), by name, one after the other from the first byte on, with the date
1980-01-01, and nothing stands between, before or after them. Every zip program reads that; here anything else is
refused or named. So no file can be larger than the archive, none can lie over another, and whoever changes a byte that
zip programs ignore (a date, a flag, a comment) is found as well. Nothing is ever written to disk.

Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.16 (end of the directory).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from expunge.core import DamagedFileError, InputError
from expunge.core.checks import as_path

Source = bytes | Path
"""What a file of the archive is made of."""

MOST_BYTES = 2**32 - 2**20
"""Bytes of an archive: zip files beyond 4 GiB have another form."""
MOST_FILES = 1000
"""Files of an archive."""
MOST_DIRECTORY = 2**20
"""Bytes of its directory."""
CHUNK = 2**20
"""Bytes that are read at once."""

VERSION, DATE, UTF8, ENCRYPTED = 20, 33, 0x800, 0x1
_LOCAL, _CENTRAL, _END = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s4H2IH")
METHODS = {8: "deflate", 9: "deflate64", 12: "bzip2", 14: "LZMA", 93: "zstd", 95: "xz", 99: "encrypted"}
OWN_FORM = "expected a bundle as expunge evidence writes it, its files stored as they are"


@dataclass(frozen=True)
class Entry:
    """One file of an archive, as the directory lists it."""

    name: str
    size: int
    crc: int
    offset: int
    """Where its header begins."""
    central: bytes
    """Its bytes in the directory."""

    @property
    def start(self) -> int:
        """Where its contents begin."""
        return self.offset + _LOCAL.size + len(self.name.encode())

    def headers(self, offset: int) -> tuple[bytes, bytes]:
        """Return what its header and its place in the directory must be when it begins at an offset."""
        name = self.name.encode()
        facts = (0 if name.isascii() else UTF8, 0, 0, DATE, self.crc, self.size, self.size, len(name))
        local = _LOCAL.pack(b"PK\3\4", VERSION, *facts, 0) + name
        return local, _CENTRAL.pack(b"PK\1\2", VERSION, VERSION, *facts, 0, 0, 0, 0, 0, offset) + name


def write_parts(files: Mapping[str, Source]) -> Iterator[bytes]:
    """Return the bytes of an archive, part by part: the same files always give the same bytes.

    Raises:
        InputError: If there is too much for one archive, or a file changes while it is read.
    """
    directory, offset = b"", 0
    for name in sorted(files):
        entry = Entry(name, *_measured(files[name]), offset, b"")
        local, central = entry.headers(offset)
        yield local
        crc = size = 0
        for part in _parts_of(files[name]):
            crc, size = zlib.crc32(part, crc), size + len(part)
            yield part
        if (size, crc) != (entry.size, entry.crc):
            raise InputError(f"{files[name]!s} changed while it was read; try again when nothing writes there.")
        directory, offset = directory + central, offset + len(local) + size
        if offset + len(directory) > MOST_BYTES:
            raise InputError(
                f"the bundle would have more than {MOST_BYTES / 2**30:.0f} GiB, more than one archive can hold; "
                "run the audit with fewer forget sets, or of fewer models."
            )
    yield directory
    yield _end(len(files), len(directory), offset)


def digest_source(source: Source) -> tuple[int, str]:
    """Return bytes and SHA-256 (hex) of what a file is made of."""
    sha, size = hashlib.sha256(), 0
    for part in _parts_of(source):
        sha.update(part)
        size += len(part)
    return size, sha.hexdigest()


class Archive:
    """An archive that is read: its directory first, then file by file, in bounded memory.

    Args:
        path: The archive.

    Attributes:
        entries: Its files by name.
        wrong: What is not of the form that expunge writes, as (file or `archive`, sentence).

    Raises:
        InputError: If it is none, or holds what is never opened: a name that leads out of it, a link, a name twice,
            something compressed or encrypted, too much.
        DamagedFileError: If its directory cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file: IO[bytes] = open(as_path(path, "the bundle"), "rb")  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}), expected a bundle (a zip file).") from error
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self.wrong: list[tuple[str, str]] = []
            self.entries: dict[str, Entry] = {}
            self._read_directory()
            self._check_form()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def chunks(self, name: str) -> Iterator[bytes]:
        """Return the contents of a file, part by part."""
        entry, done = self.entries[name], 0
        while done < entry.size:
            part = self._at(entry.start + done, min(CHUNK, entry.size - done))
            if not part:
                return
            done += len(part)
            yield part

    def read(self, name: str, most: int) -> bytes:
        """Return the contents of a file.

        Raises:
            InputError: If it has more bytes than expected.
        """
        size = self.entries[name].size
        if size > most:
            raise InputError(f"{name} in {self.path} has {size:,} bytes, expected at most {most:,}: not read.")
        return b"".join(self.chunks(name))

    def digest(self, name: str) -> str:
        """Return the SHA-256 (hex) of a file; what does not fit its checksum in the archive is entered as wrong."""
        sha, crc = hashlib.sha256(), 0
        for part in self.chunks(name):
            sha.update(part)
            crc = zlib.crc32(part, crc)
        if crc != self.entries[name].crc:
            self.wrong.append((name, "its contents do not fit the checksum that the archive has of them"))
        return sha.hexdigest()

    def _read_directory(self) -> None:
        if self.size < _END.size or self.size > MOST_BYTES:
            raise InputError(f"{self.path} has {self.size:,} bytes, {OWN_FORM}.")
        end = self._at(self.size - _END.size, _END.size)
        mark, _, _, _, count, length, offset, _ = _END.unpack(end)
        if mark != b"PK\5\6":
            known = self._at(0, 4) == b"PK\3\4"
            raise DamagedFileError(
                f"{self.path} is {'damaged at its end, or another kind of zip file' if known else 'no zip file'}; "
                f"{OWN_FORM}."
            )
        if count > MOST_FILES or length > MOST_DIRECTORY:
            raise InputError(
                f"{self.path} lists {count:,} files in {length:,} bytes, expected at most {MOST_FILES:,}: not read."
            )
        if offset + length + _END.size > self.size:
            raise DamagedFileError(f"{self.path} is damaged: its directory is not where its end says; get it again.")
        directory = self._at(self.size - _END.size - length, length)
        place = 0
        for _ in range(count):
            entry, place = self._read_entry(directory, place)
            if entry.name in self.entries:
                raise InputError(f"{self.path} holds {entry.name!r} twice, {OWN_FORM}, each once.")
            self.entries[entry.name] = entry
        if end != _end(count, length, offset) or place != length or offset + length + _END.size != self.size:
            self.wrong.append(("archive", "the end of its directory is not what expunge writes"))

    def _read_entry(self, directory: bytes, place: int) -> tuple[Entry, int]:
        try:
            facts = _CENTRAL.unpack_from(directory, place)
        except struct.error as error:
            raise DamagedFileError(f"{self.path} is damaged: its directory ends too early; get it again.") from error
        mark, maker, _, flags, method, _, _, crc, packed, size, name_length, extra, comment, _, _, outer, offset = facts
        stop = place + _CENTRAL.size + name_length + extra + comment
        raw = directory[place + _CENTRAL.size : place + _CENTRAL.size + name_length]
        if mark != b"PK\1\2" or stop > len(directory):
            raise DamagedFileError(
                f"{self.path} is damaged: its directory cannot be read at byte {place}; get it again."
            )
        name = raw.decode("utf-8", "replace")
        refuse_name(name, self.path)
        if flags & ENCRYPTED:
            raise InputError(f"{name!r} in {self.path} is encrypted, {OWN_FORM}.")
        if method:
            how = METHODS.get(method, f"method {method}")
            grown = f", {packed:,} bytes that are said to become {size:,}"
            raise InputError(f"{name!r} in {self.path} is compressed ({how}{grown}), {OWN_FORM}: not unpacked.")
        if maker >> 8 == 3 and stat.S_ISLNK(outer >> 16):
            raise InputError(f"{name!r} in {self.path} is a link, {OWN_FORM}.")
        entry = Entry(name, size, crc, offset, directory[place:stop])
        if packed != size or entry.start + size > self.size:
            raise DamagedFileError(
                f"{name!r} in {self.path} is said to have {size:,} bytes ({packed:,} stored) from byte {offset:,} on, "
                f"in a file of {self.size:,}: damaged, or made to mislead."
            )
        return entry, stop

    def _check_form(self) -> None:
        """Hold every byte beside the contents against what expunge would have written."""
        if list(self.entries) != sorted(self.entries):
            self.wrong.append(("archive", "its files are not in the order of their names"))
        offset = 0
        for entry in self.entries.values():
            local, central = entry.headers(offset)
            if entry.offset != offset:
                gap = "over the one before" if entry.offset < offset else "after a gap"
                self.wrong.append((entry.name, f"it begins at byte {entry.offset:,}, {gap}, expected {offset:,}"))
            elif entry.central != central:
                self.wrong.append((entry.name, "its line in the directory is not what expunge writes"))
            if self._at(entry.offset, len(local)) != local:
                self.wrong.append((entry.name, "its header in the archive is not what expunge writes"))
            offset = entry.start + entry.size
        lines = sum(len(entry.central) for entry in self.entries.values())
        if offset + lines + _END.size != self.size:
            self.wrong.append(("archive", f"{self.size - offset - lines - _END.size:,} bytes belong to no file"))

    def _at(self, offset: int, count: int) -> bytes:
        try:
            self._file.seek(offset)
            return self._file.read(count)
        except OSError as error:
            raise InputError(f"{self.path} cannot be read ({error.strerror}).") from error


def refuse_name(name: str, path: Path) -> None:
    """Refuse the name of a file that does not stay inside the archive, whatever system it is read on.

    Raises:
        InputError: If it is absolute, leads upwards, or holds what no name of a file has.
    """
    parts = re.split(r"[/\\]", name)
    if not name or ":" in parts[0] or any(part in ("", ".", "..") for part in parts) or not name.isprintable():
        raise InputError(
            f"{path} holds a file named {name!r}, which leads out of it or is no name; expected names such as "
            "record.json. Nothing was written; do not unpack it."
        )


def _end(count: int, length: int, offset: int) -> bytes:
    return _END.pack(b"PK\5\6", 0, 0, count, count, length, offset, 0)


def _measured(source: Source) -> tuple[int, int]:
    size = crc = 0
    for part in _parts_of(source):
        size, crc = size + len(part), zlib.crc32(part, crc)
    return size, crc


def _parts_of(source: Source) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with open(source, "rb") as file:
        while part := file.read(CHUNK):
            yield part
