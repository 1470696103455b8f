"""The verdict: each name where it belongs, error rates, the two one-sided tests, what it says when undecided."""

import numpy as np
import pytest

from expunge.core import InputError
from expunge.metrics import DEFAULT_TOLERANCE, Judge, Ruler, judge

SIZES = {"forget": 70, "retain": 200, "validation": 150}


def ensemble(seed, members=100, forget=0.0, others=0.0, spread=1.0):
    rng = np.random.default_rng(seed)
    centre = {"forget": forget, "retain": others, "validation": others}
    scale = {"forget": spread, "retain": 1.0, "validation": 1.0}
    return {s: centre[s] + scale[s] * rng.normal(size=(members, n)) for s, n in SIZES.items()}


@pytest.fixture(scope="module")
def decide():
    return Judge(ensemble(0), ensemble(1), ensemble(2, forget=2.0), replicates=100)


CASES = {
    "another set of oracles": (ensemble(10), "indistinguishable"),
    "pretrained": (ensemble(2, forget=2.0), "under-forgotten"),
    "half way": (ensemble(11, forget=1.0), "under-forgotten"),
    "beyond": (ensemble(12, forget=-1.5), "over-forgotten"),
    "good on F, harm elsewhere": (ensemble(13, others=-1.0), "damaged"),
    "bad on F, harm elsewhere": (ensemble(14, forget=2.0, others=-1.0), "damaged"),
}


@pytest.mark.parametrize("case", CASES)
def test_names(decide, case):
    margins, name = CASES[case]
    verdict = decide(margins)
    assert verdict.name == name
    assert verdict.tolerance == DEFAULT_TOLERANCE
    assert verdict.members_needed is None
    assert verdict.sentence.lower().startswith(name.split()[0])


