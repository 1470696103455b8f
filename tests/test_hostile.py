"""What strangers give is taken for what it is or refused in words: a fixed part of benchmarks/hostile_inputs.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from expunge.core import InputError
from hostile import verbs
from hostile.doors import made
from hostile.given import npy, zipped
from hostile.runner import BAD, Case, run

SLOW = ("score", "challenge_score")
"""Doors that take half a second; the benchmark knocks at them too."""

FAULTS: dict[str, Callable[[], object]] = {
    "right": lambda: 3,
    "wrong": lambda: 4,
    "traceback": lambda: 1 // 0,
    "crash": lambda: __import__("os")._exit(0),
    "memory": lambda: np.ones(2**40),
}


def refuse(text: str) -> None:
    raise InputError(text)


def test_the_harness_tells_how_a_case_ends():
    cases = [Case(name, "", call, "either", lambda result: result == 3) for name, call in FAULTS.items()]
    cases += [
        Case("clear", "", lambda: refuse("x = 3, expected 4")),
        Case("poor", "", lambda: refuse("no")),
        Case("refused", "", lambda: refuse("x = 3, expected 4"), "taken"),
        Case("wrong", "", lambda: 3, "refused"),
    ]
    assert [ending.outcome for ending in run(cases)] == [case.door for case in cases]


def test_hostile_inputs_end_well(tmp_path):
    bad = [ending for ending in run([*made(300, tmp_path, SLOW), *verbs.made(80)]) if ending.outcome in BAD]
    assert not bad, "\n".join(map(str, bad))


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("0,1,2", True),
        ("3,17,42", False),
        ("1,2,3", False),
        ("3.0,17.0,42.0", None),
        ("a,b,c", True),
        ("a,b,c,d", False),
        ('"a,b,c', False),
    ],
    ids=["counted", "positions", "from 1", "a member", "names", "a name more", "an open quote"],
)
def test_a_first_row_is_a_header_a_member_or_refused(tmp_path, header, taken):
    from expunge.studies.score.inputs import read_arrays

    (tmp_path / "x.csv").write_text(header + "\n1.5,2.5,0.5\n2.5,1.5,3.5\n")
    if taken is False:
        with pytest.raises(InputError, match=r"remove|expected"):
            read_arrays(tmp_path / "x.csv")
    else:
        assert len(read_arrays(tmp_path / "x.csv")[""]) == (2 if taken else 3)


def test_an_archive_holds_each_name_once_and_no_more_than_fits(tmp_path, monkeypatch):
    from expunge.core import reading
    from expunge.studies.score.inputs import read_arrays

    array = npy(np.ones((5, 4)))
    (tmp_path / "x.npz").write_bytes(zipped([("forget.npy", array), ("forget.npy", array)]))
    with pytest.raises(InputError, match="'forget' twice"):
        read_arrays(tmp_path / "x.npz")
    (tmp_path / "x.npz").write_bytes(zipped([("forget.npy", npy(np.zeros((1000, 1000))))]))
    monkeypatch.setattr(reading, "available_memory", lambda: 2**20)
    with pytest.raises(InputError, match="unpacked, needs"):
        read_arrays(tmp_path / "x.npz")


def test_a_small_pickle_of_many_values_is_refused_at_once():
    from expunge.tasks.plain_pickle import read_plain_pickle

    # Each of 18 lists holds the one before it 9 times: some 150 million million values in few bytes.
    body = b"".join(b"]" + b"q" + bytes([n]) + b"(" + (b"h" + bytes([n - 1])) * 9 + b"e" for n in range(1, 19))
    with pytest.raises(InputError, match="more values than bytes"):
        read_plain_pickle(b"\x80\x02(]q\x00" + body + b"t.", "it")
