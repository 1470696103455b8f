"""The problem a method works on: the stack it starts from, the forget and retain examples, orders, and the ledger.

A method never touches indices, costs or checks itself: it asks the problem for batches, and the problem writes down
what was visited, what it cost, and how the forget loss moved. That is what the runtime checks read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from expunge.core import Ensemble, ForgetSet, Split, Task
from expunge.core.claim import Claim
from expunge.core.recipe import Optimizer, Recipe
from expunge.core.renamed import renamed
from expunge.core.seeds import derive, generator
from expunge.core.stopping import check_stopped
from expunge.core.tree import State, clone, distance, finite_members
from expunge.ensembles import Descent, Objective, Steps, recalibrate
from expunge.ensembles.batches import batches, epoch_order, gather
from expunge.ensembles.losses import USUAL

Treatment = Literal["frozen", "updated", "recalibrated"]
"""What happens to normalisation statistics while unlearning.

`frozen`: steps normalise with the stored statistics, which stay. `updated`: steps normalise with the statistics of
their batches and store them (training mode). `recalibrated`: as frozen, and at every stopping time the statistics are
computed afresh on the retain set.
"""

FORWARD_SHARE = 1 / 3
"""A forward pass without a backward pass, in units of a forward and backward pass."""


@dataclass
class Ledger:
    """What happened to each member so far; tensors are (members, ...)."""

    examples: float = 0.0
    """Examples pushed through forward and backward, a member."""
    visits: Tensor = field(default_factory=lambda: torch.zeros(0))
    """How often each forget example was used in a step, (members, forget examples)."""
    ascents: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """The objective that a pass was to raise, before and after the pass, each (members,)."""
    distances: tuple[Tensor, Tensor] | None = None
    """Distance of the forget margins from their targets at the start and now, each (members,)."""
    notes: dict[str, Tensor] = field(default_factory=dict)
    """What else a method has to say of its members at this time, each (members, ...)."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a stack at one stopping time."""

    epoch: int
    ensemble: Ensemble
    cost: float
    """Examples through forward and backward so far, relative to retraining on R."""
    facts: Mapping[str, Tensor]
    """Per-member facts for the checks, each (members, ...)."""
    claim: Claim | None = None
    """What is certified of these members, with the assumptions behind it; None if nothing is."""


