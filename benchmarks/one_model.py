"""The verdict on one model: level and power, simulated and on digits.

    OMP_NUM_THREADS=1 python benchmarks/one_model.py       # trains 600 models once; 2 minutes of one core

Simulated models err together: skill and sharpness of a model are common to all of its examples. Level: 2,000 trials a
cell; nominal is floor(a (N + 1)) / (N + 1), and the deviation is in binomial standard errors. Digits (8 x 8 pixels,
MLP 64-128-10, 70 random rows forgotten): 400 oracles, 100 pretrained models, 100 unlearned by each method; for each of
300 trials N oracles are drawn.
"""

from __future__ import annotations

import numpy as np

import expunge as ex
from expunge.metrics.oddness import oddness
from expunge.studies.run.measure import Parts

SIZES = {"forget": 70, "retain": 200, "validation": 100}
COUNTS = (20, 50, 100)
LEVEL = 0.05


def simulated(kind, rng, count):
    """Margins of models of one world, in the units of an example's own noise."""
    common = rng.normal(0, 0.7, (count, 1)) if kind != "independent" else 0.0
    sharp = rng.normal(0, 0.1, (count, 1)) if kind != "independent" else 0.0
    out = {}
    for place, (split, size) in enumerate(SIZES.items()):
        mean = np.random.default_rng(place).normal(3, 2, size)
        noise = rng.normal(size=(count, size))
        if kind == "heavy, together":
            noise = np.exp(0.8 * noise) + 0.3 * rng.standard_t(2, (count, size))
        out[split] = mean * (1 + sharp) + common + noise
    return out


def nominal(n):
    return int(LEVEL * (n + 1) + 1e-9) / (n + 1)


def level(trials=2000):
    print("simulated: told of retrained models, % (nominal; deviation in standard errors)")
    for kind in ("independent", "together", "heavy, together"):
        cells = []
        for n in COUNTS:
            told = 0
            for trial in range(trials):
                rng = np.random.default_rng([trial, n])
                towards = {s: values[0] + 0.5 * (s == "forget") for s, values in simulated(kind, rng, 1).items()}
                told += oddness(simulated(kind, rng, n + 1), towards).p_value() <= LEVEL
            rate, aim = told / trials, nominal(n)
            error = (rate - aim) / np.sqrt(aim * (1 - aim) / trials)
            cells.append(f"N = {n}: {100 * rate:.1f} ({100 * aim:.1f}; {error:+.1f})")
        print(f"  {kind:16} {'   '.join(cells)}")


def power(trials=300):
    print("\nsimulated, together: told of models whose forget margins are shifted by d, % (without pretrained models)")
    shifts = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)
    towards = {
        s: values.mean(0) + (s == "forget") for s, values in simulated("together", np.random.default_rng(9), 50).items()
    }
    print(f"  {'d':7}" + "".join(f"{d:>14}" for d in shifts))
    for n in COUNTS:
        told = np.zeros((len(shifts), 2))
        for trial in range(trials):
            stack = simulated("together", np.random.default_rng([trial, n, 1]), n + 1)
            plain = stack["forget"][0].copy()
            for row, shift in enumerate(shifts):
                stack["forget"][0] = plain + shift
                told[row] += [oddness(stack, t).p_value() <= LEVEL for t in (towards, None)]
        print(f"  N = {n:3}" + "".join(f"{100 * a / trials:8.0f} ({100 * b / trials:3.0f})" for a, b in told))


def digits(trials=300):
    task = ex.tasks.digits()
    forget = ex.tasks.random_forget_set(task, size=70, seed=0)
    pretrained = ex.train(task, members=100, seed=0)
    parts = Parts.of(task, forget, 0)

    def measured(ensemble):
        found = parts.measure(ensemble)
        return {s: found[f"margins/{s}"].numpy().astype(float) for s in SIZES}

    oracle, before = measured(ex.train(task, without=forget, members=400, seed=1)), measured(pretrained)
    methods = {
        "gradient ascent, 3 epochs": ex.methods.GradientAscent(lr=0.02, epochs=3),
        "gradient ascent, 10 epochs": ex.methods.GradientAscent(lr=0.02, epochs=10),
        "SCRUB": ex.methods.Scrub(),
        "fine-tune on R": ex.methods.FineTune(),
        "retrain, 90 % of the epochs": ex.methods.EarlyStoppedRetrain(cost=0.9),
    }
    sides = {"retrained": oracle, "pretrained": before}
    for name, method in methods.items():
        sides[name] = measured(ex.unlearn(pretrained, task, forget, method, seed=0))
    gap = {s: before[s].mean(0) - oracle[s].mean(0) for s in SIZES}
    for share in (0.1, 0.25, 0.5):
        sides[f"retrained + {share:.0%} of the gap"] = {s: oracle[s] + share * gap[s] for s in SIZES}
    print("\ndigits: told, % (with the direction to 99 pretrained models; without)")
    print(f"  {'model':30}" + "".join(f"{f'N = {n}':>14}" for n in COUNTS))
    for name, side in sides.items():
        cells = []
        for n in COUNTS:
            told = np.zeros(2)
            for trial in range(trials):
                rng = np.random.default_rng([trial, n])
                rows, place = rng.permutation(400)[: n + 1], int(rng.integers(100))
                own = rows[0] if len(side["forget"]) == 400 else place
                stack = {s: np.concatenate([side[s][own][None], oracle[s][rows[1:]]]) for s in SIZES}
                towards = {s: np.delete(before[s], place, axis=0).mean(0) for s in SIZES}
                told += [oddness(stack, t).p_value() <= LEVEL for t in (towards, None)]
            cells.append(f"{100 * told[0] / trials:8.0f} ({100 * told[1] / trials:3.0f})")
        print(f"  {name:30}{''.join(cells)}")
    print("\ndigits: a fresh oracle, the verdict")
    for n in (12, *COUNTS):
        some = {s: oracle[s][:n] for s in SIZES}
        print(f"  {ex.metrics.one_model({s: oracle[s][200] for s in SIZES}, some, before)}")


if __name__ == "__main__":
    level()
    power()
    digits()
