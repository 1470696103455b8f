"""What strangers give: numbers, arrays, words and files, drawn by hypothesis, each with what it should be taken for."""

from __future__ import annotations

import decimal
import fractions
import io
import itertools
import math
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

NOTHING = object()
"""What a slow reader says of something that is no number."""


def drawn(strategy: st.SearchStrategy[Any], count: int, start: int = 0) -> list[Any]:
    """Return examples of a strategy, the same ones for the same start."""
    found: list[Any] = []

    @seed(start)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found


# Options ------------------------------------------------------------------------------------------------------------

SCALARS = [getattr(np, f"{kind}{size}") for kind in ("int", "uint") for size in (8, 16, 32, 64)]
FRACTIONS = [np.float16, np.float32, np.float64, np.longdouble]
ABSURD: list[Any] = [
    None, "", "a", "3", "nan", "１", b"2", 1j, 2 + 0j, [], [2], (2,), {}, {2}, {2: 3}, object, object(), int, len,
    Ellipsis,
    NotImplemented, range(3), np.array([2]), np.array([1, 2]), np.array([]), torch.ones(2), torch.ones(0),
    torch.tensor([2]),
    np.ma.masked, np.ma.masked_array(2, True), np.datetime64("2020-01-01"), np.timedelta64(3, "D"), np.str_("2"),
    np.bytes_(b"2"),
    np.complex64(2), torch.tensor(2j), torch.empty((), device="meta"), np.array(None), np.array("2"), np.void(b"2"),
    True, False,
    np.bool_(True), torch.tensor(True), np.array(False), "\ud800", "a\0b", "x" * 9000, itertools.count(), float,
    np.zeros((1, 1)),
    decimal.Decimal("NaN"), decimal.Decimal("sNaN"), decimal.Decimal("1e999999"), [[2]], (1, (2,)), np.int64,
    torch.float32,
]  # fmt: skip


def _whole() -> st.SearchStrategy[Any]:
    small = st.integers(-3, 40)
    return st.one_of(
        small,
        st.integers(),
        st.integers(-(10**30), 10**30),
        st.sampled_from([2**31, 2**63, 2**64, -(2**63) - 1, 10**400, -(10**400), 10**5000]),
        st.builds(lambda kind, value: kind(value), st.sampled_from(SCALARS), st.integers(0, 40)),
        st.builds(torch.tensor, small),
        st.builds(np.array, small),
    )


def _fraction() -> st.SearchStrategy[Any]:
    usual = st.one_of(st.floats(0, 1), st.floats(-2, 50), st.floats())
    return st.one_of(
        usual,
        st.builds(lambda kind, value: kind(value), st.sampled_from(FRACTIONS), st.floats(-2, 50)),
        st.fractions(-2, 50),
        st.builds(fractions.Fraction, st.sampled_from([10**400, 1]), st.sampled_from([1, 10**400])),
        st.decimals(-2, 50),
        st.builds(lambda value: torch.tensor(value, dtype=torch.float64), usual),
        st.builds(lambda value: torch.tensor(value).bfloat16(), st.floats(0, 1)),
        st.builds(np.array, usual),
    )


OPTIONS = st.one_of(_whole(), _fraction(), st.sampled_from(ABSURD), st.text(max_size=8))
"""Anything that may stand where an option does."""


def number(value: Any) -> Any:
    """Return the Python number that an option is, by the plainest of rules, or `NOTHING`."""
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim == 0 and str(value.device) != "meta":
        value = NOTHING if isinstance(value, np.ma.MaskedArray) else value.tolist()
    if isinstance(value, np.integer) and not isinstance(value, np.timedelta64):
        value = int(value)
    if isinstance(value, np.floating | fractions.Fraction | decimal.Decimal):
        try:
            value = float(value)
        except (OverflowError, ValueError):
            return NOTHING
    return value if type(value) in (int, float) else NOTHING


def is_count(value: Any, low: int = 1, high: int = 2**63 - 1) -> bool:
    """Return whether an option is a whole number in a range."""
    value = number(value)
    return type(value) is int and low <= value <= high


def is_fraction(value: Any, low: float = 0.0, high: float = math.inf, *, open_low: bool = False) -> bool:
    """Return whether an option is a finite number in a range."""
    value = number(value)
    try:
        return (
            value is not NOTHING and math.isfinite(value) and low <= value <= high and not (open_low and value == low)
        )
    except OverflowError:
        return False


