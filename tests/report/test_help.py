"""What the command line's help names is what exists, from the registries themselves."""

from __future__ import annotations

import inspect
import pkgutil
import re
import subprocess
import sys
from types import ModuleType

import pytest
import typer
from typer.testing import CliRunner

from expunge import core, methods, tasks
from expunge.cli import _takes_resume, app
from expunge.cli.commands import COMMANDS
from expunge.core.limits import DEFAULT_TOLERANCE, FEWEST_MEMBERS
from expunge.methods import METHODS
from expunge.papers.ascent_fails_to_forget.theory_study import STUDIES
from expunge.tasks import CHOOSERS
from expunge.tasks.forget_sets import FILES
from expunge.tasks.user_task import BUILT_IN, FROM_FOLDER


def help_of(*verb: str) -> str:
    done = CliRunner().invoke(app, [*verb, "--help"])
    assert done.exit_code == 0
    return re.sub(r"\s+", " ", done.output)


@pytest.mark.parametrize("verb", ["audit", "forecast"])
def test_tasks_methods_forget_sets_and_defaults_are_named(verb: str) -> None:
    text = help_of(verb)
    names = [*BUILT_IN, *(f"{name}:FOLDER" for name in FROM_FOLDER), *(f"{name}:SIZE" for name in CHOOSERS), *FILES]
    names += [name for name, method in METHODS.items() if method.role == "candidate"]
    names += ["default: random:70", f"default: {DEFAULT_TOLERANCE}"]
    assert [name for name in names if name not in text] == []


def test_an_audit_names_its_controls_and_its_fewest_members() -> None:
    text = help_of("audit")
    assert all(name in text for name, method in METHODS.items() if method.role == "control")
    assert f"at least {FEWEST_MEMBERS}" in text
    assert "x>=1" not in text


def test_a_forecast_claims_no_controls() -> None:
    assert "always run" not in help_of("forecast")


def test_theory_names_its_results() -> None:
    assert [name for name in STUDIES if name not in help_of("theory")] == []


def test_every_verb_is_described_in_one_whole_line() -> None:
    assert "..." not in help_of().partition("Commands:")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_listed_of_a_command_is_what_it_says(name: str) -> None:
    """The list is written before any command is read."""
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    said = (command.help or inspect.getdoc(command.callback) or "").partition("\n")[0]
    assert COMMANDS[name].help == said
    assert COMMANDS[name].resumes == any(option.name == "resume" for option in command.params)
    assert command.name == name


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["audot"], ["--no-such-option"]])
def test_what_needs_no_model_waits_for_no_large_package(words: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['expunge', *sys.argv[1:]]\n"
        "from expunge.cli import main\n"
        "try: main()\n"
        "finally: print(*({'torch', 'scipy', 'sklearn', 'plotly', 'matplotlib', 'numpy'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[-1] == ""
    if words == ["audot"]:
        assert "Did you mean 'audit'" in done.stderr


def test_help_of_every_command_waits_for_no_large_package() -> None:
    """All in one process: what one of them reads, all have read."""
    within = ["requests t.py --ledger x add", "requests t.py --ledger x status", "requests t.py --ledger x run"]
    code = (
        "import sys; from typer.testing import CliRunner; from expunge.cli import app\n"
        "for words in sys.argv[1:]:\n"
        "    done = CliRunner().invoke(app, [*words.split(), '--help']); assert done.exit_code == 0, words\n"
        "print(*({'torch', 'scipy', 'sklearn', 'plotly', 'matplotlib', 'numpy'} & {*sys.modules}))"
    )
    words = [sys.executable, "-c", code, *COMMANDS, *within]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


@pytest.mark.parametrize("package", [core, methods, tasks])
def test_no_name_of_a_package_is_that_of_a_module(package: ModuleType) -> None:
    """A module that is read takes the place of its name in the package."""
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    for name in package.__all__:
        assert name not in modules or inspect.ismodule(getattr(package, name))


@pytest.mark.parametrize(
    ("words", "takes"), [(["audit", "digits"], True), (["score"], False), (["report", "x"], False)]
)
def test_only_commands_that_can_go_on_say_so_when_stopped(words: list[str], takes: bool) -> None:
    assert _takes_resume(words) == takes


def test_every_name_is_there_when_it_is_asked_for() -> None:
    code = (
        "import expunge as ex, sys; assert 'torch' not in sys.modules\n"
        "rooms = (ex, ex.core, ex.methods, ex.tasks)\n"
        "ex.core.seeds; ex.theory; [getattr(room, name) for room in rooms for name in dir(room)]\n"
        "assert not any(hasattr(room, 'nothing') for room in rooms)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
