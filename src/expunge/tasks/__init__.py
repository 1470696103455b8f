"""Data sets, models, forget-set choices, synthetic problems with known answers."""

from expunge.tasks import augment
from expunge.tasks.command import command
from expunge.tasks.convex import logistic
from expunge.tasks.estimators import from_estimator
from expunge.tasks.forget_sets import (
    CHOOSERS,
    Choice,
    choose,
    class_part,
    cluster,
    from_file,
    mislabelled,
    random_forget_set,
)
from expunge.tasks.images import cifar10, fashion_mnist, mnist
from expunge.tasks.models import mlp, resnet9, resnet18, small_cnn
from expunge.tasks.shipped import digits, tabular
from expunge.tasks.skew import geometric_skew, statistical_skew
from expunge.tasks.teacher_mixture import teacher_mixture
from expunge.tasks.user_task import load_task

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
    "load_task",
    "logistic",
    "mislabelled",
    "mlp",
    "mnist",
    "random_forget_set",
    "resnet9",
    "resnet18",
    "small_cnn",
    "statistical_skew",
    "tabular",
    "teacher_mixture",
]
