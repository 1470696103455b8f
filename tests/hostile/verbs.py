"""The doors of a deletion request: plan, judge, unlearn, evidence, verify, requests, compare, report, reproduce.

Every case has a copy of one workplace (an audit, a checkpoint, a ledger, a bundle) for itself, with one thing in it
made hostile. Afterwards nothing half written may stand there, and nothing outside may have been touched.
"""

from __future__ import annotations

import copy
import json
import math
import os
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

import expunge as ex
from expunge.core.digest import own_digest
from expunge.studies.evidence.archive import Archive, write_parts
from hostile.doors import (
    MEMBERS,
    RECIPE,
    TASK,
    ArrayDoor,
    OptionDoor,
    _brief,
    _quarters,
    arrays,
    command,
    options,
    plainly,
    task,
)
from hostile.given import OPTIONS, TOKENS, WORDS, damaged, drawn, is_count, is_fraction, npz, table
from hostile.runner import Case, Expect

ROWS = [3, 17, 40, 41, 99]
TASK_WITH_IDS = TASK.replace("recipe=recipe)", 'recipe=recipe, ids=[f"p{i}" for i in range(120)])')

# Python -------------------------------------------------------------------------------------------------------------


def array_doors() -> Iterator[ArrayDoor]:
    """Yield the functions of a request that take an array."""
    usual = task()
    own, o, p = _quarters(12, seed=1), _quarters(MEMBERS, 12, seed=2), _quarters(MEMBERS, 12, seed=3)
    level = 0.2

    def judged(model: Any = own, oracle: Any = o, pretrained: Any = p) -> Any:
        return plainly(ex.judge(model, oracle=oracle, pretrained=pretrained, level=level))

    yield ArrayDoor("judge(model)", own, lambda v: judged(model=v))
    yield ArrayDoor("judge(oracle)", o, lambda v: judged(oracle=v))
    yield ArrayDoor("judge(pretrained)", p, lambda v: judged(pretrained=v), takes=frozenset({"None"}))
    yield ArrayDoor("judge({forget})", own, lambda v: judged({"forget": v}, {"forget": o}, {"forget": p}))

    def entered(rows: Any) -> Any:
        with tempfile.TemporaryDirectory() as place:
            ledger = ex.Ledger(Path(place) / "ledger", usual)
            return [*ledger.add(rows).rows, ledger.status().pending]

    yield ArrayDoor("Ledger.add", np.array([3, 1, 7, 9]), entered)
    yield ArrayDoor(
        "plan(members)",
        np.array([20]),
        lambda v: _refused_early(usual, members=v),
        takes=frozenset({"a memoryview of text"}),
    )


def _refused_early(usual: ex.Task, **given: Any) -> Any:
    """Ask for a plan of a checkpoint that is not there: options are checked before, and nothing is trained."""
    from expunge.core import InputError

    try:
        ex.plan(usual, **{"forget": "random:5", "checkpoint": "nothing.pt", **given})
    except InputError as error:
        if "nothing.pt" not in str(error):
            raise
    return True


