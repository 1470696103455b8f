"""What rulers read for ensembles that were manipulated, not unlearned: the table of docs/metrics/gaming.md.

    OMP_NUM_THREADS=1 python benchmarks/gaming.py [--seed 0]
    OMP_NUM_THREADS=1 python benchmarks/gaming.py --traces [--runs 50]

Mean KLoM over 60 examples; 100 oracles N(3, 1), the honest pretrained ensemble N(9, 1). Each manipulation takes the
honest ensemble and brings it no closer to the oracles, so none may read less. In bold what does, as printed.

With `--traces` another table: ensembles that are as good as oracles but for a trace (`tests/metrics/gaming.py`), 100
members a side, drawn again in each run. How often the verdict calls them indistinguishable, and how often the test on
the 95th percentile over rows alone would.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from expunge.metrics import Judge, klom

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.metrics.gaming import FAR, TRACES

MEMBERS, EXAMPLES = 100, 60
RULERS = {"easydub": "easydub", "dub": "dub", "a2d": "a2d", "trail": "trail", "ours": "expunge"}


def members(rows, value):
    """Return a manipulation that gives some members one margin everywhere."""

    def change(margins, oracle):
        changed = margins.copy()
        changed[rows] = np.reshape(value, (-1, 1))
        return changed

    return change


MANIPULATIONS = {
    "logits × 30": lambda margins, oracle: margins * 30,
    "a constant above every oracle": lambda margins, oracle: np.full_like(margins, oracle.max() + 1),
    "one NaN member of 100": members(slice(4, 5), np.nan),
    "all members NaN": members(slice(None), np.nan),
    "two members at ±100": members(slice(0, 2), [100.0, -100.0]),
    "labels swapped": lambda margins, oracle: -margins,
}


def draw(seed, stream, mean):
    """Margins of one ensemble, (members, examples)."""
    return np.random.default_rng([seed, stream]).normal(mean, 1, (MEMBERS, EXAMPLES))


def cell(value, honest):
    """How the table shows a reading, in bold if it is less than that of the honest ensemble."""
    text = "NaN" if np.isnan(value) else f"{value:.2f}"
    return f"**{text}**" if round(value, 2) < round(honest, 2) else text


def traces(runs, seed, sizes=(70, 300), others=200):
    """Print how often a trace passes, by the percentile alone and by the verdict."""
    splits = ("forget", "retain", "validation")
    cells = {name: [] for name in ("none", *TRACES)}
    for rows in sizes:
        passed = {name: [0, 0] for name in cells}
        for run in range(runs):
            rng = np.random.default_rng([seed, rows, run])
            counts = dict(zip(splits, (rows, others, others), strict=True))
            oracle, held_out, fresh = ({s: rng.normal(3, 1, (MEMBERS, n)) for s, n in counts.items()} for _ in range(3))
            pretrained = {s: rng.normal(3 + FAR * (s == "forget"), 1, (MEMBERS, n)) for s, n in counts.items()}
            decide = Judge(oracle, held_out, pretrained, seed=run)
            for name in cells:
                forget = fresh["forget"] if name == "none" else TRACES[name](fresh["forget"], pretrained["forget"])
                verdict = decide({**fresh, "forget": forget})
                within = [abs(x) < verdict.tolerance for v in verdict.splits.values() for x in (v.low90, v.high90)]
                passed[name][0] += all(within)
                passed[name][1] += verdict.name == "indistinguishable"
        for name, counted in passed.items():
            cells[name] += [f"{count / runs:.0%}" for count in counted]
    print(f"| trace, {runs} runs | " + " | ".join(f"{rows} rows: P95 alone | verdict" for rows in sizes) + " |")
    print("|---" * (1 + 2 * len(sizes)) + "|")
    for name, row in cells.items():
        print(f"| {name} | {' | '.join(row)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--traces", action="store_true")
    parser.add_argument("--runs", type=int, default=50)
    options = parser.parse_args()
    seed = options.seed
    if options.traces:
        return traces(options.runs, seed)
    oracle, others, pretrained = draw(seed, 0, 3), draw(seed, 1, 3), draw(seed, 2, 9)
    honest = {name: klom(pretrained, oracle, variant).mean() for name, variant in RULERS.items()}
    print(f"| what is handed in | {' | '.join(RULERS)} |")
    print("|---" * (1 + len(RULERS)) + "|")
    floors = [f"{klom(others, oracle, variant).mean():.2f}" for variant in RULERS.values()]
    print(f"| another set of oracles | {' | '.join(floors)} |")
    print(f"| pretrained, honestly | {' | '.join(f'{value:.2f}' for value in honest.values())} |")
    for what, change in MANIPULATIONS.items():
        given = change(pretrained, oracle)
        cells = [cell(klom(given, oracle, variant).mean(), honest[name]) for name, variant in RULERS.items()]
        print(f"| {what} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
