"""The teacher mixture: two groups, two correlated rules, and the exact distance of every unlearner to the oracle.

Data. Group c = + or - with probability rho, 1 - rho: x = c v / sqrt(d) + sqrt(Delta_c) z with Gaussian z, label
y = sign(W_c . x / sqrt(d) + b_c). The vectors (W_+, W_-, v) have Gram matrix over d

    G = [[1, q_T, m_+], [q_T, 1, m_-], [m_+, m_-, 1]]

n = alpha d points. An estimator minimises sum_mu a_mu l(y_mu, w.x_mu / sqrt(d) + b) + (lambda / 2) |w|^2, where a_mu
depends on the subgroup g of the point: (group, retained or forgotten). Pretraining has a_F = 1, the oracle a_F = 0,
descent-ascent a_F = -gamma. As d grows with alpha fixed, all concentrates on order parameters

    R_c = w.W_c / d,   m = w.v / d,   Q_ij = w_i.w_j / d,   b,   V (the response)

and several estimators i = 1..k on the *same* data are described by their joint fields. We allow estimator i to be
pulled elastically towards an earlier one j, (kappa_ij / 2) |w_i - w_j|^2, which is fine-tuning that starts from, and
stays near, another solution. Let Lambda be lower triangular with lambda + sum_j kappa_ij on the diagonal and
-kappa_ij below. For a point of subgroup g,

    h_i = c m_i + b_i + sqrt(Delta) omega_i + Delta sum_j V_ij f_j,     f_i = -a_gi l'(y, h_i),
    Cov(omega) = Q,    teacher field t = (c m_c + b_c) / sqrt(Delta) + nu,  Cov(nu, omega_i) = R_c,i,  y = sign(t)

    u_i   = (sum over c = + , sum over c = -, all) of alpha_g (sqrt(Delta) E d_t f_i, sqrt(Delta) E d_t f_i, c E f_i)
    Vhat  = sum_g alpha_g Delta E[(I + D Delta V)^{-1} D],  D = diag(a_gi l''(h_i))
    V     = (Lambda + Vhat)^{-1}
    (R_+, R_-, m)_i = G sum_j V_ij u_j
    Q     = V (sum_g alpha_g Delta E[f f^T] + U^T G U) V^T,        0 = sum_g alpha_g E f_i   (bias)

Here E d_t means the derivative of the label's law with respect to the teacher field. For the square loss all
expectations are closed forms (this file); for the logistic loss they are Gauss-Hermite sums in k dimensions.
Distances follow: |w_i - w_j|^2 / d = Q_ii + Q_jj - 2 Q_ij.

Source: model of S. Sarao Mannelli, F. Gerace, N. Rostamzadeh, L. Saglietti, Bias-inducing geometries (arXiv
2205.15935); the equations are derived again, and weights, cross overlaps and the elastic term are ours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy
from scipy.optimize import brentq
from scipy.special import expit

from expunge.core.checks import between, non_negative, one_of, positive
from expunge.core.errors import InputError

Array = np.ndarray[Any, Any]
Loss = Literal["square", "logistic"]


@dataclass(frozen=True)
class Mixture:
    """The law of the data and the size of the forget set.

    Raises:
        InputError: If a parameter leaves its range, or the three overlaps belong to no vectors.
    """

    density: float = 3.0
    """alpha = n / d, above 0."""
    imbalance: float = 0.7
    """rho, share of group +, from 0 to 1, both excluded."""
    similarity: float = 0.6
    """q_T, overlap of the two rules, -1 to 1; 1 means one rule for both groups."""
    correlation: tuple[float, float] = (0.3, 0.2)
    """(m_+, m_-), overlap of each rule with the direction between groups: how far the group predicts the label."""
    variance: tuple[float, float] = (0.5, 1.0)
    """(Delta_+, Delta_-), above 0."""
    bias: tuple[float, float] = (0.0, 0.0)
    """(b_+, b_-), offsets of the rules."""
    forget: tuple[float, float] = (0.0, 0.3)
    """Share of each group that is forgotten, 0 to 1; not everything and not nothing."""

    def __post_init__(self) -> None:
        """Check ranges and that the Gram matrix is one."""
        positive(density=self.density, variance_plus=self.variance[0], variance_minus=self.variance[1])
        between(-1.0, 1.0, similarity=self.similarity)
        between(0.0, 1.0, forget_plus=self.forget[0], forget_minus=self.forget[1], imbalance=self.imbalance)
        if not 0 < self.imbalance < 1:
            raise InputError(f"imbalance = {self.imbalance}, expected a number between 0 and 1, both excluded.")
        if min(self.forget) >= 1:
            raise InputError(f"forget = {self.forget} is the whole data, expected less: nothing is left to retrain on.")
        smallest = float(np.linalg.eigvalsh(self.gram)[0])
        if smallest < -1e-12:
            raise InputError(
                f"similarity = {self.similarity} and correlation = {self.correlation} belong to no three vectors "
                f"(smallest eigenvalue of their Gram matrix {smallest:.3g}); bring the two correlations closer "
                "together or the similarity closer to 0."
            )

    @property
    def gram(self) -> Array:
        """G, overlaps of (W_+, W_-, v), shape (3, 3)."""
        plus, minus = self.correlation
        return np.array([[1.0, self.similarity, plus], [self.similarity, 1.0, minus], [plus, minus, 1.0]])

    @property
    def subgroups(self) -> tuple[tuple[int, bool, float], ...]:
        """(c, forgotten, n_g / d) of each subgroup that is not empty."""
        found = []
        for index, (c, share) in enumerate(((1, self.imbalance), (-1, 1 - self.imbalance))):
            for forgotten in (False, True):
                part = self.forget[index] if forgotten else 1 - self.forget[index]
                if part > 0:
                    found.append((c, forgotten, self.density * share * part))
        return tuple(found)

    @property
    def forget_share(self) -> float:
        """|F| / |D|."""
        return self.imbalance * self.forget[0] + (1 - self.imbalance) * self.forget[1]


@dataclass(frozen=True)
class Estimator:
    """One minimiser."""

    name: str
    """How results call it."""
    weight: float = 1.0
    """Loss weight of each forgotten point: 1 pretrained, 0 oracle, -gamma descent-ascent."""
    ridge: float = 1.0
    """lambda, above 0."""
    pulled_to: int | None = None
    """Position of an earlier estimator that this one is pulled to, or None."""
    pull: float = 0.0
    """kappa, strength of the pull, at least 0."""

    def __post_init__(self) -> None:
        """Check ranges."""
        positive(ridge=self.ridge)
        non_negative(pull=self.pull)
        if not math.isfinite(self.weight):
            raise InputError(f"weight = {self.weight}, expected a finite number.")
        if self.pull > 0 and self.pulled_to is None:
            raise InputError(
                f"pull = {self.pull} but pulled_to is None, expected the position of an earlier estimator."
            )


@dataclass(frozen=True)
class Solution:
    """Order parameters of k estimators on the same data."""

    names: tuple[str, ...]
    """Their names."""
    teacher: Array
    """(R_+, R_-) of each, shape (k, 2)."""
    group: Array
    """m of each, shape (k,)."""
    overlap: Array
    """Q, shape (k, k)."""
    response: Array
    """V, shape (k, k), lower triangular."""
    bias: Array
    """b of each, shape (k,)."""
    errors: Array
    """Probability of a wrong label in group + and group -, of each, shape (k, 2)."""

    def distance(self, first: str, second: str) -> float:
        """Return |w_i - w_j|^2 / d of two estimators by name."""
        i, j = self.names.index(first), self.names.index(second)
        return float(self.overlap[i, i] + self.overlap[j, j] - 2 * self.overlap[i, j])


def solve(
    mixture: Mixture,
    estimators: Sequence[Estimator],
    *,
    loss: Loss = "square",
    quadrature: bool = False,
    nodes: int | None = None,
    tolerance: float = 1e-10,
    errors: bool = True,
) -> Solution | None:
    """Return the order parameters, or None where an objective is unbounded below (ascent outweighs descent).

    Args:
        mixture: The law of the data.
        estimators: At least one; an elastic pull goes to an earlier one.
        loss: `square`, (y - h)^2 / 2, or `logistic`, log(1 + exp(-y h)).
        quadrature: Use the general iteration for the square loss as well (slow; for checks).
        nodes: Gauss-Hermite nodes a dimension; by default 80, 40, 20 for one, two, three estimators.
        tolerance: Largest change of an order parameter at which the iteration stops.
        errors: Compute group errors, which take most of the time of a square-loss solution; NaN otherwise.

    Raises:
        InputError: If there are no estimators, a pull goes to a later one, or the iteration does not settle.
    """
    one_of(("square", "logistic"), loss=loss)
    check(estimators)
    if loss == "square" and not quadrature:
        return _solve_square(mixture, estimators, errors=errors)
    return _solve_general(mixture, estimators, loss, nodes, tolerance)


def group_errors(mixture: Mixture, teacher: Array, group: float, overlap: float, bias: float) -> tuple[float, float]:
    """Return the probability of a wrong label in each group: signs of a bivariate normal that disagree."""
    found = []
    for index, c in enumerate((1, -1)):
        spread = math.sqrt(mixture.variance[index])
        mean = (c * mixture.correlation[index] + mixture.bias[index]) / spread
        if overlap < 1e-14:
            agree = scipy.stats.norm.cdf(mean if bias >= 0 else -mean)
            found.append(1 - float(agree))
            continue
        other = (c * group + bias) / (spread * math.sqrt(overlap))
        r = float(np.clip(teacher[index] / math.sqrt(overlap), -1 + 1e-12, 1 - 1e-12))
        both = float(scipy.stats.multivariate_normal.cdf([mean, other], mean=[0, 0], cov=[[1, r], [r, 1]]))
        # P(both positive) = both; P(both negative) follows from the margins.
        found.append(1 - (both + 1 - scipy.stats.norm.cdf(mean) - scipy.stats.norm.cdf(other) + both))
    return float(found[0]), float(found[1])


def breakdown(mixture: Mixture, ridge: float) -> float:
    """Return the largest gamma at which descent-ascent with the square loss has a minimum (bisection).

    Args:
        mixture: The law of the data.
        ridge: lambda, above 0.
    """
    low, high = 0.0, 1.0
    while _response(mixture, Estimator("", -high, ridge)) is not None:
        low, high = high, 2 * high
        if high > 1e6:
            return math.inf
    for _ in range(44):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _response(mixture, Estimator("", -middle, ridge)) is not None else (low, middle)
    return low


def helpful_limit(mixture: Mixture, ridge: float) -> float:
    """Return the gamma up to which square-loss descent-ascent is closer to the oracle than doing nothing.

    Distance to the oracle is 0 at gamma = 0 and grows with gamma; the limit is where it equals that of the pretrained
    estimator, or `breakdown` if that comes first.
    """
    limit = breakdown(mixture, ridge)
    oracle = Estimator("oracle", 0.0, ridge)
    nothing = solve(mixture, [oracle, Estimator("pretrained", 1.0, ridge)])
    assert nothing is not None  # weights of 0 and 1 are convex
    before = nothing.distance("oracle", "pretrained")

    def excess(gamma: float) -> float:
        found = solve(mixture, [oracle, Estimator("ascent", -gamma, ridge)], errors=False)
        return math.inf if found is None else found.distance("oracle", "ascent") - before

    top = limit * (1 - 1e-9) if math.isfinite(limit) else 1e3
    if excess(top) <= 0:
        return limit
    low, high = 0.0, top
    for _ in range(34):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if excess(middle) <= 0 else (low, middle)
    return low


# Square loss: everything is linear once V is known.


def _weights(mixture: Mixture, estimators: Sequence[Estimator]) -> list[Array]:
    return [np.array([e.weight if forgotten else 1.0 for e in estimators]) for _, forgotten, _ in mixture.subgroups]


def _response(mixture: Mixture, estimator: Estimator) -> float | None:
    """Return V of one square-loss estimator: the smallest root of lambda = 1/V - sum alpha Delta a / (1 + a Delta V).

    It is the branch that starts at V = 0 for lambda = infinity, hence the trace of the inverse Hessian; where the curve
    has fallen to its minimum without reaching lambda, the smallest eigenvalue of the Hessian is below zero.
    """
    parts = [
        (size, a[0] * _variance(mixture, c), a[0], c)
        for (c, _, size), a in zip(mixture.subgroups, _weights(mixture, [estimator]), strict=True)
    ]
    stiffness = estimator.ridge + estimator.pull

    def excess(v: float) -> float:
        return float(1 / v - sum(size * k / (1 + k * v) for size, k, _, _ in parts) - stiffness)

    negative = [-k for _, k, _, _ in parts if k < 0]
    if not negative:
        return float(brentq(excess, 1e-12 / stiffness, (1 + 1e-9) / stiffness, xtol=1e-16))
    top = 1 / max(negative) * (1 - 1e-9)
    grid = np.linspace(0.0, top, 801)[1:]
    total = 1 / grid - stiffness
    for size, k, _, _ in parts:
        total = total - size * k / (1 + k * grid)
    below = np.flatnonzero(total <= 0)
    if not len(below):
        return None
    low = grid[below[0] - 1] if below[0] else 1e-9 * top
    v = float(brentq(excess, low, grid[below[0]], xtol=1e-16))
    # The direction between groups and the bias stick out of the bulk: their two-by-two curvature must be positive too.
    gains = [(size * weight / (1 + k * v), c) for size, k, weight, c in parts]
    curvature, cross = sum(gain for gain, _ in gains), sum(gain * c for gain, c in gains)
    if curvature <= 0 or (1 / v + curvature) * curvature <= cross**2:
        return None
    return v


def _solve_square(mixture: Mixture, estimators: Sequence[Estimator], errors: bool) -> Solution | None:
    k, gram, weights = len(estimators), mixture.gram, _weights(mixture, estimators)
    stiffness = _stiffness(estimators)
    response = np.zeros((k, k))
    for i, estimator in enumerate(estimators):
        v = _response(mixture, estimator)
        if v is None:
            return None
        response[i, i] = v
    # Below the diagonal the equation for V is linear in the entry sought, given the ones between: iterate by bands.
    for _ in range(400):
        curvature = sum(
            size * _variance(mixture, c) * _gain(a, _variance(mixture, c), response)
            for (c, _, size), a in zip(mixture.subgroups, weights, strict=True)
        )
        new = np.tril(np.linalg.inv(stiffness + curvature))
        np.fill_diagonal(new, np.diag(response))
        moved = float(np.abs(new - response).max())
        response = 0.5 * (new + response)
        if moved < 1e-15 * (1 + float(np.abs(new).max())):
            break
    gains = [_gain(a, _variance(mixture, c), response) for (c, _, _), a in zip(mixture.subgroups, weights, strict=True)]

    # Fields of each subgroup: mean of the teacher field, mean label, E[y nu] = 2 phi(mean).
    means = [_teacher_mean(mixture, c) for c, _, _ in mixture.subgroups]
    labels = [2 * float(scipy.stats.norm.cdf(mean)) - 1 for mean in means]
    slopes = [2 * float(scipy.stats.norm.pdf(mean)) for mean in means]
    ones = np.ones(k)
    u = np.zeros((3, k))
    for (c, _, size), t, slope in zip(mixture.subgroups, gains, slopes, strict=True):
        u[0 if c > 0 else 1] += size * math.sqrt(_variance(mixture, c)) * slope * (t @ ones)

    # E f = T (label - c m - b), m = V (G[2, :2] u[:2] + u[2]), u[2] = sum alpha c E f: 2k linear equations.
    direct = response @ (u[:2].T @ gram[2, :2])
    signed = sum(size * c * t for (c, _, size), t in zip(mixture.subgroups, gains, strict=True))
    plain = sum(size * t for (_, _, size), t in zip(mixture.subgroups, gains, strict=True))
    pushed = sum(size * c * e * (t @ ones) for (c, _, size), t, e in zip(mixture.subgroups, gains, labels, strict=True))
    level = sum(size * e * (t @ ones) for (_, _, size), t, e in zip(mixture.subgroups, gains, labels, strict=True))
    system = np.block([[np.eye(k) + response @ plain, response @ signed], [signed, plain]])
    both = np.linalg.solve(system, np.concatenate([direct + response @ pushed, level]))
    m, b = both[:k], both[k:]
    u[2] = pushed - plain @ m - signed @ b
    teacher = (gram @ u)[:2] @ response.T  # (2, k)

    # Q = V (sum alpha Delta E[f f^T] + U^T G U) V^T, where E[f f^T] holds T (Delta Q) T^T: linear in Q.
    constant = u.T @ gram @ u
    operator = np.eye(k * k)
    for (c, _, size), t, e, slope in zip(mixture.subgroups, gains, labels, slopes, strict=True):
        delta = _variance(mixture, c)
        offset = c * m + b
        noise = math.sqrt(delta) * slope * teacher[0 if c > 0 else 1]
        # E[(y - h)(y - h)^T] without the part Delta Q.
        second = 1 - e * (ones[:, None] * offset + offset[:, None] * ones) + np.outer(offset, offset)
        second = second - (noise[:, None] + noise[None, :])
        constant = constant + size * delta * t @ second @ t.T
        operator = operator - size * delta**2 * np.kron(response @ t, response @ t)
    overlap = np.linalg.solve(operator, (response @ constant @ response.T).reshape(-1)).reshape(k, k)
    return pack(mixture, estimators, teacher.T, m, overlap, response, b, errors)


def _gain(a: Array, delta: float, response: Array) -> Array:
    """Return T = (I + A Delta V)^{-1} A, lower triangular: f = T (y - h0)."""
    return np.asarray(np.linalg.solve(np.eye(len(a)) + delta * a[:, None] * response, np.diag(a)))


# General loss: Gauss-Hermite sums over the joint fields, iterated to a fixed point.


def _solve_general(
    mixture: Mixture, estimators: Sequence[Estimator], loss: Loss, nodes: int | None, tolerance: float
) -> Solution | None:
    k, gram, weights = len(estimators), mixture.gram, _weights(mixture, estimators)
    stiffness = _stiffness(estimators)
    count = nodes or {1: 80, 2: 40, 3: 20}.get(k, 12)
    axis, mass = np.polynomial.hermite_e.hermegauss(count)
    grid = np.array(list(itertools.product(axis, repeat=k)))
    measure = np.prod(np.array(list(itertools.product(mass / mass.sum(), repeat=k))), axis=1)
    keep = measure > 1e-18
    grid, measure = grid[keep], measure[keep]

    response = np.linalg.inv(stiffness + mixture.density * float(np.mean(mixture.variance)) * np.eye(k) * 0.1)
    overlap, teacher = np.eye(k) * 0.1, np.zeros((2, k))
    m, b = np.zeros(k), np.zeros(k)
    for step in range(6000):
        field, common = np.zeros((3, k)), np.zeros((k, k))
        curvature, force, softness = np.zeros((k, k)), np.zeros(k), np.zeros((k, k))
        root = np.linalg.cholesky(overlap + 1e-13 * np.trace(overlap) * np.eye(k))
        for (c, _, size), a in zip(mixture.subgroups, weights, strict=True):
            delta, spread = _variance(mixture, c), math.sqrt(_variance(mixture, c))
            start = c * m + b + spread * grid @ root.T
            # The teacher field given the estimators' fields: cov(nu, grid) solves root k = R.
            link = np.linalg.solve(root, teacher[0 if c > 0 else 1])
            left = math.sqrt(max(1 - float(link @ link), 1e-12))
            mean = (_teacher_mean(mixture, c) + grid @ link) / left
            for y in (1.0, -1.0):
                chance = measure * scipy.stats.norm.cdf(y * mean)
                tilt = measure * y * scipy.stats.norm.pdf(mean) / left
                f, bend = _forces(loss, y, start, a, delta, response)
                if f is None or bend is None:
                    return None
                field[0 if c > 0 else 1] += size * spread * (tilt @ f)
                field[2] += size * c * (chance @ f)
                common += size * delta * (f.T * chance) @ f
                mean_bend = np.einsum("n,nij->ij", chance, bend)
                curvature += size * delta * mean_bend
                softness += size * mean_bend
                force += size * (chance @ f)
        total = stiffness + curvature
        if np.min(np.diag(total)) <= 0 or np.min(np.diag(softness)) <= 0:
            return None
        new_response = np.tril(np.linalg.inv(total))
        reach = gram @ field
        new_teacher, new_m = reach[:2] @ new_response.T, new_response @ reach[2]
        new_overlap = new_response @ (common + field.T @ gram @ field) @ new_response.T
        new_b = b + np.linalg.solve(softness, force)
        moves = (
            new_response - response,
            new_teacher - teacher,
            new_m - m,
            new_overlap - overlap,
            new_b - b,
        )
        if not all(np.all(np.isfinite(move)) for move in moves):
            return None
        rate = 0.5 if step > 5 else 0.2
        response, teacher, m, overlap, b = (
            old + rate * move for old, move in zip((response, teacher, m, overlap, b), moves, strict=True)
        )
        if max(float(np.abs(move).max()) for move in moves) < tolerance:
            return pack(mixture, estimators, teacher.T, m, overlap, response, b)
    raise InputError(
        f"the order parameters did not settle in 6000 iterations (last change "
        f"{max(float(np.abs(move).max()) for move in moves):.2g}); use a larger ridge or weights closer to 0."
    )


def _forces(
    loss: Loss, y: float, start: Array, a: Array, delta: float, response: Array
) -> tuple[Array, Array] | tuple[None, None]:
    """Solve h_i = start_i + Delta sum_j V_ij f_j in order i = 1..k (V is lower triangular).

    Returns:
        f, shape (nodes, k), and (I + D Delta V)^{-1} D, shape (nodes, k, k); None where a proximal step is not unique.
    """
    points, k = start.shape
    f, second = np.zeros((points, k)), np.zeros((points, k))
    for i in range(k):
        center = start[:, i] + delta * f[:, :i] @ response[i, :i]
        pull = delta * response[i, i] * a[i]
        if loss == "square":
            if 1 + pull <= 0:
                return None, None
            f[:, i] = a[i] * (y - center) / (1 + pull)
            second[:, i] = a[i]
            continue
        # l'' <= 1/4: the proximal map is unique while 1 + a Delta V / 4 > 0.
        if 1 + pull / 4 <= 0:
            return None, None
        h = _proximal(center, y, pull)
        s = expit(y * h)
        f[:, i] = a[i] * y * (1 - s)
        second[:, i] = a[i] * s * (1 - s)
    inner = np.eye(k) + delta * second[:, :, None] * response
    diagonal = np.zeros((points, k, k))
    diagonal[:, np.arange(k), np.arange(k)] = second
    return f, np.linalg.solve(inner, diagonal)


def _proximal(center: Array, y: float, pull: float) -> Array:
    """Return h with h = center + pull y sigma(-y h): safeguarded Newton, monotone because 1 + pull / 4 > 0."""
    low, high = center - abs(pull), center + abs(pull)
    h = center + 0.5 * pull * y
    for _ in range(100):
        s = expit(y * h)
        value = h - center - pull * y * (1 - s)
        low, high = np.where(value < 0, h, low), np.where(value < 0, high, h)
        new = h - value / (1 + pull * s * (1 - s))
        new = np.where((new < low) | (new > high), 0.5 * (low + high), new)
        if float(np.abs(new - h).max()) < 1e-14 * (1 + abs(pull)):
            return np.asarray(new)
        h = new
    return np.asarray(h)


def _stiffness(estimators: Sequence[Estimator]) -> Array:
    """Return Lambda: ridge plus pull on the diagonal, minus the pull below it."""
    matrix = np.zeros((len(estimators), len(estimators)))
    for i, estimator in enumerate(estimators):
        matrix[i, i] = estimator.ridge + estimator.pull
        if estimator.pulled_to is not None:
            matrix[i, estimator.pulled_to] -= estimator.pull
    return matrix


def _variance(mixture: Mixture, c: int) -> float:
    return mixture.variance[0 if c > 0 else 1]


def _teacher_mean(mixture: Mixture, c: int) -> float:
    index = 0 if c > 0 else 1
    return (c * mixture.correlation[index] + mixture.bias[index]) / math.sqrt(mixture.variance[index])


def pack(
    mixture: Mixture,
    estimators: Sequence[Estimator],
    teacher: Array,
    group: Array,
    overlap: Array,
    response: Array,
    bias: Array,
    with_errors: bool = True,
) -> Solution:
    """Return order parameters as a solution, with the error of each estimator on each group."""
    errors = [
        group_errors(mixture, teacher[i], float(group[i]), float(overlap[i, i]), float(bias[i]))
        if with_errors
        else (math.nan, math.nan)
        for i in range(len(estimators))
    ]
    names = tuple(estimator.name for estimator in estimators)
    return Solution(names, teacher, group, (overlap + overlap.T) / 2, response, bias, np.array(errors))


def check(estimators: Sequence[Estimator]) -> None:
    """Refuse estimators without a name of their own, or pulled to one that is solved later.

    Raises:
        InputError: If there are none, two share a name, or one is pulled to itself or to a later one.
    """
    if not estimators:
        raise InputError("estimators is empty, expected at least one.")
    names = [estimator.name for estimator in estimators]
    if len(set(names)) < len(names):
        raise InputError(f"estimators are named {names}, expected every name once.")
    for i, estimator in enumerate(estimators):
        if estimator.pulled_to is not None and not 0 <= estimator.pulled_to < i:
            raise InputError(
                f"estimator {estimator.name!r} is pulled to position {estimator.pulled_to}, expected one before its "
                f"own, {i}."
            )