def option_doors() -> Iterator[OptionDoor]:
    """Yield the options of a request's functions."""
    usual = task(recipe=ex.Recipe(**{**RECIPE, "epochs": 20}))  # type: ignore[arg-type]
    forget = ex.ForgetSet.of(usual, np.arange(5), name="f", how="the first")
    own, o, p = _quarters(12, seed=1), _quarters(40, 12, seed=2), _quarters(40, 12, seed=3)
    module = ex.train(usual, members=1, chunk=1).module(0)
    ascent = ex.methods.GradientAscent(epochs=1)

    def judged(**given: Any) -> Any:
        return plainly(ex.judge(own, oracle=o, pretrained=p, **given))

    def ledger(act: Callable[[ex.Ledger], Any]) -> Any:
        with tempfile.TemporaryDirectory() as place:
            opened = ex.Ledger(Path(place) / "ledger", usual)
            opened.add([1, 2])
            ex.Ensemble.from_modules([module], usual).export(0, Path(place) / "m.pt")
            return plainly(act(opened))

    seed = lambda v: is_count(v, -(2**63))  # type: ignore[arg-type]  # noqa: E731
    yield OptionDoor("judge(level)", lambda v: judged(level=v), lambda v: is_fraction(v, 0.001, 0.5))
    yield OptionDoor("judge(power)", lambda v: judged(power=v), lambda v: is_fraction(v, 0.5, 0.99))
    yield OptionDoor("judge(seed)", lambda v: judged(seed=v), seed)
    yield OptionDoor("judge(run)", lambda v: plainly(ex.judge(own, task=usual, run=v)), lambda v: False)
    yield OptionDoor("plan(workers)", lambda v: _refused_early(usual, workers=v), lambda v: is_count(v))
    yield OptionDoor("plan(members)", lambda v: _refused_early(usual, members=v), None)
    yield OptionDoor("plan(seed)", lambda v: _refused_early(usual, seed=v), seed)
    yield OptionDoor("plan(methods)", lambda v: _refused_early(usual, methods=v), None)
    yield OptionDoor("plan(forget)", lambda v: _refused_early(usual, forget=v), None)
    yield OptionDoor("plan(checkpoint)", lambda v: _refused_early(usual, checkpoint=v), None)
    yield OptionDoor("plan(device)", lambda v: _refused_early(usual, device=v), None)
    yield OptionDoor("unlearn(module, seed)", lambda v: str(ex.unlearn(module, usual, forget, ascent, seed=v)), seed)
    yield OptionDoor("unlearn(module)", lambda v: str(ex.unlearn(v, usual, forget, ascent)), lambda v: False)
    yield OptionDoor("unlearn(module, method)", lambda v: str(ex.unlearn(module, usual, forget, v)), lambda v: False)
    for name in ("method", "checkpoint", "seed", "device"):
        fits = {"seed": seed}.get(name)
        usually = {"method": "retrain", "checkpoint": None, "seed": 0, "device": "cpu"}
        yield OptionDoor(
            f"Ledger.run({name})",
            lambda v, n=name, u=usually: ledger(  # type: ignore[misc]
                lambda opened: opened.run(**{**u, "checkpoint": opened.folder.parent / "m.pt", n: v}).rows  # type: ignore[union-attr]
            ),
            fits,
        )
    yield OptionDoor(
        "Ledger.status(tolerance)",
        lambda v: ledger(lambda opened: opened.status(tolerance=v)),
        lambda v: v is None or is_fraction(v, open_low=True),
    )
    yield OptionDoor("Ledger.add(note)", lambda v: ledger(lambda opened: opened.add([3], note=v)), None)
    yield OptionDoor("Ledger.add(id_column)", lambda v: ledger(lambda opened: opened.add([3], id_column=v)), None)
    yield OptionDoor("Ledger(task)", lambda v: ex.Ledger("nothing", v).status(), lambda v: False)
    yield OptionDoor("verify(bundle)", ex.verify, lambda v: False)
    yield OptionDoor("evidence(run)", lambda v: ex.evidence(v, "b.zip"), lambda v: False)
    yield OptionDoor("compare(run)", lambda v: ex.compare(v, v), lambda v: False)
    yield OptionDoor("unlearn_checkpoint(model)", lambda v: ex.unlearn_checkpoint(v, usual, forget), lambda v: False)


