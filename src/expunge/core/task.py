"""The task: data in memory, a model factory, a training recipe."""

from __future__ import annotations

import contextlib
import copy
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from expunge.core.checks import described, finite, instance, of_kind, one_of, plain, whole
from expunge.core.digest import digest_function, digest_json, digest_tensors
from expunge.core.errors import InputError, told
from expunge.core.interface import Interface
from expunge.core.modules import check_real, check_usable, differing, same
from expunge.core.outcomes import OUTCOMES, Classes, Outcome
from expunge.core.outputs_alone import NoModel
from expunge.core.overlap import check_overlap
from expunge.core.reading import check_memory, fitting, read_pair
from expunge.core.recipe import Recipe
from expunge.core.row_ids import read_ids
from expunge.core.seeds import DRAWING, derive, generator, seed_torch
from expunge.core.voting import Vote, Voting

Arrays = Any
"""Inputs and targets: a pair of tensors, arrays or columns, or a map-style data set."""

Fit = Callable[[Any, Any, int], Any]
"""The user's own training: from a fresh model, a data set of the member's rows and a seed to the trained model."""

Augment = Callable[[Any, torch.Generator], Any]
"""From a batch of inputs (batch, ...) and a member's generator (on the CPU) to changed inputs of the same shape."""


@dataclass(frozen=True)
class Split:
    """Inputs and labels of one part of the data."""

    x: Tensor
    """Inputs, shape (examples, ...)."""
    y: Tensor
    """Targets as the task's outcome reads them: class numbers (examples,), int64, for outcome `classes`."""

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Any) -> Split:
        """Return the examples of an index array, a mask or a slice."""
        return Split(self.x[index], self.y[index])


