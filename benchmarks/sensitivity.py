"""How each metric answers a shift, a change of spread and a contamination: value, power, what it misses.

    OMP_NUM_THREADS=1 python benchmarks/sensitivity.py [--members 100] [--runs 50] [--only fade zrf]

Gaussian margins, 70 forget examples, independent members; attacks have 80 further examples that nobody was trained on
and that nothing is done to. Metrics of outputs see logits of three classes with these margins. Every reading is turned
so that more is worse: the distance from the oracles' own value for a metric that has sides.

The excess is the average reading minus the floor, the average of fresh oracles. The power, in brackets, is the share of
runs in which the reading exceeds the 95th percentile of what fresh oracles read (three times as many runs): 5 %
is blind. The last lines translate the default tolerance of the verdict into a shift.
"""

import argparse
import time
from functools import lru_cache

import numpy as np

from expunge.metrics import DEFAULT_TOLERANCE, accuracy, klom, tug_of_war_reading
from expunge.metrics.distances import energy, gaussian_kl, jensen_shannon, kolmogorov_smirnov, wasserstein
from expunge.metrics.fade import fade_reading
from expunge.metrics.joint import classifier_two_sample, mmd
from expunge.metrics.membership import member_scores, population_attack, svc_attack
from expunge.metrics.neurips2023 import challenge_epsilons, challenge_points
from expunge.metrics.outputs import accuracy_gap, activation_distance_reading, zrf_reading
from expunge.metrics.privacy import Split, audit
from expunge.metrics.ulira import ulira

EXAMPLES, UNSEEN, CLASSES = 70, 80, 3
CHALLENGED = 10
"""Examples that the challenge's scan, tens of milliseconds each, is made on."""
LAWS = {
    "Gaussian": (lambda rng, shape: rng.normal(size=shape), 1.0),
    "log-normal": (lambda rng, shape: np.exp(rng.normal(size=shape)), np.sqrt((np.e - 1) * np.e)),
    "exponential": (lambda rng, shape: rng.exponential(size=shape), 1.0),
}
"""Margins, and their standard deviation."""
BLIND = 0.2
"""Power below which a change is called missed."""


def p95(values):
    return np.percentile(values, 95)


def logits(margins):
    """Logits (members, examples, 3) with these margins for class 0, and unequal ones for the other two."""
    out = np.zeros((*margins.shape, CLASSES))
    out[..., 1] = 0.5
    out[..., 0] = margins + np.log1p(np.exp(0.5))
    return out


def labels(margins):
    return np.zeros(margins.shape[1], int)


def forget(read):
    """A metric of margins on the forget examples."""
    return lambda u, o: read(u[:, :EXAMPLES], o[:, :EXAMPLES])


def outputs(read):
    """A metric of logits on the forget examples, as a distance from the oracles."""
    return forget(lambda u, o: read(logits(u), logits(o), labels(u)).distance)


def attack(statistic, feature=None):
    """A population attack, as a distance from the oracles."""

    def read(u, o):
        parts = [u[:, :EXAMPLES], u[:, EXAMPLES:], o[:, :EXAMPLES], o[:, EXAMPLES:]]
        if feature:
            parts = [member_scores(logits(part), labels(part), feature) for part in parts]
        return population_attack(*parts, statistic=statistic, fpr=0.05).distance

    return read


def svc(u, o):
    # Retain examples, on which nothing changes either: two standard deviations above unseen ones.
    sides = [(logits(m[:, EXAMPLES:110] + 2), logits(m[:, 110:]), logits(m[:, :EXAMPLES])) for m in (u, o)]
    return svc_attack(*sides, tuple(np.zeros(part.shape[1], int) for part in sides[0])).distance


def tug_of_war(u, o):
    accuracies = []
    for margins in (u, o):
        parts = {"forget": margins[:, :EXAMPLES], "validation": margins[:, EXAMPLES:]}
        accuracies.append({split: accuracy(logits(part), labels(part)) for split, part in parts.items()})
    return tug_of_war_reading(*accuracies).distance


def bound(route):
    return forget(lambda u, o: float(audit(u.mean(1), o.mean(1), Split(), delta=1e-5, route=route)))


@lru_cache(1)
def scan(*sides):
    return challenge_epsilons(*(np.frombuffer(side).reshape(-1, CHALLENGED) for side in sides))


def challenge(u, o):
    # Two rows of the table share one scan.
    return scan(*(side[:, :CHALLENGED].tobytes() for side in (u, o)))