# Arrays -------------------------------------------------------------------------------------------------------------

Step = Callable[[Any], Any]


def _reversed_view(a: Any) -> Any:
    return np.ascontiguousarray(np.asarray(a)[::-1])[::-1]


def _read_only(a: Any) -> Any:
    b = np.array(a)
    b.setflags(write=False)
    return b


def _as_tensor(a: Any) -> torch.Tensor:
    b = np.array(a)
    if b.dtype == object or not b.dtype.isnative or b.dtype == np.longdouble:
        b = b.astype(float if any(isinstance(v, float) for v in b.flat) or b.dtype.kind == "f" else int)
    return torch.tensor(b)


DRESS: dict[str, Step] = {
    "float64": lambda a: np.asarray(a, float),
    "float32": lambda a: np.asarray(a, np.float32),
    "float16": lambda a: np.asarray(a, np.float16),
    "longdouble": lambda a: np.asarray(a, np.longdouble),
    "big-endian": lambda a: (b := np.asarray(a)).astype(b.dtype.newbyteorder(">")),
    "fortran": lambda a: np.asfortranarray(a),
    "strided": lambda a: np.repeat(np.asarray(a), 2, 0)[::2],
    "reversed": _reversed_view,
    "read-only": _read_only,
    "list": lambda a: np.asarray(a).tolist(),
    "tuple": lambda a: tuple(np.asarray(a).tolist()),
    "list of arrays": lambda a: list(np.asarray(a)),
    "objects": lambda a: np.array(a, dtype=object),
    "unmasked": lambda a: np.ma.masked_array(np.asarray(a)),
    "tensor": _as_tensor,
    "half": lambda a: _as_tensor(a).half(),
    "double": lambda a: _as_tensor(a).double(),
    "needs gradient": lambda a: _as_tensor(a).double().requires_grad_(),
    "expanded": lambda a: (t := _as_tensor(a)).as_strided(t.shape, t.stride()),
    "transposed twice": lambda a: _as_tensor(a).transpose(0, -1).contiguous().transpose(0, -1),
    "conjugate view": lambda a: torch.complex(t := _as_tensor(a).double(), torch.zeros_like(t)).conj().real,
    "negated view": lambda a: torch.complex(torch.zeros_like(t := _as_tensor(a).double()), -t).conj().imag,
}
"""The same numbers in another dress; what comes out must not change by it."""


def _masked(a: Any) -> Any:
    b = np.asarray(a)
    mask = np.zeros(b.shape, bool)
    mask.flat[0] = True
    return np.ma.masked_array(b, mask)


