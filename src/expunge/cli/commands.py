"""The commands of the command line by name; each is read when it is used, so that help does not wait for PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup


class Place(NamedTuple):
    """Where a command is, and what is said of it before it is read."""

    module: str
    """Of `expunge.cli`."""
    function: str
    """Its function, or its `typer.Typer`."""
    help: str
    """The first line of its docstring."""
    resumes: bool = False
    """Whether it takes `--resume`."""
    reader: str = ""
    """The class that reads its words, where that is one of its own."""


COMMANDS = {
    "audit": Place("audit", "audit", "Judge unlearning against retrained models.", True),
    "forecast": Place("forecast", "forecast", "Predict outcomes before any unlearning.", True),
    "check": Place("check", "check", "Try whether training does what an audit needs."),
    "prove-forecast": Place("papers", "prove_forecast", "Test the forecast on many forget sets.", True),
    "report": Place("report", "draw_report", "Draw the page of a run again."),
    "reproduce": Place("reproduce", "reproduce", "Run the study of a paper again.", True),
    "leaderboard": Place("leaderboard", "leaderboard", "Put every method beside retraining.", True),
    "compare": Place("compare", "compare", "Put runs beside each other."),
    "requests": Place("requests", "app", "Keep a ledger of deletion requests."),
    "score": Place("score", "score", "Score saved margins or logits of any models."),
    "judge": Place("judge", "judge", "Judge one model by an audit's oracles."),
    "plan": Place("plan", "plan", "Say what a request would take."),
    "unlearn": Place("unlearn", "unlearn", "Unlearn rows from one checkpoint.", True, "Unlearn"),
    "evidence": Place("evidence", "evidence", "Write a bundle that others can check."),
    "verify": Place("evidence", "verify", "Check a bundle of evidence."),
    "theory": Place("papers", "theory", "Check what is proved about unlearning.", True),
}
"""A new command is a line here; the tests compare it with the command itself."""


class Commands(MutableMapping[str, Any]):
    """The commands, each built from its function when it is asked for."""

    def __init__(self) -> None:
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = _build(name, COMMANDS[name])
        return self._built[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._built[name] = command

    def __delitem__(self, name: str) -> None:
        del self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS


class Group(TyperGroup):
    """All commands: they are listed from what is said above, and read when they are used."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "commands": Commands()})

    def list_commands(self, ctx: Any) -> list[str]:
        """Return their names."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return what is said of a command in lists and completions."""
        place = COMMANDS.get(cmd_name)
        return None if place is None else TyperCommand(name=cmd_name, help=place.help)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is used, read now."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, None if found is None else self.commands[str(name)], rest


def _build(name: str, place: Place) -> Any:
    module = import_module(f"expunge.cli.{place.module}")
    function = getattr(module, place.function)
    if isinstance(function, typer.Typer):
        group = typer.main.get_group(function)
        group.name = name
        return group
    own = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    own.command(name=name, cls=getattr(module, place.reader) if place.reader else None)(function)
    return typer.main.get_command(own)
