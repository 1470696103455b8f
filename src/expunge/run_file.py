"""A run in a file: the options of a command by name, in TOML, or those of an earlier run, from its record.

    expunge audit --config run.toml               forget = ["random:70", "rows.csv"]
                                                  members = 100
    expunge audit --config runs/a/record.json     the command that the record holds

Options on the command line win. Paths in a TOML file are relative to it; a record holds a command as it was typed, so
its paths are relative to where it is typed again. Such a file runs what it names, a task's Python file or a command
for training: give only files that you trust.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer

from expunge.core import InputError

OF_ONE_START = frozenset({"config", "resume", "dry_run", "json", "quiet", "fail_unless"})
"""Parameters that say how a command is started and what it says, not what is run."""

TYPED = "COMMANDLINE"
"""What the source of a parameter is called that was given on the command line."""


def read_run_file(context: typer.Context, path: Path | None) -> Path | None:
    """Let a file decide the options that are not given on the command line; a callback of `--config`.

    Raises:
        InputError: If the file cannot be read, or holds what is no option of the command.
    """
    if path is None or context.resilient_parsing:
        return path
    from expunge.core.checks import as_path  # which waits for PyTorch

    try:
        text = as_path(path, "--config").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}), expected a run file in TOML, or a record.") from error
    read = _of_record if path.suffix.lower() == ".json" else _of_toml
    context.default_map = read(context, path, text)
    return path


def typed_again(context: typer.Context) -> str:
    """Return the command that runs the same again from here: every option that was given, wherever it was."""
    words = ["expunge", str(context.info_name)]
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        source = context.get_parameter_source(str(parameter.name))
        if parameter.name in OF_ONE_START or value is None or source is None or source.name == "DEFAULT":
            continue
        names = [name for name in parameter.opts if name.startswith("--")]
        if not names:
            words += map(str, value if isinstance(value, list | tuple) else [value])
        elif isinstance(value, bool):
            words.append(names[0] if value else next(iter(parameter.secondary_opts), names[0]))
        else:
            for each in value if isinstance(value, list | tuple) else [value]:
                words += [names[0], str(each)]
    return shlex.join(words)


def _of_toml(context: typer.Context, path: Path, text: str) -> dict[str, Any]:
    try:
        given = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # no TOML, thousands of digits, or thousands of brackets
        raise InputError(f"{path} is no TOML ({error}), expected lines such as members = 100.") from error
    known = {
        _option_name(parameter): parameter
        for parameter in context.command.params
        if parameter.name not in ("config", "help")
    }
    unknown = [name for name in given if name.replace("_", "-") not in known]
    if unknown:
        raise InputError(
            f"{path} has {', '.join(map(repr, unknown))}, which {'is' if len(unknown) == 1 else 'are'} no option of "
            f"expunge {context.info_name}; expected some of: {', '.join(known)}."
        )
    found: dict[str, Any] = {}
    for name, value in given.items():
        parameter = known[name.replace("_", "-")]
        words = _words(value, f"{path}: {name}")
        if parameter.name in PLACES:
            words = [PLACES[str(parameter.name)](path.parent, word) for word in words]
        found[str(parameter.name)] = _for_parameter(parameter, words, f"{path}: {name}")
    return found


def _of_record(context: typer.Context, path: Path, text: str) -> dict[str, Any]:
    try:
        command = json.loads(text)["command"]
        words = shlex.split(command)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is no record of a run, expected the record.json in its folder.") from error
    if words[:1] != ["expunge"]:
        raise InputError(
            f"{path} is of a run that was started from Python, expected one of a command; it was: {command}"
        )
    if words[1:2] != [context.info_name]:
        raise InputError(
            f"{path} is of expunge {' '.join(words[1:2])}, and this is expunge {context.info_name}; expected a record "
            "of the same command."
        )
    # Parsed as the command line is, without the defaults: those of today may be others.
    earlier = context.command.make_context(context.info_name, words[2:], resilient_parsing=True)
    found = {}
    for name, value in earlier.params.items():
        source = earlier.get_parameter_source(name)
        if name not in OF_ONE_START and source is not None and source.name == TYPED:
            found[name] = [str(each) for each in value] if isinstance(value, list | tuple) else str(value)
    return found


def _option_name(parameter: Any) -> str:
    """Return how an option is written, without its dashes; an argument by its name."""
    return next((name[2:] for name in parameter.opts if name.startswith("--")), str(parameter.name)).replace("_", "-")


def _words(value: Any, where: str) -> list[str]:
    """Return a value of TOML as it would be typed; a table as NAME=VALUE each."""
    if isinstance(value, Mapping):
        return [f"{name}={word}" for name, each in value.items() for word in _words(each, where)]
    if isinstance(value, list):
        return [word for each in value for word in _words(each, where)]
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, str | int | float):
        return [str(value)]
    raise InputError(f"{where} is {value}, expected a text, a number, true or false, or a list of these.")


def _for_parameter(parameter: Any, words: list[str], where: str) -> str | list[str]:
    if parameter.multiple or parameter.nargs == -1:
        return words
    if parameter.name == "methods":
        return ",".join(words)
    if len(words) != 1:
        raise InputError(f"{where} has {len(words)} values, expected one.")
    if getattr(parameter, "is_flag", False) and words[0] not in ("true", "false"):
        raise InputError(f"{where} is {words[0]!r}, expected true or false.")
    return words[0]


def _beside(folder: Path, word: str) -> str:
    """Return a path that is meant from a folder."""
    return word if word.startswith("~") else str(folder / word)


def _task(folder: Path, word: str) -> str:
    name, colon, place = word.partition(":")
    if re.search(r"\.py(:[^:]*)?$", word):
        return _beside(folder, word)
    return f"{name}:{_beside(folder, place)}" if colon and (folder / place).is_dir() else word


def _file(folder: Path, word: str) -> str:
    return _beside(folder, word) if re.search(r"\.(npy|csv|txt)$", word, re.IGNORECASE) else word


def _methods(folder: Path, word: str) -> str:
    return ",".join(_task(folder, part.strip()) for part in word.split(","))


def _method(folder: Path, word: str) -> str:
    audited, place = word[:8], word[8:]
    return f"{audited}{_beside(folder, place)}" if audited in ("audited:", "audited ") else _task(folder, word)


def _models(folder: Path, word: str) -> str:
    name, equals, place = word.partition("=")
    return f"{name}={_beside(folder, place)}" if equals and "/" not in name else _beside(folder, word)


PLACES: Mapping[str, Callable[[Path, str], str]] = {
    "task": _task,
    "tasks": _task,
    "forget": _file,
    "methods": _methods,
    "method": _method,
    "model": _beside,
    "pretrained": _beside,
    "oracles": _models,
    "held_out": _models,
    "out": _beside,
}
"""How a parameter that can name a file is read from a folder."""
