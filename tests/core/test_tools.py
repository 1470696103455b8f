"""Seeds, digests, checks, margins, tree maths, files."""

from __future__ import annotations

import json
import math
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from expunge.core import DamagedFileError, InputError, checks, margins_from_logits, tree
from expunge.core.digest import digest_function, digest_json, digest_tensors
from expunge.core.record import write_atomically
from expunge.core.schema import Strict, read_record
from expunge.core.seeds import derive, generator

USER_FILE = """
import functools
import numpy as np
RATE, TABLE = {rate}, np.ones({ones})
def inner(x):
    return x * RATE
class Kept:
    def __init__(self, value):
        self.value = value
    def call(self, x, power={power}):
        return [self.value + inner(y) ** power for y in x]
function = functools.partial(Kept({value}).call, TABLE)
"""


def test_the_digest_of_a_function_follows_all_that_it_reaches(tmp_path):
    same = {"rate": 1, "ones": 3, "power": 2, "value": 0}

    def digest(**changed):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.py"
        path.write_text(USER_FILE.format(**{**same, **changed}))
        scope = {"__name__": "user"}
        exec(compile(path.read_text(), path, "exec"), scope)
        return digest_function(scope["function"])

    found = [digest(), *(digest(**{name: value + 1}) for name, value in same.items())]
    assert len(set(found)) == 5
    assert digest() == found[0]
    kept = {3, 1, 2}
    assert digest_function(lambda x: x in kept) == digest_function(lambda x: x in kept)


def test_functions_of_one_line_have_digests_of_their_own():
    one, other, again = (lambda x: x + 1), (lambda x: x + 2), (lambda x: x + 1)
    assert digest_function(one) == digest_function(again) != digest_function(other)


def test_seeds_are_fixed_for_ever():
    # Golden: a change would silently make every stored ensemble unreproducible.
    assert derive(0) == 3456079177858693020
    assert derive(0, "member", 7) == 9024963599589925108
    assert derive(3, "order", 0) == 3786138864227930044


def test_seeds_differ_by_every_part_and_fit_a_generator():
    paths = [(), ("a",), ("b",), ("a", "b"), ("ab",), ("a", 1), ("a", 11), (1, 1), (11,), ("a", "1")]
    seeds = {path: derive(0, *path) for path in paths}
    assert len(set(seeds.values())) == len(paths) - 1  # 1 and "1" are told apart by their text only: the same
    many = [derive(s, "member", m) for s in range(50) for m in range(200)]
    assert len(set(many)) == len(many)
    assert all(0 <= seed < 2**63 for seed in many)


def test_streams_of_neighbouring_members_are_independent():
    draws = torch.stack([torch.rand(200, generator=generator(0, "x", m), dtype=torch.float64) for m in range(100)])
    assert stats.kstest(draws.flatten().numpy(), "uniform").pvalue > 1e-4
    correlations = np.corrcoef(draws.numpy())[np.triu_indices(100, 1)] * math.sqrt(200)
    assert stats.kstest(correlations, "norm").pvalue > 1e-4


def test_digests_see_names_types_shapes_and_every_bit():
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    changed = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3, dtype=torch.float64), "b": torch.ones(1)},
        {"c": torch.zeros(2, 3), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.tensor([1.0000001])},
        {"a": -torch.zeros(2, 3), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3)},
        {"a": torch.zeros(0), "b": torch.ones(1)},
    ]
    digests = {digest_tensors(state) for state in [base, *changed]}
    assert len(digests) == len(changed) + 1
    assert digest_tensors({"b": torch.ones(1), "a": torch.zeros(3, 2).t()}) == digest_tensors(base)
    assert digest_json({"a": [1, 2], "b": None}) == digest_json({"b": None, "a": [1, 2]})
    assert digest_json([1, 2]) != digest_json([2, 1])


GOOD_AND_BAD = [
    (checks.positive, {}, [1e-300, 1, 0.5], [0, -1, math.inf, math.nan, "1", None, [1]]),
    (checks.non_negative, {}, [0, 1e9], [-1e-300, math.inf, math.nan, "1"]),
    (checks.whole, {}, [1, np.int64(3)], [0, -2, 1.0, True, "1"]),
    (checks.whole, {"minimum": 0}, [0], [-1]),
    (checks.seeds, {}, [0, -3, np.int64(3)], [1.0, True, "1", None]),
]


@pytest.mark.parametrize(("check", "options", "good", "bad"), GOOD_AND_BAD)
def test_checks_of_numbers(check, options, good, bad):
    for value in good:
        check(**options, x=value)
    for value in bad:
        with pytest.raises(InputError, match=r"x = .*expected"):
            check(**options, x=value)


def test_checks_of_ranges_words_and_tensors():
    checks.between(0, 1, x=0)
    checks.between(0, 1, x=1)
    for value in (-1e-9, 1.1, math.nan, "0.5"):
        with pytest.raises(InputError, match="from 0 to 1"):
            checks.between(0, 1, x=value)
    checks.one_of(("a", "b"), x="a")
    with pytest.raises(InputError, match="expected one of: a, b"):
        checks.one_of(("b", "a"), x="c")
    checks.finite(torch.tensor([1, 2]), "x")
    bad = torch.zeros(4, 2, 2)
    bad[2, 0, 1], bad[3] = math.nan, math.inf
    with pytest.raises(InputError, match=r"t has 5 non-finite values in 2 rows \(first row 2\)"):
        checks.finite(bad, "t")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("digits", "x is the text 'digits', expected a list"),
        ("a" * 100, "x is a text of 100 letters, expected"),
        (None, "x is None"),
        (int, "x is the class int"),
        (3, "x is an int"),
    ],
)
def test_a_value_of_the_wrong_class_is_described(value, message):
    checks.instance(list, "a list", x=[])
    with pytest.raises(InputError, match=message):
        checks.instance((list, tuple), "a list", x=value)


