"""Estimators of scikit-learn as tasks: a member is the estimator fitted once more, and what it puts out is compared.

There are no weights, so retraining is the only method of ours; functions of the user's own get the estimator fitted
again, and arrays. Margins come from `decision_function` where there is
one, else from the log-odds of `predict_proba` in float64. A probability of 0 or 1 has no log-odds: all are cut to
[s, 1 - s], where s is 1 / (2 n_estimators) for estimators that vote (they cannot tell less), else 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge.core import InputError, Recipe, Task
from expunge.core.checks import described
from expunge.core.outputs_alone import OutputsAlone

LEAST = 1e-6
"""Least probability that is told from 0, for estimators that do not vote."""


@dataclass(frozen=True)
class EstimatorFit:
    """A `fit` that fits clones of an estimator."""

    estimator: Any
    bootstrap: bool
    classes: int
    """Number of classes; 0 for a regressor."""
    least: float
    """Probabilities are cut to between this and 1 minus this."""
    x: Any = field(repr=False)
    validation: Any = field(repr=False)

    def __call__(self, model: Any, dataset: Any, seed: int) -> OutputsAlone:
        """Fit a clone on the rows of one member, and return what it puts out for all examples."""
        return self._all(self.fitted(dataset.rows, dataset.y.numpy(), seed))

    def unlearned(
        self, change: Callable[..., Any], task: Task, retain: Any, forget: Any, seed: int
    ) -> tuple[OutputsAlone, OutputsAlone]:
        """Return outputs of a member fitted on all rows again, and of what a function makes of it.

        Args:
            change: Called with the estimator and (x, y) of the retain, the forget and the validation set; returns an
                estimator.
            task: Whose targets.
            retain: Positions of the retain set.
            forget: Positions of the forget set.
            seed: With which the member was fitted.
        """
        y = task.train.y.numpy().copy()
        fitted = self.fitted(np.arange(len(y)), y, seed)
        before = self._all(fitted)
        rows = [(_taken(self.x, np.asarray(part)), y[np.asarray(part)]) for part in (retain, forget)]
        return before, self._all(change(fitted, *rows, (_copied(self.validation), task.validation.y.numpy().copy())))

    def _all(self, fitted: Any) -> OutputsAlone:
        # Copies: a step with copy=False writes into what it is given.
        return OutputsAlone(self.outputs(fitted, _copied(self.x)), self.outputs(fitted, _copied(self.validation)))

    def fitted(self, rows: NDArray[np.int64], y: NDArray[Any], seed: int) -> Any:
        """Return a clone fitted on rows (positions in x) with targets y, all that is random in it from the seed."""
        from sklearn.base import clone

        estimator = clone(self.estimator)
        names = estimator.get_params(deep=True)
        estimator.set_params(**{name: seed for name in names if name.split("__")[-1] == "random_state"})
        # Members run side by side, a core each.
        many = [name for name, value in names.items() if name.split("__")[-1] == "n_jobs" and value is not None]
        estimator.set_params(**dict.fromkeys(many, 1))
        if self.bootstrap:
            drawn = np.sort(np.random.default_rng(seed).integers(len(rows), size=len(rows)))
            rows, y = rows[drawn], y[drawn]
        return estimator.fit(_taken(self.x, rows), y.ravel() if y.ndim == 2 and y.shape[1] == 1 else y)

    def remark(self, outputs: Mapping[str, Any]) -> str:
        """Return how many of a member's probabilities are cut, where there are probabilities.

        Args:
            outputs: Of one member or several, by part of the data.
        """
        if not self.classes or hasattr(self.estimator, "decision_function"):
            return ""
        cut = [
            (np.abs(part.numpy() - np.log(end)) < 1e-12).mean()
            for part in outputs.values()
            for end in (self.least, 1 - self.least)
        ]
        return f" Of its probabilities {sum(cut) / len(outputs):.0%} are cut to {self.least:g} or 1 - {self.least:g}."

    def outputs(self, fitted: Any, x: Any) -> NDArray[np.float64]:
        """Return logits (examples, classes), or predictions (examples, targets), float64."""
        if not self.classes:
            return np.asarray(fitted.predict(x), dtype=np.float64).reshape(len(x), -1)
        # A class that none of the rows has is as unlikely as can be told.
        out = np.full((len(x), self.classes), np.log(self.least))
        seen = fitted.classes_.astype(int)
        if hasattr(fitted, "decision_function"):
            scores = np.asarray(fitted.decision_function(x), dtype=np.float64)
            if scores.ndim == 1:
                scores = np.stack([np.zeros_like(scores), scores], axis=1)
            if scores.shape[1] == len(seen):
                out[:, seen] = scores
                out[:, np.setdiff1d(np.arange(self.classes), seen)] += np.logaddexp.reduce(scores, axis=1)[:, None]
                return out
        out[:, seen] = np.log(np.clip(fitted.predict_proba(x), self.least, 1 - self.least))
        return out


def from_estimator(
    estimator: Any,
    x: Any,
    y: Any,
    *,
    validation: tuple[Any, Any],
    name: str | None = None,
    bootstrap: bool | None = None,
) -> Task:
    """Return a task whose members are an estimator of scikit-learn, fitted again and again.

    Args:
        estimator: A classifier with `decision_function` or `predict_proba`, or a regressor; pipelines as well. It is
            cloned, never fitted itself; `n_jobs` is set to 1, since members run side by side.
        x: Training inputs (examples, features), numbers.
        y: Class numbers or words; numbers for a regressor.
        validation: The same of other examples, (x, y).
        name: Name of the task; by default that of the estimator's class.
        bootstrap: Whether each member is fitted on as many rows, drawn with replacement from its own. By default only
            where the estimator has no `random_state`, since all members would be one otherwise.

    Raises:
        InputError: If it is no such estimator, or data do not fit; and when trained, if all members are the same.
    """
    from sklearn.base import BaseEstimator, is_classifier, is_regressor

    if not isinstance(estimator, BaseEstimator) or isinstance(estimator, type):
        raise InputError(
            f"estimator is {described(estimator)}, expected one of scikit-learn's, such as RandomForestClassifier()."
        )
    if is_regressor(estimator):
        outcome = "regression"
    elif is_classifier(estimator) and (hasattr(estimator, "decision_function") or hasattr(estimator, "predict_proba")):
        outcome = "classes"
    else:
        raise InputError(
            f"estimator is {described(estimator)}, expected a regressor, or a classifier with decision_function or "
            "predict_proba (SVC(probability=True), CalibratedClassifierCV(...))."
        )
    if not isinstance(validation, tuple | list) or len(validation) != 2:
        raise InputError(f"validation is {described(validation)}, expected inputs and targets: (x, y).")
    params = estimator.get_params(deep=True)
    if bootstrap is None:
        bootstrap = not any(key.split("__")[-1] == "random_state" for key in params)
    task = Task(
        name=name or type(estimator).__name__,
        train=(x, y),
        validation=tuple(validation),
        model=None,
        outcome=outcome,
        recipe=Recipe(epochs=1, precision="float64"),
    )
    votes = max((int(value) for key, value in params.items() if key.split("__")[-1] == "n_estimators"), default=0)
    task.fit = EstimatorFit(
        estimator,
        bootstrap,
        task.classes if outcome == "classes" else 0,
        1 / (2 * votes) if votes else LEAST,
        _copied(x),
        _copied(validation[0]),
    )
    return task


def _copied(x: Any) -> Any:
    return _taken(x, np.arange(len(x)))


def _taken(x: Any, rows: NDArray[np.int64]) -> Any:
    return x.iloc[rows] if hasattr(x, "iloc") else np.asarray(x)[rows]
