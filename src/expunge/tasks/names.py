"""What has a name on the command line: tasks, kinds of forget sets, files.

Help shows these names, and does not wait for PyTorch; what they stand for is read from its module when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple


class Place(NamedTuple):
    """A function that returns a task."""

    module: str
    """Of `expunge.tasks`."""
    function: str
    options: Mapping[str, Any] = {}

    def __call__(self, *folder: str) -> Any:
        """Return the task, from the files in a folder if it needs some."""
        return getattr(import_module(f"expunge.tasks.{self.module}"), self.function)(*folder, **self.options)


class Chooser(NamedTuple):
    """A kind of forget set."""

    function: str
    """Of `expunge.tasks.forget_sets`."""
    argument: str | None = None
    """Name of the option that a third part of a specification gives, as in `class_part:70:3`."""
    plants: bool = False
    """Whether the chooser changes labels, so that its sets belong to a changed task."""
    classes: bool = False
    """Whether it needs an outcome with classes."""

    def draw(self, *given: Any, **options: Any) -> Any:
        """Draw: called with task, size, seed and the positions that must not be drawn; returns a `Draw`."""
        return getattr(import_module("expunge.tasks.forget_sets"), self.function)(*given, **options)


BUILT_IN: Mapping[str, Place] = {
    "digits": Place("shipped", "digits"),
    "digits:cnn": Place("shipped", "digits", {"model": "cnn"}),
    "digits:batchnorm": Place("shipped", "digits", {"norm": "batch"}),
    "digits:sisa": Place("voting", "sisa_digits"),
    "tabular": Place("shipped", "tabular"),
}
"""Tasks that need no file, by the name that the command line takes."""

FROM_FOLDER: Mapping[str, Place] = {
    "cifar10": Place("images", "cifar10"),
    "mnist": Place("images", "mnist"),
    "fashion_mnist": Place("images", "fashion_mnist"),
}
"""Tasks whose files lie in a folder, written `NAME:FOLDER`."""

CHOOSERS: Mapping[str, Chooser] = {
    "random": Chooser("_draw_random"),
    "class_part": Chooser("_draw_class_part", argument="label", classes=True),
    "cluster": Chooser("_draw_cluster"),
    "mislabelled": Chooser("_draw_mislabelled", plants=True, classes=True),
}
"""The kinds of forget set, by the name that a specification and `ForgetSet.chooser` use."""

FILES = (".npy", ".csv", ".txt")
"""Suffixes of files of positions."""
