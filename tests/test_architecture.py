"""The rooms and the only allowed direction of imports: downwards; and words that have no place in the sources.

    row 0   core
    row 1   tasks, ensembles, metrics, report             only core
    row 2   methods, dependence                           core, ensembles
    row 3   studies                                       all above but report
    row 4   papers                                        all above
    row 5   cli, api                                      all above

Within studies, and within papers, nothing is borrowed from a sibling; what two studies need is in studies/run.
Imports inside functions count too, and so do those for type checking only: an arrow is an arrow.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "expunge"

BELOW = {"core", "tasks", "ensembles", "metrics", "report", "methods", "dependence", "studies", "version"}
MAY_IMPORT: dict[str, set[str]] = {
    "core": {"version"},
    "tasks": {"core"},
    "ensembles": {"core", "version"},
    "metrics": {"core"},
    "report": {"core", "version"},
    "methods": {"core", "ensembles"},
    "dependence": {"core", "ensembles"},
    "studies": {"core", "tasks", "ensembles", "metrics", "methods", "dependence", "version"},
    "papers": BELOW,
    "api": BELOW,
    "boundary": {"core", "version"},
    "run_file": {"core"},
    "cli": {"api", "boundary", "run_file", "papers", *BELOW},
    "__init__": {"api", "papers", *BELOW},
    "__main__": {"cli"},
    "version": set(),
}

APART = {"studies": {"run"}, "papers": set[str]()}
"""Rooms of sub-rooms that do not know one another, and the sub-rooms that all of them may use."""

FORBIDDEN = {
    "an absolute path of one machine": re.compile(r"(?<![\w.])/(work|home|Users|tmp|root)/\w"),
    "a path outside the project": re.compile(r"\.\./shared"),
    "unfinished work": re.compile(r"\b(TODO|FIXME|XXX|HACK)\b"),
    "a debugger": re.compile(r"\b(breakpoint\(\)|pdb\.set_trace)"),
}


def room_of(module: str) -> str:
    """Return the room of a dotted name in the package: expunge.core.task -> core, expunge -> __init__."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def sub_room_of(module: str) -> str:
    """Return the sub-room of a dotted name: expunge.studies.audit.judging -> audit; empty for the room itself."""
    return ".".join(module.split(".")[2:3])


