"""Logistic regression for which certificates have proofs: strongly convex, solved or descended, with noise."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np
from torch import nn

from expunge.core import InputError, Recipe, Task
from expunge.core.checks import one_of, plain_arguments, whole
from expunge.core.convex import ConvexFit


@plain_arguments
def logistic(
    data: Literal["tabular", "digits"] | tuple[Any, Any] = "tabular",
    l2: float = 0.01,
    perturbation: float = 0.0,
    noise: float | None = None,
    validation: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    rate: float | None = None,
) -> Task:
    """Return L2-regularised softmax regression, solved to its optimum or descended, as a task that can be certified.

    Inputs are standardised with the training examples (tabular data) or divided by 16 (digits), get a constant in place
    of a bias, and are scaled so that the longest training row has norm 1 (longer rows of the validation set are
    shortened). Members differ by noise that is drawn from their seeds, and by nothing else.

    Args:
        data: `tabular` or `digits` (as in `ex.tasks`), or inputs (examples, features) and class numbers (examples,),
            which are taken as they are but for the constant and the scale.
        l2: Regularisation of each row, above 0; the strong convexity.
        perturbation: Standard deviation of the random linear term of the summed loss, for `certified_removal`.
        noise: Standard deviation of noise on the published weights, for `descent_to_delete` and `rewind_to_delete`;
            left out, 0.1 where `perturbation` is 0, else 0.
        validation: Examples held back; by default a fifth.
        seed: Chooses the stratified split; it is no seed of a model.
        steps: Train by so many steps of gradient descent on all rows, from 0, for `rewind_to_delete`; None solves for
            the optimum, which the other methods need.
        rate: Size of each step; None is 2 / (L + m), L the smoothness and m the strong convexity.

    Raises:
        InputError: If an argument leaves its range, or there is no noise at all.
    """
    whole(0, seed=seed)
    x, y, name = _data(data)
    held = len(y) // 5 if validation is None else validation
    whole(2, validation=held)
    if held >= len(y) - 2:
        raise InputError(f"validation = {held}, expected at most {len(y) - 3}: there are {len(y)} examples.")
    from sklearn.model_selection import train_test_split

    kept, out = (
        np.sort(part) for part in train_test_split(np.arange(len(y)), test_size=held, stratify=y, random_state=seed)
    )
    if data == "tabular":
        x = (x - x[kept].mean(0)) / x[kept].std(0)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    x = x / np.linalg.norm(x[kept], axis=1).max()
    x[out] /= np.maximum(1.0, np.linalg.norm(x[out], axis=1, keepdims=True))
    noise = (0.0 if perturbation else 0.1) if noise is None else noise
    fit = ConvexFit(l2=l2, perturbation=perturbation, noise=noise, steps=steps, rate=rate)
    return Task(
        name=f"logistic-{name}" + "-descent" * (steps is not None),
        train=(x[kept], y[kept]),
        validation=(x[out], y[out]),
        model=partial(nn.Linear, x.shape[1], int(y.max()) + 1, bias=False),
        # Of a recipe a fit reads nothing: passes over all rows are what costs are relative to, about ten Newton steps.
        recipe=Recipe(epochs=10 if steps is None else steps, batch_size=64, lr=0.1, precision="float64"),
        fit=fit,
        classes=int(y.max()) + 1,
    )


def _data(data: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], str]:
    if isinstance(data, tuple):
        if len(data) != 2:
            raise InputError(f"data is a tuple of {len(data)}, expected inputs (examples, features) and class numbers.")
        x, y = np.asarray(data[0], dtype=np.float64), np.asarray(data[1])
        if x.ndim != 2 or y.shape != (len(x),) or not np.isfinite(x).all() or y.dtype.kind not in "iu" or y.min() < 0:
            raise InputError(
                f"data has inputs of shape {x.shape} and labels of shape {y.shape} ({y.dtype}), expected finite inputs "
                "(examples, features) and class numbers (examples,) from 0."
            )
        return x, y, "own"
    one_of(("tabular", "digits"), data=data)
    from sklearn.datasets import load_breast_cancer, load_digits

    x, y = (load_breast_cancer if data == "tabular" else load_digits)(return_X_y=True)
    return (x / 16.0 if data == "digits" else x), y, data