def made(count: int) -> list[Case]:
    """Return about so many cases for the functions."""
    return [*arrays(count // 2, of=array_doors), *options(count // 2, of=option_doors)]


# The command line ---------------------------------------------------------------------------------------------------


def workplace(folder: Path) -> Path:
    """Make an audit, checkpoints, an unlearned one, a bundle, a ledger and a forecast, all of one task."""
    folder.mkdir(parents=True)
    (folder / "tiny.py").write_text(TASK_WITH_IDS)
    (folder / "rows.csv").write_text("".join(f"{row}\n" for row in ROWS))
    (folder / "ids.csv").write_text("id\n" + "".join(f"p{row}\n" for row in ROWS))
    tiny = ex.tasks.load_task(str(folder / "tiny.py"))
    forget, common = str(folder / "rows.csv"), {"methods": ["gradient_ascent"], "chunk": 20}
    ex.audit(tiny, forget=forget, members=20, forecast=False, out=folder / "run", **common)  # type: ignore[arg-type]
    ex.forecast(tiny, forget=forget, members=2, followed=2, out=folder / "fc", **common)  # type: ignore[arg-type]
    model = ex.train(tiny, members=1)
    for name in ("m.safetensors", "m.pt"):
        model.export(0, folder / name)
    ex.unlearn_checkpoint(folder / "m.safetensors", tiny, forget, out=folder / "done")
    ex.evidence(folder / "run", folder / "b.zip", unlearned=folder / "done", task=tiny)
    shutil.copytree(folder / "run", folder / "run2")
    ledger = ex.Ledger(folder / "ledger", tiny)
    ledger.add([1, 2], note="x")
    ledger.run(checkpoint=folder / "m.safetensors")
    ledger.add([5], note="y")
    for page in folder.rglob("*.html"):
        if page.name != "b.html":
            page.unlink()  # megabytes that every copy would hold
    return folder


VALUES: list[Any] = [
    None, True, 0, -1, 10**30, 2**63, 0.5, -0.5, 1e308, math.nan, math.inf, "", "x", "..", "../../outside/file",
    "/etc/passwd", "a\0b", "\ud800", "[/x]", "<b>", "é" * 300, "nan", [], {}, [[]], [None], {"x": 1}, ["x"] * 3,
]  # fmt: skip
"""What somebody may put in a record in place of what stood there."""


def altered(raw: Any, start: int) -> tuple[str, Any]:
    """Return a JSON value in which one thing was changed, and what."""
    dice, raw = random.Random(start), copy.deepcopy(raw)
    where, at = [], raw
    while True:
        key = dice.choice(list(at) if isinstance(at, dict) else range(len(at)))
        where.append(str(key))
        if not (isinstance(at[key], dict | list) and at[key]) or dice.random() < 0.2:
            break
        at = at[key]
    path, value = ".".join(where), dice.choice(VALUES)
    match dice.randrange(6):
        case 0:
            del at[key]
            return f"{path} is left out", raw
        case 1 if isinstance(at, list):
            at.append(copy.deepcopy(at[key]))
            return f"{path} is there twice", raw
        case 2 if type(at[key]) in (int, float):
            at[key] = dice.choice([-at[key], at[key] + 1, at[key] * 1000, float(at[key]), math.nan])
            return f"{path} is {at[key]}", raw
        case _:
            at[key] = value
            return f"{path} is {_brief(value)}", raw


def in_its_own(place: Path, spoil: Callable[[Path], object], words: tuple[str, ...]) -> Callable[[], None]:
    """Return a call of the command line in a copy of a workplace after something was done to it."""

    def call() -> None:
        with tempfile.TemporaryDirectory() as top:
            os.chmod(top, 0o755)
            folder, outside = Path(top) / "in" / "here", Path(top) / "in" / "outside"
            shutil.copytree(place, folder, symlinks=True)
            outside.mkdir()
            (outside / "file").write_text("kept")
            spoil(folder)
            try:
                command(*words, folder=folder)()
            finally:
                os.chdir("/")
                for path in Path(top).rglob("*"):
                    if path.is_dir() and not path.is_symlink():
                        path.chmod(0o755)
                found = [path.name for path in outside.iterdir()]
                assert found == ["file"], f"outside has {found}"
                assert (outside / "file").read_text() == "kept", "outside was written to"
                parts = [str(path.relative_to(top)) for path in Path(top).rglob("*.part")]
                assert not parts, f"left behind: {parts}"

    return call


COMMANDS = {
    "judge": ("judge", "m.pt", "tiny.py", "--run", "run"),
    "plan": ("plan", "tiny.py", "--forget", "rows.csv", "--members", "20"),
    "plan --checkpoint": ("plan", "tiny.py", "--forget", "rows.csv", "--members", "20", "--checkpoint", "m.pt"),
    "unlearn": ("unlearn", "m.safetensors", "tiny.py", "--forget", "rows.csv", "--out", "new"),
    "unlearn .pt": ("unlearn", "m.pt", "tiny.py", "--forget", "ids.csv", "--id-column", "id", "--out", "new"),
    "unlearn audited": (
        "unlearn", "m.pt", "tiny.py", "--forget", "rows.csv", "--method", "audited", "run", "--out", "new"),
    "unlearn --resume": (
        "unlearn", "m.safetensors", "tiny.py", "--forget", "rows.csv", "--out", "done", "--resume"),
    "evidence": ("evidence", "run", "--out", "new.zip"),
    "evidence --unlearned": (
        "evidence", "run", "--out", "new.zip", "--unlearned", "done", "--task", "tiny.py", "--salt", "b.salt"),
    "verify": ("verify", "b.zip", "--json"),
    "verify --task": ("verify", "b.zip", "--json", "--recompute", "--task", "tiny.py"),
    "add": ("requests", "tiny.py", "--ledger", "ledger", "add", "rows.csv"),
    "add ids": ("requests", "tiny.py", "--ledger", "ledger", "add", "ids.csv", "--id-column", "id"),
    "status": ("requests", "tiny.py", "--ledger", "ledger", "status", "--removed", "gone.csv"),
    "requests run": ("requests", "tiny.py", "--ledger", "ledger", "run"),
    "compare": ("compare", "run", "run2", "--out", "c.html", "--csv", "c.csv"),
    "compare forecast": ("compare", "run", "fc", "--out", "c.html"),
    "report run": ("report", "run"),
    "report fc": ("report", "fc"),
    "report done": ("report", "done"),
    "report --markdown": ("report", "run", "--markdown"),
}  # fmt: skip
"""A command for each verb, as it is usually given in a workplace."""

READS = {
    "judge": ["m.pt", "run/record.json", "run/margins/rows.safetensors", "run/rows.safetensors"],
    "plan": ["rows.csv"],
    "plan --checkpoint": ["m.pt"],
    "unlearn": ["m.safetensors", "rows.csv"],
    "unlearn .pt": ["m.pt", "ids.csv"],
    "unlearn audited": ["run/record.json", "run/margins/rows.safetensors"],
    "unlearn --resume": ["done/unlearn.json", "done/m.safetensors"],
    "evidence": ["run/record.json", "run/margins/rows.safetensors", "run/rows.safetensors"],
    "evidence --unlearned": ["done/unlearn.json", "done/m.safetensors", "b.salt", "run/record.json"],
    "verify": ["b.zip"],
    "verify --task": ["b.zip", "b.salt"],
    "add": ["ledger/ledger.jsonl", "rows.csv"],
    "add ids": ["ids.csv"],
    "status": ["ledger/ledger.jsonl"],
    "requests run": ["ledger/ledger.jsonl", "ledger/models/001/m.safetensors"],
    "compare": ["run/record.json"],
    "compare forecast": ["fc/forecast.json"],
    "report run": ["run/record.json", "run/margins/rows.safetensors"],
    "report fc": ["fc/forecast.json", "fc/forecast/rows.safetensors"],
    "report done": ["done/unlearn.json"],
    "report --markdown": ["run/record.json"],
}
"""The files that each of them reads."""

PLACES: dict[str, Callable[[Path], object]] = {
    "is a folder": lambda p: (_gone(p), p.mkdir()),
    "is missing": lambda p: _gone(p),
    "is empty": lambda p: (_gone(p), p.write_bytes(b"")),
    "is zeros": lambda p: (_gone(p), p.write_bytes(bytes(5000))),
    "is Latin-1": lambda p: (_gone(p), p.write_bytes("id\nGrüße\n".encode("latin-1"))),
    "is UTF-16": lambda p: (_gone(p), p.write_text("id\n1\n", encoding="utf-16")),
    "is a link to itself": lambda p: (_gone(p), p.symlink_to(p.name)),
    "is a link to nothing": lambda p: (_gone(p), p.symlink_to("nothing")),
    "is a link outside": lambda p: (_gone(p), p.symlink_to(_top(p).parent / "outside" / "file")),
    "is a fifo": lambda p: (_gone(p), os.mkfifo(p)),
    "is JSON null": lambda p: (_gone(p), p.write_text("null")),
    "is a JSON list": lambda p: (_gone(p), p.write_text("[1]\n")),
    "is deep JSON": lambda p: (_gone(p), p.write_text("[" * 100_000)),
    "is a number of many digits": lambda p: (_gone(p), p.write_text('{"schema_version": ' + "9" * 5000 + "}")),
    "is an archive": lambda p: (_gone(p), p.write_bytes(npz(forget=np.ones((4, 4))))),
    "has a folder that is a file": lambda p: (
        (_gone(p.parent), p.parent.write_text("x")) if p.parent != _top(p) else p.unlink()
    ),
    "has a folder that is a link": lambda p: (
        (shutil.move(p.parent, p.parent.parent / "moved"), p.parent.symlink_to("moved"))
        if p.parent != _top(p)
        else None
    ),
}
"""What can stand where a file is expected."""


def _top(path: Path) -> Path:
    return next(place for place in path.parents if place.name == "here")


def _gone(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def commands(count: int, folder: Path) -> Iterator[Case]:
    """Yield about so many cases for the command line."""
    place = workplace(folder / "workplace")
    yield from _whole(place)
    yield from _files(count // 2, place)
    yield from _words(count // 4, place)
    yield from _made_whole(count // 4, place)


def _shell(
    door: str,
    what: str,
    place: Path,
    spoil: Callable[[Path], object],
    words: tuple[str, ...],
    expect: Expect = "either",
    sound: Callable[[str], bool] = lambda text: True,
) -> Case:
    words = tuple(word.replace("\0", "").encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
                  if not re.search("[\ud800-\udfff]", word) else ascii(word) for word in words)  # fmt: skip
    return Case(door, what, in_its_own(place, spoil, words), expect, sound, shell=True, codes=(0, 1, 3))


def _whole(place: Path) -> Iterator[Case]:
    """Yield each command as it is usually given, and in a place that cannot be written to."""
    for name, words in COMMANDS.items():
        yield _shell(name, "as usual", place, lambda p: None, words, "either" if "audited" in name else "taken")
    for name in ("unlearn", "evidence", "add", "status", "requests run", "compare", "report run", "report done"):
        for what, out in (
            ("the place of the result is a file", lambda p: [(p / n).write_text("x") for n in ("new", "c.html.d")]),
            ("results lie in folders of their names", lambda p: [(p / n / "x").mkdir(parents=True) for n in
                ("new.zip", "new.html", "new.salt", "c.html", "c.csv", "gone.csv", "new/m.safetensors",
                "new/unlearn.json", "run/report.html/x")]),
            ("results are links outside", lambda p: [(p / n).symlink_to(p.parent / "outside" / "file") for n in
                ("new.zip", "new.html", "new.salt", "c.html", "c.csv", "gone.csv", "run/report.html")]),
            ("the folder of the result is a link outside", lambda p: [(p / n).symlink_to(p.parent / "outside") for n in
                ("new",)]),
        ):  # fmt: skip
            yield _shell(name, what, place, out, COMMANDS[name])


def _files(count: int, place: Path) -> Iterator[Case]:
    """Yield commands whose files had an accident, were changed by hand, or are something else."""
    doors = [(name, file) for name, files in READS.items() for file in files]
    for start in range(max(1, count // len(doors))):
        for door, (name, file) in enumerate(doors):
            dice = random.Random(1000 * start + door)
            content = (place / file).read_bytes()
            kind, seed = dice.random(), 1000 * start + door
            if kind < 0.3:
                what = dice.choice(sorted(PLACES))
                yield _shell(f"{name}: {file}", what, place, lambda p, f=file, w=what: PLACES[w](p / f), COMMANDS[name])
                continue
            if file.endswith(".json") and kind < 0.9:
                what, raw = altered(json.loads(content), seed)
                content = json.dumps(raw).encode()
            elif file.endswith(".csv"):
                what, text = table([[cell] for cell in content.decode().split()], seed)
                content = text.encode("utf-8", "surrogatepass")
            else:
                what, content = damaged(content, seed)
            yield _shell(
                f"{name}: {file}", what, place, lambda p, f=file, c=content: (p / f).write_bytes(c), COMMANDS[name],
                sound=_not_passed if file == "b.zip" else lambda text: True,
            )  # type: ignore[misc]  # fmt: skip


def _not_passed(text: str) -> bool:
    return '"passed": false' in text


def _words(count: int, place: Path) -> Iterator[Case]:
    """Yield commands in which one word is another."""
    spots = [(name, spot) for name, words in COMMANDS.items() for spot in range(1, len(words))]
    spots = [(name, spot) for name, spot in spots if not COMMANDS[name][spot].startswith("--")]
    extra = [
        ("judge", ("--forget", "")),
        ("judge", ("--level", "")),
        ("judge", ("--power", "")),
        ("judge", ("--id-column", "")),
        ("plan", ("--workers", "")),
        ("plan", ("--seed", "")),
        ("plan", ("--methods", "")),
        ("plan", ("--device", "")),
        ("unlearn", ("--method", "")),
        ("unlearn", ("--seed", "")),
        ("unlearn", ("--device", "")),
        ("unlearn", ("--id-column", "")),
        ("unlearn", ("--train", "")),
        ("unlearn", ("--config", "")),
        ("unlearn", ("--method", "audited", "")),
        ("evidence", ("--salt", "")),
        ("evidence", ("--unlearned", "")),
        ("verify", ("--root", "")),
        ("verify", ("--salt", "")),
        ("verify --task", ("--root", "")),
        ("add", ("--note", "")),
        ("add", ("--id-column", "")),
        ("status", ("--tolerance", "")),
        ("requests run", ("--method", "")),
        ("requests run", ("--checkpoint", "")),
        ("requests run", ("--seed", "")),
        ("judge", ("--fail-unless", "")),
    ]
    own = [
        "run",
        "run/record.json",
        "m.pt",
        "m.safetensors",
        "tiny.py",
        "rows.csv",
        "b.zip",
        "b.salt",
        "ledger",
        "done",
        "fc",
        ".",
        "..",
        "../outside",
        "../outside/file",
        "run/../run",
        "/",
        "/dev/null",
        "/dev/zero",
        "/proc/self/mem",
        "*.pt",
        "audited:run",
        "audited",
        "tiny.py:task",
        "tiny.py:ex",
        "m.pt:x",
        "random:5",
        "random:0",
        "random:120",
        "random:-1",
        "cluster:5:1",
        "class_part:5:9",
        "component:0:top:5",
        "mislabelled:5",
        "20,20",
        "20,",
        "-5",
    ]
    values = st.one_of(WORDS, st.sampled_from(own), st.sampled_from(own), st.sampled_from(TOKENS[:-1]),
                       st.integers().map(str), st.floats().map(str))  # fmt: skip
    each = max(1, count // (len(spots) + len(extra)))
    for door, (name, spot) in enumerate(spots):
        for word in drawn(values, each, door):
            words = list(COMMANDS[name])
            before, words[spot] = words[spot], word
            yield _shell(f"{name}: {before}", _brief(word), place, lambda p: None, tuple(words))
    for door, (name, more) in enumerate(extra):
        for word in drawn(values, each, door + 999):
            words = (*COMMANDS[name], *(part or word for part in more))
            yield _shell(f"{name} {more[0]}", _brief(word), place, lambda p: None, words)
    for door, word in enumerate(drawn(st.one_of(values, OPTIONS.map(str)), max(2, count // 50), 55)):
        yield _shell(
            "reproduce", _brief(word), place, lambda p: None, ("reproduce", word, "--plan")
            if door % 2 else ("reproduce", "sequential-drift", "--plan", "--preset", word),
        )  # fmt: skip


def _made_whole(count: int, place: Path) -> Iterator[Case]:
    """Yield ledgers and bundles that somebody changed, and made whole again: their digests fit."""
    lines = [json.loads(line) for line in (place / "ledger/ledger.jsonl").read_text().splitlines()]
    with Archive(place / "b.zip") as archive:
        whole = {name: archive.read(name, 10**8) for name in archive.entries}
    for start in range(max(1, count // 2)):
        what, changed = altered(lines, start)
        name = ("status", "add", "requests run")[start % 3]
        yield _shell(
            f"{name}: a ledger made whole", what, place,
            lambda p, c=changed: (p / "ledger/ledger.jsonl").write_bytes(_ledger(c)), COMMANDS[name],
        )  # type: ignore[misc]  # fmt: skip
        file = random.Random(start).choice([n for n in sorted(whole) if n.endswith(".json")])
        what, raw = altered(json.loads(whole[file]), start)
        name = ("verify", "verify --task")[start % 2]
        yield _shell(
            f"{name}: a bundle made whole", f"{file}: {what}", place,
            lambda p, f=file, c=raw: (p / "b.zip").write_bytes(_bundle(whole, f, c)), COMMANDS[name],
        )  # type: ignore[misc]  # fmt: skip


def _ledger(lines: Any) -> bytes:
    content, before = b"", ""
    for number, line in enumerate(lines, 1):
        if isinstance(line, dict):
            line = {**{k: v for k, v in line.items() if k != "sha256"}, "number": number, "before": before}
            before = line["sha256"] = own_digest(line)
        content += json.dumps(line, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    return content


def _bundle(whole: dict[str, bytes], file: str, raw: Any) -> bytes:
    import hashlib

    from expunge.studies.evidence.bundle import canonical

    try:
        content = canonical(raw)
    except ValueError:
        content = json.dumps(raw).encode()
    files = {**whole, file: content}
    if file != "manifest.json":
        manifest = json.loads(files["manifest.json"])
        manifest["files"][file] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        files["manifest.json"] = canonical(manifest)
    return b"".join(write_parts(files))