def imports(tree: ast.AST, module: str, is_package: bool) -> list[tuple[int, str]]:
    """Return line and dotted name of every import of this package in a file, wherever in the file it stands."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = module.split(".") if is_package else module.split(".")[:-1]
                anchor = anchor[: len(anchor) - node.level + 1]
                base = ".".join([*anchor, *([base] if base else [])])
            # `from expunge import tasks` reaches the room tasks, `from expunge.studies import audit` the sub-room.
            inside = base == "expunge" or base.removeprefix("expunge.") in APART
            names = [f"{base}.{alias.name}" for alias in node.names] if inside else [base]
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"} and node.args:
            first = node.args[0]
            names = [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
        else:
            continue
        found += [(node.lineno, name) for name in names if name.split(".")[0] == "expunge"]
    return found


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """Return one line for each import that the table forbids."""
    room = room_of(module)
    allowed = MAY_IMPORT[room] | {room}
    found = imports(ast.parse(source), module, is_package)
    wrong = [
        f"{module}, line {line}: {room} imports {room_of(name)}, "
        f"allowed: {', '.join(sorted(allowed - {room})) or 'nothing'}"
        for line, name in found
        if room_of(name) not in allowed
    ]
    own = sub_room_of(module)
    if room in APART and own:  # the package itself gathers what its sub-rooms offer
        wrong += [
            f"{module}, line {line}: {room}.{own} borrows from {name}"
            for line, name in found
            if room_of(name) == room and sub_room_of(name) not in APART[room] | {own}
        ]
    return wrong


def modules() -> list[tuple[Path, str, bool]]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = list(path.relative_to(SOURCE.parent).with_suffix("").parts)
        package = parts[-1] == "__init__"
        found.append((path, ".".join(parts[:-1] if package else parts), package))
    return found


def test_every_import_goes_down() -> None:
    found = modules()
    assert len(found) > 40, "the scan does not see the package"
    wrong = [line for path, module, package in found for line in violations(path.read_text(), module, package)]
    assert not wrong, "\n".join(wrong)


def test_every_room_has_its_row() -> None:
    assert {room_of(module) for _, module, _ in modules()} <= set(MAY_IMPORT)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("expunge.core.task", "from expunge.tasks import digits"),
        ("expunge.metrics.klom", "import expunge.ensembles.train"),
        ("expunge.metrics.klom", "from expunge import dependence"),
        ("expunge.methods.scrub", "from expunge.metrics import klom"),
        ("expunge.methods.scrub", "from ..dependence import influence"),
        ("expunge.methods.scrub", "def late():\n    from expunge.studies import audit"),
        ("expunge.methods.scrub", "if TYPE_CHECKING:\n    from expunge.tasks import Choice"),
        ("expunge.studies.audit", "from expunge.report import draw"),
        ("expunge.studies.audit", "importlib.import_module('expunge.report')"),
        ("expunge.studies.audit", "from expunge.papers.ascent_fails_to_forget import theory"),
        ("expunge.studies.audit.judging", "from expunge.studies.forecast import forecast_run"),
        ("expunge.studies.audit.judging", "from expunge.studies import score"),
        ("expunge.studies.audit.judging", "from ..forecast import forecast_run"),
        ("expunge.studies.run.prediction", "from expunge.studies.audit.selection import select"),
        ("expunge.papers.one.figures", "from expunge.papers.two import data"),
        ("expunge.report.page", "from expunge.metrics.klom import klom"),
        ("expunge.tasks.digits", "from expunge import ensembles as e"),
        ("expunge.tasks.digits", "import expunge"),
    ],
)
def test_an_upward_or_sideways_arrow_is_seen(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("expunge.methods.scrub", "from expunge.core import Task\nfrom expunge.ensembles.train import train"),
        ("expunge.methods.scrub", "from .method import Method\nfrom ..core import Task"),
        ("expunge.studies.audit", "from expunge.tasks import choose\nimport expunge.metrics.klom"),
        (
            "expunge.studies.audit",
            "from expunge.studies.run.grid import plan\nfrom expunge.studies.audit import judging",
        ),
        ("expunge.studies.audit.judging", "from . import selection\nfrom ..run import parts"),
        ("expunge.studies", "from expunge.studies.audit import audit"),
        ("expunge.papers.one.figures", "from expunge.papers.one import data\nfrom expunge.studies import audit"),
        ("expunge.core.task", "import numpy\nfrom expunge.core.recipe import Recipe"),
        ("expunge.cli", "from expunge import report, studies"),
    ],
)
def test_a_downward_arrow_passes(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_a_relative_import_in_a_package_counts_from_the_package() -> None:
    assert imports(ast.parse("from . import klom"), "expunge.metrics", True) == [(1, "expunge.metrics")]
    assert imports(ast.parse("from .. import core"), "expunge.metrics", True) == [(1, "expunge.core")]


def _texts() -> list[Path]:
    own = Path(__file__).resolve()
    suffixes = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".j2", ".js", ".css"}
    folders = ("src", "tests", "docs", "benchmarks", ".ci")
    paths = [p for folder in folders for p in (ROOT / folder).rglob("*") if p.suffix in suffixes]
    paths += [p for p in ROOT.iterdir() if p.suffix in suffixes or p.name == "Makefile"]
    return sorted(p for p in paths if p.resolve() != own and "__pycache__" not in p.parts)


def test_no_file_holds_a_forbidden_word() -> None:
    texts = _texts()
    assert any(p.name == "README.md" for p in texts)
    wrong = [
        f"{path.relative_to(ROOT)}, line {number}: {what}: {line.strip()[:100]}"
        for path in texts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        for what, pattern in FORBIDDEN.items()
        if pattern.search(line)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line", ["open('/home/someone/x')", "see ../shared/notes.md", "# TODO: later", "breakpoint()", "`/work/data`"]
)
def test_a_forbidden_word_is_seen(line: str) -> None:
    assert any(pattern.search(line) for pattern in FORBIDDEN.values())


@pytest.mark.parametrize("line", ["https://example.org/home/page", "src/work/item", "the methods room"])
def test_ordinary_text_passes(line: str) -> None:
    assert not any(pattern.search(line) for pattern in FORBIDDEN.values())


def test_no_pickle_is_ever_loaded() -> None:
    """`torch.load` and `pickle.load` run code from a file; weights travel as safetensors, arrays without pickle.

    Users' own checkpoints may be PyTorch's files, read by `torch.load(weights_only=True)`, which takes tensors alone.
    """
    wrong = []
    for path, module, _ in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            safe = called == "torch.load" and any(
                k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True
                for k in node.keywords
            )
            if not safe and re.fullmatch(r"(pickle|cPickle|dill|joblib|torch)\.(load|loads|Unpickler)", called):
                wrong.append(f"{module}, line {node.lineno}: {called}")
            if any(k.arg == "allow_pickle" and not _is_false(k.value) for k in node.keywords):
                wrong.append(f"{module}, line {node.lineno}: allow_pickle is not False")
    assert not wrong, "\n".join(wrong)


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False
