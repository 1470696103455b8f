"""What every unlearning method is: frozen options, its declarations, and a generator of stopping times.

Audits, forecasts, checks and reports read the declarations; nothing is inferred from names or values of options.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from expunge.core import ForgetSet, InputError, Network, Recipe, Task, has_statistics
from expunge.core.checks import between, described, non_negative, plain_fields, typed_fields, whole
from expunge.core.convex import ConvexFit, plain_linear
from expunge.core.outcomes import Classes
from expunge.core.recipe import Optimizer
from expunge.ensembles import Descent
from expunge.ensembles.plan import check_batch_norm
from expunge.methods.problem import Checkpoint, Problem, Treatment

Role = Literal["candidate", "control"]
OptimizerOption = Literal["recipe", "sgd", "adam", "adamw"]
"""An optimiser, or that of the recipe that trained the models."""
Raises = Literal["forget loss", "forget divergence", ""]
Need = Literal[
    "convex",
    "convex_descent",
    "retain", "forget", "targets", "states", "per_example_gradients", "modules", "weights", "statistics", "recipe",
    "classes", "real_inputs", "whole_classes", "full_batch", "voters", "layers",
]  # fmt: skip
"""What a method cannot do without: retain or forget examples, predicted oracle margins, earlier states of training,
gradients of single examples, plain modules, weights (not outputs alone), a model with normalisation statistics,
training by a recipe (not by a `fit`), an outcome that is one of several classes, inputs that gradients reach, or a
forget set of whole classes (such a method is in no `all`: it has to be named);
`full_batch`: gradient descent on all rows at once, without momentum;
`voters`: models that are several networks, each trained on rows of its own (`ex.tasks.sisa`); `layers`: models that are
not, whose layers come one after another;
`convex`: a strongly convex loss that is solved to its optimum with noise (`ex.tasks.logistic`); `convex_descent`: one
that is trained by steps of gradient descent on all rows instead (`ex.tasks.logistic(steps=40)`)."""
Choice = Literal["calibration", "cheapest", "last"]
"""How an audit chooses among settings and stopping times: best on the calibration set; the cheapest that works there;
the last stopping time, which is no choice."""


def lacking(task: Task) -> dict[Need, str]:
    """Return what a task cannot give to any method, and why, for a sentence that begins "it needs"."""
    found: dict[Need, str] = {}
    if task.fit is not None or task.model is None:
        found["recipe"] = f"epochs of a recipe, and {task.name} trains by a fit of its own, which runs to its end"
    if task.model is None:
        needs: list[Need] = ["weights", "states", "per_example_gradients"]
        if not hasattr(task.fit, "unlearned"):  # estimators can be fitted again, and handed to a function
            needs.append("modules")
        found |= dict.fromkeys(needs, f"weights, and the models of {task.name} are known by their outputs alone")
    if task.voting is None:
        found["voters"] = (
            "models that are several networks, each trained on rows of its own (ex.tasks.sisa(task, voters=5) makes a "
            f"task of such models; digits:sisa is one), and those of {task.name} are one network"
        )
    else:
        many = f"the models of {task.name} are {task.voting.voters} networks that vote"
        found["states"] = f"earlier states of training, which are not kept of voters, and {many}"
        found["layers"] = f"layers one after another, and {many}"
    if not has_statistics(task.build(0)):
        found["statistics"] = "normalisation statistics, and the model keeps none"
    if not isinstance(task.outcome, Classes):
        found["classes"] = f"labels that are classes, and the outcome of {task.name} is {task.outcome.name!r}"
    recipe = task.recipe
    if recipe.optimizer != "sgd" or recipe.momentum or not recipe.full_batch(len(task.train)):
        found["full_batch"] = (
            "gradient descent on all rows at once, without momentum (optimizer='sgd', momentum=0, batch_size of all "
            f"rows, last_batch='keep'), and the recipe of {task.name} is another"
        )
    if not task.train.x.is_floating_point():
        kind = str(task.train.x.dtype).removeprefix("torch.")
        found["real_inputs"] = f"inputs of real numbers, which gradients reach, and those of {task.name} are {kind}"
    convex = task.fit if isinstance(task.fit, ConvexFit) and plain_linear(task.build(0)) else None
    if convex is None or convex.steps is not None:
        found["convex"] = (
            "a strongly convex loss that is solved to its optimum with noise from the member's seed: a linear model "
            "without a bias, L2 regularisation, rows of norm at most 1 (ex.tasks.logistic is such a task, "
            f"{task.name} is not). For other models the same claim has no proof; clipped_noisy claims another one"
        )
    if convex is None or convex.steps is None:
        found["convex_descent"] = (
            "a strongly convex loss that is trained by gradient descent on all rows, with noise from the member's seed "
            f"(ex.tasks.logistic(steps=40) is such a task, {task.name} is not). For other models the bound on what is "
            "left grows with every step"
        )
    return found


def check_complete(method: Method) -> None:
    """Refuse, before any work, a base class or a subclass that is not finished.

    Raises:
        InputError: If it has no name, no label, or does not say how it unlearns.
    """
    lacks = [what for what in ("name", "label") if not isinstance(getattr(method, what, None), str)]
    lacks += ["stops"] if type(method).stops is Method.stops else []
    if lacks:
        raise InputError(
            f"method is {described(method)}, which does not declare {' and '.join(lacks)}; expected one of "
            "expunge.methods, such as GradientAscent(...), or a finished subclass of Method."
        )


@dataclass(frozen=True, kw_only=True)
class Method:
    """Base of all methods; the fields of a subclass are its options.

    A subclass declares the class variables and properties below, implements `stops`, and says in `grid` what an audit
    tries.
    """

    name: ClassVar[str]
    """Name in the registry, in records and on the command line."""
    label: ClassVar[str]
    """Name for people."""
    role: ClassVar[Role] = "candidate"
    """`candidate`, or `control`: a baseline that every table shows."""
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "forget", "weights"})
    """What it cannot do without."""
    checks: ClassVar[tuple[str, ...]] = ("moved", "statistics", "finite", "visited")
    """Runtime checks, by their names in `expunge.methods.checks.CHECKS`."""
    raises: ClassVar[Raises] = ""
    """What its ascent passes are meant to raise (check `ascended`); empty if it never ascends."""
    chosen: ClassVar[Choice] = "calibration"
    """How an audit chooses among its settings and stopping times."""
    forecastable: ClassVar[bool] = True
    """Whether a forecast can follow it on linearised members."""
    certificate: ClassVar[str | None] = None
    """What it guarantees of its result, in words; None if nothing."""
    shown: ClassVar[tuple[str, ...]] = ()
    """Options that the name of a run always shows."""
    order: ClassVar[str] = ""
    """Name under which batch orders are drawn; empty for its own, another method's to see that one's batches."""

    def __init_subclass__(cls) -> None:
        """Let options be numbers of any library: they are Python's own before a subclass checks them."""
        super().__init_subclass__()
        if "__post_init__" in cls.__dict__:
            check = cls.__post_init__

            def checked(self: Method) -> None:
                plain_fields(self)
                check(self)
                typed_fields(self)

            cls.__post_init__ = checked  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        """Convert the options; a subclass checks here what they may be beyond the kinds that they are declared with."""
        plain_fields(self)
        typed_fields(self)

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Unlearn, and yield a checkpoint at every stopping time, in order.

        Args:
            problem: The pretrained stack, its data, and the ledger.
        """
        raise NotImplementedError

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return the settings that an audit tries, with rates relative to the recipe's peak rate."""
        raise NotImplementedError

    def states(self, recipe: Recipe) -> tuple[int, ...]:
        """Return the epochs of training after which it needs the kept state, where `states` is among its needs.

        Args:
            recipe: The one that trained the models.
        """
        return ()

    @property
    def planned_stops(self) -> int:
        """How many stopping times there will be, at least 1."""
        return 1

    def planned_cost(self, forget: int, retain: int, epochs: int) -> float:
        """Return about what a run will cost in examples through forward and backward, relative to retraining on R.

        Args:
            forget: Size of F.
            retain: Size of R.
            epochs: Epochs that retraining takes.
        """
        return 0.0

    def cost_of(self, task: Task, forget: ForgetSet) -> float:
        """Return the planned cost for these very rows; a method whose cost depends on which they are says so here.

        Args:
            task: The task.
            forget: What is to be forgotten.
        """
        return self.planned_cost(len(forget), len(forget.retain), task.recipe.epochs)

    @property
    def statistics(self) -> str:
        """Normalisation statistics: `frozen`, `updated`, `recalibrated`, or `retrained` from nothing."""
        return "frozen"

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Batch sizes by the set they are drawn from (`forget`, `retain`), for checks before the work."""
        return {}

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse, before any work, a task or a forget set that the method cannot work on.

        Raises:
            InputError: If updated batch norm would meet a batch of one.
        """
        if self.statistics == "updated":
            sizes = {"forget": len(forget), "retain": len(forget.retain)}
            for part, batch in self.batch_sizes.items():
                check_batch_norm(network, sizes[part], batch)

    @property
    def repairs(self) -> bool:
        """Whether it descends on R as well as it climbs on F."""
        return bool(self.raises) and "retain" in self.needs

    def options(self) -> dict[str, Any]:
        """Return all options, defaults included, as plain values."""
        return dataclasses.asdict(self)

    def defaults(self) -> dict[str, Any]:
        """Return the options of a method that was given none."""
        return type(self)().options()

    def describe(self) -> str:
        """Return the method with its options on one line.

        >>> from expunge.methods import StatisticsAlone
        >>> StatisticsAlone(epochs=3).describe()
        'statistics_alone(epochs=3, batch_size=64)'
        """
        inside = ", ".join(f"{key}={value}" for key, value in self.options().items())
        return f"{self.name}({inside})"


