"""Selection reads the calibration set only, reports the leak beside it, and flags the edge of the grid."""

from __future__ import annotations

import math
from typing import Any

from expunge.core import Result
from expunge.core.objective import objective
from expunge.core.record import SPLITS, ConfigurationRecord, VerdictRecord
from expunge.methods import METHODS
from expunge.studies.audit.illusion import Gap
from expunge.studies.audit.selection import (
    CHEAPEST,
    LAST,
    NONE_WITHIN,
    ONLY,
    RULE,
    best_of_runs,
    edges,
    select,
    select_all,
    select_cheapest,
)

ASKED: list[tuple[str, tuple[str, ...]]] = []


def gap(chosen: str, tried: Any) -> Gap:
    """Return one gap for all, and note what it was asked of."""
    ASKED.append((chosen, tuple(tried)))
    return Gap(0.25, 0.125, 0.375)


def score(value: float) -> Result:
    return Result("klom", "p95", value, value, value, 0.5, 0.4, 0.6, 100, 100, 70)


def configuration(
    name: str, target: float, calibration: float | None, cost: float = 0.1, **options: Any
) -> ConfigurationRecord:
    return ConfigurationRecord(
        id=name,
        run=name,
        method="gradient_ascent",
        label="Gradient ascent",
        options=options,
        statistics="frozen",
        epoch=options.get("epoch", 1),
        cost=cost,
        control=False,
        scores=dict.fromkeys(SPLITS, score(target + 0.5)),
        means=dict.fromkeys(SPLITS, 0.0),
        shifts=dict.fromkeys(SPLITS, 0.0),
        accuracy=dict.fromkeys(SPLITS, 1.0),
        public=dict.fromkeys(SPLITS, 0.0),
        calibration=None if calibration is None else dict.fromkeys(SPLITS, calibration),
        verdict=VerdictRecord(name="undecided", sentence="", tolerance=0.1),
    )


def test_objective_is_the_worst_split():
    assert objective({"forget": 0.1, "retain": 0.7, "validation": 0.2}) == 0.7
    assert objective({"forget": 0.1, "retain": math.nan, "validation": 0.2}) == math.inf


def test_choice_reads_calibration_and_reports_the_illusion():
    tried = [configuration("a", target=0.1, calibration=0.9), configuration("b", target=0.6, calibration=0.2)]
    record = select(tried, gap)
    assert (record.chosen, record.best, record.rule) == ("b", "a", RULE)
    assert (record.illusion_gap, record.gap_low, record.gap_high) == (0.25, 0.125, 0.375)
    assert ASKED[-1] == ("b", ("a", "b"))


def test_the_target_cannot_change_the_choice():
    for leak in (0.0, 5.0, math.inf):
        tried = [configuration("a", target=leak, calibration=0.3), configuration("b", target=1.0, calibration=0.4)]
        assert select(tried, gap).chosen == "a"


def test_diverged_calibration_is_never_chosen_over_a_finite_one():
    tried = [configuration("a", 0.1, math.nan), configuration("b", 2.0, 3.0)]
    assert select(tried, gap).chosen == "b"


def test_ties_go_to_the_cheaper():
    tried = [configuration("dear", 0.1, 0.3, cost=0.9), configuration("cheap", 0.1, 0.3, cost=0.1)]
    assert select(tried, gap).chosen == "cheap"


def test_a_single_configuration_needs_no_rule():
    record = select([configuration("a", 0.4, None)], gap)
    assert (record.rule, record.edge, record.equal_cost) == (ONLY, [], "")
    assert ASKED[-1] == ("a", ("a",))


def early(*calibrated: float) -> list[ConfigurationRecord]:
    """Return stopping times of .1, .25, .5, ... of retraining with these objectives on the calibration set."""
    costs = (0.1, 0.25, 0.5, 0.75, 0.9)
    return [configuration(str(c), value, value, cost=c) for c, value in zip(costs, calibrated, strict=False)]


