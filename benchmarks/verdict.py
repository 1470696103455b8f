"""What the verdict accuses true equals of, and what it finds: level and power of its tests, on made and real margins.

    OMP_NUM_THREADS=1 python benchmarks/verdict.py [--quick] [--only level power traces] [--margins FOLDER]

Laws: Gaussian; skewed and heavy-tailed (minus a log-normal); members that err together (40 % of the variance shared by
all rows of a member); real margins of digits, MLP and CNN: oracles without 300 forget examples, disjoint draws of which
are the unlearned members, the oracles and the held-out oracles of a trial; and nothing to unlearn (Gaussian; pretrained
members of the oracles' law, judged themselves: the direction of the test over all rows then is their own noise).
The real models are trained once (some minutes) and kept in the folder of --margins.

level   the tests of rows and of traces alone, in many trials: how often they say anything of true equals, and how often
        it counts; then whole verdicts, in fewer: how often anything is accused, and how often indistinguishable
power   one row shifted by 5 and 3 oracle standard deviations among |F|: told, and only it; rows left exactly as
        pretrained in real margins: what the percentile alone passes, and what the verdict finds
traces  shifts too small for single rows: the classifier two-sample test, and the test that verdicts use

Binomial standard errors: of 3 % in 120 trials 1.6 points; of 90 % in 16 trials 7.5, in 100 trials 3 points.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import expunge as ex
from expunge.metrics import Judge, classifier_two_sample
from expunge.metrics.row_judge import JOINT_LEVEL, LEVELS
from expunge.metrics.rows import row_test
from expunge.metrics.traces import Halves, traces

MEMBERS, SIZES = (20, 50, 100), (1, 30, 70, 300)
OTHERS = 100
"""Retain and validation rows each."""
ACCUSED = ("under-forgotten", "over-forgotten", "damaged", "diverged")
FORGET, ORACLES, PRETRAINED = 300, {"mlp": 600, "cnn": 400}, 100


def real(model, folder):
    """Margins of oracles and pretrained members on forget and validation examples, trained once."""
    path = Path(folder) / f"rows_{model}.npz"
    if not path.exists():
        task = ex.tasks.digits(model=model)
        forget = ex.tasks.random_forget_set(task, size=FORGET, seed=0)
        seen, unseen = task.train[forget.indices], task.validation
        oracle = ex.train(task, without=forget, members=ORACLES[model], seed=1)
        before = ex.train(task, members=PRETRAINED, seed=0)
        parts = {"oracle": oracle.margins(seen.x, seen.y), "pre": before.margins(seen.x, seen.y)}
        parts |= {"oval": oracle.margins(unseen.x, unseen.y), "pval": before.margins(unseen.x, unseen.y)}
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **parts)
    return dict(np.load(path))


def made(rng, members, size, law):
    z = rng.normal(size=(members, size))
    if law == "err together":
        return np.sqrt(0.6) * z + np.sqrt(0.4) * rng.normal(size=(members, 1))
    return -np.exp(0.8 * z) if law == "skewed, heavy" else z


class Laws:
    """Draws the four ensembles of a trial: unlearned, oracle, held-out, pretrained; each by split."""

    def __init__(self, folder):
        self.real = {f"digits, {model}": real(model, folder) for model in ORACLES}
        self.names = ["Gaussian", "skewed, heavy", "err together", *self.real, "nothing to unlearn"]

    def draw(self, law, rng, members, size):
        """Return the four, of so many members each, with so many forget rows."""
        if law in self.real:
            known = self.real[law]
            rows, others = np.arange(min(size, FORGET)), rng.permutation(known["oval"].shape[1])[: 2 * OTHERS]
            some = rng.permutation(len(known["oracle"]))[: 3 * members].reshape(3, members)
            before = rng.permutation(len(known["pre"]))[:members]
            sides = [split(known["oracle"][i][:, rows], known["oval"][i][:, others]) for i in some]
            return [*sides, split(known["pre"][before][:, rows], known["pval"][before][:, others])]
        drawn = [made(rng, members, size + 2 * OTHERS, law) for _ in range(4)]
        if law == "nothing to unlearn":
            drawn[3] = drawn[0]
        else:
            drawn[3][:, :size] += drawn[3].std()
        return [split(side[:, :size], side[:, size:]) for side in drawn]


def split(forget, others):
    return {"forget": forget, "retain": others[:, :OTHERS], "validation": others[:, OTHERS:]}


def rows(parts, seed, permutations=999):
    ours, oracle, held_out, _ = (side["forget"] for side in parts)
    return row_test(ours, np.concatenate([oracle, held_out]), permutations=permutations, seed=seed)


def level(laws, trials, verdicts):
    print(
        f"\nTests alone, {trials} trials: rows told / all together told, % of true equals (2 and 1 at most, exactly)\n"
    )
    print("| margins | members | " + " | ".join(f"|F| = {size}".replace("|", "\\|") for size in SIZES) + " |")
    print("|---" * (len(SIZES) + 2) + "|")
    for law in laws.names:
        for members in MEMBERS:
            cells = []
            for size in SIZES:
                told = np.zeros(2)
                for trial in range(trials):
                    rng = np.random.default_rng([trial, members, size, laws.names.index(law)])
                    parts = laws.draw(law, rng, members, size)
                    ours, oracle, held_out, before = (side["forget"] for side in parts)
                    test = rows(parts, trial, 499)
                    joint = traces(
                        ours, np.concatenate([oracle, held_out]), Halves.of(before), permutations=399, seed=trial
                    )
                    told += test.told(LEVELS["forget"]).any(), joint.p_value <= JOINT_LEVEL
                cells.append(f"{100 * told[0] / trials:.1f} / {100 * told[1] / trials:.1f}")
            print(f"| {law} | {members} | " + " | ".join(cells) + " |", flush=True)
    print(
        "\nWhole verdicts, trials in brackets: accused of anything / indistinguishable, % of true equals; median shift"
    )
    print("of a single row that would not have been missed, oracle standard deviations\n")
    print("| margins | members | " + " | ".join(f"|F| = {size}".replace("|", "\\|") for size in SIZES) + " |")
    print("|---" * (len(SIZES) + 2) + "|")
    for law in laws.names:
        for members in MEMBERS:
            cells, count = [], verdicts if members == MEMBERS[-1] else verdicts // 2
            for size in SIZES:
                found = []
                for trial in range(count):
                    rng = np.random.default_rng([trial, members, size, laws.names.index(law), 1])
                    ours, *others = laws.draw(law, rng, members, size)
                    found.append(Judge(*others, replicates=50, seed=trial)(ours))
                accused = np.mean([v.name in ACCUSED for v in found])
                passed = np.mean([v.name == "indistinguishable" for v in found])
                row = np.median([np.inf if v.missed.row is None else v.missed.row for v in found])
                cells.append(f"{accused:.0%} / {passed:.0%}; {row:.2f}")
            print(f"| {law} | {members} ({count}) | " + " | ".join(cells) + " |", flush=True)


def power(laws, trials, verdicts):
    sizes = (1, 30, 70, 300, 1000)
    print(f"\nOne row shifted, 100 members, {trials} trials: told / told and no other row told, %\n")
    print("| margins | shift | " + " | ".join(f"|F| = {size}".replace("|", "\\|") for size in sizes) + " |")
    print("|---" * (len(sizes) + 2) + "|")
    for law in laws.names[:-1]:
        for shift in (5, 3):
            cells = []
            for size in sizes:
                if law in laws.real and size > FORGET:
                    cells.append("–")
                    continue
                told = np.zeros(2)
                for trial in range(trials):
                    rng = np.random.default_rng([trial, size, laws.names.index(law), shift])
                    parts = laws.draw(law, rng, 100, size)
                    row = rng.integers(size)
                    parts[0]["forget"] = parts[0]["forget"].copy()
                    parts[0]["forget"][:, row] += shift * parts[1]["forget"][:, row].std(ddof=1)
                    found = rows(parts, trial, 499).told(LEVELS["forget"])
                    told += found[row], found[row] and found.sum() == 1
                cells.append("{:.0f} / {:.0f}".format(*(100 * told / trials)))
            print(f"| {law} | {shift} | " + " | ".join(cells) + " |", flush=True)
    print(f"\nRows left exactly as pretrained, 100 members, {verdicts} trials: passed by the percentile alone /")
    print(
        "by the verdict, %; share of these rows that are told, of those that differ by 1 standard deviation or more\n"
    )
    print("| margins | 1 of 30 | 3 of 70 | 14 of 300 |")
    print("|---|---|---|---|")
    for law in laws.real:
        cells = []
        for left, size in ((1, 30), (3, 70), (14, 300)):
            passed, named = np.zeros(2), []
            for trial in range(verdicts):
                rng = np.random.default_rng([trial, size, left])
                ours, oracle, held_out, before = laws.draw(law, rng, 100, size)
                kept = rng.permutation(size)[:left]
                ours["forget"] = ours["forget"].copy()
                ours["forget"][:, kept] = before["forget"][:, kept]
                verdict = Judge(oracle, held_out, before, replicates=50, seed=trial)(ours)
                inside = all(
                    s.low90 > -verdict.tolerance and s.high90 < verdict.tolerance for s in verdict.splits.values()
                )
                passed += inside, verdict.name == "indistinguishable"
                gap = (before["forget"].mean(0) - oracle["forget"].mean(0)) / oracle["forget"].std(0)
                told = {row.position for row in verdict.rows["forget"].rows}
                named += [row in told for row in kept if abs(gap[row]) >= 1]
            cells.append(f"{passed[0] / verdicts:.0%} / {passed[1] / verdicts:.0%}; {np.mean(named or [np.nan]):.0%}")
        print(f"| {law} | " + " | ".join(cells) + " |", flush=True)


def small(z, before, change, rng):
    """Traces: part of the way to the pretrained margins, a shift of every row up or down, a change of spread."""
    kind, size = change
    mean, spread = z.mean(0), z.std(0)
    if kind == "way":
        return z + size * (before.mean(0) - mean)
    if kind == "rows":
        return z + size * spread * rng.choice([-1, 1], z.shape[1])
    return mean + (1 + size) * (z - mean)


def compare(laws, trials):
    print(f"\nTraces in 70 rows, {trials} trials, told at 1 %: classifier test (linear / Gaussian), verdict's\n")
    changes = {
        20: (("way", 0.12), ("rows", 0.24), ("spread", 0.2)),
        100: (("way", 0.06), ("rows", 0.12), ("spread", 0.08)),
    }
    words = {"way": "{:.0%} of the way to pretrained", "rows": "every row by ±{:g}", "spread": "spread x{:g}"}
    print("| margins | members | way to pretrained: 12 %, 6 % | every row by ±.24, ±.12 | spread x1.2, x1.08 |")
    print("|---|---|---|---|---|")
    for law in laws.names[:-1]:
        for members, tried in changes.items():
            cells = []
            for change in tried:
                told = np.zeros(3)
                for trial in range(trials):
                    rng = np.random.default_rng([trial, members, list(words).index(change[0])])
                    ours, oracle, held_out, before = (s["forget"] for s in laws.draw(law, rng, members, 70))
                    ours = small(ours, before, change, rng)
                    theirs = np.concatenate([oracle, held_out])
                    tests = [
                        classifier_two_sample(ours, theirs, kernel=kernel, permutations=199, seed=trial).p_value
                        for kernel in ("linear", "gaussian")
                    ]
                    tests.append(traces(ours, theirs, Halves.of(before), permutations=399, seed=trial).p_value)
                    told += np.array(tests) <= JOINT_LEVEL
                cells.append("{:.0f} / {:.0f} / {:.0f}".format(*(100 * told / trials)))
            print(f"| {law} | {members} | " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the trials")
    parser.add_argument("--only", nargs="+", choices=("level", "power", "traces"), default=["level", "power", "traces"])
    parser.add_argument("--margins", default="runs/verdict-margins", help="where margins of real models are kept")
    options = parser.parse_args()
    laws, start = Laws(options.margins), time.process_time()
    share = 10 if options.quick else 1
    if "level" in options.only:
        level(laws, 120 // share, 16 // share)
    if "power" in options.only:
        power(laws, 100 // share, 16 // share)
    if "traces" in options.only:
        compare(laws, 30 // share)
    print(f"\n{time.process_time() - start:.0f} s of one core")


if __name__ == "__main__":
    main()
