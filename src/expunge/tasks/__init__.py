"""Data sets, models, forget-set choices, synthetic problems with known answers."""

from expunge.tasks.digits import digits, tabular
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
from expunge.tasks.models import mlp, resnet9, resnet18, small_cnn
from expunge.tasks.user_task import load_task

__all__ = [
    "CHOOSERS",
    "Choice",
    "choose",
    "class_part",
    "cluster",
    "digits",
    "from_file",
    "load_task",
    "mislabelled",
    "mlp",
    "random_forget_set",
    "resnet9",
    "resnet18",
    "small_cnn",
    "tabular",
]
