"""Builds the navigation from the pages that exist, and the interface pages from the package.

A new page, a new room or a new module appears without a second line anywhere. Files of the repository's root that
people look for in the documentation are shown there without a copy that could go stale. Where each method stands on the
leaderboard is read from `leaderboard.csv`, the table of the run that `leaderboard.md` shows.
"""

from __future__ import annotations

import ast
import csv
import re
from pathlib import Path
from statistics import median
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

SECTIONS = {"methods": "Methods", "metrics": "Metrics", "theory": "Theory", "guides": "Guides"}
"""Folders of `docs`, in the order of the navigation; other folders follow by name."""

ROOMS = ("core", "tasks", "ensembles", "metrics", "methods", "dependence", "studies", "papers", "report")
"""Rooms of the package in the order in which imports go; each that exists gets an interface page."""

FROM_ROOT = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the root, and the page that shows each."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Set the navigation: the first page, single pages, one section a folder, the interface, pages from the root."""
    docs = Path(config.docs_dir)
    pages: list[Any] = ["index.md"]
    pages += sorted(path.name for path in docs.glob("*.md") if path.name != "index.md")
    folders = {path.name for path in docs.iterdir() if path.is_dir() and any(path.glob("*.md"))} - {"api"}
    for folder in [*(name for name in SECTIONS if name in folders), *sorted(folders - set(SECTIONS))]:
        names = sorted(path.name for path in (docs / folder).glob("*.md"))
        # The overview of a section comes first.
        names.sort(key=lambda name: name != "index.md")
        pages.append({SECTIONS.get(folder, folder.capitalize()): [f"{folder}/{name}" for name in names]})
    interface = ["api/index.md", *(f"api/{room}.md" for room in _rooms(config))]
    config.nav = [*pages, {"Python interface": interface}, *FROM_ROOT.values()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the interface pages, and the pages whose text lives in the root."""
    for room in _rooms(config):
        files.append(File.generated(config, f"api/{room}.md", content=_interface(_package(config) / room)))
    for source, page in FROM_ROOT.items():
        files.append(File.generated(config, page, content=(_root(config) / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Append to the page of a method how it stands on the leaderboard, where one has been run for the documentation."""
    docs = Path(config.docs_dir)
    table, source = docs / "leaderboard.csv", Path(page.file.src_uri)
    if source.parent.name != "methods" or source.name == "index.md" or not table.is_file():
        return markdown
    index = (docs / "methods" / "index.md").read_text(encoding="utf-8")
    names = re.findall(rf"^\| \[`(\w+)`\]\({re.escape(source.name)}\)", index, re.MULTILINE)
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = []
    for name in names:
        own = [row for row in rows if row["method"] == name]
        good = [row for row in own if row["verdict"] == "indistinguishable" and not row["failed_checks"]]
        if own:
            cost = median(float(row["cost"]) for row in good or own)
            excess = median(float(row["excess"]) for row in own)
            lines.append(f"| `{name}` | {len(good)} of {len(own)} | {cost:.0%} | {excess:+.2f} |")
    if not lines:
        return markdown
    head = ["", "## On the leaderboard", "", "| method | passes | cost (median) | excess (median, nats) |"]
    foot = ["", "What these are, and all other methods: [leaderboard](../leaderboard.md).", ""]
    return "\n".join([markdown.rstrip(), *head, "|---|---:|---:|---:|", *lines, *foot])


def _interface(room: Path) -> str:
    """Return the page of a room: its own docstring and constants, then one section a module."""
    own = [
        target.id
        for node in ast.parse((room / "__init__.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and not target.id.startswith("_")
    ]
    members = "[" + ", ".join(own) + "]" if own else "false"
    lines = [f"# expunge.{room.name}", "", f"::: expunge.{room.name}", "    options:", f"      members: {members}", ""]
    for path in sorted(room.rglob("*.py")):
        parts = path.relative_to(room).with_suffix("").parts
        if parts[-1].startswith("_"):
            continue
        lines += [f"## {'.'.join(parts)}", "", f"::: {'.'.join(['expunge', room.name, *parts])}", ""]
    return "\n".join(lines)


def _rooms(config: MkDocsConfig) -> list[str]:
    return [room for room in ROOMS if (_package(config) / room / "__init__.py").is_file()]


def _package(config: MkDocsConfig) -> Path:
    return _root(config) / "src" / "expunge"


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent
