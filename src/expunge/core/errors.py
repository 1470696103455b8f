"""Named errors for situations that a caller handles; everything else is a plain `ValueError` or `TypeError`."""

from __future__ import annotations


class InputError(ValueError):
    """Something that a person gave cannot be used; the message says what came, what was expected, what to change."""


class DamagedFileError(RuntimeError):
    """A file of ours is truncated, altered, or was written for another specification; it is named and not read."""


class DivergedError(RuntimeError):
    """Every member of an ensemble became non-finite, so nothing that follows would mean anything."""