rows = hnp.arrays(np.float64, (3, 4), elements=st.floats(-30, 30))


@given(rows, hnp.arrays(np.int64, 3, elements=st.integers(0, 3)), st.floats(-100, 100))
def test_margins_are_log_odds_and_ignore_a_common_shift(logits, labels, shift):
    z, y = torch.tensor(logits), torch.tensor(labels)
    found = margins_from_logits(z, y)
    for i in range(3):
        others = np.delete(logits[i], labels[i])
        assert float(found[i]) == pytest.approx(logits[i, labels[i]] - np.logaddexp.reduce(others), abs=1e-9)
    torch.testing.assert_close(margins_from_logits(z + shift, y), found, rtol=1e-9, atol=1e-9)
    # Two classes: the margin is the difference of the logits.
    torch.testing.assert_close(margins_from_logits(z[:, :2], y % 2), (z[:, 0] - z[:, 1]) * (1 - 2 * (y % 2)))


def test_margins_stay_exact_where_the_softmax_saturates():
    z = torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]])
    assert margins_from_logits(z, torch.tensor([0, 0])).tolist() == pytest.approx([200 - math.log(2), -200.0])
    assert margins_from_logits(z.bfloat16(), torch.tensor([0, 0])).dtype == torch.float32
    stacked = torch.randn(5, 7, 3)
    y = torch.randint(0, 3, (7,))
    torch.testing.assert_close(margins_from_logits(stacked, y)[3], margins_from_logits(stacked[3], y))


def state(members=3):
    g = torch.Generator().manual_seed(0)
    scale = torch.rand(members, generator=g)  # a scalar parameter a member
    return {"w": torch.randn(members, 2, 3, generator=g), "scale": scale, "n": torch.arange(members)}


def test_tree_maths():
    whole = state()
    parts = [tree.take(whole, slice(0, 2)), tree.take(whole, slice(2, 3))]
    joined = tree.concatenate(parts)
    assert all(torch.equal(joined[name], whole[name]) for name in whole)
    copy = tree.clone(whole)
    copy["w"].zero_()
    assert bool(whole["w"].any())
    apart = tree.distance(whole, copy)
    expected = [float(torch.linalg.norm(torch.cat([whole["w"][m].flatten(), torch.zeros(1)]))) for m in range(3)]
    assert apart.dtype == torch.float64
    assert apart.tolist() == pytest.approx(expected, rel=1e-6)
    whole["w"][1, 0, 0] = math.nan
    assert tree.finite_members(whole).tolist() == [True, False, True]
    # Sums that overflow, and infinities that cancel, say nothing.
    largest, inf = torch.finfo(torch.float32).max, float("inf")
    extreme = torch.tensor([[largest, largest], [inf, -inf], [-largest, -largest], [inf, 0.0]])
    assert tree.finite_members({"w": extreme}).tolist() == [True, False, True, False]
    assert math.isnan(tree.distance(whole, copy)[1])


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a" / "file"
    write_atomically(path, b"old")

    def broken(*_):
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", broken)
        with pytest.raises(InputError, match="power cut"):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert write_atomically(path, b"new").read_bytes() == b"new"


def test_many_threads_may_write_the_same_file(tmp_path):
    path, errors = tmp_path / "file", []
    contents = [bytes([65 + number]) * 5000 for number in range(8)]

    def work(content):
        try:
            for _ in range(5):
                write_atomically(path, content)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert path.read_bytes() in contents
    assert [child.name for child in tmp_path.iterdir()] == ["file"]


class Small(Strict):
    schema_version: int
    members: int
    tolerance: float
    name: str


GOOD_RECORD = {"schema_version": 1, "members": 3, "tolerance": 0.1, "name": "n"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            json.dumps({**GOOD_RECORD, "members": "many"}),
            r"members: input should be a valid integer.*, got 'many'\. Res",
        ),
        (json.dumps({**GOOD_RECORD, "members": "a", "tolerance": None, "x": 1}), r"got 'a' \(and 2 more problems\)"),
        (json.dumps({"schema_version": 1, "members": 3, "tolerance": 1}), r"name: field required\. Restore"),
        (json.dumps({**GOOD_RECORD, "name": 0 * [1]}), "name: input should be a valid string"),
        (json.dumps(GOOD_RECORD)[:-9], "not a record of expunge, or damaged"),
        ("", "not a record of expunge, or damaged"),
        ("[" * 100_000, "not a record of expunge, or damaged"),
        ("[]", "has no schema_version"),
        (json.dumps({**GOOD_RECORD, "schema_version": 9}), "record format 9, this version of expunge reads 1"),
    ],
)
def test_a_damaged_record_is_described_in_one_line(tmp_path, content, message):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(GOOD_RECORD))
    assert read_record(Small, path, 1).members == 3
    path.write_text(content)
    with pytest.raises(DamagedFileError, match=message) as caught:
        read_record(Small, path, 1)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    assert "http" not in text
    assert len(text) < 400 + len(str(path))
