"""The built-in tasks: the data are the real ones, the split is fixed and stratified, and training works."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits

from expunge.core import InputError
from expunge.ensembles import train
from expunge.tasks import digits, tabular


def test_digits_are_all_of_the_data_scaled_to_one():
    task = digits()
    assert (len(task.train), len(task.validation), task.classes) == (1437, 360, 10)
    x = torch.cat([task.train.x, task.validation.x])
    assert x.shape == (1797, 64)
    assert float(x.min()) == 0.0
    assert float(x.max()) == 1.0
    original = np.unique(np.column_stack([load_digits().data, load_digits().target]), axis=0)
    y = torch.cat([task.train.y, task.validation.y])
    ours = np.unique(torch.cat([x * 16, y[:, None]], dim=1).numpy(), axis=0)
    np.testing.assert_array_equal(ours, original)


def test_split_is_stratified_fixed_and_changes_with_its_seed():
    first, again, other = digits(), digits(), digits(seed=1)
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint
    share = torch.bincount(first.validation.y) / torch.bincount(torch.tensor(load_digits().target))
    assert float((share - 360 / 1797).abs().max()) < 0.005


def test_images_and_vectors_are_the_same_data():
    torch.testing.assert_close(digits("cnn").train.x.flatten(1), digits().train.x)
    assert digits("cnn", norm="batch").name == "digits-cnn-batchnorm"


def test_tabular_is_standardised_by_the_training_examples_alone():
    task = tabular()
    assert (len(task.train), len(task.validation), task.classes) == (455, 114, 2)
    torch.testing.assert_close(task.train.x.mean(0), torch.zeros(30), atol=1e-5, rtol=0)
    torch.testing.assert_close(task.train.x.std(0, unbiased=False), torch.ones(30), atol=1e-4, rtol=0)
    assert float(task.validation.x.mean(0).abs().max()) > 1e-3
    assert int(torch.cat([task.train.y, task.validation.y]).sum()) == int(load_breast_cancer().target.sum())


def test_recipe_fields_can_be_replaced_and_a_short_training_keeps_the_shape_of_the_rate():
    recipe = digits(epochs=6, lr=0.05).recipe
    assert (recipe.epochs, recipe.lr, recipe.peak_epoch, recipe.batch_size) == (6, 0.05, 1.0, 64)
    assert digits(epochs=6, peak_epoch=3.0).recipe.peak_epoch == 3.0
    assert digits(precision="float64").train.x.dtype == torch.float64


@pytest.mark.parametrize(("task", "accuracy"), [(digits, 0.965), (tabular, 0.94)])
def test_members_reach_the_accuracy_that_is_promised(task, accuracy):
    task = task()
    members = train(task, members=4, seed=0)
    assert float(members.accuracy(task.validation.x, task.validation.y).min()) > accuracy
    assert float(members.accuracy(task.train.x, task.train.y).min()) > 0.98


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: digits("resnet"), "model = 'resnet', expected one of: cnn, mlp"),
        (lambda: digits(norm="layer"), "norm = 'layer'"),
        (lambda: digits(validation=1790), "validation = 1790, expected at most 1787"),
        (lambda: digits(validation=3), "validation = 3, expected a whole number of at least 10"),
        (lambda: digits(learning_rate=1.0), "learning_rate, expected fields of Recipe: epochs, batch_size, lr"),
        (lambda: tabular(lr=-1), "lr = -1"),
        (lambda: tabular(seed=-1), "seed = -1"),
    ],
)
def test_wrong_options_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
