"""Tasks from a user's file: what works, and what each mistake says."""

from __future__ import annotations

import sys
from types import FunctionType

import pytest

from expunge.core import InputError
from expunge.tasks import load_task
from expunge.tasks.user_task import load_object

GOOD = """
import torch
import expunge.core as core
g = torch.Generator().manual_seed(0)
x, y = torch.randn(20, 4, generator=g), torch.arange(20) % 2
def build(name="mine"):
    return core.Task(name=name, train=(x, y), validation=(x + 1, y), model=lambda: torch.nn.Linear(4, 2),
                     recipe=core.Recipe(epochs=1, peak_epoch=0.5))
task = build()
"""


def write(folder, text, name="task.py"):
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(("spec", "shape"), [("digits", (64,)), ("digits:cnn", (1, 8, 8)), ("tabular", (30,))])
def test_built_in_tasks(spec, shape):
    assert tuple(load_task(spec).train.x.shape[1:]) == shape


def test_objects_and_functions_of_a_file(tmp_path):
    path = write(tmp_path, GOOD)
    assert load_task(str(path)).name == "mine"
    assert load_task(f"{path}:build").name == "mine"


def test_a_file_may_import_what_lies_beside_it_and_the_path_is_restored(tmp_path):
    write(tmp_path, GOOD, "beside_the_task_file.py")
    path = write(tmp_path, "from beside_the_task_file import task\n")
    before = list(sys.path)
    assert load_task(str(path)).name == "mine"
    assert sys.path == before
    del sys.modules["beside_the_task_file"]


def test_two_files_of_one_name_are_two_modules(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, GOOD.replace('"mine"', f'"{name}"'))
    assert [load_task(str(tmp_path / name / "task.py")).name for name in ("a", "b")] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "suffix", "message"),
    [
        (GOOD, ":other", r"defines no 'other'; it defines task, so write .*task\.py:task"),
        ("x = 1\n", "", r"defines no 'task'\. Expected task = expunge\.Task"),
        ("task = 3\n", "", r"task\.py:task is a int, expected an expunge\.Task"),
        ("def task():\n    return None\n", "", r"is a NoneType, expected an expunge\.Task"),
        (
            "def task(n):\n    return n\n",
            "",
            r"cannot be called without arguments \(missing a required argument: 'n'\)",
        ),
        (
            "import torch\n\nraise KeyError('colour')\n",
            "",
            r"task\.py, line 3: running it failed with KeyError: 'colour'",
        ),
        (
            "def task():\n    return 1 / 0\n",
            "",
            r"line 2: calling task\(\) failed with ZeroDivisionError.*\n.*return 1 / 0",
        ),
        ("task = (\n", "", r"task\.py, line 1: SyntaxError"),
        ("import not_a_module_of_anyone\n", "", r"line 1: .*ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "", r"called sys\.exit\(3\)"),
        (GOOD, ":a b", r"'a b' is no Python name"),
        (
            GOOD.replace("torch.nn.Linear(4, 2)", "torch.nn.Linear(4, 1)"),
            "",
            r"line \d+: .*expected logits of shape \(2, 2\)",
        ),
    ],
)
def test_mistakes_name_the_line(tmp_path, text, suffix, message):
    path = write(tmp_path, text)
    modules = set(sys.modules)
    with pytest.raises(InputError, match=message):
        load_task(f"{path}{suffix}")
    if "running it" in message:
        assert not {name for name in set(sys.modules) - modules if name.startswith("expunge_user_file")}


def test_unknown_names_and_missing_files():
    with pytest.raises(
        InputError, match=r"'digit' is not known, expected one of: digits, digits:cnn.*path/to/task\.py"
    ):
        load_task("digit")
    with pytest.raises(InputError, match=r"nowhere/task\.py does not exist"):
        load_task("nowhere/task.py:task")
    with pytest.raises(InputError, match="names no folder, expected mnist:FOLDER"):
        load_task("mnist")
    with pytest.raises(InputError, match="nowhere is not a folder"):
        load_task("cifar10:nowhere")


def test_an_object_of_a_file(tmp_path):
    path = write(tmp_path, "def forget(model):\n    return model\n\nnumber = 3\n", "mine.py")
    found = load_object(f"{path}:forget", FunctionType, "a function")
    assert found(5) == 5
    for suffix, message in [
        ("", r"names no object in a Python file, expected path/to/file\.py:name"),
        (":number", r"mine\.py:number is an int, expected a function"),
        (":forgot", r"defines no 'forgot'; it defines forget, so write .*mine\.py:forget\. Expected a function"),
        (":a b", r"'a b' is no Python name"),
    ]:
        with pytest.raises(InputError, match=message):
            load_object(f"{path}{suffix}", FunctionType, "a function")
    with pytest.raises(InputError, match=r"gone\.py does not exist, expected a Python file that defines forget"):
        load_object(f"{tmp_path}/gone.py:forget", FunctionType, "a function")
