"""Estimators of scikit-learn: what members are, their margins, and what cannot be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from expunge.core import InputError
from expunge.core.seeds import derive
from expunge.ensembles import train
from expunge.ensembles.own_loop import member_seeds
from expunge.methods import from_function, unlearn
from expunge.tasks import from_estimator, random_forget_set

X, Y = load_iris(return_X_y=True)
# One flower was measured twice.
ORDER = np.random.default_rng(0).permutation(np.unique(X, axis=0, return_index=True)[1])
X, Y = X[ORDER], Y[ORDER]
TRAIN, VALID = (X[:110], Y[:110]), (X[110:], Y[110:])


def seed_of(member, rows=110):
    return derive(member_seeds(0, [torch.arange(rows)] * 9, range(9))[member], "fit") % 2**31


def test_members_are_the_estimator_fitted_with_other_seeds():
    forest = RandomForestClassifier(n_estimators=10, random_state=7, n_jobs=2)
    task = from_estimator(forest, *TRAIN, validation=VALID)
    ensemble = train(task, members=3, workers=2)
    assert forest.random_state == 7
    assert not hasattr(forest, "estimators_")
    for member in range(3):
        own = RandomForestClassifier(n_estimators=10, random_state=seed_of(member)).fit(*TRAIN)
        expected = np.log(np.clip(own.predict_proba(VALID[0]), 1 / 20, 1 - 1 / 20))
        assert np.array_equal(ensemble.params["validation"][member].numpy(), expected)
    margins = ensemble.margins(task.train.x, task.train.y)
    assert margins.dtype == torch.float64
    assert bool(torch.isfinite(margins).all())


def test_estimators_without_a_seed_get_bootstrap_rows_and_those_that_ignore_theirs_are_told():
    task = from_estimator(GaussianNB(), *TRAIN, validation=VALID)
    ensemble = train(task, members=2)
    rows = np.sort(np.random.default_rng(seed_of(1)).integers(110, size=110))
    own = GaussianNB().fit(X[rows], Y[rows])
    expected = np.log(np.clip(own.predict_proba(VALID[0]), 1e-6, 1 - 1e-6))
    assert np.allclose(ensemble.params["validation"][1].numpy(), expected)
    still = from_estimator(LogisticRegression(), *TRAIN, validation=VALID)
    with pytest.raises(InputError, match=r"members \d and \d .* came out the same.*bootstrap=True"):
        train(still, members=2)
    assert len(train(from_estimator(LogisticRegression(), *TRAIN, validation=VALID, bootstrap=True), members=2)) == 2


def test_steps_that_write_into_their_inputs_and_arrays_that_change_later_change_nothing():
    x = X[:110].copy()
    tree = RandomForestClassifier(n_estimators=3)
    writing, plain = (
        from_estimator(make_pipeline(StandardScaler(copy=copy), tree), x, Y[:110], validation=VALID)
        for copy in (False, True)
    )
    x[:] = 0
    valid = VALID[0].copy()
    one, other = (train(task, members=2, workers=1) for task in (writing, plain))
    assert all(torch.equal(one.params[part], other.params[part]) for part in other.params)
    assert np.array_equal(VALID[0], valid)
    right = one.accuracy(writing.train.x, writing.train.y)
    assert bool((right > 0.9).all())  # not of rows of zeros


def test_scores_are_logits_where_there_are_some():
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    two = Y[:110] < 2
    task = from_estimator(pipeline, X[:110][two], Y[:110][two], validation=(X[110:][Y[110:] < 2], Y[110:][Y[110:] < 2]))
    ensemble = train(task, members=1)
    own = pipeline.fit(X[:110][two], Y[:110][two])
    score = own.decision_function(X[:110][two])
    margins = ensemble.margins(task.train.x, task.train.y)[0].numpy()
    assert np.allclose(margins, np.where(Y[:110][two] == 1, score, -score))
    boosted = HistGradientBoostingClassifier(max_iter=3)
    assert len(train(from_estimator(boosted, *TRAIN, validation=VALID, bootstrap=True), members=1)) == 1


def test_a_class_that_the_rows_lack_is_as_unlikely_as_can_be_told():
    for estimator in (RandomForestClassifier(n_estimators=5), HistGradientBoostingClassifier(max_iter=2)):
        task = from_estimator(estimator, *TRAIN, validation=VALID)
        mask = (Y[:110] != 1)[None]
        ensemble = train(task, members=1, examples=mask)
        margins = ensemble.margins(task.train.x, task.train.y)[0]
        assert bool(torch.isfinite(margins).all())
        assert float(margins[Y[:110] == 1].max()) < -2


def test_regressors_and_words():
    task = from_estimator(
        RandomForestRegressor(n_estimators=5), X[:110, :3], X[:110, 3], validation=(X[110:, :3], X[110:, 3])
    )
    ensemble = train(task, members=2, without=random_forget_set(task, size=10, seed=0))
    assert task.outcome.name == "regression"
    assert ensemble.accuracy(task.train.x, task.train.y).min() > 0.8
    words = np.array(["setosa", "versicolor", "virginica"])
    task = from_estimator(
        RandomForestClassifier(n_estimators=5), X[:110], words[Y[:110]], validation=(X[110:], words[Y[110:]])
    )
    assert train(task, members=1).accuracy(task.validation.x, task.validation.y).min() > 0.8


@pytest.mark.parametrize(
    "estimator", [KMeans(), LogisticRegression, 3, SVC], ids=["clusters", "class", "number", "type"]
)
def test_what_is_no_estimator_of_this_kind_is_refused(estimator):
    with pytest.raises(InputError, match=r"estimator is .*, expected"):
        from_estimator(estimator, *TRAIN, validation=VALID)


def test_a_function_of_ones_own_gets_the_member_fitted_again_and_arrays():
    task = from_estimator(RandomForestClassifier(n_estimators=10), *TRAIN, validation=VALID)
    pretrained, forget = train(task, members=4), random_forget_set(task, 10, seed=0)
    seen = []

    def drop_trees(forest, retain, forget_rows, validation, keep=5):
        seen.append((len(retain[0]), len(forget_rows[1]), len(validation[0])))
        forest.estimators_ = forest.estimators_[:keep]

    found = unlearn(pretrained, task, forget, from_function(drop_trees), workers=1)
    assert seen == [(100, 10, len(VALID[1]))] * 4
    assert found.trace.failed_checks == []
    for member in range(4):
        own = RandomForestClassifier(n_estimators=10, random_state=seed_of(member)).fit(*TRAIN)
        own.estimators_ = own.estimators_[:5]
        expected = np.log(np.clip(own.predict_proba(VALID[0]), 1 / 20, 1 - 1 / 20))
        assert np.allclose(found.params["validation"][member].numpy(), expected)
    side_by_side = unlearn(pretrained, task, forget, from_function(drop_trees), workers=2)
    assert all(torch.equal(side_by_side.params[part], found.params[part]) for part in found.params)


def test_functions_that_fail_on_estimators_and_members_of_elsewhere_are_told():
    task = from_estimator(RandomForestClassifier(n_estimators=5), *TRAIN, validation=VALID)
    pretrained, forget = train(task, members=2), random_forget_set(task, 10, seed=0)
    for function, said in (
        (lambda forest, *data: forest.nothing, r"failed for member 0.*AttributeError"),
        (lambda forest, *data: 3, r"returned an int.* for member 0, expected the unlearned RandomForestClassifier"),
    ):
        with pytest.raises(InputError, match=said):
            unlearn(pretrained, task, forget, from_function(function, name="mine"), workers=1)
    moved = pretrained.with_state({part: tensor + 1 for part, tensor in pretrained.params.items()}, {})
    with pytest.raises(InputError, match=r"member 0 is not what task .* fits"):
        unlearn(moved, task, forget, from_function(lambda *_: None, name="mine"), workers=1)
    inert = unlearn(pretrained, task, forget, from_function(lambda *_: None, name="mine"), workers=1)
    assert inert.trace.failed_checks
