"""Forget sets along the principal components of the datamodel matrix: groups of examples that act alike.

With B (examples, targets) the datamodel weights among the training examples, the embedding of training example i is
column i: the effects that all examples have on it. As in any principal component analysis the embeddings are centred,
over i, and

    B - mean = U S V^T,        score of example i on component r:  (S V^T)_ri

A component's sign is arbitrary in mathematics; here the score that is largest in size is positive (of equal ones, the
first). `top` are the largest scores, `bottom` the smallest, `both` half of each; equal scores go by position.

Source: "Ascent Fails to Forget" (arXiv 2509.26427), app. K: top 10, top 100, and 250 top with 250 bottom of 50,000
examples, on the first and on the second component. Its text does not say what is centred and whether rows or columns
are ranked; embeddings are those of Ilyas et al. (arXiv 2202.00622), sec. 5.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import scipy

from expunge.core import ForgetSet, InputError, Task
from expunge.core.checks import one_of, whole
from expunge.dependence.datamodels import Datamodel, blocks

Array = np.ndarray[Any, Any]
Side = Literal["top", "bottom", "both"]
SIDES: tuple[Side, ...] = ("top", "bottom", "both")

DENSE = 2048
"""Training examples up to which the matrix is decomposed whole; above, only the components asked for are computed."""

PAPER: tuple[tuple[Side, float, int], ...] = (("top", 10 / 50_000, 10), ("top", 100 / 50_000, 20), ("both", 0.01, 40))
"""The paper's three sets a component: side, share of the training examples, and the fewest examples here."""


class Components(NamedTuple):
    """The leading principal components of the datamodel embeddings of the training examples."""

    scores: Array
    """Shape (examples, components)."""
    shares: Array
    """Share of the variance of the embeddings along each component, shape (components,)."""


def principal_components(datamodel: Datamodel, components: int = 2) -> Components:
    """Return scores of all training examples on the leading principal components of the datamodel matrix.

    Args:
        datamodel: Its targets must include every training example once.
        components: How many, from 1 to two fewer than the examples.

    Raises:
        InputError: If a training example is no target or several, or there are too many components.
    """
    n = datamodel.examples
    whole(components=components)
    where = np.flatnonzero(datamodel.own >= 0)
    if not np.array_equal(np.sort(datamodel.own[where]), np.arange(n)):
        raise InputError(
            f"{len(np.unique(datamodel.own[where]))} of {n} training examples are targets, expected each exactly once; "
            "train the subsets with targets='train' or 'all'."
        )
    if components > n - 2:
        raise InputError(f"components = {components}, expected at most {n - 2} of {n} examples.")
    order = where[np.argsort(datamodel.own[where])]
    if n <= DENSE:
        embeddings = datamodel.weights()[:, order]
        embeddings = embeddings - embeddings.mean(1, keepdims=True)
        _, values, right = np.linalg.svd(embeddings, full_matrices=False)
        total = float((values**2).sum())
    else:
        operator, total = _operator(datamodel, order)
        start = np.random.default_rng(0).normal(size=n)
        _, values, right = scipy.sparse.linalg.svds(operator, k=components, v0=start, return_singular_vectors="vh")
        values, right = values[::-1], right[::-1]
    if total <= 0:
        raise InputError("the datamodel matrix is constant, so it has no principal component; train more subsets.")
    scores = (right[:components] * values[:components, None]).T
    largest = np.abs(scores).argmax(0)
    scores = scores * np.sign(scores[largest, np.arange(components)])
    return Components(scores, values[:components] ** 2 / total)


def component_forget_set(
    task: Task, components: Components, component: int, side: Side, size: int, skip: int = 0
) -> ForgetSet:
    """Return the examples with the most extreme scores on one component.

    Args:
        task: The task whose training examples are meant.
        components: From `principal_components`.
        component: Its number, from 1.
        side: `top` (largest scores), `bottom` (smallest), or `both` (half of each; the odd one is taken from the top).
        size: Number of examples, from 1.
        skip: More extreme examples of the same side to pass over (for a set of the same kind that does not overlap).

    Raises:
        InputError: If the component was not computed, or there are too few examples.
    """
    scores, side = components.scores, one_of_sides(side)
    whole(component=component, size=size)
    whole(0, skip=skip)
    if len(scores) != len(task.train):
        raise InputError(
            f"components are of {len(scores)} examples, the task {task.name!r} has {len(task.train)}; compute them on "
            "this task."
        )
    if component > scores.shape[1]:
        raise InputError(f"component = {component}, expected 1 to {scores.shape[1]}, those that were computed.")
    if size + skip >= len(scores):
        raise InputError(
            f"size {size} with {skip} passed over asks for all of {len(scores)} training examples or more, expected "
            "fewer: something must be left to train on."
        )
    falling = np.argsort(-scores[:, component - 1], kind="stable")
    if side == "top":
        chosen = falling[skip : skip + size]
    elif side == "bottom":
        chosen = falling[::-1][skip : skip + size]
    else:
        high, low, past_high, past_low = size - size // 2, size // 2, skip - skip // 2, skip // 2
        chosen = np.concatenate([falling[past_high : past_high + high], falling[::-1][past_low : past_low + low]])
    words = {"top": "largest", "bottom": "smallest", "both": "largest and smallest"}[side]
    after = f", after the {skip} most extreme" if skip else ""
    return ForgetSet.of(
        task,
        chosen,
        name=f"component-{component}-{side}-{size}" + ("-next" if skip else ""),
        how=f"the {size} training examples with the {words} scores on principal component {component} of the datamodel "
        f"matrix ({components.shares[component - 1]:.1%} of its variance){after}",
        chooser="component",
        options={"size": size, "component": component, "side": side, "skip": skip},
    )


def one_of_sides(side: str) -> Side:
    """Return the side, or raise `InputError` if there is none of that name."""
    one_of(SIDES, side=side)
    return side  # type: ignore[return-value]


def _operator(datamodel: Datamodel, order: Array) -> tuple[Any, float]:
    """Return the centred embeddings as an operator, made block by block, and their total variance."""
    n = datamodel.examples
    mean, square = datamodel.apply(np.ones((n, 1)), order)[:, 0] / n, 0.0
    for part in blocks(n, n):
        square += float((datamodel.weights(order[part]) ** 2).sum())

    def forward(v: Array) -> Array:
        v = v.reshape(-1)
        return np.asarray(datamodel.apply(v[:, None], order)[:, 0] - mean * v.sum())

    def backward(u: Array) -> Array:
        u = u.reshape(-1)
        return np.asarray(datamodel.apply_transposed(u[None], order)[0] - mean @ u)

    return scipy.sparse.linalg.LinearOperator(
        (n, n), matvec=forward, rmatvec=backward, dtype=np.float64
    ), square - n * float(mean @ mean)
