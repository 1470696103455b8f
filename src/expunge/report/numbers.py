"""How the reports write numbers, so that the page and the terminal write them alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.result import Result


def number(value: float) -> str:
    """Write a number with two or three significant digits; infinities and NaN in words.

    >>> number(0.4712), number(12.34), number(0.00512), number(float("inf")), number(float("nan"))
    ('0.47', '12.3', '0.0051', 'infinite', 'not a number')
    """
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1e5 or size < 0.001:
        return f"{value:.1e}"
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 0.1:
        return f"{value:.2f}"
    return f"{value:.3f}" if size >= 0.01 else f"{value:.4f}"


def signed(value: float) -> str:
    """Write a number with its sign.

    >>> signed(1.25), signed(-0.5), signed(0.0)
    ('+1.25', '-0.50', '0')
    """
    return f"+{number(value)}" if value > 0 else number(value)


def plain(value: float | None) -> float | str | None:
    """Return a value that JSON can hold: infinities and NaN become words."""
    if value is None:
        return None
    return float(f"{value:.5g}") if math.isfinite(value) else number(value)


def percent(share: float) -> str:
    """Write a share as a percentage, more finely when it is small.

    >>> percent(0.123), percent(0.0042), percent(0), percent(1.0), percent(0.98765)
    ('12 %', '0.42 %', '0 %', '100 %', '99 %')
    """
    if not math.isfinite(share):
        return number(share)
    value = 100 * share
    if value == 0 or abs(value) >= 9.95:
        return f"{value:.0f} %"
    return f"{value:.1f} %" if abs(value) >= 1 else f"{value:.2g} %"


def accuracy(share: float) -> str:
    """Write an accuracy as a percentage with one digit.

    >>> accuracy(0.9731)
    '97.3 %'
    """
    return f"{100 * share:.1f} %" if math.isfinite(share) else number(share)


def duration(seconds: float) -> str:
    """Write a time span for a person.

    >>> duration(3.21), duration(75), duration(4000), duration(0)
    ('3.2 s', '1 min 15 s', '1 h 6 min', '0 s')
    """
    if not math.isfinite(seconds):
        return number(seconds)
    if seconds < 60:
        return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def count(amount: int, one: str, many: str | None = None) -> str:
    """Write an amount with its noun.

    >>> count(1, "member"), count(1200, "member"), count(2, "has", "have")
    ('1 member', '1,200 members', '2 have')
    """
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"


def interval(score: Result) -> str:
    """Write a score's 95 % interval.

    >>> interval(Result("klom", "p95", 0.5, 0.4, 0.61, 0.1, 0.1, 0.2, 50, 50, 70))
    '0.40 to 0.61'
    >>> interval(Result("klom", "p95", 0.5))
    'no interval'
    """
    if math.isnan(score.low):
        return "no interval"
    return f"{number(score.low)} to {number(score.high)}"


def listing(words: Sequence[str]) -> str:
    """Join words as in a sentence.

    >>> listing(["a", "b", "c"]), listing(["a"]), listing([])
    ('a, b and c', 'a', '')
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def value_text(value: Any) -> str:
    """Write the value of an option."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {value_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(value_text(item) for item in value)
    return str(value)


def cell(value: Any) -> Any:
    """Return a value as it may stand in a CSV file: a text that begins like a formula would be one to a spreadsheet.

    >>> cell("=1+1"), cell(-1.5)
    ("'=1+1", -1.5)
    """
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
