"""What the report says in words follows from the record, case by case."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from expunge.core.record import (
    MOVED_ENOUGH,
    SPLITS,
    CheckRecord,
    ConfigurationRecord,
    ForgetRecord,
    Record,
    RowsRecord,
    VerdictName,
)
from expunge.report import numbers, wording
from expunge.report.headline import headline


def verdicts(forget: ForgetRecord, **names: VerdictName) -> None:
    """Set the verdict of the chosen configuration of each method, by the start of the method's name."""
    for selection in forget.selections:
        chosen = next(c for c in forget.configurations if c.id == selection.chosen)
        best = next(c for c in forget.configurations if c.id == selection.best)
        for method, name in names.items():
            if selection.method.startswith(method):
                chosen.verdict.name = name
                if best is not chosen:
                    best.verdict.name = "damaged"


@pytest.fixture
def forget(record: Record) -> ForgetRecord:
    found = record.forget_sets[0]
    # Nothing passes by itself here, and chosen and best are different configurations.
    for c in found.configurations:
        c.verdict.name = "damaged"
        for check in c.checks:
            check.passed = True
    for selection in found.selections:
        selection.edge = []
    return found


RETRAIN = "Retrain: nothing cheaper is known to work."


def test_bad_news(forget: ForgetRecord) -> None:
    words = headline(forget)
    assert (words.tone, words.sentence) == ("bad", RETRAIN)
    assert words.action.startswith("No candidate matches retraining. The closest is ")
    assert "would have looked successful" not in words.action


def test_methods_that_moved_nothing_are_no_evidence(forget: ForgetRecord) -> None:
    for c in forget.configurations:
        if c.method == "scrub":
            c.checks = [CheckRecord(name=MOVED_ENOUGH, passed=False, detail="")]
    words = headline(forget)
    assert words.tone == "bad"
    assert "No setting of SCRUB moved the forget examples: try larger rates" in words.action
    for c in forget.configurations:
        c.checks = [CheckRecord(name=MOVED_ENOUGH, passed=False, detail="")]
    assert headline(forget).tone == "open"


def test_bad_news_with_an_illusion(forget: ForgetRecord) -> None:
    best = next(c for c in forget.configurations if c.id == forget.selections[0].best)
    best.verdict.name = "indistinguishable"
    words = headline(forget)
    assert words.tone == "bad"
    assert f"A setting of {best.label} would have looked successful" in words.action


def test_good_news_names_the_cheapest_its_setting_and_counts(forget: ForgetRecord) -> None:
    verdicts(forget, gradient_ascent="indistinguishable", scrub="indistinguishable")
    words = headline(forget)
    chosen = {r.method: r.chosen for r in wording.rows(forget) if r.chosen}
    cheapest = min((chosen["gradient_ascent"], chosen["scrub"]), key=lambda c: c.cost)
    cost = numbers.percent(cheapest.cost)
    assert words.tone == "good"
    assert words.sentence == (
        f"{cheapest.label} is the cheapest known to work: it cannot be told from retraining, at {cost} of its cost."
    )
    assert wording.setting(forget, cheapest) in words.action
    assert "2 of 3 candidates pass: " in words.action
    assert "but" not in words.action


def test_good_news_is_qualified(forget: ForgetRecord) -> None:
    verdicts(forget, scrub="indistinguishable", fine_tune="indistinguishable")
    rows = {row.method: row for row in wording.rows(forget)}
    chosen, control, selection = rows["scrub"].chosen, rows["fine_tune"].chosen, rows["scrub"].selection
    assert chosen is not None
    assert control is not None
    assert selection is not None
    chosen.checks[0].passed = False
    selection.edge = ["lr at its largest value 0.4"]
    control.cost = chosen.cost * 2
    words = headline(forget)
    assert words.sentence.startswith("SCRUB is the cheapest")
    assert "a runtime check of the method failed" in words.action
    assert "edge of the grid" in words.action


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_control_that_works_for_no_more_is_the_answer(forget: ForgetRecord, share: float) -> None:
    verdicts(forget, scrub="indistinguishable", fine_tune="indistinguishable")
    chosen = {row.method: row.chosen for row in wording.rows(forget) if row.chosen}
    chosen["fine_tune"].cost = chosen["scrub"].cost * share
    words = headline(forget)
    assert words.tone == "good"
    assert words.sentence.startswith("Fine-tuning on the retain set is the cheapest known to work")
    assert "1 of 3 candidates passes: SCRUB at" in words.action
    assert "no method earns credit" in words.action


