"""What the documentation says can be done: its Python runs, its commands, targets, options and files exist."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import typer
from sklearn.ensemble import RandomForestClassifier
from torch.nn import functional
from torch.utils.data import DataLoader

import expunge as ex
from expunge.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *languages: str) -> list[str]:
    return [code for language, code in FENCE.findall(page.read_text(encoding="utf-8")) if language in languages]


def commands(text: str) -> list[str]:
    """Return the shell commands of a console block, without prompts, output, comments and continuations."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return prompted or [line for line in lines if line.startswith(("expunge ", "make "))]


PYTHON = [(page, code) for page in PAGES for code in blocks(page, "python")]
SHELL = [
    (page, line) for page in PAGES for code in blocks(page, "console", "bash", "sh", "") for line in commands(code)
]


def name_of(value: object) -> str:
    return value.relative_to(ROOT).as_posix() if isinstance(value, Path) else ""


def test_there_is_something_to_check() -> None:
    assert any(page.name == "README.md" for page, _ in PYTHON)
    assert any(page.name == "README.md" and line.startswith("make test") for page, line in SHELL)


@pytest.mark.parametrize(("page", "code"), PYTHON, ids=name_of)
def test_names_in_python_blocks_exist(page: Path, code: str) -> None:
    tree = ast.parse(code)
    aliases: dict[str, ModuleType] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "expunge":
            module = importlib.import_module(str(node.module))
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            assert not missing, f"{page.name}: {node.module} has no {missing}"
        if isinstance(node, ast.Import):
            aliases |= {a.asname or a.name: importlib.import_module(a.name) for a in node.names if a.name == "expunge"}
    for node in ast.walk(tree):
        chain = _chain(node)
        if chain and chain[0] in aliases:
            found: object = aliases[chain[0]]
            for part in chain[1:]:
                assert hasattr(found, part), f"{page.name}: {'.'.join(chain)} does not exist ({part})"
                found = getattr(found, part)


