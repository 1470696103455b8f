"""Cross-influence: how much the margin of example i moves when example j of the forget set is removed.

    C_ij = grad m_i . H^{-1} grad l_j           (rows R, V or F; columns F)

To first order and in the sums convention, so that C 1 is the predicted effect of removing all of F. The spectral norm
of the block with rows in R is the quantity that "Ascent Fails to Forget" (arXiv 2509.26427, App. A) suggests as a
predictor without fixing a normalisation. The blocks are read off a `MemberKernel`, for a few thousand examples;
`papers.ascent_fails_to_forget.dependence.CrossInfluence` finds the norm from products alone.

Average over members. The mean over members of ||C_m|| asks how large the effect is in a typical member; the norm of the
mean block asks how large the effect is that all members share (what differs between members in sign cancels). Unlearned
models are judged member against member, each from its own pretrained weights, so the first is the default.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.core import InputError
from expunge.dependence.inputs import complement
from expunge.dependence.kernel import MemberKernel


@dataclass(frozen=True)
class Blocks:
    """Cross-influence of one member, columns F."""

    forget: Tensor
    """Rows F, (size, size)."""
    retain: Tensor
    """Rows R, (examples - size, size)."""
    others: Tensor
    """Rows of the other examples, such as validation, (others, size)."""


def blocks(member: MemberKernel, index: Tensor, columns: Tensor | None = None) -> Blocks:
    """Return the blocks of one member.

    Args:
        member: The member's kernel.
        index: Positions of the forget set (size,).
        columns: `member.columns(index)`, if at hand.
    """
    columns = member.columns(index) if columns is None else columns
    influence = columns * member.slope[index]
    rest = complement(index, member.examples)
    return Blocks(influence[index], influence[rest], influence[member.examples :])


def largest_singular_value(block: Tensor) -> float:
    """Return the spectral norm of a block (rows, columns), by the smaller of its two Gram matrices."""
    if block.numel() == 0:
        raise InputError(f"the block has shape {tuple(block.shape)}, expected at least one row and one column.")
    small = block.T @ block if block.shape[0] > block.shape[1] else block @ block.T
    return float(torch.linalg.eigvalsh(small)[-1].clamp_min(0).sqrt())