def test_what_costs_as_much_as_retraining_is_not_recommended(forget: ForgetRecord) -> None:
    verdicts(forget, scrub="indistinguishable")
    row = next(row for row in wording.rows(forget) if row.method == "scrub")
    assert row.chosen is not None
    row.chosen.cost = 1.11
    words = headline(forget)
    assert (words.tone, words.sentence) == ("open", RETRAIN)
    assert words.action.startswith("SCRUB matches, but saves nothing: it costs 111 % of retraining")
    assert "1 of 3 candidates passes" in words.action
    row.chosen.cost = 0.99
    assert headline(forget).tone == "good"


def test_a_dear_method_is_named_only_if_nothing_cheaper_passes(forget: ForgetRecord) -> None:
    verdicts(forget, scrub="indistinguishable", gradient_ascent="indistinguishable")
    chosen = {row.method: row.chosen for row in wording.rows(forget) if row.chosen}
    chosen["scrub"].cost, chosen["gradient_ascent"].cost = 1.2, 0.3
    assert headline(forget).tone == "good"
    chosen["gradient_ascent"].cost = 1.0
    words = headline(forget)
    assert words.sentence == RETRAIN
    assert words.action.startswith("Gradient ascent matches, but saves nothing: it costs 100 %")
    assert "SCRUB at 120 %" in words.action


def test_a_control_that_works_alone_is_the_answer_and_no_method_is(forget: ForgetRecord) -> None:
    """Unless it is as dear as retraining: then it is retraining."""
    verdicts(forget, fine_tune="indistinguishable")
    control = next(row.chosen for row in wording.rows(forget) if row.method == "fine_tune")
    assert control is not None
    control.cost = 0.9
    words = headline(forget)
    assert words.tone == "good"
    assert words.sentence.startswith("Fine-tuning on the retain set is the cheapest known to work")
    assert words.sentence.endswith("at 90 % of its cost.")
    assert "No unlearning method matches. The closest is " in words.action
    control.cost = 1.0
    assert (headline(forget).tone, headline(forget).sentence) == ("bad", RETRAIN)


def test_undecided_asks_for_members(forget: ForgetRecord) -> None:
    verdicts(forget, scrub="undecided")
    words = headline(forget)
    assert words.tone == "open"
    assert words.action.startswith("No candidate has been shown to match retraining.")
    assert "SCRUB: too few members to decide" in words.action


def test_what_costs_as_much_as_the_closest_candidate_follows_what_was_chosen(forget: ForgetRecord) -> None:
    rows = wording.rows(forget)
    assert wording.with_equal_cost(rows) == rows
    control = next(s for s in forget.selections if s.method == "fine_tune")
    other = next(c for c in forget.configurations if c.method == "fine_tune" and c.id != control.chosen)
    control.equal_cost = other.id
    made = wording.with_equal_cost(wording.rows(forget))
    at = next(i for i, row in enumerate(made) if row.method == "fine_tune")
    assert (made[at].chosen.id, made[at + 1].chosen, made[at + 1].selection) == (control.chosen, other, None)
    assert made[at + 1].label == f"{made[at].label}, at equal cost"


def test_rows_that_count_stand_beside_the_verdict(forget: ForgetRecord) -> None:
    def seen(examples: int, counted: int) -> RowsRecord:
        return RowsRecord(
            examples=examples, told=counted, counted=counted, remembered=counted, beyond=0, level=0.01, rows=[]
        )

    verdict = forget.configurations[0].verdict.model_copy(update={"name": "under-forgotten"})
    assert (wording.chip(verdict), wording.tails(verdict)) == ("under-forgotten", "")
    verdict.rows = {"forget": seen(70, 3), "retain": seen(500, 4), "validation": seen(1360, 0)}
    assert wording.chip(verdict) == "under-forgotten (3 of 70 rows)"
    assert wording.tails(verdict) == "damage on 4 of 500 retain rows"
    verdict.rows["validation"] = seen(1360, 2)
    assert wording.tails(verdict) == "damage on 4 of 500 retain rows and 2 of 1,360 validation rows"
    verdict.name = "damaged"
    assert (wording.chip(verdict), wording.tails(verdict)) == ("damaged", "")


def test_nothing_to_unlearn_overrules_all(forget: ForgetRecord) -> None:
    verdicts(forget, scrub="indistinguishable")
    forget.nothing_to_unlearn = True
    assert headline(forget).sentence.startswith("There is nothing to unlearn")


def test_no_selection(forget: ForgetRecord) -> None:
    forget.selections = []
    assert headline(forget).tone == "open"


