"""Every method by its name, from the list in `names`."""

from __future__ import annotations

from importlib import import_module

from expunge.methods.method import Method
from expunge.methods.names import CANDIDATES, CONTROLS


def _read(place: str) -> type[Method]:
    module, _, name = place.partition(".")
    found: type[Method] = getattr(import_module(f"expunge.methods.{module}"), name)
    return found


METHODS: dict[str, type[Method]] = {name: _read(place) for name, place in (CONTROLS | CANDIDATES).items()}
"""Every method by its name."""
