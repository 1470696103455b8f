"""A record as an audit writes it, made by simulation: margins are Gaussian, scores follow from their shifts.

It has what a report must cope with: several forget sets (one that a method solves, one that none solves, one with
nothing to unlearn), controls, diverged configurations with infinite scores that the public estimator calls perfect,
failed checks, settings on the edge of the grid, and names that try to be HTML.

Run as a script it writes a folder: `python tests/report/example_record.py FOLDER`.
"""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from expunge.core.forget_set import ForgetSet
from expunge.core.recipe import Recipe
from expunge.core.record import (
    SPLITS,
    CheckRecord,
    ConfigurationRecord,
    EnsembleRecord,
    ExampleRecord,
    ForgetRecord,
    Record,
    SelectionRecord,
    SplitName,
    VerdictRecord,
)
from expunge.core.result import Result

TOLERANCE = 0.15
FLOOR: dict[SplitName, float] = {"forget": 0.24, "retain": 0.20, "validation": 0.21}
HOSTILE = '<img src=x onerror="document.title=`owned`">'
"""A name that would run a script if it reached the page unescaped."""


def score(split: SplitName, value: float, members: int, examples: int, failed: int = 0) -> Result:
    """Return a score around a value, with an interval that narrows with the members."""
    width = (0.15 + 0.12 * min(value, 10)) * math.sqrt(100 / members) / 2 if math.isfinite(value) else 0.0
    floor = FLOOR[split] * 100 / members
    return Result(
        metric="klom",
        summary="p95",
        value=value,
        low=max(value - width, 0.02),
        high=value + width,
        floor=floor,
        floor_low=floor * 0.85,
        floor_high=floor * 1.2,
        members=members,
        oracles=members,
        examples=examples,
        failed=failed,
    )


def klom(split: SplitName, shift: float, members: int) -> float:
    """Return what our estimator reads, roughly, at a shift of the margins in oracle standard deviations."""
    return FLOOR[split] * 100 / members + 2.1 * (1 - math.exp(-0.3 * shift * shift))


def public(split: SplitName, shift: float) -> float:
    """Return what the easydub variant reads, roughly."""
    return 0.66 + 9.2 * (1 - math.exp(-0.25 * shift * shift)) + 0.05 * FLOOR[split]


def verdict(scores: dict[SplitName, Result], shift: float, failed: int) -> VerdictRecord:
    """Return the verdict that follows from the simulated numbers."""
    excess = {split: s.excess for split, s in scores.items()}
    if failed:
        name, why = "diverged", f"{failed} members are non-finite or collapsed"
    elif max(excess["retain"], excess["validation"]) > TOLERANCE:
        name, why = "damaged", f"KLoM on retain is {excess['retain']:.2f} nats above its floor"
    elif excess["forget"] > TOLERANCE:
        name = "under-forgotten" if shift > 0 else "over-forgotten"
        why = f"KLoM on forget is {excess['forget']:.2f} nats above its floor, margins {shift:+.1f} sd from oracles"
    elif excess["forget"] > 0.8 * TOLERANCE:
        name, why = "undecided", "the interval of KLoM on forget contains the tolerance"
    else:
        name, why = "indistinguishable", f"no split is more than {TOLERANCE} nats above its floor"
    return VerdictRecord(name=name, sentence=f"{why[0].upper()}{why[1:]}.", tolerance=TOLERANCE)  # type: ignore[arg-type]


def configuration(
    method: str,
    label: str,
    options: dict[str, Any],
    epoch: int,
    shifts: dict[SplitName, float],
    *,
    members: int,
    size: int,
    cost: float,
    control: bool = False,
    statistics: str = "frozen",
    still: bool = False,
    failed: int = 0,
    checks: list[CheckRecord] | None = None,
) -> ConfigurationRecord:
    """Return one configuration whose scores follow from the shifts of its margins."""
    run = f"{method}/" + ",".join(f"{k}={v}" for k, v in options.items())
    sizes = {"forget": size, "retain": 300, "validation": 360}
    values = {split: klom(split, shifts[split], members) for split in SPLITS}
    if failed >= members:
        values = dict.fromkeys(SPLITS, math.inf)
    elif failed:
        values = dict.fromkeys(SPLITS, 2.4 + 0.6 * failed / members)
    scores = {split: score(split, values[split], members, sizes[split], failed) for split in SPLITS}
    stretched = {split: 0.31 if failed else public(split, shifts[split]) for split in SPLITS}
    return ConfigurationRecord(
        id=f"{run}@{epoch}" if options else f"{method}@{epoch}",
        run=run,
        method=method,
        label=label,
        options=options,
        statistics=statistics,
        still=still,
        epoch=epoch,
        cost=cost,
        control=control,
        scores=scores,
        means={split: 0.5 * scores[split].value for split in SPLITS},
        shifts=dict(shifts) if failed < members else dict.fromkeys(SPLITS, math.nan),
        accuracy={
            "forget": float(np.clip(0.96 + 0.013 * shifts["forget"], 0.1, 1)),
            "retain": float(np.clip(1.0 - 0.02 * abs(shifts["retain"]), 0.1, 1)),
            "validation": float(np.clip(0.97 - 0.015 * abs(shifts["validation"]), 0.1, 1)),
        },
        public=stretched,
        calibration=None if control else {split: scores[split].excess for split in SPLITS},
        failed=failed,
        checks=checks or [],
        verdict=verdict(scores, shifts["forget"], failed),
    )