def going_round(batches: int, size: int, batch_size: int) -> int:
    """Return how many examples so many batches hold, of a set that goes round and round beside another.

    Args:
        batches: How many.
        size: Examples of the set.
        batch_size: Examples of a batch; the last of each round may be smaller.

    >>> going_round(5, size=10, batch_size=4)
    18
    """
    rounds, over = divmod(batches, -(-size // batch_size))
    return rounds * size + over * batch_size


def first_epochs(method: Trained, usual: int, name: str) -> None:
    """Check how many epochs begin with a pass up, an option; where it was left out it becomes `usual` or all epochs."""
    if getattr(method, name) is None:
        object.__setattr__(method, name, min(usual, method.epochs))
    count = {name: getattr(method, name)}
    whole(minimum=0, **count)
    between(0, method.epochs, **count)


class Trained(Method):
    """Base of methods that take gradient steps from the pretrained weights; a subclass has these options at least."""

    shown: ClassVar[tuple[str, ...]] = ("lr",)
    probed: ClassVar[bool] = True
    """Whether a probing epoch tells if its rates are on scale: not where it moves weights that are drawn anew."""

    lr: float
    epochs: int
    batch_size: int
    momentum: float
    weight_decay: float
    statistics: Treatment
    optimizer: OptimizerOption

    def check_steps(self) -> None:
        """Check the options that all methods of gradient steps share."""
        non_negative(lr=self.lr, weight_decay=self.weight_decay)
        options = self.options()
        whole(**{name: options[name] for name in ("epochs", "batch_size", "forget_batch_size") if name in options})
        between(0.0, 0.9999, momentum=self.momentum)

    @property
    def planned_stops(self) -> int:
        """Every epoch is a stopping time."""
        return self.epochs

    def planned_examples(self, forget: int, retain: int) -> float:
        """Return how many examples all epochs visit.

        Args:
            forget: Size of F.
            retain: Size of R.
        """
        return self.epochs * sum({"forget": forget, "retain": retain}[part] for part in self.batch_sizes)

    def planned_cost(self, forget: int, retain: int, epochs: int) -> float:
        """Return the examples of all epochs, in units of those of retraining."""
        return self.planned_examples(forget, retain) / (retain * epochs)

    def steps_with(self, recipe: Recipe) -> Optimizer:
        """Return the optimiser: the recipe's, unless the options name another."""
        return recipe.optimizer if self.optimizer == "recipe" else self.optimizer

    def scaled(self, factor: float) -> Self:
        """Return the method with its rate multiplied, rounded to four significant digits."""
        changed: dict[str, Any] = {"lr": float(f"{factor * self.lr:.4g}")}
        return dataclasses.replace(self, **changed)

    def descent(self, problem: Problem, only: Collection[str] | None = None) -> Descent:
        """Return a fresh descent from the pretrained weights, as the options say.

        Args:
            problem: Where the weights are.
            only: Names of the parameters that move; None is all that the model declares trainable.
        """
        return problem.descent(
            statistics=self.statistics,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            optimizer=self.steps_with(problem.recipe),
            only=only,
        )
