"""Forecasts as a run writes them, made by simulation, for the example record beside this file and on their own.

Run as a script it writes a folder: `python tests/report/example_forecast.py FOLDER`.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from expunge.core.forecast import (
    ForecastRecord,
    ForecastRun,
    ForecastSet,
    MeasureRecord,
    MethodForecast,
    Outlook,
    PathPoint,
)
from expunge.core.record import SPLITS, ForgetRecord, Record, SplitName, write_atomically

TOLERANCE = 0.15


def point(run: str, epoch: int, cost: float, forget: float, others: float) -> PathPoint:
    """Return a predicted point; negative `forget` is beyond the oracle."""
    excess: dict[SplitName, float] = {"forget": abs(forget), "retain": others, "validation": 0.9 * others}
    return PathPoint(
        run=run,
        epoch=epoch,
        cost=cost,
        excess=excess,
        means={split: 0.5 * value for split, value in excess.items()},
        shifts={"forget": 1.5 * forget, "retain": -others, "validation": -others},
    )


def method(name: str, label: str, outlook: Outlook, rates: tuple[float, ...], control: bool = False) -> MethodForecast:
    """Return a method whose margins fall by its rate in every epoch, and whose damage grows with them."""
    path = [
        point(f"{name}/lr={rate:g}", epoch, 0.01 * epoch, 1.5 - 6 * rate * epoch, 0.05 + 2 * rate * epoch)
        for rate in rates
        for epoch in (1, 2, 3)
    ]
    best = min(path, key=lambda p: max(p.excess.values()))
    return MethodForecast(
        method=name,
        label=label,
        control=control,
        outlook=outlook,
        best=best,
        objective=max(best.excess.values()),
        at_target=None if outlook == "cannot forget" else path[-1],
        damage=None if outlook == "cannot forget" else 0.456,
        path=path,
    )


def forecast_record(first: str, outlooks: tuple[Outlook, Outlook]) -> ForecastRecord:
    """Return the forecast of one forget set."""
    return ForecastRecord(
        members=40,
        followed=12,
        dimensions=24,
        segments=[(2, 70.0), (8, 310.0), (30, 290.0)],
        retain_in_table=1367,
        seconds=7.25,
        tolerance=TOLERANCE,
        removal={"forget": -0.81, "retain": -0.012, "validation": -0.034},
        removal_in_deviations={"forget": -2.13, "retain": -0.05, "validation": -0.07},
        nothing=point("do_nothing", 0, 0.0, 1.5, 0.05),
        methods=[
            method("gradient_ascent", "Gradient ascent", outlooks[0], (0.01, 0.1)),
            method("scrub", "SCRUB", outlooks[1], (0.02, 0.05, 0.2)),
            method("fine_tune", "Fine-tune on R", "cannot forget", (0.01,), control=True),
        ],
        measures=[MeasureRecord(name="spectral_retain", value=3.25, description="Spectral norm of R <- F, nats.")],
        advice=[first, "Retraining without it is predicted to change 0.81.", "Gradient ascent: at the best time 0.90."],
        notes=["The reduced model holds 1000 of 1367 retain examples."],
    )


def example_run(name: str = "digits", sets: int = 2) -> ForecastRun:
    """Return a complete run with forget sets that no method solves and that one solves."""
    forecasts = [
        forecast_record(
            "Retrain, or match predicted margins: the best is 0.90 nats from retraining.", ("breaks first", "partly")
        ),
        forecast_record(
            "SCRUB can work: scrub/lr=0.05, stopped after epoch 3, is predicted 0.08 nats from retraining.",
            ("cannot forget", "can work"),
        ),
    ][:sets]
    return ForecastRun(
        status="complete",
        started="2026-03-01T09:30:00Z",
        seconds=31.5,
        command="expunge forecast digits --forget random:70 --forget cluster:70",
        request={"task": name, "members": 40, "seed": 0},
        environment={"python": "3.12.3", "cores": 2},
        task={"name": name, "train": 1437, "validation": 360, "parameters": 9610, "model": "Sequential"},
        members=40,
        tolerance=TOLERANCE,
        training_seconds=2.5,
        forget_sets=[
            ForecastSet(
                name=f"set-{i}",
                size=70,
                how="70 of 1,437 training examples",
                classes=[7] * 10,
                forecast=forecast,
                margins=f"forecast/set-{i}.safetensors",
                digest="",
            )
            for i, forecast in enumerate(forecasts)
        ],
    )


def example_margins(item: ForecastSet) -> dict[str, np.ndarray]:
    """Return margins that agree with the predicted changes."""
    noise = np.random.default_rng(5)
    found = {}
    for split, size in (("forget", item.size), ("retain", 90), ("validation", 60)):
        before = noise.normal(5.0, 2.0, (item.forecast.members, size)).astype(np.float32)
        change = item.forecast.removal[split] * (1 + 0.3 * noise.standard_normal(size))
        found[f"pretrained/{split}"] = before
        found[f"predicted/{split}"] = (before + change).astype(np.float32)
    return found


def write_run(folder: Path, run: ForecastRun | None = None) -> ForecastRun:
    """Write a run and its margins as `expunge forecast` would, and return it."""
    run = run or example_run()
    for item in run.forget_sets:
        content = save(example_margins(item))
        item.digest = hashlib.sha256(content).hexdigest()
        write_atomically(folder / item.margins, content)
    run.save(folder)
    return run


def add_forecasts(record: Record, seed: int = 1) -> None:
    """Give every forget set of an audit's record a forecast that is right but for noise."""
    for forget in record.forget_sets:
        forget.forecast = forecast_of(forget, np.random.default_rng(seed))


def forecast_of(forget: ForgetRecord, noise: np.random.Generator) -> ForecastRecord:
    """Return a forecast with a point for every configuration that starts from the pretrained models."""
    base = forecast_record("Retrain: no method is predicted to get there.", ("breaks first", "partly"))
    groups: dict[tuple[str, bool], list[PathPoint]] = {}
    labels = {}
    for c in forget.configurations:
        if c.method in ("do_nothing", "retrain_early") or c.options.get("lr") == 0.0:
            continue
        excess = {
            split: abs(score.excess) * math.exp(0.1 * noise.standard_normal()) for split, score in c.scores.items()
        }
        shifts = {split: 0.0 if math.isnan(shift) else shift for split, shift in c.shifts.items()}
        made = PathPoint(run=c.run, epoch=c.epoch, cost=c.cost, excess=excess, means=dict(excess), shifts=shifts)
        groups.setdefault((c.method, c.control), []).append(made)
        labels[c.method] = c.label
    methods = []
    for (name, control), path in groups.items():
        best = min(path, key=lambda p: max(p.excess.values()))
        methods.append(
            MethodForecast(
                method=name,
                label=labels[name],
                control=control,
                outlook="breaks first",
                best=best,
                objective=max(best.excess[split] for split in SPLITS),
                at_target=path[-1],
                damage=0.3,
                path=path,
            )
        )
    return base.model_copy(update={"methods": methods})


if __name__ == "__main__":
    import sys

    from expunge.report import draw_forecast

    write_run(Path(sys.argv[1]))
    sys.stdout.write(f"{draw_forecast(Path(sys.argv[1]))}\n")