class Problem:
    """A stack of pretrained members, what they must forget, and what they may keep.

    Args:
        start: The pretrained stack (or a chunk of it); never changed.
        task: Its task.
        forget: The forget set.
        seed: The study's seed of this unlearning run.
        purpose: Separates the batch orders of different methods.
        targets: Predicted oracle margins of each member, shape (members, training examples), NaN where unknown; None
            if there are none.
        targets_cost: What the prediction cost a member, relative to retraining on R.
        store: Folder in which retrained members are kept, where a task's own `fit` trains them; None keeps nothing.
        workers: Processes that a method may use for members of its own.
    """

    def __init__(
        self,
        start: Ensemble,
        task: Task,
        forget: ForgetSet,
        seed: int,
        purpose: str,
        targets: Tensor | None = None,
        targets_cost: float = 0.0,
        store: Path | None = None,
        workers: int = 1,
    ) -> None:
        device = start.device
        self.start = start
        self.seed = seed
        self.store = store
        self.workers = workers
        self.progress: Callable[[int, int], None] | None = None
        """Called with members done and in all, by methods that take long for each."""
        self.task = task
        self.recipe = task.recipe
        self.outcome = start.network.outcome
        self.x = task.train.x.to(device)
        self.y = task.train.y.to(device)
        self.labels: Tensor | None = None
        """Labels of each member's own, (members, training examples), where they are not those of the data."""
        self.forget = torch.from_numpy(forget.indices)
        self.retain = torch.from_numpy(forget.retain)
        self.seeds = [derive(seed, "unlearn", purpose, member) for member in start.ids]
        self.ledger = Ledger(visits=torch.zeros(len(start), len(self.forget)))
        self._place = torch.full((len(task.train),), -1)
        self._place[self.forget] = torch.arange(len(self.forget))
        self.targets = torch.empty(0) if targets is None else targets.to(device)
        """Predicted oracle margins, shape (members, training examples); empty if there are none."""
        self._targets_cost = targets_cost

    @renamed("optimiser")
    def descent(
        self,
        *,
        statistics: Treatment,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        optimizer: Optimizer = "sgd",
        only: Collection[str] | None = None,
        start: Ensemble | None = None,
    ) -> Descent:
        """Return a fresh descent from the pretrained weights (copies), normalising as the treatment says.

        Args:
            statistics: What happens to normalisation statistics.
            momentum: That of SGD, or the first beta of Adam.
            weight_decay: L2 coefficient, at least 0.
            optimizer: Which one.
            only: Names of the parameters that move; None is all that the model declares trainable.
            start: Where it begins in place of the pretrained members.
        """
        start = self.start if start is None else start
        steps = Steps(
            optimizer=optimizer,
            momentum=momentum,
            weight_decay=weight_decay,
            precision=self.recipe.precision,
            statistics="updated" if statistics == "updated" else "frozen",
        )
        return Descent(start.network, clone(start.params), clone(start.buffers), steps, only=only)

    @renamed("batch")
    def forget_batches(self, epoch: int | str, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield one pass over the forget set as (inputs, labels, positions), each (members, batch, ...)."""
        yield from self._hand_out(self.forget_order(epoch), batch_size)

    @renamed("batch")
    def retain_batches(
        self, epoch: int, batch_size: int, share: float = 1.0
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield one pass over the retain set as (inputs, labels, positions), each (members, batch, ...).

        Args:
            epoch: Number of the epoch; each has its own order.
            batch_size: Examples a batch.
            share: Share of the retain set that is visited, above 0 and at most 1; each epoch draws another.
        """
        yield from self._hand_out(self.retain_order(epoch, share), batch_size)

    def own_batches(self, rows: Tensor, what: str, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield one pass over rows of each member's own as (inputs, labels, positions), each (members, batch, ...).

        Args:
            rows: Positions in the training data, (members, k).
            what: Name of the pass; each has its own order.
            batch_size: Examples a batch.
        """
        yield from self._hand_out(self.order(rows, what), batch_size)

    def held_out_batches(self, epoch: int | str, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield one pass over the validation rows as (inputs, labels, positions there), each (members, batch, ...).

        A method that takes steps on them must say so: they no longer tell what it does to rows that it never saw.

        Args:
            epoch: Number or name of the pass; each has its own order.
            batch_size: Examples a batch.
        """
        held_out, device = self.task.validation, self.x.device
        for index in batches(self.order(torch.arange(len(held_out)), f"held-out-{epoch}"), batch_size):
            check_stopped()
            self.made(index.shape[1])
            yield gather(held_out.x, index).to(device), gather(held_out.y, index).to(device), index

    def order(self, rows: Tensor, what: str) -> Tensor:
        """Return an order of rows of the training data, drawn for each member, (members, k).

        Args:
            rows: Positions, (k,) or (members, k).
            what: Name of the pass; each has its own order.
        """
        own = [derive(seed, what) for seed in self.seeds]
        return epoch_order(rows.expand(len(own), -1), own, 0)

    def forget_order(self, epoch: int | str) -> Tensor:
        """Return the order of one pass over the forget set, (members, |F|)."""
        return self.order(self.forget, f"forget-{epoch}")

    def retain_order(self, epoch: int, share: float = 1.0) -> Tensor:
        """Return the order of one pass over the retain set, or over a share of it, drawn again in each epoch."""
        return self.order(self.retain, f"retain-{epoch}")[:, : max(1, round(share * len(self.retain)))]

    def joint_order(self, epoch: int, retain_share: float = 1.0) -> Tensor:
        """Return the order of one pass over the forget set and a share of the retain set shuffled together."""
        kept = self.retain_order(epoch, retain_share)
        return self.order(torch.cat([self.forget.expand(len(kept), -1), kept], 1), f"joint-{epoch}")

    def forget_rounds(self, batch_size: int, name: str = "") -> Iterator[Tensor]:
        """Yield positions (members, batch) of the forget set without end, pass after pass, each in an order of its own.

        Args:
            batch_size: Examples a batch.
            name: Tells these passes from others of the same run.
        """
        for turn in count():
            yield from batches(self.forget_order(f"{name}{turn}"), batch_size)

    def take(
        self,
        descent: Descent,
        order: Tensor,
        batch_size: int | Sequence[int],
        lr: float,
        *,
        objective: Objective = USUAL,
        labels: Callable[[Tensor], Tensor] | None = None,
        ascend: bool = False,
        noise: Sequence[torch.Generator] | None = None,
    ) -> None:
        """Take a step on every batch of an order, which is the fastest way to do so.

        Args:
            descent: Whose steps these are.
            order: Positions in the training data, (members, k).
            batch_size: Examples of a batch, of which the last may be smaller; or those of each.
            lr: Learning rate.
            objective: What the steps descend; the outcome's loss by default.
            labels: From the order to labels, (members, k, ...); those of `labels_at` by default.
            ascend: Climb the loss instead of descending it.
            noise: From `noise`.
        """
        self._enter(order)
        steps = -(-order.shape[1] // batch_size) if isinstance(batch_size, int) else len(batch_size)
        there = order.to(self.x.device)
        own = None if self.labels is None else self.labels_at(order)
        own = own if labels is None else labels(order).to(self.y.device)
        data, rates = Split(self.x, self.y), [lr] * steps
        descent.run(data, there, batch_size, rates, labels=own, objective=objective, ascend=ascend, noise=noise)

    def take_pass(
        self,
        descent: Descent,
        part: Literal["forget", "retain"],
        epoch: int,
        batch_size: int,
        lr: float,
        *,
        share: float = 1.0,
        objective: Objective = USUAL,
        labels: Callable[[Tensor], Tensor] | None = None,
        ascend: bool = False,
        noise: Sequence[torch.Generator] | None = None,
    ) -> None:
        """Take a step on every batch of one pass.

        Args:
            descent: Whose steps these are.
            part: The set that is visited.
            epoch: Number of the epoch; each has its own order.
            batch_size: Examples a batch.
            lr: Learning rate.
            share: Share of the retain set that is visited, above 0 and at most 1.
            objective: What the steps descend; the outcome's loss by default.
            labels: From positions to labels, as for `take`.
            ascend: Climb the loss instead of descending it.
            noise: From `noise`.
        """
        order = self.forget_order(epoch) if part == "forget" else self.retain_order(epoch, share)
        self.take(descent, order, batch_size, lr, objective=objective, labels=labels, ascend=ascend, noise=noise)

    def take_joint_pass(
        self,
        descent: Descent,
        epoch: int,
        forgotten: Iterator[Tensor],
        batch_size: int,
        lr: float,
        objective: Callable[[Sequence[int]], Objective],
        *,
        share: float = 1.0,
        noise: Sequence[torch.Generator] | None = None,
    ) -> None:
        """Take a step on every batch of a pass over the retain set, each joined to the next batch of the forget set.

        Args:
            descent: Whose steps these are.
            epoch: Number of the epoch; each has its own order of the retain set.
            forgotten: From `forget_rounds`; what is read here is gone. These examples come first in a step.
            batch_size: Examples of a batch of the retain set.
            lr: Learning rate.
            objective: From the number of forget examples of each step to what the steps descend.
            share: Share of the retain set that is visited, above 0 and at most 1.
            noise: From `noise`.
        """
        retained = list(batches(self.retain_order(epoch, share), batch_size))
        pairs = list(zip(islice(forgotten, len(retained)), retained, strict=True))
        order = torch.cat([part for pair in pairs for part in pair], 1)
        lengths = [sum(part.shape[1] for part in pair) for pair in pairs]
        joined = objective([first.shape[1] for first, _ in pairs])
        self.take(descent, order, lengths, lr, objective=joined, noise=noise)

    def _hand_out(self, order: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for index in batches(order, batch):
            check_stopped()
            yield *self.batch(index), index

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs and labels at positions (members, batch), which are entered as visited."""
        self._enter(index)
        return gather(self.x, index.to(self.x.device)), self.labels_at(index)

    def labels_at(self, index: Tensor) -> Tensor:
        """Return the labels that methods are given at positions (members, batch)."""
        there = index.to(self.y.device)
        return gather(self.y, there) if self.labels is None else self.labels.gather(1, there)

    def _enter(self, index: Tensor) -> None:
        self.ledger.examples += index.shape[1]
        # Rows that are not in the forget set are counted in a column of their own, which is left out.
        counts = torch.zeros(len(index), len(self.forget) + 1)
        place = self.place(index) % counts.shape[1]
        counts.scatter_add_(1, place, torch.ones(()).expand(place.shape))
        self.ledger.visits += counts[:, :-1]

    def place(self, index: Tensor) -> Tensor:
        """Return where in the forget set positions in the training data are, -1 for those that are not in it."""
        return self._place[index]

    def visit(self, examples: Tensor) -> None:
        """Enter positions (k,) of examples that went through forward and backward with every member, in no batch."""
        self._enter(examples.expand(len(self.seeds), -1))

    def visit_epoch(self, recipe: Recipe, rows: Tensor | None = None) -> None:
        """Enter the examples of one epoch of a recipe on the retain set, or on other rows (positions)."""
        used = len(self.retain if rows is None else rows)
        self.ledger.examples += used - used % recipe.batch_size if recipe.last_batch == "drop" else used

    def noise(self, epoch: int) -> list[torch.Generator]:
        """Return one generator a member for dropout in this epoch."""
        return [generator(seed, "noise", epoch) for seed in self.seeds]

    def normal(self, shape: Sequence[int], *what: str) -> Tensor:
        """Return standard normal numbers of every member, from a seed of its own, (members, *shape), float64.

        Args:
            shape: Of a member's numbers.
            what: Tells these numbers from others of the same run.
        """
        draws = [generator(seed, *what) for seed in self.seeds]
        return torch.stack([torch.randn(tuple(shape), generator=draw, dtype=torch.float64) for draw in draws])

    def forward_only(self, examples: int) -> None:
        """Enter examples that went through a forward pass without a backward pass."""
        self.ledger.examples += FORWARD_SHARE * examples

    def made(self, examples: int) -> None:
        """Enter inputs that are in no data set, a member, and went through forward and backward."""
        self.ledger.examples += examples

    def raised(self, before: Tensor, after: Tensor) -> None:
        """Enter the objective that a pass was to raise, before and after it, each (members,)."""
        self.ledger.ascents.append((before.cpu(), after.cpu()))

    def pay_for_targets(self) -> None:
        """Enter what the predicted margins cost."""
        self.ledger.examples += self._targets_cost * len(self.retain) * self.recipe.epochs

    def target_distance(self, descent: Descent) -> Tensor:
        """Return how far the forget margins are from their targets, root mean square over F, shape (members,)."""
        labels = self.y[self.forget.to(self.y.device)]
        logits = self.logits(descent, self.forget)
        margins = self.outcome.statistic(logits, labels).to(logits.dtype)
        there = self.forget.to(self.targets.device)
        return ((margins - self.targets[:, there]) ** 2).nanmean(1).sqrt()

    def approached(self, start: Tensor, now: Tensor) -> None:
        """Enter the distance of the forget margins from their targets at the start and now, each (members,)."""
        self.ledger.distances = (start.cpu(), now.cpu())

    def note(self, **facts: Tensor) -> None:
        """Enter facts of a method's own, each (members, ...); they replace earlier ones of the same name."""
        self.ledger.notes |= {name.replace("_", "-"): fact.detach().cpu().clone() for name, fact in facts.items()}

    @torch.no_grad()
    def logits(self, descent: Descent, examples: Tensor) -> Tensor:
        """Return logits (members, examples, classes) of the current weights with stored statistics."""
        there = examples.to(self.x.device)
        ensemble = self.start.with_state(descent.params, descent.buffers)
        return ensemble.logits(self.x[there]).to(self.x.device)

    def forget_loss(self, descent: Descent) -> Tensor:
        """Return the loss of each member averaged over the forget set, (members,)."""
        return self._loss(descent, self.forget)

    def retain_loss(self, descent: Descent) -> Tensor:
        """Return the loss of each member averaged over the retain set, (members,)."""
        return self._loss(descent, self.retain)

    def _loss(self, descent: Descent, examples: Tensor) -> Tensor:
        labels = self.y[examples.to(self.y.device)]
        return self.outcome.loss(self.logits(descent, examples), labels).mean(1)

    def forget_margins(self, ensemble: Ensemble) -> Tensor:
        """Return the margins (or other statistic) of each member on the forget set, (members, examples)."""
        split = self.task.train[self.forget]
        return ensemble.margins(split.x, split.y).cpu()

    def checkpoint(self, epoch: int, descent: Descent, statistics: Treatment) -> Checkpoint:
        """Return the state after an epoch, its statistics treated as declared, with the facts for the checks."""
        params, buffers = descent.state()
        return self.stop(epoch, self.start.with_state(params, buffers), statistics)

    def stop(self, epoch: int, ensemble: Ensemble, statistics: Treatment | None = None) -> Checkpoint:
        """Return a checkpoint of any ensemble, its statistics recalibrated on the retain set where declared."""
        if statistics == "recalibrated":
            ensemble = recalibrate(ensemble, self.x[self.retain.to(self.x.device)])
            self.forward_only(len(self.retain))
        facts: dict[str, Tensor] = {
            "moved": distance(ensemble.params, self.start.params).cpu(),
            "statistics_moved": _statistics_distance(ensemble.buffers, self.start.buffers, len(ensemble)),
            "finite": finite_members({**ensemble.params, **ensemble.buffers}).cpu(),
            "visits": self.ledger.visits.clone(),
        }
        for number, (before, after) in enumerate(self.ledger.ascents):
            facts[f"ascent-{number}-before"], facts[f"ascent-{number}-after"] = before, after
        if self.ledger.distances is not None:
            facts["target-distance-start"], facts["target-distance"] = self.ledger.distances
        facts |= self.ledger.notes
        retraining = len(self.retain) * self.recipe.epochs
        return Checkpoint(epoch, ensemble, self.ledger.examples / retraining, facts)


def _statistics_distance(a: State, b: State, members: int) -> Tensor:
    floating = {name for name, tensor in a.items() if tensor.is_floating_point()}
    if not floating:
        return torch.zeros(members, dtype=torch.float64)
    return distance({name: a[name] for name in floating}, {name: b[name] for name in floating}).cpu()
