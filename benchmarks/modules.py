"""What kinds of modules train, unlearn and are audited to a report, and as which form of a stack: a table, by doing it.

    python benchmarks/modules.py               all kinds (some minutes)
    python benchmarks/modules.py lstm bert     these

The kinds are those of `tests/reference/modules.py`, where each is a few lines of PyTorch.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from pathlib import Path

import expunge as ex

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def tried(name: str) -> str:
    """Return a row of the table for one kind of module."""
    from reference.modules import HUGGING_FACE, KINDS, task_of

    kind, begin = {**KINDS, **HUGGING_FACE}[name], time.perf_counter()
    task = task_of(name, n=31, epochs=1)
    forget = ex.tasks.random_forget_set(task, size=5, seed=0)
    trained = ex.train(task, members=2, seed=0)
    done = {"train": bool(trained.finite().all())}
    methods = [
        ex.methods.GradientAscent(lr=0.01, epochs=1, statistics=s) for s in ("frozen", "updated", "recalibrated")
    ]
    left = [ex.unlearn(trained, task, forget, method, seed=0) for method in methods]
    done["unlearn"] = all(bool(ensemble.finite().all()) for ensemble in left)
    with tempfile.TemporaryDirectory() as folder:
        run = ex.audit(task, forget=[forget], members=20, methods=["gradient_ascent"], forecast=False, out=folder)
        done["audit"] = run.report.exists()
    marks = " | ".join("yes" if value else "no" for value in done.values())
    print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return f"| {kind.says} | {task.network.kind} | {marks} |"


def main() -> None:
    from reference.modules import HUGGING_FACE, KINDS

    warnings.simplefilter("error")
    print("| a module with | form | train | unlearn | audit |\n|---|---|---|---|---|")
    for name in sys.argv[1:] or {**KINDS, **HUGGING_FACE}:
        print(tried(name), flush=True)


if __name__ == "__main__":
    main()
