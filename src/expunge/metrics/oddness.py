"""How odd each of a few models is among the others: statistics that treat all alike, and a rank with exact level.

If a model comes from the same training as N oracles, all N + 1 are exchangeable: each is as likely as any other to be
the oddest. So the oddness of each model is found in the same way, against the N others, and the p-value of one is its
rank (conformal inference):

    p = #{models at least as odd} / (N + 1),        P(p <= a) <= a for every a, however models err together

With z_ij the margin of model i on example j, less the mean of the other models' and in their standard deviations
(predictive: times sqrt(1 + 1/N)), each statistic is one number a model:

    <split>             mean of z over the examples of a split
    forget beside rest  mean of z on forget, less the mean of that on the other splits: what all examples share cancels
    retain beside validation    likewise
    <split> distance    log of the mean of z^2: large for what is far or noisy, small for an average of models
    furthest row        log of the largest |z| on forget
    nearest             log of the distance to the nearest other model: small for what was made from one of them
    pattern             log of the distance in the metric of the others' covariance (with a ridge): unusual patterns
    direction           the discriminant from these models to the pretrained ones, if there are some, in the same metric

The last two are closed forms of leaving model i out of the covariance: with the rows of X standardised margins,
G = (X X' + l I)^-1 and b = X (mean pretrained - mean), they are h_i / (1 - h_i) with 1 - h_i = l G_ii, and, for x_i on
the discriminant, (G b)_i / G_ii. l is a tenth of the mean diagonal of X X'.

Each statistic is standardised over the models, again by leaving one out, and the oddness of a model is the largest in
size (the furthest row is odd only when large). The direction counts 1.5 times, since it is where a model that still
remembers differs: as one of a dozen equal statistics it would lose half of its power against weak remains.

Source: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World (2005), chapter 2, for the rank; Cook and
Weisberg (1982), chapter 2, for leaving one out in closed form; the choice of statistics is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from expunge.core.schema import SplitName
from expunge.metrics.arrays import Array

FORWARD = 1.5
"""Weight of the direction to the pretrained models."""
RIDGE = 0.1
"""Ridge of the covariance, in mean diagonals of X X'."""
SMALLEST = 1e-30
"""What logarithms are taken of at least."""
CLAMP = 1e-9
"""Least share of all squares that the others keep, so that rounding does not decide about a model that is far out."""
SAME = 1e-9
"""Two oddnesses that differ by no more, relatively, are tied; ties count against the model."""


@dataclass(frozen=True)
class Oddness:
    """How odd each of some models is."""

    names: tuple[str, ...]
    """Names of the statistics."""
    parts: Array
    """Each statistic in standard deviations of the others', weighted, (statistics, models)."""
    total: Array
    """Oddness, (models,)."""

    def p_value(self, model: int = 0) -> float:
        """Return the share of models that are at least as odd as one of them."""
        return float(np.mean(self.total >= self.total[model] * (1 - SAME)))

    def reason(self, model: int = 0) -> tuple[str, float]:
        """Return the statistic that is the oddest of a model, and its signed value without its weight."""
        sizes = np.where([name in ONE_SIDED for name in self.names], self.parts[:, model], np.abs(self.parts[:, model]))
        place = int(np.argmax(sizes))
        name = self.names[place]
        return name, float(self.parts[place, model]) / (FORWARD if name == "direction" else 1.0)


ONE_SIDED = ("furthest row",)
"""Statistics that are odd only when large."""


def oddness(margins: Mapping[SplitName, Array], pretrained: Mapping[SplitName, Array] | None = None) -> Oddness:
    """Return how odd each model is among the others; see the module.

    Args:
        margins: Finite margins by split, each (models, examples), of at least 4 models; `forget` is needed.
        pretrained: Mean margins of pretrained models on the same examples, each (examples,).
    """
    found = _by_example(margins) | _by_model(margins, pretrained)
    parts = leave_one_out(np.stack([*found.values()], axis=1)).T
    parts[[name == "direction" for name in found]] *= FORWARD
    sizes = np.where(np.array([name in ONE_SIDED for name in found])[:, None], parts, np.abs(parts))
    return Oddness(tuple(found), parts, sizes.max(0))


def leave_one_out(values: Array) -> Array:
    """Return each value less the mean of the others in its column, in their predictive standard deviations.

    Args:
        values: Shape (models, columns), at least 3 models; a column in which all are equal gives 0.

    >>> leave_one_out(np.array([[0.0], [1.0], [2.0]])).ravel().round(3).tolist()
    [-1.732, 0.0, 1.732]
    """
    n = len(values)
    away = (values - values.mean(0)) * (n / (n - 1))
    squares = ((values - values.mean(0)) ** 2).sum(0)
    others = np.maximum(squares - away**2 * ((n - 1) / n), CLAMP * squares)
    deviation = np.sqrt(others / (n - 2) * (n / (n - 1)))
    return np.asarray(np.divide(away, deviation, out=np.zeros_like(away), where=deviation > 0))


def _by_example(margins: Mapping[SplitName, Array]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for split, values in margins.items():
        z = leave_one_out(values)
        found[split] = z.mean(1)
        found[f"{split} distance"] = _log((z**2).mean(1))
        if split == "forget":
            found["furthest row"] = _log(np.abs(z).max(1))
    rest = [found[split] for split in margins if split != "forget"]
    if rest:
        found["forget beside rest"] = found["forget"] - np.mean(rest, axis=0)
    if len(rest) == 2:
        found["retain beside validation"] = found["retain"] - found["validation"]
    return found


def _by_model(margins: Mapping[SplitName, Array], pretrained: Mapping[SplitName, Array] | None) -> dict[str, Array]:
    """Return the statistics of whole models, each split with the same weight."""
    rows, towards = [], []
    for split, values in margins.items():
        centre, spread = values.mean(0), values.std(0, ddof=1)
        scale = np.where(spread > 0, spread, np.inf) * np.sqrt(values.shape[1])
        rows.append((values - centre) / scale)
        if pretrained is not None:
            towards.append((pretrained[split] - centre) / scale)
    x = np.concatenate(rows, axis=1)
    products = x @ x.T
    squares = np.diag(products)
    between = squares[:, None] + squares[None] - 2 * products
    np.fill_diagonal(between, np.inf)
    found = {"nearest": _log(between.min(1))}
    ridge = RIDGE * float(squares.mean())
    if ridge > 0:
        inverse = np.linalg.inv(products + ridge * np.eye(len(x)))
        rest = ridge * np.diag(inverse)
        found["pattern"] = _log(1 / np.minimum(rest, 1.0) - 1)
        if pretrained is not None:
            found["direction"] = (inverse @ (x @ np.concatenate(towards))) / np.diag(inverse)
    return found


def _log(values: Array) -> Array:
    return np.asarray(np.log(np.maximum(values, SMALLEST)))