def moved(yes: bool = True) -> CheckRecord:
    """Return the check that weights moved."""
    detail = "median relative change of the weights 0.013" if yes else "no weight changed in 3 of 100 members"
    return CheckRecord(name="weights moved", passed=yes, detail=detail)


def sweep(start: float, coupling: float, members: int, size: int, epochs: int) -> list[ConfigurationRecord]:
    """Return the grid of a forget set whose pretrained margins lie `start` oracle sd too high.

    Args:
        start: Shift of the forget margins of the pretrained ensemble.
        coupling: How much retain and validation margins move when forget margins move by 1; 0 would be independence.
        members: Members of every ensemble.
        size: Forget examples.
        epochs: Epochs of each unlearning run.
    """
    found: list[ConfigurationRecord] = []
    common: dict[str, Any] = {"members": members, "size": size}
    noise = np.random.default_rng(7)
    still: dict[SplitName, float] = {"forget": start, "retain": 0.15, "validation": 0.1}
    for relative in (0.001, 0.005, 0.02, 0.05, 0.1, 0.5, 2.0):
        for epoch in range(1, epochs + 1):
            push = 22 * relative * epoch * (1 + 0.1 * noise.standard_normal())
            failed = 0 if push < 18 else int(min(members, (push - 17) * 4))
            drop: dict[SplitName, float] = {
                "forget": start - push,
                "retain": 0.15 - coupling * push,
                "validation": 0.1 - 1.1 * coupling * push,
            }
            options = {
                "lr": 0.4 * relative,
                "relative_lr": relative,
                "batch_size": 64,
                "epochs": epochs,
                "momentum": 0.0,
            }
            found.append(
                configuration(
                    "gradient_ascent",
                    "Gradient ascent",
                    options,
                    epoch,
                    drop,
                    cost=0.0012 * epoch,
                    failed=failed,
                    checks=[
                        moved(),
                        CheckRecord(
                            name="forget loss rose",
                            passed=relative > 0.001,
                            detail=f"forget loss 0.010 to {0.01 + (0.2 * push if relative > 0.001 else 0):.3f}",
                        ),
                    ],
                    **common,
                )
            )
    for relative in (0.005, 0.02, 0.1, 0.4):
        for ascent in (2, 4):
            for epoch in range(1, epochs + 1):
                push = 9 * relative * min(epoch, ascent) * (1 + 0.05 * noise.standard_normal())
                repair = math.exp(-0.5 * max(epoch - ascent, 0))
                drop = {
                    "forget": start - push * (0.55 + 0.45 * repair),
                    "retain": 0.15 - 0.8 * coupling * push * repair,
                    "validation": 0.1 - 0.9 * coupling * push * repair,
                }
                options = {
                    "lr": 0.4 * relative,
                    "relative_lr": relative,
                    "ascent_epochs": ascent,
                    "forget_batch_size": 32,
                    "epochs": epochs,
                }
                checks = [
                    moved(relative > 0.005),
                    CheckRecord(name="every forget example visited", passed=True, detail="70 of 70"),
                ]
                found.append(
                    configuration(
                        "gradient_descent_ascent",
                        "Gradient descent/ascent",
                        options,
                        epoch,
                        drop,
                        cost=0.034 * epoch,
                        checks=checks,
                        **common,
                    )
                )
    for relative in (0.01, 0.1):
        for epoch in range(1, epochs + 1):
            drop = {"forget": start * math.exp(-0.25 * relative * 10 * epoch), "retain": 0.2, "validation": 0.15}
            options = {"lr": 0.4 * relative, "relative_lr": relative, "temperature": 4.0, "msteps": 3}
            found.append(
                configuration("scrub", "SCRUB", options, epoch, drop, cost=0.036 * epoch, checks=[moved()], **common)
            )
    for epoch in range(1, epochs + 1):
        drop = {"forget": start * math.exp(-0.08 * epoch), "retain": 0.25, "validation": 0.15}
        options = {"lr": 0.04, "relative_lr": 0.1}
        found.append(
            configuration(
                "fine_tune",
                "Fine-tuning on the retain set",
                options,
                epoch,
                drop,
                cost=0.033 * epoch,
                control=True,
                checks=[moved()],
                **common,
            )
        )
    found.append(configuration("do_nothing", "Do nothing", {}, 0, still, cost=0.0, control=True, **common))
    drift: dict[SplitName, float] = {"forget": start - 1.2, "retain": -1.6, "validation": -1.5}
    found.append(
        configuration(
            "gradient_ascent_rate_0",
            "Gradient ascent at rate 0",
            {"lr": 0.0, "relative_lr": 0.0},
            epochs,
            drift,
            cost=0.0012 * epochs,
            control=True,
            statistics="updated",
            still=True,
            checks=[CheckRecord(name="only statistics moved", passed=True, detail="largest change of a weight 0")],
            **common,
        )
    )
    for cost in (0.1, 0.25, 0.5):
        early: dict[SplitName, float] = {
            "forget": -2.5 * (1 - cost),
            "retain": -3.0 * (1 - cost),
            "validation": -2.0 * (1 - cost),
        }
        found.append(
            configuration(
                "retrain_early",
                "Retraining stopped early",
                {"share": cost},
                int(30 * cost),
                early,
                cost=cost,
                control=True,
                statistics="retrained",
                **common,
            )
        )
    return found


