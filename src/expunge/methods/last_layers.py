"""CF-k and EU-k: only the last k layers move, on the retain set; all before them stays as it was trained.

    CF-k:   theta_last <- theta_last - lr * grad_last mean_{B of R} l(theta)     from the pretrained weights
    EU-k:   the same steps                                     from weights of the last k layers that are drawn anew

A layer is a module that holds trainable weights of its own. Layers are counted in the order in which the model first
uses them; a normalisation layer belongs to the layer before it. With k the number of all layers CF-k is fine-tuning,
and EU-k is training from scratch on R.

What the frozen layers know of the forget set stays in them. Normalisation statistics stay frozen everywhere.

Source: Goel et al., "Towards Adversarial Evaluations for Inexact Machine Unlearning" (arXiv 2201.06640). Differs from
the source: a constant rate, no warm restarts from .1; the optimiser that trained the models by default; statistics of
the moving layers stay frozen too, so that EU-k is refused where these keep running statistics. The cost counts whole
passes forward and backward, though gradients of frozen layers are not computed: an upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import nn

from expunge.core import ForgetSet, InputError, Network, Recipe, Task
from expunge.core.checks import whole
from expunge.core.seeds import derive
from expunge.ensembles import Descent
from expunge.ensembles.initialise import initialise
from expunge.methods.fine_tune import FineTune
from expunge.methods.method import Method, Need, OptimizerOption, Trained
from expunge.methods.problem import Checkpoint, Problem

NORMALISATIONS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


class Layer(NamedTuple):
    """A layer in the sense above, with the normalisation that follows it."""

    modules: list[nn.Module]
    weights: list[str]
    """Names of its trainable parameters."""


def layers_of(task: Task) -> list[Layer]:
    """Return the layers of a task's model, in the order in which it first uses them.

    Args:
        task: With a model; it is built, and called once on two examples.
    """
    module, used = task.build(0).eval(), dict[str, int]()

    def note(name: str) -> None:
        used.setdefault(name, len(used))

    named = dict(module.named_modules())
    for name, part in named.items():
        part.register_forward_pre_hook(lambda *_, name=name: note(name))
    with torch.no_grad():
        task.interface.run(module, task.train.x[:2])

    def when(name: str) -> int:
        # Weights may be read without a call of the module that holds them: they are used where what holds it is.
        return used[name] if name in used else when(name.rpartition(".")[0])

    trainable = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    found: list[Layer] = []
    for name in sorted(named, key=when):
        part = named[name]
        own = [f"{name}.{key}" if name else key for key, _ in part.named_parameters(recurse=False)]
        weights = [each for each in own if each in trainable]
        if found and isinstance(part, NORMALISATIONS):
            found[-1].modules.append(part)
            found[-1].weights.extend(weights)
        elif weights:
            found.append(Layer([part], weights))
    return found


@dataclass(frozen=True, kw_only=True)
class LastLayers(Trained):
    """Base of both: steps on the retain set that move the last layers alone."""

    k: int = 1
    """Layers that move, at least 1 and at most all that the model has."""
    lr: float = 0.01
    """Learning rate, at least 0."""
    epochs: int = 10
    """Passes over R, at least 1."""
    batch_size: int = 64
    """Examples a step, at least 1."""
    momentum: float = 0.9
    """Momentum of SGD, or the first beta of Adam, 0 to 1."""
    weight_decay: float = 5e-4
    """L2 coefficient, at least 0; the frozen layers do not decay."""
    statistics: Literal["frozen"] = "frozen"
    """Normalisation statistics: those of the frozen layers must stay, so `frozen`."""
    optimizer: OptimizerOption = "recipe"
    """`sgd`, `adam`, `adamw`, or `recipe`: the one that trained the models."""

    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "weights", "layers"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite")
    shown: ClassVar[tuple[str, ...]] = ("k", "lr")
    forecastable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        self.check_steps()
        whole(k=self.k)

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Only the retain set is visited."""
        return {"retain": self.batch_size}

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse more layers than the model has."""
        super().check(network, task, forget)
        depth = len(layers_of(task))
        if self.k > depth:
            raise InputError(
                f"k = {self.k}, and the model of {task.name} has {depth} layers with trainable weights, expected k "
                f"from 1 to {depth}."
            )

    def begin(self, problem: Problem, descent: Descent) -> None:
        """Change the weights that move before the first step, or leave them."""

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint after every pass over R."""
        last = [name for layer in layers_of(problem.task)[-self.k :] for name in layer.weights]
        descent = self.descent(problem, only=last)
        self.begin(problem, descent)
        for epoch in range(1, self.epochs + 1):
            noise = problem.noise(epoch)
            problem.take_pass(descent, "retain", epoch, self.batch_size, self.lr, noise=noise)
            yield problem.checkpoint(epoch, descent, self.statistics)

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return the rates of fine-tuning with the last layer, which every model has."""
        epochs = max(5, math.ceil(0.3 * recipe.epochs))
        return [
            cls(lr=share * recipe.lr, epochs=epochs, batch_size=recipe.batch_size) for share in (0.1, 0.3, 1.0, 3.0)
        ]


class CFk(LastLayers):
    """Fine-tune the last k layers on the retain set ("catastrophically forgetting the last k layers")."""

    name: ClassVar[str] = "cf_k"
    label: ClassVar[str] = "CF-k (tune last layers)"
    order: ClassVar[str] = FineTune.name


class EUk(LastLayers):
    """Draw the last k layers anew and train them on the retain set ("exactly unlearning the last k layers")."""

    name: ClassVar[str] = "eu_k"
    label: ClassVar[str] = "EU-k (retrain last layers)"
    probed: ClassVar[bool] = False

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse, besides, new layers whose stored statistics would be those of the old."""
        super().check(network, task, forget)
        for layer in layers_of(task)[-self.k :]:
            kept = [part for part in layer.modules if getattr(part, "running_mean", None) is not None]
            if kept:
                raise InputError(
                    f"k = {self.k} draws layers anew that are followed by a {type(kept[0]).__name__}, whose stored "
                    "statistics are those of the old weights; expected a smaller k, or a model with group norm, layer "
                    "norm or no norm there."
                )

    def begin(self, problem: Problem, descent: Descent) -> None:
        """Draw the weights as training does, from seeds of this run's own."""
        fresh, _ = initialise(problem.task, [derive(seed, "initialisation") for seed in problem.seeds])
        with torch.no_grad():
            for name, tensor in descent.trainable.items():
                tensor.copy_(fresh[name])
