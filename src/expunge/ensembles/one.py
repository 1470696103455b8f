"""One member at a time: the plain module itself with each member's numbers in it, right for any module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from expunge.core import Statistics
from expunge.ensembles.network import ModuleNetwork


class OneNetwork(ModuleNetwork):
    """A stack evaluated one member after another."""

    kind = "one"

    def __call__(
        self,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        x: Tensor,
        *,
        statistics: Statistics = "frozen",
        noise: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """Return logits (members, batch, classes); see `expunge.core.Network`."""
        skeleton = self.skeleton(statistics, noise is not None)
        members = len(next(iter(params.values())))
        # Taken apart all at once: the gradient of a slice would be as large as the stack, once a member.
        apart = [t.unbind() if members > 1 else (t.squeeze(0),) for t in params.values()]
        weights = [dict(zip(params, own, strict=True)) for own in zip(*apart, strict=True)]
        outputs: list[Tensor] = []
        moved: dict[str, list[Tensor]] = {name: [] for name in buffers}
        for member in range(members):
            batch = x[member if len(x) == members else 0]
            # Copies, since what one member's pass writes must not mark what another's backward pass reads as changed.
            own = {name: tensor[member].clone() for name, tensor in buffers.items()}
            out, after = skeleton.run(
                weights[member],
                own,
                lambda module, batch=batch: self.interface.run(module, batch),  # type: ignore[misc]
                None if noise is None else noise[member],
            )
            outputs.append(out)
            for name, tensor in after.items():
                moved[name].append(tensor.detach())
        if statistics == "updated":
            for name, tensors in moved.items():
                buffers[name].copy_(torch.stack(tensors) if members > 1 else tensors[0].unsqueeze(0))
        return torch.stack(outputs) if members > 1 else outputs[0].unsqueeze(0)
