import numpy as np
import pytest

from expunge.core import InputError
from expunge.papers.ascent_fails_to_forget.theory.low_dimensional import CONVENTIONS, OBJECTIVES, Landscape, compare


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_gradient(convention):
    for objective in OBJECTIVES:
        landscape = Landscape(convention, objective)
        w = np.array([0.7, -0.3])
        numeric = [float(landscape.loss(*(w + 1e-6 * e)) - landscape.loss(*(w - 1e-6 * e))) / 2e-6 for e in np.eye(2)]
        np.testing.assert_allclose(landscape.gradient(w), numeric, atol=1e-7)


@pytest.mark.parametrize(
    ("convention", "patterns", "trapped", "holds"),
    [
        ("literal", ("-+++", "-+--", "-+--"), False, False),
        ("symmetric", ("-+++", "-+++", "-+--"), True, True),
        ("zero_one", ("-+++", "-+++", "-+--"), False, False),
    ],
)
def test_table_of_conventions(convention, patterns, trapped, holds):
    found = compare(convention, starts=5)
    assert tuple(found.basins[name][0].pattern for name in OBJECTIVES) == patterns
    assert found.trapped == trapped
    assert found.holds == holds
    assert found.unlearned.pattern == "-+--"


def test_the_trap_is_a_local_minimum_of_the_oracle_in_the_symmetric_convention():
    basins = Landscape("symmetric", "oracle").basins(starts=7)
    assert [basin.pattern for basin in basins] == ["-+++", "-+--"]
    assert basins[0].loss < basins[1].loss


def test_bad_names():
    with pytest.raises(InputError, match="convention"):
        Landscape("other", "oracle")