def _spoiled(a: Any, value: Any) -> Any:
    b = np.array(a, dtype=object)
    b.flat[b.size // 2] = value
    return b


UNDRESS: dict[str, Step] = {
    "complex": lambda a: np.asarray(a, float) + 0j,
    "complex with more": lambda a: np.asarray(a, float) + 1j,
    "complex tensor": lambda a: _as_tensor(a).double() + 0j,
    "list of complex": lambda a: (np.asarray(a, float) + 1j).tolist(),
    "masked": _masked,
    "masked, as list": lambda a: [_masked(a)[i] for i in range(len(a))],
    "durations": lambda a: np.asarray(a, float).astype(int).astype("timedelta64[s]"),
    "dates": lambda a: np.asarray(a, float).astype(int).astype("datetime64[D]"),
    "words": lambda a: np.full(np.shape(a), "a word"),
    "digits as text": lambda a: np.asarray(a).astype(str),
    "bytes": lambda a: np.asarray(a).astype("S"),
    "one None": lambda a: _spoiled(a, None),
    "one text": lambda a: _spoiled(a, "x"),
    "one list": lambda a: _spoiled(a, [1]),
    "one complex": lambda a: _spoiled(a, 1j),
    "one duration": lambda a: _spoiled(a, np.timedelta64(1, "s")),
    "one huge": lambda a: _spoiled(a, 10**400),
    "structured": lambda a: np.zeros(np.shape(a), [("a", float)]),
    "void": lambda a: np.zeros(np.shape(a), "V8"),
    "ragged": lambda a: [[1.0, 2.0], [1.0]],
    "ragged deeper": lambda a: [[[1.0], [2.0]], [[1.0, 2.0], [3.0]]],
    "sparse": lambda a: _as_tensor(a).to_sparse(),
    "meta": lambda a: torch.empty(np.shape(a), device="meta"),
    "quantised": lambda a: torch.quantize_per_tensor(_as_tensor(a).float(), 0.1, 0, torch.qint8),
    "no rows": lambda a: np.asarray(a)[:0],
    "no axis": lambda a: 3.0,
    "more axes": lambda a: np.asarray(a)[None, None, None],
    "None": lambda a: None,
    "text": lambda a: "abc",
    "bytes object": lambda a: b"abc",
    "a class": lambda a: dict,
    "a function": lambda a: len,
    "an object": lambda a: object(),
    "a dict": lambda a: {"a": 1},
    "a dict of arrays": lambda a: {0: np.asarray(a)},
    "a set": lambda a: {1.0, 2.0},
    "a generator": lambda a: (row for row in np.asarray(a)),
    "an endless generator": lambda a: itertools.count(),
    "a memoryview of text": lambda a: memoryview(b"abcdef"),
    "inf": lambda a: np.asarray(a, float) * np.inf,
    "all NaN": lambda a: np.asarray(a, float) * np.nan,
    "1e300": lambda a: np.asarray(a, float) * 0 + 1e300,
    "one NaN": lambda a: _spoiled(a, np.nan).astype(float),
    "one inf": lambda a: _spoiled(a, np.inf).astype(float),
    "bool": lambda a: np.asarray(a) > 0,
    "the first half": lambda a: np.asarray(a)[: len(a) // 2],
    "one row": lambda a: np.asarray(a)[:1],
    "transposed": lambda a: np.asarray(a).T,
    "uint64 beyond": lambda a: np.full(np.shape(a), 2**64 - 1, np.uint64),
    "bits of NaN": lambda a: np.frombuffer(bytes([255]) * (8 * np.size(a))).reshape(np.shape(a)),
    "a list of nothing": lambda a: [],
    "nested lists of nothing": lambda a: [[], []],
    "itself in a list": lambda a: [np.asarray(a), None],
    "recursive": lambda a: (b := [1], b.append(b), b)[-1],
}
"""Something else than these numbers; most doors refuse all of it, and some may take what is still real numbers."""
STILL_NUMBERS = {
    "no rows", "no axis", "more axes", "inf", "all NaN", "1e300", "one NaN", "one inf", "bool", "the first half",
    "one row",
    "transposed", "uint64 beyond", "bits of NaN", "a list of nothing", "nested lists of nothing", "words",
    "digits as text",
    "None", "a dict of arrays", "text", "a set", "one huge",
}  # fmt: skip
"""Of these only the door knows what they are."""


def _undone(array: Any) -> Any:
    if isinstance(array, torch.Tensor):
        return array.detach().resolve_conj().resolve_neg().numpy()
    return np.asarray(array)


@dataclass(frozen=True)
class Dressed:
    """An array as somebody may give it: steps from the plain one."""

    steps: tuple[str, ...]
    spoiled: str = ""
    """What makes it another thing, or empty."""

    @property
    def given(self) -> str:
        """In words."""
        return ", ".join([*self.steps, *([f"then {self.spoiled}"] if self.spoiled else [])]) or "plain"

    def of(self, array: Any) -> Any:
        """Put it on an array."""
        for step in self.steps:
            array = DRESS[step](_undone(array))
        return UNDRESS[self.spoiled](_undone(array)) if self.spoiled else array


DRESSED = st.builds(
    Dressed,
    st.lists(st.sampled_from(sorted(DRESS)), max_size=4).map(tuple),
    st.one_of(st.just(""), st.sampled_from(sorted(UNDRESS))),
)


# Files --------------------------------------------------------------------------------------------------------------


def npy(array: Any) -> bytes:
    """Return the file that NumPy writes."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    """Return the archive that NumPy writes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def zipped(entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return an archive of entries, names twice or not."""
    import warnings

    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def damaged(content: bytes, start: int) -> tuple[str, bytes]:
    """Return a file after one accident, and which."""
    dice = random.Random(start)
    at = dice.randrange(len(content)) if content else 0
    near = min(at, dice.randrange(200))
    match dice.randrange(9):
        case 0:
            return f"cut at {at}", content[:at]
        case 1:
            return f"byte {near} changed", content[:near] + bytes([dice.randrange(256)]) + content[near + 1 :]
        case 2:
            return f"byte {at} changed", content[:at] + bytes([dice.randrange(256)]) + content[at + 1 :]
        case 3:
            return f"bytes put in at {near}", content[:near] + dice.randbytes(1 + dice.randrange(9)) + content[near:]
        case 4:
            return f"bytes taken out at {near}", content[:near] + content[near + 1 + dice.randrange(9) :]
        case 5:
            return "bytes after the end", content + dice.randbytes(1 + dice.randrange(99))
        case 6:
            return f"{near} zeros in front", bytes(near) + content
        case 7:
            return "twice", content + content
        case _:
            return f"zeros from {at}", content[:at] + bytes(len(content) - at)


TOKENS = [
    "1_0", "１", "nan", "inf", "-inf", "1e999", "0x10", "", " ", "NA", "null", "None", "'1'", '"1"', '"1', "1,5",
    "1;5", "1\t2", "=1+1",
    "#", "é", "\0", "\ufeff", "True", "1j", "٣", "1.", ".5", "1e5", "+1", "--1", "1 2", "\u2028", "\f", "9" * 400,
    "x" * 140_000, "1.0.0",
    "-0", "007", "1L", "1f", "−1", "1e-400", "<b>", "$1", "1%", "1/2",
]  # fmt: skip
"""Cells that tables hold."""


def table(rows: list[list[str]], start: int) -> tuple[str, str]:
    """Return a table after one accident, and which."""
    dice = random.Random(start)
    rows = [list(row) for row in rows]
    row, column, token = dice.randrange(len(rows)), dice.randrange(len(rows[0])), dice.choice(TOKENS)
    comma, end, names = ",", "\n", [f"e{i}" for i in range(len(rows[0]))]
    what = [f"cell {row}, {column} is {token[:9]!r}"]
    match dice.randrange(14):
        case 0 | 1 | 2 | 3 | 4:
            rows[row][column] = token
        case 5:
            comma, what = dice.choice([";", "\t", " ", "|", ", ", ",,"]), ["another comma"]
        case 6:
            end, what = (
                dice.choice(["\r\n", "\r", "\n\n", "\n#\n", "\u2028", "\x0b", "\x85", "\n\r"]),
                ["another end of line"],
            )
        case 7:
            rows.insert(
                0,
                dice.choice(
                    [
                        names,
                        list(map(str, range(len(names)))),
                        ["label", *names[1:]],
                        names[:-1] or ["n"],
                        ["5", *names[1:]],
                    ]
                ),
            )
            what = [f"header {rows[0][0]}, {rows[0][-1]}, {len(rows[0])}"]
        case 8:
            rows.insert(row, names)
            what = [f"header at {row}"]
        case 9:
            rows = [[str(i), *cells] for i, cells in enumerate(rows)]
            what = ["a column of numbers in front"]
        case 10:
            rows = [[f"m{i}", *cells] for i, cells in enumerate(rows)]
            what = ["a column of words in front"]
        case 11:
            rows[row] = rows[row][: column + 1]
            what = [f"row {row} is cut at {column}"]
        case 12:
            rows = [[f'"{cell}"' for cell in cells] for cells in rows]
            what = ["quotes"]
        case _:
            rows.append(rows[row] + ["1"])
            what = ["a longer row"]
    return what[0], end.join(comma.join(cells) for cells in rows) + end


WORDS = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(categories=["Cc", "Cs", "Cf", "Zl", "Zs", "So"]), min_size=1, max_size=6),
    st.sampled_from([
        "", " ", ".", "..", "../x", "/x", "a/b", "a\\b", "C:x", "con", "-x", "--out", "~", "x" * 240, "x" * 256,
        "x" * 5000, "é" * 130,
        "[bold]x[/bold]", "[/x]", "[red]", ":x:", ":smile:", "a\0b", "a\nb", "a\rb", "\x1b[31m", "\ud800",
        "<script>alert(1)</script>",
        "{{7*7}}", "%s%n", "$(x)", "`x`", "'", '"', "a;b", "a|b", "*", "?", "a b", "\u202eabc", "\ufeff", "🙂", "nul",
        "a.", ".a", "a,b", "a=b",
    ]),
)  # fmt: skip
"""Names that people, and scripts, give to things."""
