"""Forget lists by ids: from a column of a CSV file to positions, with what is wrong named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import expunge as ex
from expunge.core import InputError

NAMES = [f"c-{number}" for number in range(30)]


def task(ids=None) -> ex.Task:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)).astype(np.float32), np.arange(40) % 2
    return ex.Task(
        name="mine",
        train=(x[:30], y[:30]),
        validation=(x[30:], y[30:]),
        model=lambda: torch.nn.Linear(3, 2),
        ids=ids,
    )


@pytest.mark.parametrize(
    "ids",
    [
        NAMES,
        tuple(NAMES),
        np.array(NAMES),
        np.array(NAMES, dtype=object),
        pd.Series(NAMES),
        pd.Series(NAMES, index=range(5, 35)),
    ],
    ids=["list", "tuple", "array", "objects", "series", "indexed"],
)
def test_ids_of_any_form_are_positions(ids, tmp_path):
    path = tmp_path / "requests.csv"
    path.write_text('\ufeffwhen, customer \n2026,c-7\n"2026, May", c-3 \n\n2027,c-29\n')
    forget = ex.tasks.from_file(task(ids), path, id_column="customer")
    assert forget.indices.tolist() == [3, 7, 29]
    assert (forget.name, forget.how) == ("requests", "listed by customer in requests.csv")


def test_whole_numbers_are_ids_and_not_positions(tmp_path):
    path = tmp_path / "requests.csv"
    path.write_text("id\n5\n0\n")
    for ids in (range(100, 70, -1), np.arange(30)[::-1], torch.arange(29, -1, -1), pd.Series(range(29, -1, -1))):
        numbered = task(ids)
        path.write_text(f"id\n{list(ids)[24]}\n{int(ids[29])}\n")
        assert ex.tasks.from_file(numbered, path, id_column="id").indices.tolist() == [24, 29]


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (NAMES[:-1], "29 entries for 30 training examples"),
        ([*NAMES[:-1], NAMES[4]], r"ids\[4\] and ids\[29\] are both 'c-4'"),
        ([*NAMES[:-1], None], r"ids\[29\] is None"),
        ([*range(29), "3"], r"ids\[3\] and ids\[29\] are both '3'"),
        (np.arange(30) / 2, r"ids\[0\] is 0.0"),
        ([*NAMES[:-1], " "], r"ids\[29\] is ' '"),
        ("abc", "ids is .*abc"),
        (7, "ids is .*, expected a list"),
        (np.zeros((30, 2), int), r"ids\[0\] is "),
    ],
    ids=["few", "twice", "none", "text and number", "fractions", "empty", "text", "number", "two columns"],
)
def test_ids_that_name_no_example_are_refused(ids, said):
    with pytest.raises(InputError, match=said):
        task(ids)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("customer\nc-1\nc-99\nc-1\nx\n", r"2 of 4 ids are of no training example of 'mine' \('c-99', 'x'\)"),
        ("customer\nc-1\nc-2\nc-1\n", r"1 ids are listed more than once \('c-1'\)"),
        ("name\nc-1\n", "has no columns 'customer' in its first line, expected one of: name"),
        ("customer,customer\nc-1,c-2\n", "has 2 columns 'customer'"),
        ("", "expected one of: a line that names the columns"),
        ("a,customer\n1,c-1\n2\n", "line 3: there is no 'customer'"),
        ('customer\n"c-1\n', "cannot be read"),
        ("customer\n", "is empty"),
    ],
)
def test_lists_that_cannot_be_meant_are_refused(text, said, tmp_path):
    path = tmp_path / "requests.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        ex.tasks.from_file(task(NAMES), path, id_column="customer")


def test_a_task_without_ids_and_other_files_are_refused(tmp_path):
    for name, of, said in (("a.csv", task(), r"write Task\(ids=...\)"), ("a.txt", task(NAMES), "of a .csv file")):
        path = tmp_path / name
        path.write_text("customer\nc-1\n")
        with pytest.raises(InputError, match=said):
            ex.tasks.from_file(of, path, id_column="customer")


def test_on_the_command_line(tmp_path, shell, monkeypatch):
    seen = {}

    def stop(chosen, **options):
        seen.update(options)
        raise InputError("enough")

    monkeypatch.setattr("expunge.api.audit", stop)
    monkeypatch.setattr("expunge.cli.shared.task_named", lambda name, train: task(NAMES))
    (tmp_path / "r.csv").write_text("customer\nc-2\nc-1\n")
    words = ["audit", "mine.py", "--id-column", "customer", "--forget", "random:5"]
    assert "no file to forget" in shell(*words, cwd=tmp_path).stderr
    assert shell(*words, "--forget", "r.csv", cwd=tmp_path).stderr.strip() == "error: enough"
    assert seen["forget"][0] == "random:5"
    assert seen["forget"][1].indices.tolist() == [1, 2]
    assert "--id-column customer" in seen["command"]
