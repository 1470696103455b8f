"""Copies: equal or nearly equal models are found, independent ones never, however they err together."""

import numpy as np
import pytest

from expunge.core import InputError
from expunge.metrics import Ruler
from expunge.metrics.copies import CLOSE, Copies, copies_said


def test_copies_are_those_that_a_loop_finds():
    draw = np.random.default_rng(0)
    oracle = draw.normal(size=(30, 12)) * np.geomspace(0.01, 100, 12)
    models = np.concatenate([draw.normal(size=(5, 12)), oracle[:4] * (1 + 1e-5), oracle[4:6] * (1 + 0.05)])
    models = np.concatenate([models, models[:2] + 1e-9])
    spread = oracle.std(0, ddof=1)

    def distance(a, b):
        return np.sqrt(np.mean(((a - b) / spread) ** 2))

    usual = np.median([distance(a, b) for i, a in enumerate(oracle) for b in oracle[:i]])
    near = [[distance(a, b) <= CLOSE * usual for b in oracle] for a in models]
    again = [any(distance(a, b) <= CLOSE * usual for b in models[:i]) for i, a in enumerate(models)]
    copies = Copies(oracle)
    assert copies.of_oracles(models).tolist() == np.any(near, axis=1).tolist() == [False] * 5 + [True] * 4 + [False] * 4
    assert copies.among(models).tolist() == again == [False] * 11 + [True] * 2
    assert not copies.among_oracles().any()


@pytest.mark.parametrize("directions", [1, 2, 5])
def test_independent_models_are_no_copies_however_they_err_together(directions):
    # In one direction thousands of pairs are near by chance; in five about 2e4 * 1e-15 are.
    draw = np.random.default_rng(directions)
    way = draw.normal(size=(directions, 90))
    oracle, models = draw.normal(size=(100, directions)) @ way, draw.normal(size=(100, directions)) @ way
    assert copies_said(Copies(oracle), models) == ""
    models[7] = oracle[3]
    assert "1 of 100 members are copies of oracles" in copies_said(Copies(oracle), models)
    held_out = draw.normal(size=(100, directions)) @ way
    sound = draw.normal(size=(100, directions)) @ way
    assert copies_said(Copies(oracle, held_out), sound) == ""
    held_out[4] = held_out[2]
    assert "1 of 100 held-out oracles are copies of other held-out" in copies_said(Copies(oracle, held_out), sound)
    held_out[5] = oracle[2]
    assert "1 of 100 held-out oracles are copies of oracles" in copies_said(Copies(oracle, held_out), sound)


def test_models_that_are_not_finite_and_lone_oracles_do_not_matter():
    draw = np.random.default_rng(1)
    oracle, models = draw.normal(size=(20, 30)), draw.normal(size=(20, 30))
    models[:3], models[3:5] = np.nan, 1e300
    models[4, 0] = -1e300
    assert copies_said(Copies(oracle), models) == ""
    assert Copies(oracle[:1]).of_oracles(oracle).tolist() == [True] + [False] * 19


def test_held_out_oracles_that_are_nearly_oracles_are_no_floor():
    draw = np.random.default_rng(2)
    oracle = draw.normal(size=(30, 40))
    with pytest.raises(InputError, match=r"held_out holds 10 of the oracles again \(first 20\)"):
        Ruler(oracle, np.concatenate([draw.normal(size=(20, 40)), oracle[:10] + 1e-5]))
