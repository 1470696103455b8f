"""Packages whose names are read when they are first asked for, so that help and errors do not wait for PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def reader(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package.

    Args:
        package: Its dotted name.
        places: From each name to the module of the package that defines it. No name may be that of a module: the module
            would take its place once it is read.

    Returns:
        A function from a name, or that of a module, to what it stands for, which the package then keeps.
    """

    def read(name: str) -> Any:
        if name in places:
            found = getattr(import_module(f"{package}.{places[name]}"), name)
            setattr(sys.modules[package], name, found)
            return found
        if not name.startswith("_") and find_spec(f"{package}.{name}") is not None:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return read