METRICS = {
    "KLoM, P95": forget(lambda u, o: p95(klom(u, o))),
    "KLoM, mean": forget(lambda u, o: klom(u, o).mean()),
    "easydub, P95": forget(lambda u, o: p95(klom(u, o, "easydub"))),
    "own-ranges, P95": forget(lambda u, o: p95(klom(u, o, "own-ranges"))),
    "trail, mean": forget(lambda u, o: klom(u, o, "trail").mean()),
    "Wasserstein-1": forget(lambda u, o: wasserstein(u, o).mean()),
    "energy": forget(lambda u, o: energy(u, o).mean()),
    "Kolmogorov–Smirnov": forget(lambda u, o: kolmogorov_smirnov(u, o).mean()),
    "Jensen–Shannon": forget(lambda u, o: jensen_shannon(u, o).mean()),
    "Gaussian KL": forget(lambda u, o: gaussian_kl(u, o).mean()),
    "classifier two-sample": forget(lambda u, o: classifier_two_sample(u, o, permutations=19).value),
    "MMD²": forget(lambda u, o: mmd(u, o, permutations=19).value),
    "U-LiRA": forget(lambda u, o: ulira(u, o).accuracy),
    "attack (loss), AUC": attack("auc"),
    "attack (loss), accuracy": attack("balanced_accuracy"),
    "attack (loss), TPR at 5 %": attack("tpr"),
    "attack (entropy), AUC": attack("auc", "entropy"),
    "attack (confidence), AUC": attack("auc", "confidence"),
    "attack (SVC), efficacy": svc,
    "epsilon, Clopper–Pearson": bound("clopper-pearson"),
    "epsilon, Gaussian": bound("gaussian-dp"),
    "challenge, epsilon": lambda u, o: challenge(u, o).mean(),
    "challenge, points lost": lambda u, o: 1 - challenge_points(challenge(u, o), len(u)).mean(),
    "accuracy": outputs(accuracy_gap),
    "activation distance": outputs(lambda u, o, y: activation_distance_reading(u, o)),
    "FADE": outputs(lambda u, o, y: fade_reading(u, o)),
    "ZRF": outputs(lambda u, o, y: zrf_reading(u, o, np.zeros(u.shape[1:]))),
    "tug-of-war": tug_of_war,
}


def contaminate(z, rng):
    """5 % of the members are still the pretrained ones, 3 standard deviations up."""
    return np.where(rng.random((len(z), 1)) < 0.05, z + 3, z)


CHANGES = {
    "none": lambda z, rng: z,
    "shift 0.25": lambda z, rng: z + 0.25,
    "shift 0.5": lambda z, rng: z + 0.5,
    "shift 1": lambda z, rng: z + 1,
    "shift 2": lambda z, rng: z + 2,
    "shift 8": lambda z, rng: z + 8,
    "shift -1": lambda z, rng: z - 1,
    "spread x0.7": lambda z, rng: z * 0.7,
    "spread x1.5": lambda z, rng: z * 1.5,
    "5 % of members by 3": contaminate,
    "4 of 70 examples by 3": lambda z, rng: z + 3 * (np.arange(z.shape[1]) % 20 == 0),
}


def readings(change, members, runs, names):
    """Return every metric in every run, each (runs,)."""
    out = {name: np.empty(runs) for name in names}
    for run in range(runs):
        rng = np.random.default_rng([run, members, list(CHANGES).index(change)])
        oracle, unlearned = rng.normal(size=(2, members, EXAMPLES + UNSEEN))
        unlearned[:, :EXAMPLES] = CHANGES[change](unlearned[:, :EXAMPLES], rng)
        for name in names:
            out[name][run] = METRICS[name](unlearned, oracle)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--reach", action="store_true", help="only the shifts that the tolerance stands for")
    parser.add_argument("--only", nargs="+", choices=METRICS, default=list(METRICS))
    options = parser.parse_args()
    if options.reach:
        return reach(options.members)
    n, start = options.members, time.process_time()
    floor = readings("none", n, 3 * options.runs, options.only)
    changes = list(CHANGES)[1:]
    seen = {change: readings(change, n, options.runs, options.only) for change in changes}
    print(f"{n} + {n} members, {EXAMPLES} examples, {options.runs} runs: excess over the floor (power)\n")
    print("| metric | floor | " + " | ".join(changes) + " | misses |")
    print("|---" * (len(changes) + 3) + "|")
    for name in options.only:
        limit, zero = np.percentile(floor[name], 95), floor[name].mean()
        power = {change: (seen[change][name] > limit + 1e-12).mean() for change in changes}
        cells = [f"{seen[change][name].mean() - zero:.3f} ({power[change]:.0%})" for change in changes]
        missed = ", ".join(change for change in changes if power[change] < BLIND) or "–"
        print(f"| {name} | {zero:.3f} | " + " | ".join(cells) + f" | {missed} |", flush=True)
    print(f"\n{time.process_time() - start:.0f} s of one core")
    reach(n)


def reach(members, examples=2000):
    """Print the shift at which the P95 excess reaches the default tolerance, for margins of several laws."""
    for law, (draw, spread) in LAWS.items():
        for direction in (1, -1) if law != "Gaussian" else (1,):
            found = []
            for share in (1.0, 0.1):
                moved = direction * spread * (np.arange(examples) < share * examples)
                rng = np.random.default_rng(members)
                oracle, unlearned, other = draw(rng, (3, members, examples))
                zero = p95(klom(other, oracle))
                shifts = np.arange(0.05, 2, 0.01)
                over = (d for d in shifts if p95(klom(unlearned + d * moved, oracle)) - zero > DEFAULT_TOLERANCE)
                found.append(f"{next(over, np.nan):.2f}")
            where = "" if law == "Gaussian" else f" {'towards' if direction > 0 else 'away from'} the long tail"
            print(
                f"{law} margins: P95 excess reaches {DEFAULT_TOLERANCE} nats when all examples shift by {found[0]} "
                f"standard deviations{where}, or a tenth of them by {found[1]}"
            )


if __name__ == "__main__":
    main()
