"""Real gradient ascent that a published KLoM scores better than independent oracles, searched for and looked into.

    python benchmarks/fooled.py [--seeds 0 1 2] [--members 100] [--workers 2]

Digits, MLP 64-128-10 with batch norm, random forget sets of 70, plain ascent, statistics frozen: a fine grid of rates
(0.005 to 0.2), every epoch from 1 to 10, batches of 64 and 70, a forget set and three ensembles (pretrained, oracles,
held-out oracles) for each seed. A stop is `fooled` when the published estimator (variant `easydub`, P95 over examples)
reads less than for the held-out oracles on forget, retain and validation examples. Printed: rate 0 with the statistics
updated (drift); how many stops are fooled, and how; the stops fooled although every margin is finite, with what
happened to the members and what our ruler says; for each seed, the finite stop that comes closest.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import torch

import expunge as ex
from expunge.core.record import SPLITS
from expunge.ensembles import build_network
from expunge.metrics import klom
from expunge.studies.audit.judging import Bench
from expunge.studies.run.measure import Parts, margins_of

SIZE, EPOCHS = 70, 10
BATCHES = (64, 70)
LIMIT = 100.0
"""The published code clips margins to plus or minus this."""
CHANCE = 0.2
"""A member whose accuracy on retain examples is below this has collapsed; chance is 0.1."""


@dataclass
class Stop:
    """One stopping time of one ascent run, as the published estimator and the members' accuracies see it."""

    seed: int
    rate: float
    batch_size: int
    epoch: int
    public: dict
    measured: dict

    @property
    def finite(self) -> bool:
        """Whether every margin of every member is finite."""
        return all(bool(torch.isfinite(self.measured[f"margins/{split}"]).all()) for split in SPLITS)

    @property
    def name(self) -> str:
        """How the tables call it."""
        return f"rate {self.rate:.4f}, epoch {self.epoch}, batch {self.batch_size}"


class World:
    """Forget set, ensembles and bench of one seed."""

    def __init__(self, seed: int, members: int, tolerance: float) -> None:
        self.seed = seed
        self.task = ex.tasks.digits(norm="batch")
        self.forget = ex.tasks.random_forget_set(self.task, size=SIZE, seed=seed)
        made = {"members": members, "network": build_network(self.task)}
        self.pretrained = ex.train(self.task, seed=3 * seed, **made)
        self.oracle = ex.train(self.task, without=self.forget, seed=3 * seed + 1, **made)
        self.held_out = ex.train(self.task, without=self.forget, seed=3 * seed + 2, **made)
        self.parts = Parts.of(self.task, self.forget, seed)
        ensembles = {"oracle": self.oracle, "held_out": self.held_out, "pretrained": self.pretrained}
        self.bench = Bench({who: self.parts.measure(e) for who, e in ensembles.items()}, tolerance)
        self.floor = self.bench.floor_public()

    def run(self, method: ex.methods.GradientAscent) -> list[Stop]:
        """Return every stopping time of one run."""
        done = ex.unlearn(self.pretrained, self.task, self.forget, method, seed=self.seed, evaluate=self.parts.measure)
        oracle = self.bench.margins()["oracle"]
        out = []
        for stop in done.trace.stops:
            margins = margins_of(stop.measured)
            public = {s: float(np.percentile(klom(margins[s], oracle[s], "easydub"), 95)) for s in SPLITS}
            out.append(Stop(self.seed, method.lr, method.batch_size, stop.epoch, public, stop.measured))
        return out

    def fools(self, stop: Stop) -> bool:
        """Whether the published estimator reads less than for held-out oracles on all three splits."""
        return all(stop.public[split] < self.floor[split] for split in SPLITS)

    def gap(self, stop: Stop) -> float:
        """How far the worst split is above what oracles read, relative to that; negative is fooled."""
        return max(stop.public[split] / self.floor[split] - 1 for split in SPLITS)


COLUMNS = (
    "",
    "easydub F/R/V",
    "ours F/R/V",
    "verdict (ours)",
    "accuracy",
    "collapsed",
    "beyond ±100",
    "largest margin",
)


def triple(values: dict) -> str:
    return " / ".join(f"{values[split]:.2f}" for split in SPLITS)


def row(name: str, world: World, measured: dict, public: dict | None = None) -> tuple[str, ...]:
    """One line of a table: what both rulers read, and what happened to the members."""
    seen = world.bench.read(measured)
    ours = {split: seen.scores[split].value for split in SPLITS}
    accuracy = measured["accuracy/retain"]
    size = measured["margins/retain"].abs().amax(1).double().numpy()
    return (
        name,
        triple(public or seen.public),
        triple(ours),
        seen.verdict.name,
        f"{float(accuracy.mean()):.2f}",
        str(int((accuracy < CHANCE).sum())),
        str(int((size > LIMIT).sum())),
        f"{np.nanmax(size):.3g}",
    )


def references(world: World) -> list[tuple[str, ...]]:
    ensembles = (("held-out oracles (the floor)", world.held_out), ("do nothing", world.pretrained))
    return [row(name, world, world.parts.measure(who)) for name, who in ensembles]


def show(title: str, rows: list[tuple[str, ...]]) -> None:
    """Print a table in Markdown."""
    print(f"\n{title}\n")
    for line in (COLUMNS, ("---",) * len(COLUMNS), *rows):
        print("| " + " | ".join(line) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument(
        "--rates", type=int, default=40, help="rates between 0.005 and 0.2, equally spaced in logarithm"
    )
    parser.add_argument("--tolerance", type=float, default=0.125)
    parser.add_argument("--show", type=int, default=6, help="fooled stops to show for each seed")
    options = parser.parse_args()
    rates = np.geomspace(0.005, 0.2, options.rates)
    print(f"P95 KLoM in nats; accuracy (mean over members), collapsed (below {CHANCE}) and margins on retain examples")
    for seed in options.seeds:
        world = World(seed, options.members, options.tolerance)
        drift = world.run(ex.methods.GradientAscent(lr=0.0, epochs=EPOCHS, statistics="updated"))
        show(
            f"seed {seed}: rate 0, statistics updated",
            references(world)
            + [row(f"rate 0, epoch {s.epoch}", world, s.measured, s.public) for s in drift if s.epoch in (1, 5, 10)],
        )
        stops = [
            stop
            for rate in rates
            for batch in BATCHES
            for stop in world.run(ex.methods.GradientAscent(lr=float(rate), epochs=EPOCHS, batch_size=batch))
        ]
        fooled = [stop for stop in stops if world.fools(stop)]
        finite = sorted((stop for stop in fooled if stop.finite), key=world.gap)
        sound = [stop for stop in stops if stop.finite]
        closest = 1 + world.gap(min(sound, key=world.gap))
        print(
            f"\nseed {seed}: {len(stops)} stops, {len(sound)} with all margins finite. easydub reads less than for the "
            f"held-out oracles on F, R and V: {len(fooled)}, {len(finite)} of them finite. The finite stop that comes "
            f"closest has its worst split at {closest:.2f} times the floor."
        )
        shown = finite[: options.show] or [min(sound, key=world.gap)]
        show(
            f"seed {seed}: the finite stops that easydub reads best",
            references(world) + [row(stop.name, world, stop.measured, stop.public) for stop in shown],
        )


if __name__ == "__main__":
    main()
