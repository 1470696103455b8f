"""One table of metrics; every row passes the same properties. A new metric is a new row.

A row puts a metric on one scale: from an unlearned ensemble and oracles, both (members, examples) of margins, to one
number of which lower is better. The first 60 examples are forget examples; the other 80 are examples that nobody was
trained on, for the attacks that need some. Metrics of outputs see logits of three classes with these margins.

Not in the table, because they do not compare an ensemble with oracles on the same examples: relearning time (curves of
an attack), GUS (gradients) and FADE from samples (test_fade_relearning_gus.py), one-run bounds (test_privacy.py). Nor
is the SVC attack (test_membership.py): it trains a classifier a model, and on these ensembles what it reads for the
honest one lies within the noise of the oracles'.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from expunge import metrics
from expunge.core import InputError
from expunge.metrics import Ruler, accuracy, distances, klom
from expunge.metrics.fade import fade_reading
from expunge.metrics.failures import failed_members
from expunge.metrics.joint import classifier_two_sample, mmd
from expunge.metrics.lira import lira, lira_roc
from expunge.metrics.membership import population_attack
from expunge.metrics.neurips2023 import challenge_epsilons
from expunge.metrics.outputs import accuracy_gap, activation_distance_reading, tug_of_war_reading, zrf_reading
from expunge.metrics.privacy import Bonferroni, audit
from expunge.metrics.ulira import ulira
from metrics.gaming import EXAMPLES, MANIPULATIONS, honest, oracles

UNSEEN = 80
FORGET = np.arange(EXAMPLES + UNSEEN) < EXAMPLES
LABELS = np.zeros(EXAMPLES + UNSEEN, int)

MEAN = "a mean over members: copies are one draw of it"
GRID = np.linspace(0.5, 99.5, 100) / 100
"""Levels of the deterministic sample that golden values are for: oracles at Gaussian quantiles, unlearned one up."""


@dataclass(frozen=True)
class Row:
    """A metric on the common scale, and what it cannot do by its nature."""

    badness: Callable[[np.ndarray, np.ndarray], float]
    golden: float
    """Badness of Gaussian quantiles moved up by one against the same quantiles, on every forget example."""
    spread: float = 0.0
    """Badness that chance alone moves, for metrics that draw halves or folds."""
    cannot: dict[str, str] = field(default_factory=dict)
    """Manipulations that lower it although they should not, with the reason; the docs say so."""


def forget(read):
    """A metric of margins on the forget examples."""
    return lambda u, o: float(read(u[:, :EXAMPLES], o[:, :EXAMPLES]))


def p95(values):
    return np.percentile(values, 95)


def attack(statistic):
    # What is done to a member is done to it on examples that nobody was trained on as well.
    return lambda u, o: (
        population_attack(
            u[:, :EXAMPLES], u[:, EXAMPLES:], o[:, :EXAMPLES], o[:, EXAMPLES:], statistic=statistic, fpr=0.05
        ).distance
    )


def shadow_attack(u, o):
    """LiRA with shadows from every other oracle, as they are and 1.5 up for who was trained; the others are oracles."""
    shadow = np.concatenate([o[::2], o[::2] + 1.5])
    inside = np.repeat([False, True], len(o[::2]))[:, None] & np.ones(len(FORGET), bool)
    scores = [lira(side, shadow, inside, variance="fixed") for side in (u, o[1::2])]
    claimed = [np.broadcast_to(FORGET, side.shape) for side in scores]
    return lira_roc(scores[0], claimed[0], oracle=(scores[1], claimed[1]), fpr=0.05, replicates=100).distance


def mean_shift(u, o):
    scores = np.where(failed_members(u, o), np.nan, u.mean(1))
    return audit(scores, o.mean(1), Bonferroni([-0.5, 0.0, 0.5, 1.0, 2.5, 3.0, 3.5, 4.0])).epsilon


def logits(margins):
    """Logits (members, examples, 3) whose margin for class 0 is the one given less 3, where accuracy is in doubt."""
    out = np.zeros((*np.shape(margins), 3))
    out[..., 0] = np.asarray(margins) - 3 + np.log(2)
    return out


def outputs(read):
    """A metric of outputs on the forget examples."""
    return lambda u, o: read(logits(u[:, :EXAMPLES]), logits(o[:, :EXAMPLES]), LABELS[:EXAMPLES]).distance


def tug_of_war(u, o):
    sides = []
    for margins in (u, o):
        found = {s: accuracy(logits(margins[:, part]), LABELS[part]) for s, part in (("f", FORGET), ("v", ~FORGET))}
        sides.append({s: np.where(np.isfinite(margins).all(1), values, np.nan) for s, values in found.items()})
    sides[0] = {s: np.where(failed_members(u, o), np.nan, values) for s, values in sides[0].items()}
    return tug_of_war_reading(*sides, examples=len(FORGET)).distance


SWAPPED = "label-swapped predictions"
COPIES = "copies of one model"
UNSURE = "logits divided by 30"
NEARER = "outputs become unsure, which is nearer to the oracles' than the honest ones are; the side says over-forgotten"

ROWS = {
    "klom p95": Row(forget(lambda u, o: p95(klom(u, o))), 0.427142),
    "klom mean": Row(forget(lambda u, o: klom(u, o).mean()), 0.427142),
    "klom, unlearned to oracle": Row(forget(lambda u, o: klom(u, o, direction="unlearned_oracle").mean()), 0.421243),
    "klom, oracle to unlearned": Row(forget(lambda u, o: klom(u, o, direction="oracle_unlearned").mean()), 0.433041),
    "klom p95, 20 cells": Row(forget(lambda u, o: p95(klom(u, o, bins=20))), 0.407729),
    "ruler p95": Row(forget(lambda u, o: Ruler(o, replicates=2).score(u, intervals=False).value), 0.427142),
    # One oracle standard deviation, d^2 / 2 nats, 2 Phi(d / 2) - 1, up to what 100 quantiles can resolve.
    "wasserstein": Row(forget(lambda u, o: distances.wasserstein(u, o).mean()), 1.001362),
    "gaussian kl": Row(forget(lambda u, o: distances.gaussian_kl(u, o).mean()), 0.501362),
    "kolmogorov-smirnov": Row(forget(lambda u, o: distances.kolmogorov_smirnov(u, o).mean()), 0.39),
    "energy": Row(forget(lambda u, o: distances.energy(u, o).mean()), 0.542913),
    "jensen-shannon": Row(forget(lambda u, o: distances.jensen_shannon(u, o).mean()), 0.110922),
    "classifier two-sample": Row(
        forget(lambda u, o: classifier_two_sample(u, o, permutations=19).value), 0.655, spread=0.05
    ),
    "mmd": Row(forget(lambda u, o: mmd(u, o, permutations=19).value), 0.169178),
    # Phi(d / 2)
    "u-lira": Row(forget(lambda u, o: ulira(u, o).accuracy), float(stats.norm.cdf(0.5)), spread=0.01),
    "population attack, auc": Row(
        attack("auc"),
        0.5,
        cannot={SWAPPED: "mirrored about 0.5, nearly as far on the over-forgotten side", COPIES: MEAN},
    ),
    "population attack, tpr": Row(
        attack("tpr"),
        1.0,
        cannot={SWAPPED: "reads one tail only, which is empty then; the side says over-forgotten", COPIES: MEAN},
    ),
    "lira": Row(
        shadow_attack,
        float(stats.norm.cdf(np.sqrt(0.5)) - 0.5),
        spread=0.01,
        cannot={
            SWAPPED: "mirrored about 0.5, not as far; the side says over-forgotten",
            COPIES: MEAN,
            UNSURE: "margins below both laws, where the noise of the shadows' fits decides and not who was trained",
        },
    ),
    "challenge epsilon": Row(forget(lambda u, o: challenge_epsilons(u, o, scan="exact").mean()), 2.484823),
    "epsilon bound": Row(forget(mean_shift), 0.180639),
    "accuracy gap": Row(outputs(accuracy_gap), 0.09, cannot={COPIES: MEAN}),
    "activation distance": Row(outputs(lambda u, o, y: activation_distance_reading(u, o)), 0.065169),
    "fade": Row(outputs(lambda u, o, y: fade_reading(u, o)), 0.140882),
    "zrf": Row(outputs(lambda u, o, y: zrf_reading(u, o, np.zeros(u.shape[1:]))), 0.030119, cannot={UNSURE: NEARER}),
    "tug-of-war": Row(tug_of_war, 0.087119, cannot={COPIES: MEAN}),
}
ids = pytest.mark.parametrize("name", ROWS)


def with_unseen(margins, seed):
    """Append margins on examples that nobody was trained on, N(3, 1) for every member of either side."""
    unseen = np.random.default_rng([9, seed]).normal(3, 1, (len(margins), UNSEEN))
    return np.concatenate([margins, unseen], axis=1)


@pytest.fixture(scope="module")
def worlds():
    """Oracles, other oracles, and the honest ensemble."""
    return with_unseen(oracles(), 0), with_unseen(oracles(seed=5), 1), with_unseen(honest(), 2)


@pytest.fixture(scope="module")
def baseline(worlds):
    oracle, _, bad = worlds
    return {name: row.badness(bad, oracle) for name, row in ROWS.items()}


@ids
@pytest.mark.parametrize("manipulation", MANIPULATIONS)
def test_no_manipulation_scores_better_than_the_honest_model(name, manipulation, worlds, baseline):
    row, (oracle, _, bad) = ROWS[name], worlds
    value = row.badness(MANIPULATIONS[manipulation](bad, oracle), oracle)
    assert not np.isnan(value)
    if manipulation in row.cannot:
        assert value < baseline[name], "the row says that it can be fooled here, and it is not: remove the note"
    else:
        assert value >= baseline[name] - row.spread - 1e-12


@ids
def test_golden_value(name):
    quantiles = np.repeat(stats.norm.ppf(GRID)[:, None], EXAMPLES + UNSEEN, axis=1)
    row = ROWS[name]
    assert row.badness(quantiles + FORGET, quantiles) == pytest.approx(row.golden, rel=1e-5, abs=row.spread or 1e-6)


@ids
def test_oracles_against_oracles_read_the_floor_and_the_pretrained_read_more(name, worlds, baseline):
    """Whichever oracles are taken: the floor is a property of their number, not of the sample."""
    row = ROWS[name]
    draws = [[with_unseen(oracles(100 * k + s), 10 * k + s) for s in range(4)] for k in (1, 2, 3, 4)]
    floors = [row.badness(u, o) for o, u in zip(draws[0], draws[1], strict=True)]
    again = [row.badness(u, o) for o, u in zip(draws[2], draws[3], strict=True)]
    spread = np.hypot(np.std(floors, ddof=1), np.std(again, ddof=1)) / 2
    assert abs(np.mean(floors) - np.mean(again)) <= 5 * spread + 1e-9
    assert baseline[name] > max(floors + again)


@ids
def test_the_oracles_themselves_score_best(name, worlds):
    row, (oracle, held_out, _) = ROWS[name], worlds
    assert row.badness(oracle, oracle) <= row.badness(held_out, oracle) + row.spread + 5e-3


@ids
def test_order_of_members_and_examples_does_not_matter(name, worlds, baseline):
    row, (oracle, _, bad), rng = ROWS[name], worlds, np.random.default_rng(1)
    tolerance = 2 * row.spread + 1e-9
    moved = row.badness(rng.permutation(bad), rng.permutation(oracle))
    assert moved == pytest.approx(baseline[name], rel=1e-9, abs=tolerance)
    order = np.concatenate([rng.permutation(EXAMPLES), EXAMPLES + rng.permutation(UNSEEN)])
    assert row.badness(bad[:, order], oracle[:, order]) == pytest.approx(baseline[name], rel=1e-9, abs=tolerance)


@ids
def test_further_is_worse(name, worlds):
    oracle, held_out, _ = worlds
    row = ROWS[name]
    values = [row.badness(held_out + d * FORGET, oracle) for d in (0.0, 0.5, 1.0, 2.0)]
    assert all(b >= a - row.spread for a, b in pairwise(values))
    assert values[3] > values[0]


@ids
def test_members_may_differ_in_number(name, worlds):
    oracle, _, bad = worlds
    assert np.isfinite(ROWS[name].badness(bad[:30], oracle[:50]))


@ids
def test_a_broken_oracle_is_refused(name, worlds):
    oracle, _, bad = worlds
    broken = oracle.copy()
    broken[3, 3] = np.nan
    with pytest.raises(InputError, match=r"non-finite|no finite value"):
        ROWS[name].badness(bad, broken)


@pytest.mark.parametrize("read", [klom, *distances.DISTANCES.values()])
def test_tensors_and_arrays_read_the_same(read):
    oracle, members = oracles(), honest()
    np.testing.assert_allclose(read(torch.tensor(members), torch.tensor(oracle)), read(members, oracle), rtol=1e-12)


PUBLIC_FOOLED = [
    ("easydub", "logits times 1e8"),
    ("easydub", "constant above all oracles"),
    ("easydub", "one NaN margin"),
    ("easydub", "all members NaN"),
    ("easydub", "two members at +-100"),
    ("easydub", "shift hidden by heavy tails"),
    ("dub", "two members at +-100"),
    ("a2d", "two members at +-100"),
]


@pytest.mark.parametrize(("variant", "name"), PUBLIC_FOOLED)
def test_the_suite_catches_public_codes(variant, name):
    oracle, members = oracles(), honest()
    before = klom(members, oracle, variant).mean()
    assert klom(MANIPULATIONS[name](members, oracle), oracle, variant).mean() < before


NOT_TRIED = {
    **dict.fromkeys(("DEFAULT_TOLERANCE", "DEFAULT_ROW_TOLERANCE", "SplitVerdict", "Verdict", "margins"), "no metric"),
    **dict.fromkeys(("default_bins", "failed_members", "member_scores"), "a part of metrics that are tried"),
    **dict.fromkeys(("Judge", "judge"), "made from the ruler; test_verdict.py tries to fool it"),
    **dict.fromkeys(("distance_floor", "distance_score"), "the distances that are tried, with floor and interval"),
    **dict.fromkeys(("OneModel", "one_model"), "judges one model, not an ensemble; test_one_model.py tries to fool it"),
    **dict.fromkeys(("activation_distance", "fade", "zrf"), "their readings are tried"),
    **dict.fromkeys(("audit_epsilon", "gaussian_epsilon", "one_run_epsilon"), "read counts or scores, not members"),
    "challenge_score": "points for the epsilons that are tried",
    "fade_from_samples": "reads log-probabilities; test_fade_relearning_gus.py",
    **dict.fromkeys(("METRICS", "Metric", "Sample", "Side"), "the registry; test_registry.py"),
    "gus": "reads gradients; test_fade_relearning_gus.py",
    "relearning": "reads curves; test_fade_relearning_gus.py",
    "roc": "reads scores of any origin; whoever makes them places failures",
    "svc_attack": "accuracy of the attack whose scores are tried; test_membership.py",
}


def test_every_public_metric_is_tried_or_says_why_not():
    """A new metric gets a row above, or a reason here."""
    text = Path(__file__).read_text()
    tried = text[text.index("def forget(") : text.index("NOT_TRIED = {")]
    for name in metrics.__all__:
        assert name in NOT_TRIED or re.search(rf"(?<![\w.]){name}[()]|distances\.{name}\(", tried), name
    assert set(NOT_TRIED) <= set(metrics.__all__)
