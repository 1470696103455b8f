"""Real data that ship with scikit-learn: nothing is downloaded, and a hundred models train in seconds."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np

from expunge.core import InputError, Recipe, Task
from expunge.core.checks import one_of, plain_arguments, whole
from expunge.core.renamed import renamed
from expunge.tasks.models import Norm, mlp, small_cnn


@renamed("batch", "optimiser")
@plain_arguments
def digits(
    model: Literal["mlp", "cnn"] = "mlp",
    norm: Norm = None,
    validation: int = 360,
    seed: int = 0,
    **recipe: Any,
) -> Task:
    """Return scikit-learn's 1,797 handwritten digits (8x8 grey pixels, 10 classes) as a task.

    Pixels are divided by 16, so that they lie in [0, 1]. The split is stratified by class and fixed by `seed`, which is
    not the seed of any model.

    Args:
        model: `mlp` (64-128-10, inputs (examples, 64)) or `cnn` (`small_cnn`, inputs (examples, 1, 8, 8)).
        norm: Normalisation of the hidden layers, `"batch"` or None.
        validation: Examples held back from training, from 10 to 1,787; the default leaves 1,437 for training.
        seed: Chooses the split.
        **recipe: Fields of `Recipe` that replace the defaults: batch 64, 30 epochs, triangular rate that peaks at .2
            (`mlp`) or .1 (`cnn`) after a sixth of the epochs; the other defaults are those of `Recipe`.

    Returns:
        The task, named `digits`, `digits-cnn`, and so on.

    Raises:
        InputError: If an argument leaves its range or the recipe has no such field.

    Source:
        E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (test part), UCI, 1998; as shipped in
        `sklearn.datasets.load_digits`.
    """
    one_of(("mlp", "cnn"), model=model)
    from sklearn.datasets import load_digits

    data, labels = load_digits(return_X_y=True)
    x = (data / 16.0).astype(np.float32)
    if model == "cnn":
        x = x.reshape(-1, 1, 8, 8)
        factory = partial(small_cnn, size=8, norm=norm)
    else:
        factory = partial(mlp, inputs=64, norm=norm)
    fields = {"batch_size": 64, "lr": 0.2 if model == "mlp" else 0.1, **recipe}
    name = "-".join(["digits", *(["cnn"] if model == "cnn" else []), *(["batchnorm"] if norm else [])])
    task = _task(name, x, labels, validation, seed, factory, fields)
    task.picture = (8, 8)
    return task


@renamed("batch", "optimiser")
@plain_arguments
def tabular(norm: Norm = None, validation: int = 114, seed: int = 0, **recipe: Any) -> Task:
    """Return the Wisconsin diagnostic breast-cancer data (569 patients, 30 measurements, 2 classes) as a task.

    The larger of the tables for classification in scikit-learn, and the kind of data (medical records) that people ask
    to have removed. Measurements are standardised with the mean and standard deviation of the training examples. The
    model is an MLP 30-32-2.

    Args:
        norm: Normalisation of the hidden layer, `"batch"` or None.
        validation: Examples held back from training, from 2 to 567.
        seed: Chooses the stratified split.
        **recipe: Fields of `Recipe` that replace the defaults: batch 32, 30 epochs, triangular rate that peaks at .05
            after a sixth of the epochs; the other defaults are those of `Recipe`.

    Raises:
        InputError: If an argument leaves its range or the recipe has no such field.

    Source:
        Street, Wolberg and Mangasarian, "Nuclear feature extraction for breast tumor diagnosis", 1993; as shipped in
        `sklearn.datasets.load_breast_cancer`.
    """
    from sklearn.datasets import load_breast_cancer

    data, labels = load_breast_cancer(return_X_y=True)
    fields = {"batch_size": 32, "lr": 0.05, **recipe}
    factory = partial(mlp, inputs=data.shape[1], hidden=(32,), classes=2, norm=norm)
    name = "tabular-batchnorm" if norm else "tabular"
    return _task(name, data, labels, validation, seed, factory, fields, standardise=True)


def _task(
    name: str,
    x: np.ndarray[Any, Any],
    y: np.ndarray[Any, Any],
    validation: int,
    seed: int,
    factory: partial[Any],
    fields: dict[str, Any],
    standardise: bool = False,
) -> Task:
    classes = int(y.max()) + 1
    whole(classes, validation=validation)
    whole(0, seed=seed)
    if validation > len(y) - classes:
        raise InputError(
            f"validation = {validation}, expected at most {len(y) - classes}: the data have {len(y)} examples, and "
            "each class needs one for training."
        )
    unknown = set(fields) - set(Recipe.__dataclass_fields__)
    if unknown:
        known = ", ".join(Recipe.__dataclass_fields__)
        raise InputError(f"{name}() got {', '.join(sorted(unknown))}, expected fields of Recipe: {known}.")
    # A shorter training keeps the shape of the schedule: the rate peaks after a sixth of it.
    fields = {"epochs": 30, **fields}
    fields = {"peak_epoch": fields["epochs"] / 6, **fields}
    from sklearn.model_selection import train_test_split

    kept, held = train_test_split(np.arange(len(y)), test_size=validation, stratify=y, random_state=seed)
    kept, held = np.sort(kept), np.sort(held)
    if standardise:
        mean, scale = x[kept].mean(0), x[kept].std(0)
        x = ((x - mean) / scale).astype(np.float32)
    return Task(
        name=name,
        train=(x[kept], y[kept]),
        validation=(x[held], y[held]),
        model=factory,
        recipe=Recipe(**fields),
        classes=classes,
    )