def select(configurations: list[ConfigurationRecord], off: int) -> list[SelectionRecord]:
    """Return selections that sit `off` configurations beside the best of the grid."""
    found = []

    def objective(c: ConfigurationRecord) -> float:
        return max(s.excess for s in c.scores.values())

    for method in dict.fromkeys(c.method for c in configurations if not c.control or c.method == "fine_tune"):
        own = sorted((c for c in configurations if c.method == method), key=objective)
        best, chosen = own[0], own[min(off, len(own) - 1)]
        rates = sorted({c.options["relative_lr"] for c in own})
        edge = chosen.options["relative_lr"] == rates[-1] and len(rates) > 1
        found.append(
            SelectionRecord(
                method=method,
                rule="smallest objective on the calibration forget set, with the calibration set's own oracles",
                chosen=chosen.id,
                best=best.id,
                illusion_gap=objective(chosen) - objective(best),
                gap_low=objective(chosen) - objective(best) - 0.1,
                gap_high=objective(chosen) - objective(best) + 0.1,
                objective="largest excess of KLoM over the floor among forget, retain and validation",
                edge=[f"lr at its largest value {0.4 * rates[-1]:g}"] if edge else [],
            )
        )
    return found


def forget_record(
    name: str, how: str, start: float, coupling: float, off: int, *, members: int, size: int = 70, epochs: int = 10
) -> ForgetRecord:
    """Return one forget set with its configurations and selections."""
    nothing = start < 0.5
    configurations = sweep(start, coupling, members, size, epochs)
    sizes = {"forget": size, "retain": 300, "validation": 360}
    shift: dict[SplitName, float] = {"forget": start, "retain": 0.15, "validation": 0.1}
    pretrained = {s: score(s, klom(s, shift[s], members), members, sizes[s]) for s in SPLITS}
    floor = {s: score(s, FLOOR[s] * 100 / members, members, sizes[s]) for s in SPLITS}
    return ForgetRecord(
        name=name,
        size=size,
        how=how,
        chooser=name.split(":")[0],
        classes=[size // 10] * 10,
        calibration_name=f"{name} calibration",
        calibration_how=f"another set, disjoint: {how}",
        retain_examples=300,
        floor=floor,
        pretrained=pretrained,
        pretrained_public={s: public(s, shift[s]) for s in SPLITS},
        floor_public=dict.fromkeys(SPLITS, 0.66),
        nothing_to_unlearn=nothing,
        checklist=[
            CheckRecord(
                name="something to unlearn",
                passed=not nothing,
                detail=f"KLoM on forget {pretrained['forget'].value:.2f}, floor {floor['forget'].value:.2f}",
            ),
            CheckRecord(
                name="retain unchanged by retraining", passed=True, detail="KLoM on retain within 0.02 of its floor"
            ),
            CheckRecord(
                name="oracles treat forget as validation",
                passed=name.startswith("random"),
                detail="mean oracle margin on forget 5.1, on validation 5.0",
            ),
        ],
        oracle_accuracy={"forget": 0.962, "retain": 1.0, "validation": 0.971},
        pretrained_accuracy={"forget": 1.0, "retain": 1.0, "validation": 0.972},
        configurations=configurations,
        selections=select(configurations, off),
        worst=[ExampleRecord(position=p, index=100 + 17 * p, label=p % 10) for p in range(6)],
        margins=f"margins/{ForgetSet.__name__.lower()}-{abs(hash_name(name))}.safetensors",
    )


def hash_name(name: str) -> int:
    """Return a small number that depends on the name alone, for file names."""
    return sum(ord(letter) * (i + 1) for i, letter in enumerate(name)) % 9973


def example_record(members: int = 100, epochs: int = 10) -> Record:
    """Return a complete record with three forget sets."""
    forget_sets = [
        forget_record(
            "random:70",
            "70 of 1,437 training examples at random (seed 0)",
            3.0,
            0.15,
            6,
            members=members,
            epochs=epochs,
        ),
        forget_record(
            "cluster:70",
            "the 70 nearest neighbours of example 12 in feature space",
            1.6,
            0.05,
            0,
            members=members,
            epochs=epochs,
        ),
        forget_record(
            f"given {HOSTILE}",
            f"indices from a file called {HOSTILE}.csv",
            0.2,
            0.3,
            3,
            members=members,
            size=12,
            epochs=epochs,
        ),
    ]
    roles = ["pretrained"] + [f"{role} without {f.name}" for f in forget_sets for role in ("oracle", "held-out oracle")]
    return Record(
        study="audit",
        status="complete",
        started="2026-03-01T09:30:00Z",
        seconds=212.4,
        command="expunge audit digits --forget random:70 --forget cluster:70 --members 100 --out runs/digits",
        request={
            "task": "digits",
            "members": members,
            "methods": ["gradient_ascent", "scrub"],
            "grid": {"relative_lr": [0.001, 2.0]},
        },
        environment={"python": "3.12.3", "torch": "2.13.0", "cores": 2, "device": "cpu", "commit": "0123abc"},
        task={
            "name": "digits",
            "train": 1437,
            "validation": 360,
            "input_shape": [64],
            "classes": 10,
            "model": "Sequential",
            "architecture": "Sequential(\n  (0): Linear(in_features=64, out_features=128)\n)",
            "parameters": 9610,
            "has_statistics": False,
            "recipe": asdict(Recipe(epochs=30, lr=0.1)),
            "fingerprint": "9f3c" * 16,
        },
        members=members,
        tolerance=TOLERANCE,
        ensembles=[
            EnsembleRecord(
                role=role,
                members=members,
                seed=i,
                seconds=4.3 if i else 0.0,
                reused=i == 0,
                chunk=50,
                network="layers",
                failed=0,
                train_accuracy=1.0,
                validation_accuracy=0.971,
            )
            for i, role in enumerate(roles)
        ],
        forget_sets=forget_sets,
        notes=["Methods saw 300 retain examples when they were scored."],
    )


def example_margins(record: Record, forget: ForgetRecord) -> dict[str, np.ndarray[Any, Any]]:
    """Return margins that agree with a record's shifts, of oracles, pretrained and chosen configurations."""
    noise = np.random.default_rng(3)
    sizes: dict[SplitName, int] = {"forget": forget.size, "retain": 30, "validation": 36}
    found: dict[str, np.ndarray[Any, Any]] = {}
    chosen = {c.id: c for s in forget.selections for c in forget.configurations if c.id == s.chosen}
    start = next(c for c in forget.configurations if c.method == "do_nothing")
    for split in SPLITS:
        centre = noise.normal(4.5, 2.0, sizes[split])
        spread = noise.uniform(0.8, 1.6, sizes[split])
        ensembles = {"oracle": 0.0, "held_out": 0.0, "pretrained": start.shifts[split]}
        ensembles |= {key: c.shifts[split] for key, c in chosen.items()}
        for who, shift in ensembles.items():
            sample = noise.standard_normal((record.members, sizes[split])) + (0.0 if math.isnan(shift) else shift)
            array = (centre + spread * sample).astype(np.float32)
            failed = chosen[who].failed if who in chosen else 0
            array[:failed] = np.where(np.arange(failed)[:, None] % 2, 1e8, np.nan)
            found[f"{who}/{split}"] = array
    return found


def write_example(folder: Path, record: Record | None = None) -> Record:
    """Write a record and its margins as an audit would, and return the record."""
    record = record or example_record()
    record.save(folder)
    for forget in record.forget_sets:
        path = folder / forget.margins
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(example_margins(record, forget), path)
    return record


if __name__ == "__main__":
    from expunge.report import draw

    target = Path(sys.argv[1])
    write_example(target)
    sys.stdout.write(f"{draw(target)}\n")
