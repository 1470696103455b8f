"""Is every change to a bundle of evidence found? Bytes, digits of numbers, and numbers with all digests written anew.

    python benchmarks/tampering.py [--changes 300] [--forged 50]

An audit of digits (20 members) becomes a bundle with a checkpoint and its verdict. Half of the changes alter one byte
anywhere in the archive, half one digit of one number in a file of text (whose checksum in the archive is then put
right); `expunge verify` reads each. Forged bundles have one number of the record changed that follows from the margins,
and statement, page and all digests written anew: `verify` alone cannot see that, `--recompute` and `--root` must.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from safetensors.numpy import load

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import expunge as ex
from expunge.core import DamagedFileError, InputError
from expunge.methods import GradientAscent
from reference.tampering import contents, forge, one_byte, one_number, one_that_follows


def make(folder: Path) -> ex.Evidence:
    """Return the bundle of an audit and of a checkpoint that was retrained."""
    task = ex.tasks.digits()
    methods = [GradientAscent(lr=0.02, epochs=1), GradientAscent(lr=0.2, epochs=1)]
    run = ex.audit(task, forget="random:40", methods=methods, members=20, out=folder / "run", forecast=False)
    forget = ex.tasks.random_forget_set(task, size=40, seed=0)
    ex.train(task, members=1, seed=5).export(0, folder / "model.safetensors")
    ex.unlearn_checkpoint(folder / "model.safetensors", task, forget, out=folder / "unlearned")
    return ex.evidence(run, folder / "bundle.zip", unlearned=folder / "unlearned", task=task)


def found_by(path: Path, **options: object) -> tuple[str, list[str]]:
    """Return how a change was found, and the files that were named."""
    try:
        found = ex.verify(path, **options)  # type: ignore[arg-type]
    except (InputError, DamagedFileError) as error:
        return "refused", [str(error)]
    return ("missed" if found.passed else "named"), [each.where for each in found.differences]


def main() -> None:
    """Print a table: what was changed, how many were found, and how."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=300)
    parser.add_argument("--forged", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    draw, rows = np.random.default_rng(asked.seed), Counter[tuple[str, str]]()
    missed, seconds = [], 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = make(folder)
        size = made.path.stat().st_size / 1e6
        print(f"bundle: {made.files} files, {size:.1f} MB; whole: {found_by(made.path, recompute=True)[0] == 'missed'}")
        changed = folder / "changed.zip"
        for number in range(asked.changes):
            kind, change = ("one byte", one_byte) if number % 2 else ("one digit", one_number)
            what = change(made.path, changed, draw)
            begin = time.perf_counter()
            how, named = found_by(changed)
            seconds += time.perf_counter() - begin
            if kind == "one digit" and how == "named" and what.partition(":")[0] not in named:
                how = "named another file"
            rows[kind, how] += 1
            missed += [what] * (how == "missed")
        margins = load(contents(made.path)["margins/random-40.safetensors"])
        kept = {who.rpartition("/")[0] for who in margins}
        for _ in range(asked.forged):
            what = forge(made.path, changed, one_that_follows(draw, kept))
            rows["one number, forged", f"without more: {found_by(changed)[0]}"] += 1
            how = found_by(changed, recompute=True)[0]
            rows["one number, forged", f"--recompute: {how}"] += 1
            rows["one number, forged", f"--root: {found_by(changed, root=made.root)[0]}"] += 1
            missed += [what] * (how == "missed")
    print(f"\n{'changed':<20} {'found':<28} changes")
    for (kind, how), count in sorted(rows.items()):
        print(f"{kind:<20} {how:<28} {count:>7}")
    print(f"\n{seconds / max(asked.changes, 1):.2f} s a check; missed: {missed or 'none'}")


if __name__ == "__main__":
    main()
