"""One table of metrics, one list of properties: every metric that compares ensembles passes all of them.

`badness` puts any result on one scale on which lower is better, so that gaming is
`badness(manipulated) < badness(honest)`.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from expunge.core import InputError
from expunge.metrics import distances
from expunge.metrics.fade import fade_reading
from expunge.metrics.failures import failed_members
from expunge.metrics.joint import classifier_two_sample, mmd
from expunge.metrics.membership import population_attack
from expunge.metrics.neurips2023 import challenge_epsilons
from expunge.metrics.outputs import accuracy_gap, activation_distance_reading, zrf_reading
from expunge.metrics.privacy import Bonferroni, audit
from expunge.metrics.ulira import ulira
from metrics.gaming import MANIPULATIONS, honest, oracles


def with_unseen(margins, seed):
    """Append margins on 80 examples that nobody was trained on, N(3, 1) for every member of either side."""
    return np.concatenate([margins, np.random.default_rng([9, seed]).normal(3, 1, (len(margins), 80))], axis=1)


def attack(statistic):
    def badness(u, o):
        # What is done to a member is done to it on examples that nobody was trained on as well.
        seen = 60
        return population_attack(
            u[:, :seen], u[:, seen:], o[:, :seen], o[:, seen:], statistic=statistic, fpr=0.05
        ).distance

    return badness


def mean_shift(u, o):
    scores = np.where(failed_members(u, o), np.nan, u.mean(1))
    return audit(scores, o.mean(1), Bonferroni([2.5, 3.0, 3.5, 4.0])).epsilon


@dataclass(frozen=True)
class Row:
    badness: Any
    exact_order: bool = True
    """Whether the order of members matters not at all (or, for random halves and folds, only by chance)."""
    spread: float = 0.0
    """Badness that chance alone moves, for metrics that draw halves or folds."""
    cannot: dict[str, str] = field(default_factory=dict)
    """Manipulations that lower it although they should not, with the reason; shown in the docs."""


ROWS = {
    **{name: Row(lambda u, o, f=f: float(f(u, o).mean())) for name, f in distances.DISTANCES.items()},
    "classifier two-sample": Row(
        lambda u, o: classifier_two_sample(u, o, permutations=19).value, exact_order=False, spread=0.02
    ),
    "mmd": Row(lambda u, o: mmd(u, o, permutations=19).value),
    "u-lira": Row(lambda u, o: ulira(u, o).accuracy, exact_order=False, spread=0.01),
    "population attack, auc": Row(
        attack("auc"),
        cannot={
            "label-swapped predictions": "mirrored about 0.5, nearly as far on the over-forgotten side",
            "copies of one model": "a mean over members: copies are one draw of it",
        },
    ),
    "population attack, tpr": Row(
        attack("tpr"),
        cannot={
            "label-swapped predictions": "reads one tail only, which is empty then; the side says over-forgotten",
            "copies of one model": "a mean over members: copies are one draw of it",
        },
    ),
    "challenge epsilon": Row(lambda u, o: float(challenge_epsilons(u, o, scan="exact").mean())),
    "epsilon bound": Row(mean_shift),
}


@pytest.fixture(scope="module")
def worlds():
    return with_unseen(oracles(), 0), with_unseen(oracles(seed=5), 1), with_unseen(honest(), 2)


@pytest.fixture(scope="module")
def baseline(worlds):
    oracle, _, bad = worlds
    return {name: row.badness(bad, oracle) for name, row in ROWS.items()}


@pytest.mark.parametrize("manipulation", MANIPULATIONS)
@pytest.mark.parametrize("name", ROWS)
def test_no_manipulation_scores_better_than_the_honest_model(name, manipulation, worlds, baseline):
    row, (oracle, _, bad) = ROWS[name], worlds
    value = row.badness(MANIPULATIONS[manipulation](bad, oracle), oracle)
    assert not np.isnan(value)
    if manipulation in row.cannot:
        assert value < baseline[name], "the row says that it can be fooled here, and it is not: remove the note"
    else:
        assert value >= baseline[name] - row.spread - 1e-12


@pytest.mark.parametrize("name", ROWS)
class TestContract:
    def test_oracles_score_better_than_the_pretrained(self, name, worlds, baseline):
        oracle, held_out, _ = worlds
        assert ROWS[name].badness(held_out, oracle) < baseline[name]

    def test_the_oracles_themselves_score_best(self, name, worlds):
        oracle, held_out, _ = worlds
        assert ROWS[name].badness(oracle, oracle) <= ROWS[name].badness(held_out, oracle) + ROWS[name].spread + 1e-9

    def test_order_of_members_and_examples(self, name, worlds, baseline):
        oracle, _, bad = worlds
        row, rng = ROWS[name], np.random.default_rng(1)
        tolerance = 1e-9 if row.exact_order else 0.05
        moved = row.badness(rng.permutation(bad), rng.permutation(oracle))
        assert moved == pytest.approx(baseline[name], rel=1e-9, abs=tolerance)
        order = np.concatenate([rng.permutation(60), 60 + rng.permutation(80)])
        assert row.badness(bad[:, order], oracle[:, order]) == pytest.approx(baseline[name], rel=1e-9, abs=tolerance)

    def test_further_is_worse(self, name, worlds):
        oracle, held_out, _ = worlds
        row = ROWS[name]
        forget = np.arange(140) < 60
        values = [row.badness(held_out + d * forget, oracle) for d in (0.0, 0.5, 1.0, 2.0)]
        assert all(b >= a - row.spread for a, b in pairwise(values))
        assert values[3] > values[0]

    def test_a_broken_oracle_is_refused(self, name, worlds):
        oracle, _, bad = worlds
        broken = oracle.copy()
        broken[3, 3] = np.nan
        with pytest.raises(InputError, match="non-finite"):
            ROWS[name].badness(bad, broken)


# Metrics of outputs, on logits of three classes whose first margin is the honest one --------------------------------


def logits(margins):
    """Logits (members, examples, 3) whose margin for class 0 is the one given."""
    out = np.zeros((*margins.shape, 3))
    out[..., 0] = margins + np.log(2)
    return out


LABELS = np.zeros(140, int)
OUTPUTS = {
    "activation distance": lambda u, o: activation_distance_reading(u, o).distance,
    "fade": lambda u, o: fade_reading(u, o).distance,
    "zrf": lambda u, o: zrf_reading(u, o, np.zeros(u.shape[1:])).distance,
    "accuracy gap": lambda u, o: accuracy_gap(u, o, LABELS).distance,
}


MEAN_OVER_MEMBERS = {("activation distance", "copies of one model")}
"""A mean over members: copies are one draw of it, by chance on the better side here. The joint tests see them."""


@pytest.mark.parametrize("manipulation", MANIPULATIONS)
@pytest.mark.parametrize("name", OUTPUTS)
def test_no_manipulation_of_outputs_scores_better(name, manipulation, worlds):
    oracle, _, bad = worlds
    changed = MANIPULATIONS[manipulation](bad, oracle)
    o = logits(oracle)
    lowered = OUTPUTS[name](logits(changed), o) < OUTPUTS[name](logits(bad), o) - 1e-9
    assert lowered == ((name, manipulation) in MEAN_OVER_MEMBERS)
