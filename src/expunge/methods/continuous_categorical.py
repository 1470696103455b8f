"""The continuous categorical as a matching loss: a law on the simplex, normaliser and all.

With logits z at temperature T as natural parameters eta = z / T, the density of a point y of the simplex is

    p(y; eta) = exp(eta . y) / Z(eta),   Z(eta) = integral over the simplex of exp(eta . y)
                                                = sum_k exp(eta_k) / prod_{i != k} (eta_k - eta_i)

    d = T^2 KL( p(.; eta_teacher) || p(.; eta_student) )
      = T^2 [ log Z(eta_s) - log Z(eta_t) - (eta_s - eta_t) . mu(eta_t) ],       mu = gradient of log Z, the mean of p
    gradient of d by the student's logits = T (mu(eta_s) - mu(eta_t))

The sum is the divided difference of exp at eta_1, ..., eta_K, singular where two meet. It is computed as what it is
without a singularity, an integral along a line around all of them (Hermite, Genocchi; Bromwich):

    Z(eta) = 1 / (2 pi i) * integral exp(z) / prod_k (z - eta_k) dz,      mu_k: the same with one factor k more, over Z

on the parabola z = m + s (1 + iu)^2, m the largest eta, with s > 0 where the integrand is stationary on the real line:
it is largest there, and falls off on both sides. `NODES` points give log Z and mu to 1e-14, whether all parameters are
equal or thousands apart. It is done in float64, whatever comes.

Source: Gordon-Rodriguez et al., "The continuous categorical" (arXiv 2002.08563) and "Uses and Abuses of the
Cross-Entropy Loss" (arXiv 2011.05231). Differs from the source, which takes -log p(y; eta_student) with y the teacher's
probabilities: its minimum has mean y, which is not where student and teacher agree (a probability of .99 asks for a
logit of 100). A teacher that is to be matched has its own mean for a target, as here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.ensembles import WrittenLoss

NODES = 40
"""Points on one half of the line; the other half is its mirror image."""
REACH = 36.0
"""Where the line ends the integrand has fallen by exp(-REACH)."""
CHUNK = 2**20
"""Complex numbers that are held at once."""


@dataclass(frozen=True)
class ContinuousCategorical(WrittenLoss):
    """The divergence d above of a student from its teacher, averaged over examples."""

    temperature: float
    """T, above 0."""

    def with_gradient(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the divergence from the teacher's logits (members, batch, classes), and its gradient."""
        student, teacher = (z.double() / self.temperature for z in (logits, target))
        (log_s, mean_s), (log_t, mean_t) = log_normaliser(student), log_normaliser(teacher)
        apart = log_s - log_t - ((student - teacher) * mean_t).sum(-1)
        gradient = (mean_s - mean_t) * (self.temperature / logits.shape[1])
        return (self.temperature**2 * apart.mean(1)).to(logits.dtype), gradient.to(logits.dtype)


def log_normaliser(eta: Tensor) -> tuple[Tensor, Tensor]:
    """Return log Z, and its gradient: the mean of the law.

    Args:
        eta: Natural parameters, shape (..., classes), at least 2 classes; any common shift is allowed.

    Returns:
        Shapes (...) and (..., classes), float64; NaN where a parameter is not finite.
    """
    flat = eta.double().reshape(-1, eta.shape[-1])
    parts = flat.split(max(1, CHUNK // ((NODES + 1) * flat.shape[1])))
    logs, means = zip(*(_integrate(part) for part in parts), strict=True)
    return torch.cat(logs).view(eta.shape[:-1]), torch.cat(means).view(eta.shape)


def _integrate(eta: Tensor) -> tuple[Tensor, Tensor]:
    top = eta.amax(1, keepdim=True)
    gap = top - eta
    # Where the integrand is stationary: sum_k 1 / (s + gap_k) = 1, between 1 and the number of classes. The sum is
    # convex and falling, and at least 1 at s = 1: from there Newton's steps climb to the root, at most doubling s.
    s = torch.ones_like(top)
    for _ in range(5 + eta.shape[1].bit_length()):
        inverse = 1 / (s + gap)
        s = s + (inverse.sum(1, keepdim=True) - 1) / inverse.square().sum(1, keepdim=True)
    step = (REACH / s).sqrt() / NODES
    u = step * torch.arange(NODES + 1, dtype=eta.dtype, device=eta.device)
    along = torch.complex(torch.ones_like(u), u)
    z = s * along.square()
    inverse_z = 1 / (z.unsqueeze(2) + gap.unsqueeze(1))
    # Relative to the value on the real line, so that nothing overflows.
    integrand = ((s + gap).unsqueeze(1) * inverse_z).prod(2) * torch.exp(z - s) * along
    integrand[:, 0] /= 2
    area = integrand.sum(1).real
    log = (top + s + (2 * s * step / math.pi).log()).squeeze(1) - (s + gap).log().sum(1) + area.log()
    return log, (integrand.unsqueeze(2) * inverse_z).sum(1).real / area.unsqueeze(1)