def test_the_cheapest_that_works_on_calibration_is_chosen_whatever_the_candidates_cost():
    """Verdicts have a tolerance of 0.1 here; what is dearer and closer is not better."""
    for cost in (0.0, 0.2, 0.8, 2.0):
        record = select_cheapest(early(2.0, 1.0, 0.09, 0.05, 0.01), cost, gap)
        assert (record.chosen, record.rule, record.edge) == ("0.5", CHEAPEST, [])
        assert ASKED[-1] == ("0.5", ("0.1", "0.25", "0.5"))


def test_if_none_works_on_calibration_the_closest_is_chosen():
    record = select_cheapest(early(2.0, math.nan, 0.5, 0.2, 0.3), 0.2, gap)
    assert (record.chosen, record.rule) == ("0.75", NONE_WITHIN)


def test_beside_the_chosen_stands_the_one_at_equal_cost():
    tried = early(2.0, 1.0, 0.5, 0.3, 0.01)
    found = {cost: select_cheapest(tried, cost, gap).equal_cost for cost in (0.0, 0.05, 0.2, 0.6, 0.8, 3.0)}
    assert found == {0.0: "", 0.05: "0.1", 0.2: "0.25", 0.6: "0.75", 0.8: "", 3.0: ""}


def as_method(made: ConfigurationRecord, method: str, control: bool = True) -> ConfigurationRecord:
    return made.model_copy(update={"method": method, "control": control})


def test_every_method_is_chosen_for_by_its_own_rule():
    tried = [
        as_method(configuration("nothing", 2.0, None, cost=0.0), "do_nothing"),
        as_method(configuration("tune-cheap", 1.0, 0.9, cost=0.1), "fine_tune"),
        as_method(configuration("tune", 1.0, 0.1, cost=0.3), "fine_tune"),
        *(as_method(made, "early_stopped_retrain") for made in early(2.0, 1.5, 1.0, 0.5, 0.05)),
        as_method(configuration("drift-short", 0.0, None, cost=0.05), "statistics_alone"),
        as_method(configuration("drift", 0.0, None, cost=0.1), "statistics_alone"),
        as_method(configuration("ascent", 1.0, 0.5, cost=0.22), "gradient_ascent", control=False),
        as_method(configuration("ascent-worse", 1.0, 0.6, cost=0.4), "gradient_ascent", control=False),
        as_method(configuration("matching", 0.1, 0.1, cost=1.1), "margin_matching", control=False),
    ]
    made = {s.method: s for s in select_all(tried, {name: method.chosen for name, method in METHODS.items()}, gap)}
    assert {name: (selection.chosen, selection.rule) for name, selection in made.items()} == {
        "do_nothing": ("nothing", ONLY),
        "fine_tune": ("tune", RULE),
        "statistics_alone": ("drift", LAST),
        "gradient_ascent": ("ascent", RULE),
        "margin_matching": ("matching", ONLY),
        "early_stopped_retrain": ("0.9", CHEAPEST),
    }
    # Of the candidates that are cheaper than retraining, the one at 0.22 came closest on the calibration set.
    assert made["early_stopped_retrain"].equal_cost == "0.25"


def test_edges_name_the_option_and_the_side():
    tried = [configuration(str(lr), 1.0, 1.0, lr=lr, batch_size=64) for lr in (0.1, 0.2, 0.4)]
    assert edges(tried, tried[2]) == ["lr at its largest value 0.4"]
    assert edges(tried, tried[0]) == ["lr at its smallest value 0.1"]
    assert edges(tried, tried[1]) == []


def test_two_values_have_no_inside_and_are_not_flagged():
    tried = [configuration(str(m), 1.0, 1.0, msteps=m) for m in (3, 5)]
    assert edges(tried, tried[1]) == []


def test_one_stopping_time_a_run_is_judged():
    tried = [
        configuration(f"{run}@{i}", 0.0, c)
        for run, read in {"a": (0.3, 0.1, 0.2), "b": (None, None)}.items()
        for i, c in enumerate(read)
    ]
    for each in tried:
        each.run = each.id[0]
    assert best_of_runs(tried) == {"a@1", "b@1"}
