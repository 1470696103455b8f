"""Seeds of a study: of the pretrained models, which forecasts and audits share, and of unlearning a forget set.

Oracles of one role share a seed over forget sets, and are independent all the same: `expunge.train` gives every member
a seed of its own from that, its own rows, and its index.
"""

from __future__ import annotations

import torch

from expunge.core import ForgetSet
from expunge.core.digest import digest_tensors
from expunge.core.seeds import derive


def pretrained_seed(seed: int) -> int:
    """Return the seed of the pretrained ensemble of a study, the same in a forecast and in an audit."""
    return derive(seed, "audit", "pretrained") % 2**31


def unlearning_seed(seed: int, forget: ForgetSet) -> int:
    """Return the seed with which a study unlearns a forget set: no two sets share random numbers."""
    return derive(seed, "audit", "unlearn", digest_forget(forget))


def digest_forget(forget: ForgetSet) -> str:
    """Return the digest of which examples are to be forgotten, and which are gone."""
    parts = {"indices": forget.indices, **({"gone": forget.gone} if len(forget.gone) else {})}
    return digest_tensors({name: torch.from_numpy(rows) for name, rows in parts.items()})
