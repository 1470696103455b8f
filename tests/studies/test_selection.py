"""Selection reads the calibration set only, reports the leak beside it, and flags the edge of the grid."""

from __future__ import annotations

import math
from typing import Any

import pytest

from expunge.core import Result
from expunge.core.objective import objective
from expunge.core.record import SPLITS, ConfigurationRecord, VerdictRecord
from expunge.methods import METHODS
from expunge.studies.audit.selection import (
    EQUAL_COST,
    LAST,
    NONE_AS_DEAR,
    ONLY,
    RULE,
    WITHIN_COST,
    edges,
    select,
    select_all,
    select_at_cost,
    select_within_cost,
)


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
    record = select(tried)
    assert (record.chosen, record.best, record.rule) == ("b", "a", RULE)
    assert record.illusion_gap == pytest.approx(0.5)


def test_the_target_cannot_change_the_choice():
    for leak in (0.0, 5.0, math.inf):
        tried = [configuration("a", target=leak, calibration=0.3), configuration("b", target=1.0, calibration=0.4)]
        assert select(tried).chosen == "a"


def test_diverged_calibration_is_never_chosen_over_a_finite_one():
    tried = [configuration("a", 0.1, math.nan), configuration("b", 2.0, 3.0)]
    assert select(tried).chosen == "b"


def test_ties_go_to_the_cheaper():
    tried = [configuration("dear", 0.1, 0.3, cost=0.9), configuration("cheap", 0.1, 0.3, cost=0.1)]
    assert select(tried).chosen == "cheap"


def test_a_single_configuration_needs_no_rule():
    record = select([configuration("a", 0.4, None)])
    assert (record.rule, record.illusion_gap, record.edge) == (ONLY, 0.0, [])


def test_equal_cost_takes_the_cheapest_that_is_dear_enough():
    tried = [configuration(name, 1.0, None, cost=cost) for name, cost in (("a", 0.1), ("b", 0.25), ("c", 0.5))]
    assert (select_at_cost(tried, 0.2).chosen, select_at_cost(tried, 0.2).rule) == ("b", EQUAL_COST)
    assert (select_at_cost(tried, 0.9).chosen, select_at_cost(tried, 0.9).rule) == ("c", NONE_AS_DEAR)


def test_what_is_chosen_by_cost_is_not_an_optimum_on_the_edge():
    tried = [configuration(str(cost), 1.0, None, cost=cost, share=cost) for cost in (0.1, 0.25, 0.5)]
    assert [select_at_cost(tried, cost).edge for cost in (0.0, 0.9)] == [[], []]
    better = [configuration("cheap", 2.0, None, cost=0.2), configuration("dear", 0.1, None, cost=0.9)]
    record = select_at_cost(better, 0.1)
    assert (record.chosen, record.best, record.illusion_gap) == ("cheap", "cheap", 0.0)


def test_within_a_cost_the_best_on_calibration_is_chosen_and_the_cheapest_if_all_cost_more():
    tried = [
        configuration("a", 1.0, 0.9, cost=0.1),
        configuration("b", 1.0, 0.5, cost=0.2),
        configuration("c", 1.0, 0.1, cost=0.3),
    ]
    assert [select_within_cost(tried, cost).chosen for cost in (0.0, 0.1, 0.25, 0.3, 2.0)] == ["a", "a", "b", "c", "c"]


def as_method(made: ConfigurationRecord, method: str, control: bool = True) -> ConfigurationRecord:
    return made.model_copy(update={"method": method, "control": control})


def test_baselines_get_the_cost_of_the_dearest_candidate_that_is_cheaper_than_retraining():
    tried = [
        as_method(configuration("nothing", 2.0, None, cost=0.0), "do_nothing"),
        as_method(configuration("tune-cheap", 1.0, 0.9, cost=0.1), "fine_tune"),
        as_method(configuration("tune", 1.0, 0.8, cost=0.2), "fine_tune"),
        as_method(configuration("tune-dear", 1.0, 0.1, cost=0.3), "fine_tune"),
        as_method(configuration("early", 1.0, None, cost=0.1), "early_stopped_retrain"),
        as_method(configuration("later", 1.0, None, cost=0.25), "early_stopped_retrain"),
        as_method(configuration("latest", 1.0, None, cost=0.5), "early_stopped_retrain"),
        as_method(configuration("drift-short", 0.0, None, cost=0.05), "statistics_alone"),
        as_method(configuration("drift", 0.0, None, cost=0.1), "statistics_alone"),
        as_method(configuration("ascent", 1.0, 0.5, cost=0.22), "gradient_ascent", control=False),
        as_method(configuration("ascent-worse", 1.0, 0.6, cost=0.4), "gradient_ascent", control=False),
        as_method(configuration("matching", 0.1, 0.1, cost=1.1), "margin_matching", control=False),
    ]
    made = {
        selection.method: selection
        for selection in select_all(tried, {name: method.chosen for name, method in METHODS.items()})
    }
    assert {name: selection.chosen for name, selection in made.items()} == {
        "do_nothing": "nothing",
        "fine_tune": "tune",
        "statistics_alone": "drift",
        "gradient_ascent": "ascent",
        "margin_matching": "matching",
        "early_stopped_retrain": "later",
    }
    assert made["fine_tune"].rule == WITHIN_COST
    assert made["statistics_alone"].rule == LAST
    assert made["early_stopped_retrain"].rule == EQUAL_COST


def test_edges_name_the_option_and_the_side():
    tried = [configuration(str(lr), 1.0, 1.0, lr=lr, batch_size=64) for lr in (0.1, 0.2, 0.4)]
    assert edges(tried, tried[2]) == ["lr at its largest value 0.4"]
    assert edges(tried, tried[0]) == ["lr at its smallest value 0.1"]
    assert edges(tried, tried[1]) == []


def test_two_values_have_no_inside_and_are_not_flagged():
    tried = [configuration(str(m), 1.0, 1.0, msteps=m) for m in (3, 5)]
    assert edges(tried, tried[1]) == []
