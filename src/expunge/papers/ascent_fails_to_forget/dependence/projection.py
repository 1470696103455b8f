"""Influence for many examples and many parameters: gradients of margins, projected, in memory that does not grow.

Each gradient of a margin (P numbers) is hashed into k numbers: every parameter has a random bucket and a random sign,

    psi_b = sum of s_i phi_i over parameters i in bucket b,       E[psi . psi'] = phi . phi'

so that inner products keep their scale, with relative error about sqrt(2 / k). One pass over the data accumulates

    S_w = sum_D w psi psi^T   and   S = sum_D psi psi^T                (k x k each)

and everything about any forget set follows from these two and the projected gradients of F (letters as in `kernel`):

    H = S_w + rho I,     C_RF^T C_RF = diag(c_F) Psi_F H^{-1} (S - Psi_F^T Psi_F) H^{-1} Psi_F^T diag(c_F)

Memory is two k x k matrices a member and one batch of gradients, whatever the number of examples. With k >= P nothing
is hashed and the numbers are those of `Kernel`.

Sources: Park et al., "TRAK" (arXiv 2303.14186), sec. 3.2; Charikar, Chen and Farach-Colton, "Finding Frequent Items in
Data Streams" (2002) and Weinberger et al., "Feature Hashing for Large Scale Multitask Learning" (arXiv 0902.2206),
Lemma 2, for the sketch and its variance.
Differs from TRAK: the sketch is sparse (one operation a parameter in place of k), the curvature keeps its ridge, and
nothing is divided by its mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from expunge.core import Ensemble, ForgetSet, Task
from expunge.core.checks import non_negative, one_of, positive, whole
from expunge.core.seeds import generator
from expunge.dependence.cross_influence import largest_singular_value
from expunge.dependence.inputs import read_data, read_forget, spread, usable_members
from expunge.dependence.kernel import margin_derivatives
from expunge.dependence.leverage import EPSILON, Leverage, canonical_from_blocks
from expunge.dependence.linearised import Linearised, margin_cotangent
from expunge.dependence.members import each_member
from expunge.dependence.ridge import Order, check_ridge
from expunge.ensembles.example_gradients import gradient_batches


@dataclass(frozen=True)
class ProjectedSet:
    """A forget set in one member, by projected gradients."""

    shift_forget: Tensor
    """Predicted change of the margins of F when F is removed, (size,), nats."""
    shift_retain: float
    """Root mean square over R of the predicted change, nats."""
    spectral_retain: float
    """Spectral norm of the cross-influence R <- F, nats."""
    effect_retain: float
    """Length of the first-order effect of F on the margins of R."""
    leverage: Leverage
    """Of F."""
    canonical: Tensor
    """Canonical correlations (size,), descending."""
    move: Tensor
    """Predicted move in the projected space, (dims,)."""


class Projection:
    """Projected gradients of an ensemble's margins, accumulated once for any number of forget sets.

    Args:
        ensemble: Members trained on all of the data.
        data: The task, or training inputs (examples, ...) and labels (examples,).
        dims: Numbers that a gradient is hashed into, at least 1; usually 512 to 4096, and more than the number of
            directions that matter. As many as the parameters or more: no projection.
        decay: L2 coefficient beside the mean loss; None takes the recipe's (0 for a pair of arrays).
        damping: Added to the diagonal, in units of the summed loss, at least 0.
        members: Use the first so many members; None uses all.
        seed: Of the buckets and signs, shared by all members.

    Raises:
        InputError: If decay and damping are both 0, or no member is better than guessing.
        DivergedError: If no member is finite.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        data: Task | tuple[Any, Any],
        *,
        dims: int = 1024,
        decay: float | None = None,
        damping: float = 0.0,
        members: int | None = None,
        seed: int = 0,
    ) -> None:
        whole(dims=dims)
        non_negative(damping=damping)
        self.data = read_data(data, decay)
        self.ridge = check_ridge(self.data.decay * len(self.data) + damping)
        chosen, self.good = usable_members(ensemble, self.data.x, self.data.y, members=members)
        self.linearised = Linearised(chosen)
        size = self.linearised.parameters
        self.dims = min(dims, size)
        self._buckets: dict[str, tuple[Tensor, Tensor]] | None = None
        if dims < size:
            bucket = torch.randint(0, dims, (size,), generator=generator(seed, "buckets"))
            sign = torch.randint(0, 2, (size,), generator=generator(seed, "signs")) * 2.0 - 1.0
            sizes = list(self.linearised.sizes.values())
            parts = zip(torch.split(bucket, sizes), torch.split(sign, sizes), strict=True)
            place = self.linearised.device
            self._buckets = {
                name: (b.to(place), s.to(place)) for name, (b, s) in zip(self.linearised.sizes, parts, strict=True)
            }
        self._moments = each_member(self._accumulate, len(chosen), chosen.device)

    def gradients(self, member: int, x: Tensor, y: Tensor) -> Tensor:
        """Return projected gradients of margins (examples, dims), float64, on the CPU."""
        return torch.cat(list(self._batches(member, x, y)))

    def forget(
        self, forget: ForgetSet | Any, *, order: Order = "newton", epsilon: float = EPSILON
    ) -> list[ProjectedSet]:
        """Return what follows for a forget set, one entry a usable member.

        Args:
            forget: The forget set, or positions in the training data.
            order: `newton` or `first`, for the predicted shifts.
            epsilon: Ridge of the canonical correlations, in units of leverage, above 0.
        """
        one_of(("newton", "first"), order=order)
        positive(epsilon=epsilon)
        index = read_forget(forget, len(self.data))
        x, y = self.data.x[index], self.data.y[index]
        return [self._one(member, x, y, order, epsilon) for member in range(len(self._moments))]

    def margins(self, sets: list[ProjectedSet], x: Tensor, y: Tensor) -> Tensor:
        """Return the predicted change of margins (members, examples), NaN for members that could not be used.

        Args:
            sets: What `forget` returned.
            x: Inputs (examples, ...).
            y: Labels (examples,).
        """
        rows = [
            torch.cat([batch @ own.move for batch in self._batches(member, x, y)]) for member, own in enumerate(sets)
        ]
        return spread(torch.stack(rows), self.good)

    def _one(self, member: int, x: Tensor, y: Tensor, order: Order, epsilon: float) -> ProjectedSet:
        weighted, plain = self._moments[member]
        psi = self.gradients(member, x, y)
        slope, weight = margin_derivatives(self.linearised, member, x, y)
        eye = torch.eye(self.dims, dtype=psi.dtype)
        solved = torch.cholesky_solve(psi.T, torch.linalg.cholesky(weighted + self.ridge * eye))
        own = psi @ solved
        b = slope
        if order == "newton":
            b = torch.linalg.solve(torch.eye(len(x), dtype=psi.dtype) - weight[:, None] * own, slope)
        move = solved @ b
        rest = len(self.data) - len(x)
        # The gradients of R are those of D without those of F; what is left of a square after rounding is 0.
        retain = plain - psi.T @ psi
        effects = solved * slope
        gram = effects.T @ retain @ effects
        root = weight.sqrt()
        hat = root[:, None] * own * root
        values = torch.linalg.eigvalsh(hat)
        system = (1 + epsilon) * weighted + epsilon * self.ridge * eye
        inside = torch.cholesky_solve(psi.T * root, torch.linalg.cholesky(system))
        inverse = (torch.eye(len(x), dtype=psi.dtype) - (psi * root[:, None]) @ inside) / epsilon
        one = torch.ones(len(x), dtype=psi.dtype)
        return ProjectedSet(
            own @ b,
            float((move @ retain @ move / rest).clamp_min(0).sqrt()),
            largest_singular_value(gram) ** 0.5,
            float((one @ gram @ one).clamp_min(0).sqrt()),
            Leverage(float(values.sum()), min(1.0, max(0.0, float(values[-1])))),
            canonical_from_blocks(hat, inverse, epsilon),
            move,
        )

    def _accumulate(self, member: int) -> tuple[Tensor, Tensor]:
        """Return S_w and S of one member, float64."""
        weighted = torch.zeros(self.dims, self.dims, dtype=torch.float64)
        plain = torch.zeros_like(weighted)
        start = 0
        for batch in self._batches(member, self.data.x, self.data.y):
            stop = start + len(batch)
            _, weight = margin_derivatives(self.linearised, member, self.data.x[start:stop], self.data.y[start:stop])
            plain += batch.T @ batch
            weighted += (batch * weight[:, None]).T @ batch
            start = stop
        return weighted, plain

    def _batches(self, member: int, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        for batch in gradient_batches(self.linearised.ensemble, member, x, y, margin_cotangent):
            rows = len(next(iter(batch.values())))
            if self._buckets is None:
                yield torch.cat([batch[name].reshape(rows, -1) for name in self.linearised.sizes], 1).double().cpu()
                continue
            reference = next(iter(batch.values()))
            out = torch.zeros(self.dims, rows, dtype=reference.dtype, device=reference.device)
            for name, (bucket, sign) in self._buckets.items():
                flat = batch[name].reshape(rows, -1).T
                out.index_add_(0, bucket, flat * sign.to(flat.dtype)[:, None])
            yield out.T.double().cpu()
