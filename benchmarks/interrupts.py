"""Ctrl-C at ten moments of one audit, timed, each gone on with; and the same numbers at the end as without.

    python benchmarks/interrupts.py [--every 3] [--moments 10] [--members 20] [--signal INT] [--from shell python]

An audit of digits is started, interrupted so many seconds after its first line, gone on with by `--resume`, interrupted
after twice as long, then three times, and so on; at last it is let end, and its margins are compared with those of an
audit that nobody interrupted. `shell` is the command line, `python` a call of `expunge.audit`.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from expunge.core import Record

OPTIONS = ["--chunk", "10", "--methods", "gradient_ascent"]
SHELL = [sys.executable, "-m", "expunge.cli", "audit", "digits", "--forget", "random:70", *OPTIONS]
PYTHON = """
import sys
import expunge as ex
from rich.console import Console

members, out = int(sys.argv[1]), sys.argv[2]
ex.audit(
    ex.tasks.load_task("digits"), forget=["random:70"], members=members, out=out, resume=True, chunk=10,
    methods=["gradient_ascent"], console=Console(),
)
"""


def start(door: str, members: int, out: Path) -> subprocess.Popen[str]:
    """Start the audit, or go on with it."""
    words = [*SHELL, "--members", str(members), "--out", str(out), "--resume"]
    if door == "python":
        words = [sys.executable, "-c", PYTHON, str(members), str(out)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def interrupted(door: str, members: int, out: Path, seconds: float, number: int) -> tuple[float, int, str, str]:
    """Interrupt the audit; return the seconds until it ended, its exit code, what it was at, and its last words."""
    process = start(door, members, out)
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[str] = []
    first = threading.Event()

    def read() -> None:
        for line in process.stdout or []:
            lines.append(line.strip())
            first.set()

    reader = threading.Thread(target=read)
    reader.start()
    first.wait(600)
    time.sleep(seconds)
    at, began = lines[-1] if lines else "", time.monotonic()
    process.send_signal(number)
    said = process.stderr.read().strip()
    code = process.wait()
    took = time.monotonic() - began
    reader.join()
    return took, code, at, (said.splitlines() or [""])[-1]


def main() -> None:
    """Interrupt, time, go on and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=float, default=3.0)
    parser.add_argument("--moments", type=int, default=10)
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--signal", choices=["INT", "TERM", "HUP"], default="INT")
    parser.add_argument("--from", dest="doors", nargs="+", choices=["shell", "python"], default=["shell", "python"])
    options = parser.parse_args()
    number = getattr(signal, f"SIG{options.signal}")
    with tempfile.TemporaryDirectory() as name:
        digests = {}
        for door in options.doors:
            out = Path(name) / door
            print(f"{door}: seconds to the end, exit code, what it was at | last words")
            for moment in range(1, options.moments + 1):
                wait = moment * options.every
                took, code, at, said = interrupted(door, options.members, out, wait, number)
                print(f"{took:6.2f} {code:5d}  {at[:60]} | {said[:120]}", flush=True)
            start(door, options.members, out).communicate()
            left = [path for path in out.rglob("*") if path.name.endswith(".part") or path.name.startswith("claim-")]
            digests[door] = Record.load(out).forget_sets[0].margins_digest
            print(f"files left of writing or of claims: {len(left)}")
        start("shell", options.members, Path(name) / "whole").communicate()
        whole = Record.load(Path(name) / "whole").forget_sets[0].margins_digest
        for door, digest in digests.items():
            print(
                f"{door}: margins {'equal' if digest == whole else 'DIFFER from'} those of an audit without interrupts"
            )


if __name__ == "__main__":
    main()