def test_too_many_failed_members_have_diverged(decide):
    for number, name in ((0, "indistinguishable"), (5, "indistinguishable"), (6, "diverged"), (100, "diverged")):
        margins = ensemble(10)
        # On different splits: a member that fails anywhere has failed.
        margins["retain"][: number // 2, 0] = np.nan
        margins["forget"][number // 2 : number] = np.inf
        verdict = decide(margins)
        assert verdict.failed == number
        if number != 5:
            assert verdict.name == name
        if number >= 6:
            assert f"{number} of 100 members" in verdict.sentence


def test_a_difference_of_spread_is_called_one(decide):
    verdict = decide(ensemble(15, spread=2.5))
    assert verdict.name in ("under-forgotten", "over-forgotten")
    assert "spread" in verdict.sentence


def test_the_side_is_that_of_the_pretrained_members():
    low = Judge(ensemble(0), ensemble(1), ensemble(2, forget=-2.0), replicates=50)
    assert low(ensemble(3, forget=-1.5)).name == "under-forgotten"
    assert low(ensemble(3, forget=1.5)).name == "over-forgotten"
    unknown = Judge(ensemble(0), ensemble(1), replicates=50)
    assert unknown(ensemble(3, forget=1.5)).name == "under-forgotten"
    assert unknown(ensemble(3, forget=-1.5)).name == "over-forgotten"


def test_what_was_there_before_is_not_damage():
    before = ensemble(2, forget=2.0, others=1.0)
    decide = Judge(ensemble(0), ensemble(1), before, replicates=50)
    assert decide(before).name == "under-forgotten"
    halfway = ensemble(4, forget=0.0, others=1.0)
    verdict = decide(halfway)
    assert verdict.name == "under-forgotten"
    assert "forget examples pass" in verdict.sentence
    assert decide(ensemble(5, forget=0.0, others=2.5)).name == "damaged"


@pytest.mark.parametrize("split", ["forget", "retain"])
def test_failed_pretrained_members_do_not_excuse_damage(split):
    before = ensemble(2, forget=2.0)
    before[split][:50, 0] = np.nan
    decide = Judge(ensemble(0), ensemble(1), before, replicates=50)
    assert decide(ensemble(13, others=-1.0)).name == "damaged"
    assert decide(ensemble(14, forget=1.5)).name == "under-forgotten"
    for s in SIZES:
        assert len(decide.pretrained[s].margins) == 50
    before[split][:51, 0] = np.nan
    with pytest.raises(InputError, match="pretrained has 51 of 100 members that are non-finite, collapsed or exploded"):
        Judge(ensemble(0), ensemble(1), before, replicates=50)


def test_copies_are_not_evidence(decide):
    oracle = ensemble(0)
    verdict = decide(oracle)
    assert verdict.name == "undecided"
    assert "100 of 100 members are copies of oracles" in verdict.sentence
    twice = {s: np.concatenate([m[:50], m[:50]]) for s, m in ensemble(10).items()}
    assert decide(twice).name != "indistinguishable"


def test_few_members_are_undecided_and_enough_members_decide():
    names = {}
    for members in (20, 200):
        verdict = judge(ensemble(20, members), ensemble(21, members), ensemble(22, members), replicates=100)
        names[members] = verdict
    assert names[20].name == "undecided"
    assert 20 < names[20].members_needed <= 200
    assert f"About {names[20].members_needed} members" in names[20].sentence
    assert names[200].name == "indistinguishable"


def test_the_verdict_is_the_two_one_sided_tests(decide):
    for seed in range(30, 36):
        verdict = decide(ensemble(seed, forget=0.02))
        inside = all(s.low90 > -0.125 and s.high90 < 0.125 for s in verdict.splits.values())
        told = verdict.rows["forget"].counted or verdict.joint.counts
        assert (verdict.name == "indistinguishable") == (inside and not told)
        for split, seen in verdict.splits.items():
            assert seen.low95 < seen.low90 < seen.excess < seen.high90 < seen.high95
            assert seen.excess == pytest.approx(seen.score.value - seen.score.floor)
            assert verdict.scores[split] is seen.score
            assert verdict.means[split] == seen.mean
            assert verdict.shifts[split] == seen.shift


def test_a_wider_tolerance_accepts_more():
    arrays = ensemble(0), ensemble(1), ensemble(2, forget=2.0)
    margins = ensemble(3, forget=0.1)
    assert judge(margins, *arrays, tolerance=0.01, replicates=50).name == "under-forgotten"
    assert judge(margins, *arrays, tolerance=1.0, replicates=50).name == "indistinguishable"


def test_one_remembered_row_is_told_and_named(decide):
    margins = ensemble(10)
    margins["forget"][:, 17] += 3
    verdict = decide(margins)
    assert verdict.name == "under-forgotten"
    assert verdict.splits["forget"].high90 < DEFAULT_TOLERANCE, "the percentile alone passes it"
    rows = verdict.rows["forget"]
    assert (rows.examples, rows.told, rows.counted, rows.remembered, rows.beyond) == (70, 1, 1, 1, 0)
    (row,) = rows.rows
    assert (row.position, row.side, row.counts) == (17, "remembered", True)
    assert row.shift == pytest.approx(3, abs=0.6)
    assert row.p_value == 0.001
    assert verdict.sentence.startswith("Under-forgotten (1 of 70 rows): row 17 of the forget set")
    margins["forget"][:, [17, 40, 41]] -= [6, 3, 3]
    verdict = decide(margins)
    assert verdict.name == "over-forgotten"
    assert "(3 of 70 rows): rows 17, 40, 41" in verdict.sentence
    assert verdict.rows["forget"].beyond == 3


def test_the_side_of_a_row_is_that_of_its_own_pretrained_members():
    before = ensemble(2, forget=2.0)
    before["forget"][:, 3] -= 5
    decide, margins = Judge(ensemble(0), ensemble(1), before, replicates=50), ensemble(10)
    margins["forget"][:, 3] -= 3
    verdict = decide(margins)
    assert verdict.name == "under-forgotten"
    assert verdict.rows["forget"].rows[0].side == "remembered"


def test_a_row_of_another_spread_is_told(decide):
    margins = ensemble(10)
    margins["forget"][:, 5] = 3 * (margins["forget"][:, 5] - margins["forget"][:, 5].mean())
    (row,) = decide(margins).rows["forget"].rows
    assert (row.position, row.side) == (5, "spread")


def test_traces_too_small_for_any_row_are_told_together(decide):
    verdict = decide(ensemble(10, forget=0.12))
    assert verdict.name == "under-forgotten"
    assert verdict.rows["forget"].counted == 0
    assert verdict.splits["forget"].high90 < DEFAULT_TOLERANCE
    assert verdict.joint.counts
    assert verdict.joint.side == "remembered"
    assert "traces over all 70 rows" in verdict.sentence
    assert decide(ensemble(11, forget=-0.12)).name == "over-forgotten"


def test_what_is_told_within_the_tolerance_is_listed_and_does_not_count():
    margins = ensemble(10)
    margins["forget"][:, 8] += 0.6
    verdict = judge(margins, ensemble(0), ensemble(1), tolerance=0.3, replicates=50)
    rows = verdict.rows["forget"]
    assert (rows.told, rows.counted, rows.rows[0].position) == (1, 0, 8)
    assert verdict.name == "indistinguishable"
    assert "what tells 1 row alone from retraining is within it" in verdict.sentence


def test_retain_rows_beyond_the_percentile_are_shown_and_do_not_decide(decide):
    margins = ensemble(10)
    margins["retain"][:, [4, 9]] -= 4
    verdict = decide(margins)
    assert verdict.name == "indistinguishable"
    assert {row.position for row in verdict.rows["retain"].rows} == {4, 9}
    assert verdict.sentence.endswith(
        "One by one, 2 of 200 retain rows are told from retraining; the percentile is the rule there."
    )


def test_what_could_have_been_missed_decides(decide):
    verdict = decide(ensemble(10))
    assert verdict.missed.asked == 1
    assert 0.5 < verdict.missed.row < 0.8
    assert 0 < verdict.missed.share < 0.15
    assert f"A single row shifted by {verdict.missed.row:.2f} oracle standard deviations" in verdict.sentence
    strict = judge(ensemble(10), ensemble(0), ensemble(1), row_tolerance=0.5, replicates=50)
    assert strict.name == "undecided"
    assert "a single forget row shifted by 0.5 oracle standard deviations would be missed too often" in strict.sentence
    assert strict.members_needed == pytest.approx(100 * (verdict.missed.row / 0.5) ** 2, rel=0.2)


def test_members_that_failed_are_left_out_of_the_rows(decide):
    margins = ensemble(10)
    for split in margins:
        margins[split][[3, 50]] = np.nan
    verdict = decide(margins)
    assert verdict.failed == 2
    assert verdict.rows["forget"].counted == 0
    assert verdict.joint.p_value > 0.01


def draw(rng, members, shared=0.0, forget=0.0, sizes=(30, 20, 20)):
    """Margins whose members share a part of their variance over all examples; forget examples are moved."""
    seed, out = rng.normal(size=(members, 1)), {}
    for split, size in zip(SIZES, sizes, strict=True):
        own = rng.normal(size=(members, size))
        out[split] = np.sqrt(1 - shared) * own + np.sqrt(shared) * seed + forget * (split == "forget")
    return out


@pytest.fixture
def no_share(monkeypatch):
    """Leaves out the share of rows that could have been missed: half of the time, and said only; it decides nothing."""
    monkeypatch.setattr("expunge.metrics.row_judge.smallest_share", lambda *sides, **options: None)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [0.0, 0.4])
@pytest.mark.parametrize("members", [20, 100])
def test_error_rates(members, shared, no_share):
    """Oracles accused of anything, and pretrained called indistinguishable: 5 % at most."""
    accused = missed = 0
    runs = 60
    for run in range(runs):
        rng = np.random.default_rng([run, members])
        pretrained = draw(rng, members, shared, 1.0)
        decide = Judge(draw(rng, members, shared), draw(rng, members, shared), pretrained, replicates=30, seed=run)
        accused += decide(draw(rng, members, shared)).name in (
            "under-forgotten",
            "over-forgotten",
            "damaged",
            "diverged",
        )
        missed += decide(draw(rng, members, shared, 1.0)).name == "indistinguishable"
    # 7 of 60 or more would have probability 4 % at a true rate of 5 %.
    assert accused < 7
    assert missed == 0


@pytest.mark.slow
def test_just_beyond_the_tolerance_is_seldom_called_indistinguishable():
    """The hardest case: forget examples moved by .40, an excess at the tolerance, where the test grants 5 %.

    Its test on the forget examples alone, without which no verdict is `indistinguishable`.
    """
    runs, members, found = 100, 100, []
    for run in range(runs):
        rng = np.random.default_rng([run, 40])
        oracle, held_out = (draw(rng, members, sizes=(70, 10, 10)) for _ in range(2))
        margins = draw(rng, members, forget=0.40, sizes=(70, 10, 10))
        ruler = Ruler(oracle["forget"], held_out["forget"], replicates=40, seed=run, resample_examples=False)
        ready = ruler.prepare(margins["forget"])
        found.append((ruler.score(ready, "p95", intervals=False).excess, ruler.excess_interval(ready, "p95", 0.90)[1]))
        if run < 3:
            judged = Judge(oracle, held_out, replicates=40, seed=run)(margins).splits["forget"]
            assert found[-1] == (judged.excess, judged.high90)
    excess = np.array([each for each, _ in found])
    assert excess.mean() == pytest.approx(0.13, abs=0.01)
    assert excess.mean() > DEFAULT_TOLERANCE - 2 * excess.std() / np.sqrt(runs)
    # 10 of 100 or more have 3 % at a rate of 5 %.
    assert sum(high < DEFAULT_TOLERANCE for _, high in found) <= 9
    # A bound that nothing ever passes would be empty: without the shift most pass.
    rng = np.random.default_rng(41)
    parts = [draw(rng, members, sizes=(70, 10, 10)) for _ in range(3)]
    assert Judge(*parts[:2], replicates=60)(parts[2]).splits["forget"].high90 < DEFAULT_TOLERANCE


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: judge({"forget": np.zeros((5, 5))}, ensemble(0)),
            "unlearned has splits.*retain, validation is missing",
        ),
        (lambda: judge(ensemble(1), {"forget": np.zeros((5, 5))}), "oracle has splits.*missing"),
        (lambda: judge(ensemble(1), ensemble(0), tolerance=0), "tolerance = 0, expected a finite number above 0"),
        (lambda: judge(ensemble(1, members=1), ensemble(0)), "unlearned forget has 1 member, expected at least 2"),
        (lambda: judge({**ensemble(1), "retain": np.zeros((4, 200))}, ensemble(0)), "expected the same number"),
        (lambda: judge({**ensemble(1), "retain": np.zeros((100, 3))}, ensemble(0)), "unlearned retain has shape"),
    ],
)
def test_errors(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("rounding", [0.0, 1e-6, 3e-4])
@pytest.mark.parametrize("who", ["members", "oracles", "held-out oracles"])
def test_copies_are_no_sample_whatever_they_show(who, rounding):
    draw = np.random.default_rng(0)
    law = {"forget": 20, "retain": 25, "validation": 25}
    sides = {
        name: {split: draw.normal(3 if name == "members" else 0, 1, (24, n)) for split, n in law.items()}
        for name in ("members", "oracles", "held-out oracles")
    }
    sides[who] = {
        split: np.repeat(margins[:8], 3, axis=0) + rounding * draw.normal(size=margins.shape)
        for split, margins in sides[who].items()
    }
    verdict = judge(*sides.values())
    assert verdict.name == "undecided"
    assert f"16 of 24 {who} are copies of other {who}" in verdict.sentence
