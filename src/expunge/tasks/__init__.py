"""Data sets, models, forget-set choices, synthetic problems with known answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expunge.core.lazy import reader
from expunge.tasks.names import CHOOSERS

if TYPE_CHECKING:
    from expunge.tasks import augment
    from expunge.tasks.breeds import living17
    from expunge.tasks.convex import logistic
    from expunge.tasks.estimators import from_estimator
    from expunge.tasks.forget_sets import (
        Choice,
        choose,
        class_part,
        cluster,
        from_file,
        mislabelled,
        random_forget_set,
    )
    from expunge.tasks.images import cifar10, fashion_mnist, mnist
    from expunge.tasks.mixture import teacher_mixture
    from expunge.tasks.models import mlp, resnet9, resnet18, small_cnn
    from expunge.tasks.shipped import digits, tabular
    from expunge.tasks.skew import geometric_skew, statistical_skew
    from expunge.tasks.trained_by_command import command
    from expunge.tasks.user_task import load_task
    from expunge.tasks.voting import sisa

__all__ = [
    "CHOOSERS",
    "Choice",
    "augment",
    "choose",
    "cifar10",
    "class_part",
    "cluster",
    "command",
    "digits",
    "fashion_mnist",
    "from_estimator",
    "from_file",
    "geometric_skew",
    "living17",
    "load_task",
    "logistic",
    "mislabelled",
    "mlp",
    "mnist",
    "random_forget_set",
    "resnet9",
    "resnet18",
    "sisa",
    "small_cnn",
    "statistical_skew",
    "tabular",
    "teacher_mixture",
]

__getattr__ = reader(
    __name__,
    {
        "command": "trained_by_command",
        "living17": "breeds",
        "logistic": "convex",
        "from_estimator": "estimators",
        "Choice": "forget_sets",
        "choose": "forget_sets",
        "class_part": "forget_sets",
        "cluster": "forget_sets",
        "from_file": "forget_sets",
        "mislabelled": "forget_sets",
        "random_forget_set": "forget_sets",
        "cifar10": "images",
        "fashion_mnist": "images",
        "mnist": "images",
        "mlp": "models",
        "resnet9": "models",
        "resnet18": "models",
        "small_cnn": "models",
        "digits": "shipped",
        "tabular": "shipped",
        "geometric_skew": "skew",
        "statistical_skew": "skew",
        "teacher_mixture": "mixture",
        "load_task": "user_task",
        "sisa": "voting",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