def test_timing_counts_by_hand(record: Record) -> None:
    forget = record.forget_sets[0]
    own = [c for c in forget.configurations if c.method == "gradient_descent_ascent"]

    def close(c: ConfigurationRecord) -> bool:
        return all(c.scores[s].value - c.scores[s].floor <= record.tolerance for s in SPLITS)

    # Make one run pass through and leave, one arrive and stay.
    first, second = sorted({c.run for c in own})[:2]
    for c in own:
        good = (c.run == first and c.epoch == 2) or (c.run == second and c.epoch >= 3)
        c.scores = {
            s: type(v)(**{**v.__dict__, "value": v.floor + (0.01 if good else 0.9)}) for s, v in c.scores.items()
        }
    assert sum(close(c) for c in own) == 3
    text = wording.timing_sentence(forget, "gradient_descent_ascent")
    assert text.startswith(f"8 runs, {len(own)} stopping times: 3 of {len(own)} stopping times")
    assert "2 of 8 runs pass through at some time, 1 is still there at the end" in text
    assert "none comes within the tolerance" in wording.timing_sentence(forget, "do_nothing")
    assert wording.timing_sentence(forget, "absent") == "No run of this method is on record."


def test_disagreements_by_hand(record: Record) -> None:
    forget = record.forget_sets[0]
    fooled = [
        (c, [s for s in SPLITS if c.public[s] <= forget.floor_public[s]])
        for c in forget.configurations
        if c.verdict.name in ("damaged", "diverged")
    ]
    found = wording.disagreements(forget)
    assert sum(d.stops for d in found) == sum(bool(splits) for _, splits in fooled) > 0
    assert {d.configuration.run for d in found} == {c.run for c, splits in fooled if splits}
    forget.floor_public = dict.fromkeys(SPLITS, 0.0)
    assert wording.disagreements(forget) == []


def test_rows_put_candidates_first_and_keep_methods_without_selection(forget: ForgetRecord) -> None:
    controls = [row.control for row in wording.rows(forget)]
    assert controls == sorted(controls)
    assert {row.method for row in wording.rows(forget)} == {c.method for c in forget.configurations}


@example(0.0005)
@example(0.0015)
@example(0.0149)
@example(0.1049)
@given(st.one_of(st.floats(-1e300, 1e300), st.sampled_from([math.nan, math.inf, -math.inf])))
def test_a_number_is_always_readable_and_close(value: float) -> None:
    text = numbers.number(value)
    if not math.isfinite(value):
        assert text in ("not a number", "infinite", "minus infinite")
    else:
        assert float(text) == pytest.approx(value, rel=0.06)
        assert len(text) <= 9


@given(st.floats(0, 100))
def test_percent_is_close(share: float) -> None:
    assert float(numbers.percent(share).removesuffix(" %")) == pytest.approx(100 * share, rel=0.06, abs=1e-12)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"),
        (False, "no"),
        (None, "none"),
        (0.30000000000000004, "0.3"),
        ([1, 2.5], "1, 2.5"),
        ({"a": 1}, "a 1"),
    ],
)
def test_values_of_options(value: Any, text: str) -> None:
    assert numbers.value_text(value) == text


def test_options_have_names_that_people_understand() -> None:
    assert (
        wording.options_text({"msteps": 3, "forget_batch_size": 32}) == "ascent epochs (msteps) 3, forget batch size 32"
    )
    assert wording.options_text({"batch": 64, "forget_batch": 32}) == "batch 64, forget batch 32", "older records"


def test_every_verdict_is_explained() -> None:
    from typing import get_args

    assert set(wording.VERDICTS) == set(get_args(VerdictName))


def test_a_gap_within_its_interval_is_noise_and_one_of_an_earlier_version_says_that_it_has_none(
    forget: ForgetRecord,
) -> None:
    selection = forget.selections[0]

    def told(gap: float, low: float | None, high: float | None) -> tuple[str, str]:
        made = selection.model_copy(update={"illusion_gap": gap, "gap_low": low, "gap_high": high})
        return wording.gap_text(made), wording.gap_interval(made)

    assert told(0.05, -0.02, 0.12) == ("noise", "-0.020 to 0.12")
    assert told(0.97, 0.8, 1.14) == ("0.97", "0.80 to 1.14")
    assert told(0.0, 0.0, 0.0) == ("0", "")
    assert told(0.05, None, None) == ("0.050", "no interval, at least 0")


def test_a_setting_that_only_looked_better_by_luck_is_no_illusion(forget: ForgetRecord) -> None:
    """The best of the grid passes, the chosen one does not, and the gap is told only where it is no noise."""
    selection = forget.selections[0]
    best = next(c for c in forget.configurations if c.id == selection.best)
    best.verdict.name = "indistinguishable"
    for other in forget.selections[1:]:
        other.best = other.chosen
    for made in forget.selections:
        chosen = next(c for c in forget.configurations if c.id == made.chosen)
        if chosen is not best:
            chosen.verdict.name = "damaged"
    for low, seen in ((0.2, True), (-0.2, False)):
        selection.gap_low, selection.gap_high = low, 0.5
        assert ("would have looked successful" in headline(forget).action) == seen