class Task:
    """Data in memory (train, validation), a model factory, and how a model is trained.

    Args:
        name: A short name; it appears in records and reports.
        train: Inputs (examples, ...) and targets, as tensors, NumPy arrays, lists or pandas columns and frames; inputs
            may be a mapping from names to arrays, which the model then takes as keywords. Or a map-style
            `torch.utils.data.Dataset`, read once: items (x, y), or mappings with a "label". Floating-point inputs must
            be finite (float64 is stored as float32 unless the recipe says float64). What is given is copied.
        validation: The same for examples that no model is trained on; training examples among them are warned of.
        model: Called without arguments, returns a fresh `torch.nn.Module`; it draws its initial weights from PyTorch's,
            NumPy's or Python's global generator, which are all seeded. Its outputs are a tensor, a tuple that begins
            with one, or a mapping or an object with `logits`. None for models that are known by their outputs alone:
            `fit` is then called with None for the model, and returns `expunge.OutputsAlone(train, validation)`.
        recipe: How a model is trained; left out, the default recipe. A `fit` does not read it; methods that unlearn
            take their grids of rates and epochs, and the cost of retraining, from it.
        outcome: What outputs mean: a name in `expunge.core.outcomes.OUTCOMES` (`classes`, `binary`, `labels`,
            `regression`, `sequences`) or an outcome.
        classes: Number of classes K of outcome `classes`; by default the model's outputs tell.
        fit: The user's own training: `fit(model, dataset, seed)` trains a fresh model on a member's rows and returns
            it, or None when trained in place. The data set is map-style: items (x, y), `dataset.x` and `dataset.y`
            whole. PyTorch, NumPy and `random` are seeded with `seed`.
        augment: Called with a batch of training inputs (batch, ...) and a `torch.Generator` of the member; returns
            inputs of the same shape and type (see `expunge.tasks.augment`). Not called by a `fit`, by methods that
            start from trained models, nor in prediction.
        normalise: For uint8 images, which then stay uint8 in memory: a mean and a standard deviation, each a number or
            one a channel, in units of 0 to 1. Models are called with (x / 255 - mean) / std.
        ids: Names of the training examples (examples,), texts or whole numbers, each once, so that forget lists can
            hold these instead of positions (`--id-column`).

    Raises:
        InputError: If shapes disagree, targets do not fit the outcome, data are non-finite or empty, validation is all
            of training examples, or the model's outputs do not fit the targets.
    """

    network_builder: ClassVar[Callable[[Task], Any] | None] = None
    """Set by `expunge.ensembles`: from a task to the `Network` that evaluates its models."""

    def __init__(
        self,
        *,
        name: str,
        train: Arrays,
        validation: Arrays,
        model: Callable[[], nn.Module] | None,
        recipe: Recipe | None = None,
        outcome: str | Outcome = "classes",
        classes: int | None = None,
        fit: Fit | None = None,
        augment: Augment | None = None,
        normalise: Any = None,
        ids: Any = None,
    ) -> None:
        of_kind((str,), name=name)
        if not name:
            raise InputError("name is empty, expected a text: a short name for the task.")
        if recipe is None:
            recipe = Recipe()
        if not isinstance(recipe, Recipe):
            raise InputError(f"recipe is a {type(recipe).__name__}, expected expunge.Recipe(...).")
        if model is not None and (not callable(model) or isinstance(model, nn.Module)):
            raise InputError(
                f"model is a {type(model).__name__}, expected a function that returns a fresh torch.nn.Module each "
                "time; write model=lambda: MyNet(...)."
            )
        for what, function, expected in (
            ("fit", fit, "a function fit(model, dataset, seed)"),
            ("augment", augment, "a function augment(batch, generator)"),
        ):
            if function is not None and not callable(function):
                raise InputError(f"{what} is {described(function)}, expected {expected}.")
        dtype = torch.float64 if recipe.precision == "float64" else torch.float32
        self.name = name
        self.model = model
        self.recipe = recipe
        self.fit = fit
        self.augment = augment
        train, validation = read_pair(train, "train"), read_pair(validation, "validation")
        self.interface = Interface.of(train[0], dtype, normalise)
        meaning = _outcome(outcome, plain(classes))
        if isinstance(meaning, Classes):
            meaning = meaning.named(train[1])
        self.train = self._split(train, "train", meaning)
        self.output_shape = meaning.output_shape(self.train.y) if model is None else ()
        """Shape of an example's outputs; empty where a model tells it."""
        outputs = self._probe()
        self.validation = self._split(validation, "validation", meaning, self.train.x.dtype)
        if self.train.x.shape[1:] != self.validation.x.shape[1:]:
            raise InputError(
                f"train inputs have shape {tuple(self.train.x.shape[1:])} an example, validation inputs "
                f"{tuple(self.validation.x.shape[1:])}; expected the same."
            )
        self.outcome = meaning.fitted(self.train.y, outputs)
        for part, split in (("train", self.train), ("validation", self.validation)):
            try:
                self.outcome.check(outputs, split.y)
            except InputError as error:
                raise InputError(f"{part}: {error}") from None
        if augment is not None:
            self._check_augment()
        self.voting: Voting | None = None
        """How its models vote, where each is several networks (`expunge.tasks.sisa`)."""
        self.ids = None if ids is None else read_ids(ids, len(self.train))
        """Positions of the training examples by their names; None where they have none."""
        self.overlap = check_overlap(self.train, self.validation)

    def _split(self, pair: tuple[Any, Any], part: str, outcome: Outcome, like: torch.dtype | None = None) -> Split:
        """Return copies of inputs and targets, of the type of the training inputs."""
        try:
            x = self.interface.pack(pair[0])
        except InputError as error:
            raise InputError(f"{part}: {error}") from None
        y = outcome.read(pair[1], part)
        if x.ndim == 0 or len(x) != len(y):
            raise InputError(
                f"{part} has {len(x) if x.ndim else 0} inputs but {len(y)} labels, expected the same number."
            )
        finite(x, f"{part}.x")
        if like is None:
            like = self.interface.dtype if x.is_floating_point() or x.dtype == torch.bool else x.dtype
        check_memory(x.numel() * like.itemsize, f"{part}.x of shape {tuple(x.shape)}")
        y = fitting(y, self.interface.dtype if y.is_floating_point() else y.dtype, f"{part}.y")
        return Split(fitting(x, like, f"{part}.x").cpu(), y.cpu())

    def _check_augment(self) -> None:
        """Refuse, before any training, an augmentation that is of no use in it."""
        x = self.train.x[:4].unsqueeze(0)
        one, again = (self.augmented(x.clone(), [generator(0, "augment")]) for _ in range(2))
        if one.shape != x.shape:
            raise InputError(
                f"augment returned {tuple(one.shape[1:])} for a batch of {tuple(x.shape[1:])}, expected the same shape."
            )
        if not torch.equal(one, again) or not bool(torch.isfinite(one).all()):
            raise InputError(
                "augment returned other inputs for the same generator, or not finite ones; expected every random "
                "number to be drawn from it, as in torch.randn(..., generator=generator)."
            )

    def augmented(self, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Return packed inputs (members, batch, ...) after `augment`, each member's with its own generator."""
        change = self.augment
        assert change is not None
        try:
            parts = [
                self.interface.changed(lambda batch, own=own: change(batch, own), batch)  # type: ignore[misc]
                for batch, own in zip(x, generators, strict=True)
            ]
        except InputError as error:
            raise InputError(f"augment: {error}") from None
        return torch.stack(parts)

    @property
    def classes(self) -> int:
        """Number of classes of the examples, 2 for outcome `binary`; 1 for outcomes that have none."""
        if isinstance(self.outcome, Classes):
            assert self.outcome.classes is not None
            return self.outcome.classes
        return 2 if self.outcome.has_groups else 1

    @cached_property
    def network(self) -> Any:
        """The `Network` that evaluates stacks of the task's models, chosen once (see `expunge.ensembles.network`)."""
        assert Task.network_builder is not None, "import expunge.ensembles, which says how models are computed"
        return Task.network_builder(self)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in another process is made of; how its models are computed is found again there."""
        return {name: value for name, value in vars(self).items() if name != "network"}

    def __copy__(self) -> Task:
        """Return a copy in this process; it shares how its models are computed, which takes trainings to find."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        return other

    def _probe(self) -> Tensor:
        """Return a fresh model's outputs for the first two training examples."""
        module = self.build(0)
        self.picture: tuple[int, int] | None = None
        """Height and width of inputs that are images laid out flat, so that a report can show them; set by hand."""
        self.common_start = False
        """Whether all members start from the same weights, so that they differ by their batches alone."""
        if self.model is not None:
            self._check_factory(module)
        x = self.train.x[:2].clone()
        try:
            with torch.no_grad():
                outputs = self.interface.run(module.eval(), x)
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            images = " For images of 0 to 255 write normalise=(mean, std)." if x.dtype == torch.uint8 else ""
            raise InputError(
                f"model()(x) failed for {len(x)} examples, x of shape {tuple(x.shape)} and type {x.dtype} (it said: "
                f"{told(error)}); expected a model that takes one example of shape {tuple(x.shape[1:])} behind a "
                f"batch axis. Change its first layer, or the shape or type of the inputs.{images}"
            ) from error
        if not torch.equal(x, self.train.x[:2]):
            raise InputError(
                "model()(x) changes x in place, expected a forward that leaves its inputs as they are: others are "
                "given them as well. Write x = x / 255 and not x /= 255, inplace=False, or x = x.clone() first."
            )
        return outputs

    def _check_factory(self, module: nn.Module) -> None:
        """Refuse a factory whose models are not fresh, or do not follow from the seed (0, for the module given)."""
        check_usable(module)
        if not any(True for _ in module.parameters()):
            raise InputError("the model has no parameters, expected something that can be trained.")
        if not any(tensor.requires_grad for tensor in module.parameters()):
            raise InputError(
                "all parameters of the model are frozen (requires_grad is False), expected one at least to be trained."
            )
        again, other = self.build(0), self.build(1)
        if again is module or other is module:
            raise InputError(
                "model() returned the same object twice, expected a fresh module at every call, so that no model "
                "starts from another's weights; write model=lambda: MyNet(...)."
            )
        shared = {id(tensor) for tensor in again.parameters()}
        for name, tensor in module.named_parameters():
            if id(tensor) in shared and tensor.requires_grad:
                raise InputError(
                    f"two models share the trainable tensor {name!r}, expected tensors of their own; copy what they "
                    "share (copy.deepcopy), or freeze it (requires_grad_(False))."
                )
        here, twin, there = (
            {**dict(one.named_parameters()), **dict(one.named_buffers())} for one in (module, again, other)
        )
        if {n: t.shape for n, t in here.items()} != {n: t.shape for n, t in there.items()}:
            raise InputError(
                "two models have tensors of other names or shapes, expected one architecture for all members; draw no "
                "random numbers for it."
            )
        unlike = [name for name, tensor in here.items() if not same(tensor, twin[name])]
        for name in (*unlike, *sorted(differing(module, again))):
            raise InputError(
                f"two models of one seed differ in {name!r}, expected initial weights that follow from the global "
                "generators of PyTorch, NumPy or Python, which are seeded; np.random.default_rng() is none of these."
            )
        self.common_start = all(same(t, there[name]) for name, t in here.items()) and not differing(module, other)

    def build(self, seed: int) -> nn.Module:
        """Return a fresh module whose initial weights depend on `seed` and on nothing else."""
        if self.model is None:
            return NoModel(self.output_shape)
        with seeded(seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                module = self.model()
            except InputError:
                raise
            except (Exception, SystemExit) as error:
                raise InputError(
                    f"model() failed (it said: {told(error)}); expected a function without arguments that returns a "
                    "fresh torch.nn.Module."
                ) from error
            if not isinstance(module, nn.Module):
                raise InputError(f"model() returned a {type(module).__name__}, expected a torch.nn.Module.")
            check_real(module)
            module = module.to(self.interface.dtype)
            if any(is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers())):
                # Lazy layers take their shapes, and draw their weights, when they first see an example.
                modes = {layer: layer.training for layer in module.modules()}
                with torch.no_grad():
                    self.interface.run(module.eval(), self.train.x[:2].clone())
                for layer, mode in modes.items():
                    layer.training = mode
        return module

    def with_labels(self, indices: np.ndarray[Any, Any], labels: Tensor, name: str) -> Task:
        """Return a copy of the task in which some training labels are replaced (used to plant wrong labels)."""
        y = self.train.y.clone()
        y[torch.as_tensor(indices)] = labels
        voting = self.voting
        if voting is not None:
            voting = replace(voting, task=voting.task.with_labels(indices, labels, name))
        return self._changed(name=name, train=Split(self.train.x, y), voting=voting)

    def with_data(self, train: Split, validation: Split) -> Task:
        """Return a copy of the task with other examples, such as some of its own."""
        return self._changed(train=train, validation=validation, ids=None, overlap="")

    def with_fit(self, fit: Fit) -> Task:
        """Return a copy of the task that trains by another `fit`."""
        if self.voting is not None:
            raise InputError(
                f"the models of task {self.name!r} vote, and their voters are trained by its recipe; expected a task "
                "of single networks for a fit of one's own."
            )
        return self._changed(fit=fit)

    def with_voting(self, voting: Voting, model: Callable[[], Vote], name: str) -> Task:
        """Return a copy of the task whose models vote (see `expunge.tasks.sisa`)."""
        return self._changed(voting=voting, model=model, name=name)

    def _changed(self, **attributes: Any) -> Task:
        changed = copy.copy(self)
        vars(changed).update(attributes)
        changed.__dict__.pop("fingerprint", None)
        if "model" in attributes:
            changed.__dict__.pop("network", None)
        return changed

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the data, the model (structure, initial weights, outputs under a fixed seed) and the recipe."""
        module = self.build(derive(0, "fingerprint")).eval()
        with torch.no_grad():
            probe = self.interface.run(module, self.train.x[:4])
        data = {"x": self.train.x, "y": self.train.y, "vx": self.validation.x, "vy": self.validation.y}
        parts: dict[str, Any] = {
            "data": digest_tensors(data),
            "structure": repr(module),
            "weights": digest_tensors(dict(module.state_dict())),
            "outputs": [f"{value:.3g}" for value in probe.flatten().tolist()],
            "recipe": self.recipe.to_dict(),
            "outcome": [self.outcome.name, repr(self.outcome)],
        }
        if self.interface.normalise is not None:
            parts["normalise"] = self.interface.normalise
        if self.fit is not None:
            parts["fit"] = digest_function(self.fit)
        if self.voting is not None:
            parts["voting"] = [self.voting.voters, digest_tensors({"place": self.voting.place})]
        if self.augment is not None:
            seen = self.augmented(self.train.x[:4].unsqueeze(0), [generator(0, "augment")])
            parts["augment"] = [digest_function(self.augment), [f"{value:.3g}" for value in seen.flatten().tolist()]]
        return digest_json(parts)

    def describe(self) -> dict[str, Any]:
        """Return the facts about the task that a record keeps."""
        module = self.build(0)
        return {
            "name": self.name,
            "train": len(self.train),
            "validation": len(self.validation),
            "input_shape": list(self.train.x.shape[1:]),
            "classes": self.classes,
            "outcome": self.outcome.name,
            "model": type(module).__name__,
            "architecture": repr(module),
            "parameters": sum(p.numel() for p in module.parameters()),
            "has_statistics": has_statistics(module),
            "network": self.network.kind,
            "network_reason": self.network.reason,
            "common_start": self.common_start,
            "recipe": self.recipe.to_dict()
            if self.fit is None
            else {"fit": getattr(self.fit, "__name__", str(self.fit))},
            "fingerprint": self.fingerprint,
        }


def has_statistics(module: nn.Module) -> bool:
    """Return whether the module keeps running normalisation statistics (batch norm and its relatives)."""
    return any(getattr(layer, "running_mean", None) is not None for layer in module.modules())


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of PyTorch, NumPy and Python, which models draw from, and restore them afterwards."""
    # They are shared by all threads.
    with DRAWING, torch.random.fork_rng(devices=[]):
        words, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            seed_torch(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
        finally:
            random.setstate(words)
            np.random.set_state(numbers)  # noqa: NPY002


def _outcome(outcome: str | Outcome, classes: int | None) -> Outcome:
    if isinstance(outcome, str):
        one_of(OUTCOMES, outcome=outcome)
        outcome = OUTCOMES[outcome]()
    instance(Outcome, f"one of {', '.join(OUTCOMES)}, or an expunge outcome", outcome=outcome)
    if classes is None:
        return outcome
    whole(classes=classes)
    if not isinstance(outcome, Classes):
        raise InputError(f"classes = {classes} was given for outcome {outcome.name!r}, expected outcome='classes'.")
    return replace(outcome, classes=classes)
