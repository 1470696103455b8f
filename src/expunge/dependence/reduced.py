"""The reduced model: the pretrained stack with logits that are affine in a few coordinates, for methods to run on.

    z_i(c) = z_i + sum_k (c_k - c0_k) J_i v_k,        c0 = V^T theta,

with V an orthonormal basis of a Krylov space of the retain curvature, started from the directions in which unlearning
pulls: the gradient of the forget loss, the gradient of the forget margins (where the pull goes once well-fitted
examples join in), and what removal would do. Cross-entropy, distillation and weight decay act on c as they act on the
weights of the linearised network restricted to that space, so every method of the package runs on it unchanged, in
coordinates that are a thousandth of the parameters. What is kept is the softmax; what is lost is the change of the
Jacobian and everything outside the space.

The result is a first-order path in margin space for each method, rate and stopping time, before anything is unlearned.

Source: linearised (lazy) training is Jacot et al. (arXiv 1806.07572) and Lee et al., "Wide neural networks of any depth
evolve as linear models" (arXiv 1902.06720); restricting it to a Krylov space is ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.core import Ensemble, ForgetSet, InputError, Interface, Outcome, Recipe, Split, Statistics, Task
from expunge.core.checks import whole
from expunge.core.outcomes import Classes
from expunge.core.seeds import generator
from expunge.core.tree import State, take
from expunge.dependence.curvature import damped
from expunge.dependence.krylov import krylov_basis
from expunge.dependence.linearised import Linearised, margin_cotangent
from expunge.dependence.members import by_members
from expunge.dependence.representatives import represent

DIMENSIONS = 24
"""Coordinates of the reduced model."""

TABLE = 2**28
"""Numbers that the table of derivatives may hold (1 GiB in float32); a larger retain set is represented by a sample."""


class TableNetwork:
    """Logits that are affine in the coordinates of each member, read from a table by the position of the example.

    Args:
        logits: At the pretrained weights, shape (members, rows, classes).
        derivatives: By each coordinate, shape (members, rows, dimensions, classes).
    """

    kind = "table"
    reason = ""
    attributes: tuple[str, ...] = ()
    interface: Interface = Interface()
    outcome: Outcome = Classes()

    def __init__(self, logits: Tensor, derivatives: Tensor) -> None:
        self.logits, self.derivatives = logits, derivatives
        self.template: nn.Module = _Template(derivatives.shape[2], logits.shape[2])
        self.widest = derivatives.shape[2] * logits.shape[2]

    def __call__(
        self,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        x: Tensor,
        *,
        statistics: Statistics = "frozen",
        noise: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """Return logits (members, batch, classes) of examples given by their rows (members or 1, batch)."""
        member = buffers["member"]
        rows = x.expand(len(member), -1)
        step = (params["coordinates"] - buffers["origin"]).unsqueeze(1)
        at, by = self.logits[member[:, None], rows], self.derivatives[member[:, None], rows]
        return at + torch.matmul(step.unsqueeze(2), by).squeeze(2)


class _Template(nn.Module):
    """Declares the coordinates; evaluated only to learn the shape of the outputs."""

    def __init__(self, dimensions: int, classes: int) -> None:
        super().__init__()
        self.coordinates = nn.Parameter(torch.zeros(dimensions))
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        return self.coordinates.sum() * torch.zeros(len(x), self.classes)


@dataclass(frozen=True)
class ReducedModel:
    """The reduced stack, its task, and where other examples lie in its table."""

    task: Task
    """Examples are rows of the table; `train` is in the order of the original training data."""
    ensemble: Ensemble
    """Starts at the pretrained models; every method can be run on it."""
    rows: Mapping[str, Split]
    """Rows and labels of the splits that were asked for."""
    dimensions: int
    """Coordinates of each member."""
    sampled: int
    """Retain examples in the table; all of them unless there was no room."""

    def margins(self, ensemble: Ensemble, name: str) -> Tensor:
        """Return margins (members, examples) of a split at the coordinates of an ensemble."""
        split = self.rows[name]
        return ensemble.margins(split.x, split.y)


def reduce_model(
    pretrained: Ensemble,
    task: Task,
    forget: ForgetSet,
    splits: Mapping[str, Split],
    *,
    directions: Sequence[State] = (),
    dimensions: int = DIMENSIONS,
    table: int = TABLE,
    seed: int = 0,
) -> ReducedModel:
    """Return the reduced model of a pretrained ensemble for one forget set.

    Args:
        pretrained: The members to follow; a dozen are enough, since what is read are averages of their movements.
        task: Data and recipe.
        forget: What is to be unlearned.
        splits: Examples whose margins will be read, by name.
        directions: Further directions that the space must hold, such as the predicted removal.
        dimensions: Coordinates, at least 2 more than `directions`.
        table: Numbers that the table may hold.
        seed: Chooses the retain examples in the table when there is no room for all.

    Raises:
        InputError: If sizes do not fit, or not even a batch of retain examples has room in the table.
    """
    whole(minimum=2 + len(directions), dimensions=dimensions)
    forget.check(task)
    x, y = task.train.x, task.train.y
    gone, kept = torch.from_numpy(forget.indices), torch.from_numpy(forget.retain)
    represented, each = represent(kept)
    used = _room_for(represented, gone, splits, len(pretrained) * dimensions * task.classes, table, seed)
    rows_of = torch.cat([x[gone], x[used], *(split.x for split in splits.values())])

    def work(part: slice) -> tuple[Tensor, Tensor, Tensor]:
        linearised = Linearised(pretrained[part])
        cotangent = margin_cotangent(linearised.logits(x[gone]), y[gone])
        starts = [linearised.gradient(x[gone], y[gone]), linearised.pullback(x[gone], cotangent)]
        starts += [take(direction, part) for direction in directions]
        operator = damped(linearised, x[represented], task.recipe.weight_decay * len(kept), each)
        basis = krylov_basis(linearised, operator, starts, dimensions)
        origin = torch.einsum("mkp,mp->mk", basis, linearised.flatten(linearised.params))
        return *_table(linearised, rows_of, basis), origin

    parts = by_members(work, len(pretrained), pretrained.device)
    logits, derivatives, origin = (torch.cat(tensors) for tensors in zip(*parts, strict=True))

    # Each training example is a row; retain examples without a row of their own borrow that of one with their label.
    place = torch.empty(len(y), dtype=torch.int64)
    place[gone] = torch.arange(len(gone))
    place[kept] = len(gone) + _borrowed(y[kept], y[used], kept, used, seed)
    rows, offset = {}, len(gone) + len(used)
    for name, split in splits.items():
        rows[name] = Split(torch.arange(offset, offset + len(split)), split.y)
        offset += len(split)
    network = TableNetwork(logits, derivatives)
    ensemble = Ensemble(
        network,
        {"coordinates": origin.clone()},
        {"origin": origin, "member": torch.arange(len(pretrained))},
        pretrained.ids,
        pretrained.seed,
        {"chunk": len(pretrained)},
    )
    reduced = Task(
        name=f"{task.name}, reduced",
        train=(place, y),
        validation=(-1 - place[:1], y[:1]),  # no row of the table: it is not read
        model=lambda: _Template(dimensions, task.classes),
        recipe=_plain(task.recipe),
        classes=task.classes,
    )
    return ReducedModel(reduced, ensemble, rows, dimensions, len(used))


def _table(linearised: Linearised, x: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    columns = [linearised.outputs(x, linearised.unflatten(vector))[1] for vector in basis.unbind(1)]
    return linearised.logits(x), torch.stack(columns, dim=2)


def _room_for(kept: Tensor, gone: Tensor, splits: Mapping[str, Split], width: int, table: int, seed: int) -> Tensor:
    room = table // width - len(gone) - sum(len(split) for split in splits.values())
    if room >= len(kept):
        return kept
    if room < 64:
        raise InputError(
            f"the table of the reduced model has room for {max(room, 0)} retain examples, expected at least 64; follow "
            "fewer members, use fewer dimensions, or raise `table`."
        )
    order = torch.randperm(len(kept), generator=generator(seed, "reduced retain examples"))[:room]
    return kept[order.sort().values]


def _borrowed(labels: Tensor, used_labels: Tensor, kept: Tensor, used: Tensor, seed: int) -> Tensor:
    """Return for each retain example its position in `used`, or that of a random one with the same label."""
    if len(kept) == len(used):
        return torch.arange(len(kept))
    out = torch.randint(len(used), (len(kept),), generator=generator(seed, "borrowed rows"))
    for label in torch.unique(labels):
        pool = torch.nonzero(used_labels == label).flatten()
        mine = torch.nonzero(labels == label).flatten()
        if len(pool):
            draw = torch.randint(len(pool), (len(mine),), generator=generator(seed, "borrowed rows", int(label)))
            out[mine] = pool[draw]
    position = {int(index): row for row, index in enumerate(used)}
    for row, index in enumerate(kept.tolist()):
        if index in position:
            out[row] = position[index]
    return out


def _plain(recipe: Recipe) -> Recipe:
    """Return the recipe in the precision of the table."""
    return dataclasses.replace(recipe, precision="float32")
