"""The squared maximum mean discrepancy between two sides of one set of rows, for many ways to part them.

    MMD^2      mean_{i != j in first} k + mean_{i != j in second} k - 2 mean_{first, second} k          (unbiased)

Source: Gretton et al., "A Kernel Two-Sample Test", JMLR 13 (2012), Lemma 6.
"""

from __future__ import annotations

from torch import Tensor

from expunge.core.errors import InputError


def mmd(kernel: Tensor, masks: Tensor) -> Tensor:
    """Return unbiased MMD^2 between the rows inside and outside of each mask, (masks,).

    Args:
        kernel: Gram matrix of all rows (rows, rows).
        masks: Which rows are on the first side, (masks, rows), boolean; at least 2 on either side.
    """
    first = masks.to(kernel.dtype)
    m, n = first.sum(1), len(kernel) - first.sum(1)
    if bool((m < 2).any()) or bool((n < 2).any()):
        raise InputError(f"a side has {int(min(m.min(), n.min()))} rows, expected at least 2 on either.")
    diagonal = kernel.diagonal()
    own = first @ kernel
    inside = (own * first).sum(1)
    across = own.sum(1) - inside
    outside = kernel.sum() - inside - 2 * across
    trace = first @ diagonal
    return (inside - trace) / (m * (m - 1)) + (outside - diagonal.sum() + trace) / (n * (n - 1)) - 2 * across / (m * n)
