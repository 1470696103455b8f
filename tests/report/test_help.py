"""What the command line's help names is what exists, from the registries themselves."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from expunge.cli import _takes_resume, app
from expunge.cli.commands import COMMANDS
from expunge.methods import METHODS
from expunge.metrics import DEFAULT_TOLERANCE
from expunge.papers.ascent_fails_to_forget.theory_study import STUDIES
from expunge.studies.audit import FEWEST_MEMBERS
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


@pytest.mark.parametrize(
    ("words", "takes"), [(["audit", "digits"], True), (["score"], False), (["report", "x"], False)]
)
def test_only_commands_that_can_go_on_say_so_when_stopped(words: list[str], takes: bool) -> None:
    assert _takes_resume(words) == takes


def test_every_name_is_there_when_it_is_asked_for() -> None:
    code = (
        "import expunge as ex, sys; assert 'torch' not in sys.modules\n"
        "ex.core.seeds; ex.theory; [getattr(room, name) for room in (ex, ex.core) for name in dir(room)]\n"
        "assert not hasattr(ex, 'nothing') and not hasattr(ex.core, 'nothing')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