def _chain(node: ast.AST) -> list[str]:
    """Return a.b.c as [a, b, c], and nothing for other expressions."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) and parts else []


@pytest.mark.slow
def test_the_python_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code = blocks(ROOT / "README.md", "python")[0]
    # As written but for the number of models: this is about the code, the numbers are the business of `make demo`.
    fewer, changed = re.subn(r"members=100\b", "members=20", code)
    assert changed, "the README trains no ensembles any more; this test has nothing to shrink"
    exec(compile(fewer, "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert re.search(r"\d+\.\d\d", printed), f"the README ends without a number: {printed!r}"


@pytest.mark.slow
def test_the_doors_of_the_readme_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, loop, checkpoints, method, arrays = blocks(ROOT / "README.md", "python")
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    x = draw.normal(size=(150, 6)).astype(np.float32)
    y = (x[:, 0] + 0.5 * draw.normal(size=150) > 0).astype(np.int64)
    space: dict[str, Any] = {"ex": ex, "torch": torch, "F": functional, "DataLoader": DataLoader}
    space |= {"RandomForestClassifier": RandomForestClassifier, "MyNet": lambda: torch.nn.Linear(6, 2)}
    space |= {"train": (x[:100], y[:100]), "validation": (x[100:], y[100:])}

    def run(code: str) -> str:
        assert len([line for line in code.splitlines() if line.strip()]) <= 10, f"more than ten lines: {code}"
        exec(compile(code, "README.md", "exec"), space)
        return capsys.readouterr().out

    assert "seed" in run(loop)
    forget = space["forget"] = ex.tasks.random_forget_set(space["mine"], size=8, seed=0)
    for folder, without, members in (("checkpoints", None, 20), ("retrained", forget, 40)):
        (tmp_path / folder).mkdir()
        trained = ex.train(space["mine"], without=without, members=members, seed=1)
        for member in range(members):
            trained.export(member, tmp_path / folder / f"{member}.{'safetensors' if without is None else 'pt'}")
    run(checkpoints)
    assert space["run"].report.exists()
    run(method)
    assert not torch.equal(space["unlearned"].params["weight"], space["pretrained"].params["weight"])
    held_out = ex.train(space["mine"], without=forget, members=20, seed=2)
    oracles = ex.Ensemble.from_files("retrained/*.pt", space["mine"])
    for name, ensemble in (("unlearned", space["unlearned"]), ("oracle", oracles), ("held_out", held_out)):
        space[f"{name}_margins"] = ensemble.margins(space["mine"].train.x, space["mine"].train.y).numpy()
    assert "KLoM" in run(arrays)
    assert ex.train(space["forest"], members=2).network.kind == "outputs"


def test_the_task_of_the_first_page_loads(tmp_path: Path) -> None:
    code = next(code for code in blocks(ROOT / "docs" / "index.md", "python") if "ex.Task(" in code)
    file = tmp_path / "my_task.py"
    file.write_text(code)
    task = ex.tasks.load_task(str(file))
    assert (len(task.train), len(task.validation), task.classes) == (1000, 200, 2)


@pytest.mark.slow
def test_the_python_of_the_first_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, *others = blocks(ROOT / "docs" / "index.md", "python")
    names: dict[str, object] = {}
    exec(compile(first, "index.md", "exec"), names)
    task = names["task"]
    assert isinstance(task, ex.Task)
    (tmp_path / "forget.csv").write_text("\n".join(str(row) for row in range(40)) + "\n")
    forget = ex.ForgetSet.of(task, range(40), name="forget", how="the first rows")
    for folder, trained in (
        ("full", ex.train(task, members=20, seed=1)),
        ("without", ex.train(task, members=40, seed=2, without=forget)),
    ):
        (tmp_path / "models" / folder).mkdir(parents=True)
        for member in range(len(trained)):
            trained.export(member, tmp_path / "models" / folder / f"{member}.pt")
    asked: dict[str, Any] = {}
    audit = ex.audit
    monkeypatch.setattr(ex, "audit", lambda _, **options: asked.update(options))
    for code in others:
        exec(compile(code, "index.md", "exec"), names)
    # One small audit of all that the calls of the page ask for.
    own = [method for method in asked.pop("methods") if not isinstance(method, str)]
    methods = [ex.methods.GradientAscent(lr=0.01, epochs=1), *own]
    run = audit(task, methods=methods, **{**asked, "members": 20, "forecast": False})
    assert {c.method for c in run.record.forget_sets[0].configurations} >= {"gradient_ascent", "negative_gradient"}
    assert sum(ensemble.given for ensemble in run.record.ensembles) == 3


def options_of(verb: str) -> set[str]:
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    every = [command, *getattr(command, "commands", {}).values()]
    return {option for one in every for parameter in one.params for option in getattr(parameter, "opts", [])} | {
        "--help"
    }


@pytest.mark.parametrize(("page", "line"), SHELL, ids=lambda v: name_of(v) or str(v)[:60])
def test_commands_exist(page: Path, line: str) -> None:
    words = shlex.split(line, comments=True)
    for start, word in enumerate(words):
        rest = words[start + 1 :]
        if Path(word).name == "expunge" and (start == 0 or words[start - 1] in ("&&", ";")) and rest:
            verbs = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
            if rest[0].startswith("-"):
                continue
            assert rest[0] in verbs, f"{page.name}: expunge {rest[0]} does not exist, only {sorted(verbs)}"
            used = {option.partition("=")[0] for option in rest if option.startswith("--")}
            assert used <= options_of(rest[0]), f"{page.name}: {line}: unknown {used - options_of(rest[0])}"
        if word == "make" and rest:
            targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
            assert rest[0] in targets, f"{page.name}: make {rest[0]} is not in the Makefile"


def test_the_demo_of_the_makefile_is_a_command() -> None:
    lines = re.findall(r"^\t\$\(BIN\)/(expunge [^\n]+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(lines) == 1
    test_commands_exist(ROOT / "Makefile", lines[0])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [t.partition("#")[0] for t in targets if not re.match(r"[a-z]+:", t) and not t.startswith("#")]
    missing = [target for target in local if target and not (page.parent / target).exists()]
    assert not missing, f"{page.name} links to {missing}"


def test_the_constraints_cover_what_is_needed() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *(text for extra in extras.values() for text in extra)]
    names = {re.split(r"[\[<>=~! ]", text)[0] for text in needed}
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.]+", line) for line in lines), "a pin is not NAME==VERSION"
    pinned = {_normal(line.partition("==")[0]) for line in lines}
    assert not {name for name in names if _normal(name) not in pinned | {"expunge"}}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
