"""What an audit found to work: which configurations pass, and the order in which they are recommended."""

from __future__ import annotations

import math

from expunge.core.record import ConfigurationRecord, ForgetRecord

AS_DEAR = 0.995
"""Share of the cost of retraining from which on it is written as 100 %: nothing is saved."""


def passes(configuration: ConfigurationRecord | None) -> bool:
    """Return whether a configuration cannot be told from retraining; one that is not there does not pass."""
    return configuration is not None and configuration.verdict.name == "indistinguishable"


def failed_checks(configuration: ConfigurationRecord | None) -> list[str]:
    """Return the names of the runtime checks that a configuration failed."""
    return [] if configuration is None else [check.name for check in configuration.checks if not check.passed]


def cost(configuration: ConfigurationRecord | None) -> float:
    """Return the cost relative to retraining; infinite where it is not known."""
    return configuration.cost if configuration and math.isfinite(configuration.cost) else math.inf


def working(forget: ForgetRecord) -> list[ConfigurationRecord]:
    """Return the configurations that were chosen and pass, the cheapest first; at equal cost controls first.

    Controls count: retraining stopped early is a way to forget. Runtime checks that failed are for the caller to look
    at.
    """
    by_id = {each.id: each for each in forget.configurations}
    chosen = [by_id[selection.chosen] for selection in forget.selections if selection.chosen in by_id]
    return sorted(filter(passes, chosen), key=lambda each: (cost(each), not each.control))
