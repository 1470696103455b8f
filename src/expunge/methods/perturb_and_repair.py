"""Perturb and repair: damage the weights without looking at what it does to F, then descend on R.

    theta_0 = perturbed(theta_D)
    theta  <- theta - lr_t * (s * grad mean_{B of R} l(theta))       `epochs` passes over R

    perturbed, with theta~ weights drawn anew by the model's own rule of initialisation:
    gradients   in each tensor theta~ for the share of weights with the smallest |G|, where
                G = sum_{R'} grad l(theta_D) - sum_F grad l(theta_D),    R' as many examples of R as F has
    noise       theta_D + N(0, noise^2)
    prune       theta~ for the share of weights that are smallest in absolute value, over all tensors together
    transpose   the two spatial axes of every square kernel exchanged
    reset       theta~ for the whole of the layers

    s = `kept` for weights of a perturbed tensor that were not drawn anew, else 1

No loss on F is ever raised: six of the seven winners of the unlearning competition at NeurIPS 2023 are of this kind.
`gradients` to `transpose` change trainable tensors of two axes and more (matrices of linear layers and kernels of
convolutions alike; not biases, not scales of normalisation), `reset` all parameters of the layers, with a
normalisation that follows. Which layers: `layers`, counted in the order in which the model first uses them.

Source: Triantafillou et al., "Are we making progress in unlearning? Findings from the first NeurIPS unlearning
competition" (arXiv 2406.09073), and Cadet et al., "Deep Unlearn" (arXiv 2410.01276), which ran them on 100,000 models
and found MSG and CT the most consistent. The presets are what the public code of the latter runs. Differs from the
source, in all: the optimiser that trained the models by default; the rate of an epoch is that of its middle; drawn anew
is by the model's own rule, from a seed of the member's own. In each:

    msg    (rank 2)  G with stored statistics and without dropout; linear layers too (source: convolutions only)
    cfw    (rank 3)  noise on every kernel and matrix (source: on direct children with "conv" in their name, so that
                     of a ResNet only the stem has any, and of a ViT nothing); no class weights, which only rescale
    prmq   (rank 4)  cross-entropy alone; `prmq_full` has the source's class weights and squared change of the entropy
                     (`entropy_kept.py`); three epochs (source: 3.2); weights are not rounded to half precision and back
    ct     (rank 5)  nothing else; a model without square kernels is refused (source: silent fine-tuning)
    kde    (rank 6)  three epochs on R in place of three on *validation* data and three on R; cross-entropy alone
                     (source: with distillation from the pretrained model, in terms whose weights no text says; and
                     validation rows that were trained on can judge nothing)
    rni    (rank 7)  all parameters are trained, without noise between the epochs; `rni_full` has the source's: in each
                     epoch but the last four, nine tensors are chosen that alone are trained, beside normalisation, and
                     six of these get noise of .04 first, but for the first epoch; the last epoch at five times the rate
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from expunge.core import ForgetSet, InputError, Network, Recipe, Task
from expunge.core.checks import between, non_negative, one_of, whole
from expunge.core.outcomes import Classes
from expunge.core.seeds import derive, generator
from expunge.core.tree import State
from expunge.ensembles import Descent, Rule
from expunge.ensembles.initialise import initialise
from expunge.ensembles.losses import USUAL, Objective
from expunge.methods.entropy_kept import EntropyKept
from expunge.methods.fine_tune import FineTune
from expunge.methods.last_layers import NORMALISATIONS, Layer, layers_of
from expunge.methods.method import Method, Need, OptimizerOption, Trained
from expunge.methods.problem import FORWARD_SHARE, Checkpoint, Problem, Treatment

Preset = Literal["msg", "cfw", "prmq", "ct", "kde", "rni", "prmq_full", "rni_full"]
How = Literal["gradients", "noise", "prune", "transpose", "reset"]
Rates = Literal["constant", "triangular", "cosine", "linear"]

UNSET: Any = None
"""Of an option that was left out: the choice of the preset takes its place."""
LEFT_OUT: dict[str, Any] = {
    "share": 0.0,
    "noise": 0.0,
    "last_noise": 0.0,
    "kept": 1.0,
    "layers": (),
    "schedule": "constant",
    "entropy": 0.0,
    "class_power": 0.0,
    "tensors": 0,
    "shaken": 0,
    "shake": 0.0,
    "whole_epochs": 0,
    "last_rate": 1.0,
}
PRESETS: dict[str, dict[str, Any]] = {
    "msg": {
        "how": "gradients", "share": 0.3, "kept": 0.1, "epochs": 5, "lr": 1e-3, "schedule": "triangular"
    },
    "cfw": {"how": "noise", "noise": 0.6, "last_noise": 0.005, "epochs": 4, "lr": 7e-4, "schedule": "cosine"},
    "prmq": {"how": "prune", "share": 0.99, "epochs": 3, "lr": 5e-4},
    "ct": {"how": "transpose", "epochs": 3, "lr": 1e-3, "schedule": "cosine"},
    "kde": {"how": "reset", "layers": (0, -1), "epochs": 3, "lr": 1e-3, "schedule": "cosine"},
    "rni": {"how": "reset", "layers": (-1,), "epochs": 9, "lr": 2e-4},
}  # fmt: skip
PRESETS["prmq_full"] = {**PRESETS["prmq"], "entropy": 1.0, "class_power": 0.1}
PRESETS["rni_full"] = {
    **PRESETS["rni"], "tensors": 9, "shaken": 6, "shake": 0.04, "whole_epochs": 4, "last_rate": 5.0
}  # fmt: skip
"""What each preset puts where an option was left out, before `LEFT_OUT`."""


@dataclass(frozen=True, kw_only=True)
class PerturbAndRepair(Trained):
    """Perturb the weights, then descend the loss of the retain set."""

    preset: Preset = "msg"
    """Whose choices stand where an option is left out: `msg`, `cfw`, `prmq`, `ct`, `kde`, `rni`, `prmq_full` or
    `rni_full`."""
    how: How = UNSET
    """What is done to the weights: `gradients`, `noise`, `prune`, `transpose` or `reset`."""
    share: float = UNSET
    """Share of weights drawn anew by `gradients` and `prune`, 0 to 1 (msg: .3; prmq: .99)."""
    noise: float = UNSET
    """Standard deviation of `noise`, in units of the weights, at least 0 (cfw: .6)."""
    last_noise: float = UNSET
    """The same before the last epoch, whatever `how`, at least 0 (cfw: .005; others none)."""
    kept: float = UNSET
    """Factor on gradients of weights in perturbed tensors that were not drawn anew, 0 to 1 (msg: .1; others 1)."""
    layers: tuple[int, ...] = UNSET
    """Layers that are perturbed, in the order of use, 0 the first and -1 the last; () is all (kde: 0, -1; rni: -1)."""
    lr: float = UNSET
    """Highest learning rate, at least 0 (msg, ct, kde: .001; cfw: 7e-4; prmq: 5e-4; rni: 2e-4)."""
    epochs: int = UNSET
    """Passes over R, at least 1 (msg: 5; cfw: 4; prmq, ct, kde: 3; rni: 9)."""
    schedule: Rates = UNSET
    """Rate over the epochs: `constant`, `cosine` or `linear` to 0, or `triangular`, up for one half and down for the
    other (msg: triangular; cfw, ct, kde: cosine; others constant)."""
    entropy: float = UNSET
    """Weight of the squared change of each output's entropy, at least 0 (prmq_full: 1; others 0)."""
    class_power: float = UNSET
    """Classes weigh as their number of rows to minus this power, at least 0 (prmq_full: .1; others 0)."""
    tensors: int = UNSET
    """Tensors that are trained in an epoch, beside those of normalisation, drawn for each; 0 is all (rni_full: 9)."""
    shaken: int = UNSET
    """How many of these get noise before each such epoch but the first (rni_full: 6; others 0)."""
    shake: float = UNSET
    """Standard deviation of that noise, at least 0 (rni_full: .04; others 0)."""
    whole_epochs: int = UNSET
    """Last epochs in which all tensors are trained, at least 0 (rni_full: 4; others 0)."""
    last_rate: float = UNSET
    """Factor on the rate of the last epoch, at least 0 (rni_full: 5; others 1)."""
    batch_size: int = 64
    """Examples a step, at least 1."""
    momentum: float = 0.9
    """Momentum of SGD, or the first beta of Adam, 0 to 1."""
    weight_decay: float = 5e-4
    """L2 coefficient, at least 0."""
    statistics: Treatment = "updated"
    """Normalisation statistics: `updated` (the source: stored ones are those of the weights before), `frozen` or
    `recalibrated`."""
    optimizer: OptimizerOption = "recipe"
    """`sgd`, `adam`, `adamw`, or `recipe`: the one that trained the models."""

    name: ClassVar[str] = "perturb_and_repair"
    label: ClassVar[str] = "Perturb and repair"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "forget", "weights", "layers"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite")
    shown: ClassVar[tuple[str, ...]] = ("preset", "lr")
    order: ClassVar[str] = FineTune.name
    forecastable: ClassVar[bool] = False
    probed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Put in what was left out, and check the options."""
        one_of(PRESETS, preset=self.preset)
        for option, value in {**LEFT_OUT, **PRESETS[self.preset]}.items():
            if getattr(self, option) is None:
                object.__setattr__(self, option, value)
        self.check_steps()
        one_of(("gradients", "noise", "prune", "transpose", "reset"), how=self.how)
        one_of(("constant", "triangular", "cosine", "linear"), schedule=self.schedule)
        between(0.0, 1.0, share=self.share, kept=self.kept)
        non_negative(noise=self.noise, last_noise=self.last_noise, shake=self.shake, last_rate=self.last_rate)
        non_negative(entropy=self.entropy, class_power=self.class_power)
        whole(minimum=0, tensors=self.tensors, shaken=self.shaken, whole_epochs=self.whole_epochs)
        if self.kept != 1 and self.tensors:
            raise InputError(
                f"kept = {self.kept:g} and tensors = {self.tensors}, expected one of them: kept = 1, or tensors = 0."
            )
        whole_numbers = isinstance(self.layers, tuple | list) and all(type(place) is int for place in self.layers)
        if not whole_numbers or len(set(self.layers)) != len(self.layers):
            raise InputError(
                f"layers = {self.layers!r}, expected a tuple of different whole numbers, such as (0, -1) for the first "
                "and the last layer; () is all."
            )
        object.__setattr__(self, "layers", tuple(self.layers))

    def defaults(self) -> dict[str, Any]:
        """Return the options of its preset."""
        return type(self)(preset=self.preset).options()

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Steps visit the retain set alone."""
        return {"retain": self.batch_size}

    def planned_examples(self, forget: int, retain: int) -> float:
        """Return what the epochs visit, and the examples whose gradients choose weights."""
        chosen_by = forget + min(forget, retain) if self.how == "gradients" else 0
        read = FORWARD_SHARE * retain if self.entropy else 0.0
        return chosen_by + read + super().planned_examples(forget, retain)

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse layers that the model lacks, a model without square kernels, and new layers under old statistics."""
        super().check(network, task, forget)
        if (self.entropy or self.class_power) and not isinstance(task.outcome, Classes):
            raise InputError(
                f"entropy = {self.entropy:g} and class_power = {self.class_power:g} are of classes, and the outcome of "
                f"{task.name} is {task.outcome.name!r}; expected 0 for both."
            )
        shapes = {name: tuple(parameter.shape) for name, parameter in task.build(0).named_parameters()}
        if not self.perturbed(task, shapes):
            what = "square kernels (larger than 1 x 1)" if self.how == "transpose" else "matrices or kernels"
            raise InputError(
                f"how = {self.how!r} changes {what}, of which the model of {task.name} has none in the chosen layers; "
                "expected another `how` or preset, or other `layers`."
            )
        if self.how != "reset" or self.statistics == "updated":
            return
        for layer in self.parts(task):
            kept = [part for part in layer.modules if getattr(part, "running_mean", None) is not None]
            if kept:
                raise InputError(
                    f"layers are drawn anew that are followed by a {type(kept[0]).__name__}, whose stored statistics "
                    f"are those of the old weights, and statistics = {self.statistics!r}; expected 'updated', or other "
                    "layers."
                )

    def parts(self, task: Task) -> list[Layer]:
        """Return the layers that are perturbed, in the order of use.

        Raises:
            InputError: If the model has no such layer.
        """
        every = layers_of(task)
        if not self.layers:
            return every
        wrong = [place for place in self.layers if not -len(every) <= place < len(every)]
        if wrong:
            raise InputError(
                f"layers = {self.layers}, and the model of {task.name} has {len(every)} layers with trainable weights, "
                f"expected places from 0 to {len(every) - 1}, or -1 for the last."
            )
        return [every[place] for place in sorted({place % len(every) for place in self.layers})]

    def perturbed(self, task: Task, shapes: dict[str, tuple[int, ...]]) -> list[str]:
        """Return the names of the parameters that are perturbed.

        Args:
            task: Whose model.
            shapes: Of one member's parameters.
        """
        names = [name for layer in self.parts(task) for name in layer.weights]
        if self.how == "reset":
            return names
        if self.how == "transpose":
            return [name for name in names if _square(shapes[name])]
        return [name for name in names if len(shapes[name]) > 1]

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint after every pass over R."""
        descent = self.descent(problem)
        names = self.perturbed(problem.task, {name: tuple(t.shape[1:]) for name, t in descent.params.items()})
        drawn = self.perturb(problem, descent, names)
        if self.kept != 1:
            descent.follow(Rule(factors={name: torch.where(new, 1.0, self.kept) for name, new in drawn.items()}))
        objective: Objective = USUAL
        if self.entropy or self.class_power:
            objective = EntropyKept.of(problem, self.entropy, self.class_power)
        for epoch in range(1, self.epochs + 1):
            if epoch == self.epochs and self.last_noise:
                self.add_noise(problem, descent, names, self.last_noise, "last noise")
            if self.tensors:
                self.choose(problem, descent, epoch)
            noise, lr = problem.noise(epoch), self.rate(epoch)
            problem.take_pass(descent, "retain", epoch, self.batch_size, lr, objective=objective, noise=noise)
            yield problem.checkpoint(epoch, descent, self.statistics)

    def choose(self, problem: Problem, descent: Descent, epoch: int) -> None:
        """Draw the tensors that an epoch trains, each member's own, and add the noise that some of them get.

        Args:
            problem: Whose seeds.
            descent: The stack; its rule is replaced.
            epoch: Number of the epoch, from 1.
        """
        if epoch > self.epochs - self.whole_epochs:
            descent.follow(Rule())
            return
        fixed = normalising(problem.task)
        names = [name for name in descent.trainable if name not in fixed]
        moving = {name: torch.zeros_like(descent.trainable[name], dtype=torch.bool) for name in names}
        for place, seed in enumerate(problem.seeds):
            drawn = torch.randperm(len(names), generator=generator(seed, "tensors", epoch))[: self.tensors]
            for number, name in enumerate(names[own] for own in drawn):
                moving[name][place] = True
                if epoch > 1 and number < self.shaken:
                    tensor = descent.params[name].detach()[place]
                    draw = generator(seed, "shake", epoch, name)
                    shake = torch.randn(tensor.shape, generator=draw, dtype=torch.float64)
                    tensor.add_((self.shake * shake).to(tensor))
        # What does not move has no gradient either, so that momentum has nothing of it.
        descent.follow(Rule(moving=moving, factors=moving))

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch, from 1.

        >>> [round(PerturbAndRepair(lr=1.0, epochs=5).rate(epoch), 2) for epoch in (1, 2, 3, 4, 5)]
        [0.2, 0.6, 1.0, 0.6, 0.2]
        """
        shape = Recipe(epochs=self.epochs, lr=1.0, schedule=self.schedule, peak_epoch=self.epochs / 2)
        last = self.last_rate if epoch == self.epochs else 1.0
        return last * self.lr * shape.rate(epoch - 0.5)

    def perturb(self, problem: Problem, descent: Descent, names: Sequence[str]) -> dict[str, Tensor]:
        """Perturb parameters in place, and return which of their weights were drawn anew, where some were.

        Args:
            problem: Whose examples and seeds.
            descent: At the pretrained weights.
            names: The parameters that are perturbed.

        Returns:
            Masks by name, each (members, ...).
        """
        weights = {name: descent.params[name].detach() for name in names}
        if self.how == "noise":
            self.add_noise(problem, descent, names, self.noise, "noise")
            return {}
        if self.how == "transpose":
            for tensor in weights.values():
                tensor.copy_(tensor.transpose(-1, -2).clone())
            return {}
        if self.how == "reset":
            drawn = {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in weights.items()}
        elif self.how == "prune":
            drawn = smallest_together({name: tensor.abs() for name, tensor in weights.items()}, self.share)
        else:
            conflict = self.conflict(problem)
            drawn = {name: smallest(conflict[name].abs(), self.share) for name in names}
        fresh, _ = initialise(problem.task, [derive(seed, "initialisation") for seed in problem.seeds])
        for name, new in drawn.items():
            weights[name].copy_(torch.where(new, fresh[name].to(weights[name]), weights[name]))
        return drawn

    def add_noise(self, problem: Problem, descent: Descent, names: Sequence[str], scale: float, what: str) -> None:
        """Add normal noise, each member's from a seed of its own."""
        for name in names:
            tensor = descent.params[name].detach()
            tensor.add_((scale * problem.normal(tensor.shape[1:], what, name)).to(tensor))

    def conflict(self, problem: Problem) -> State:
        """Return sum_{R'} grad l - sum_F grad l at the pretrained weights, by trainable parameter, (members, ...)."""
        frozen = problem.descent(statistics="frozen")
        total = {name: torch.zeros_like(tensor) for name, tensor in frozen.trainable.items()}
        share = min(1.0, len(problem.forget) / len(problem.retain))
        for sign, batches in (
            (1.0, problem.retain_batches(0, self.batch_size, share)),
            (-1.0, problem.forget_batches(0, self.batch_size)),
        ):
            for x, y, index in batches:
                _, gradients = frozen.gradients(x, y)  # of means over the batch
                for name, gradient in gradients.items():
                    total[name] += sign * index.shape[1] * gradient
        return {name: tensor.detach() for name, tensor in total.items()}

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return four presets that every model allows, each with rates of training, up to 30 % of retraining."""
        epochs = max(5, math.ceil(0.3 * recipe.epochs))
        presets: tuple[Preset, ...] = ("msg", "cfw", "prmq", "kde")
        return [
            cls(preset=preset, lr=share * recipe.lr, epochs=epochs, batch_size=recipe.batch_size)
            for preset in presets
            for share in (0.1, 0.3, 1.0)
        ]


def normalising(task: Task) -> set[str]:
    """Return the names of the parameters of normalisation layers."""
    return {
        f"{path}.{name}" if path else name
        for path, layer in task.build(0).named_modules()
        if isinstance(layer, NORMALISATIONS)
        for name, _ in layer.named_parameters(recurse=False)
    }


def smallest(values: Tensor, share: float) -> Tensor:
    """Return a mask of each member's smallest values; of equal ones those that come first.

    Args:
        values: Shape (members, ...).
        share: Share of a member's values, 0 to 1; their number is rounded.

    >>> smallest(torch.tensor([[3.0, 1.0, 2.0, 4.0]]), 0.5).tolist()
    [[False, True, True, False]]
    """
    flat = values.flatten(1)
    count = round(share * flat.shape[1])
    mask = torch.zeros_like(flat, dtype=torch.bool)
    return mask.scatter_(1, flat.argsort(dim=1, stable=True)[:, :count], True).view(values.shape)


def smallest_together(values: State, share: float) -> dict[str, Tensor]:
    """Return the same masks over several tensors together, each (members, ...)."""
    flat = [tensor.flatten(1) for tensor in values.values()]
    parts = smallest(torch.cat(flat, 1), share).split([part.shape[1] for part in flat], 1)
    return {name: part.view(tensor.shape) for (name, tensor), part in zip(values.items(), parts, strict=True)}


def _square(shape: tuple[int, ...]) -> bool:
    return len(shape) > 3 and shape[-1] == shape[-2] > 1
