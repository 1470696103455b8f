"""The margin: logit of the true class minus log-sum-exp of the others, that is log p_y - log(1 - p_y).

Source: Georgiev et al., "Attribute-to-Delete" (arXiv 2410.23232), App. E.1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def margins_from_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return margins, computed from the logits so that they stay exact where the softmax saturates.

    Args:
        logits: Shape (..., examples, classes), floating point; half precisions are raised to float32.
        labels: Shape (examples,), integers from 0 to classes - 1.

    Returns:
        Shape (..., examples), in natural-log units. NaN where a logit is NaN.

    >>> round(float(margins_from_logits(torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0]))), 6)
    1.686738
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    # Classes before examples: that is how stacked linear layers put them out, and a short last axis is slow.
    columns = logits.transpose(-1, -2)
    index = labels.long().to(logits.device).expand(logits.shape[:-1]).unsqueeze(-2)
    own = columns.gather(-2, index).squeeze(-2)
    others = columns.scatter(-2, index, float("-inf")).logsumexp(-2)
    return own - others


def margins_with_gradient(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return margins, and the gradient of each: 1 for the true class, minus the softmax of the others.

    Args:
        logits: Shape (members, batch, classes), floating point.
        labels: Shape (members, batch).

    Returns:
        Margins (members, batch), and gradients (members, batch, classes).
    """
    # Classes before examples: that is how stacked linear layers put them out.
    columns, index = logits.transpose(1, 2), labels.unsqueeze(1)
    others = columns.scatter(1, index, float("-inf"))
    total = others.logsumexp(1, keepdim=True)
    margins = (columns.gather(1, index) - total).squeeze(1)
    gradient = others.sub_(total).exp_().neg_().scatter_(1, index, 1.0)
    return margins, gradient.transpose(1, 2)
