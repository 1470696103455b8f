"""Recalibration: normalisation statistics computed afresh from given examples, weights untouched."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from expunge.core import Ensemble


def recalibrate(ensemble: Ensemble, x: Tensor, *, batch: int = 256) -> Ensemble:
    """Return the ensemble with running statistics re-estimated on `x`, each batch weighing the same.

    Args:
        ensemble: Any ensemble; one without running statistics is returned as it is.
        x: Inputs that the statistics shall describe, shape (examples, ...), usually the retain set.
        batch: Examples a batch; a last batch of fewer than 2 examples is left out.

    Returns:
        An ensemble with the same parameters and other buffers.
    """
    keeps = any(getattr(layer, "running_mean", None) is not None for layer in ensemble.network.template.modules())
    if not keeps:
        return ensemble
    norm_layers = {
        name: layer
        for name, layer in ensemble.network.template.named_modules()
        if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.running_mean is not None
    }
    start = {name: tensor.detach().clone() for name, tensor in ensemble.buffers.items()}
    means = {name: torch.zeros_like(tensor) for name, tensor in start.items() if tensor.is_floating_point()}
    parts = [part for part in torch.split(x, batch) if len(part) > 1]
    for part in parts:
        # With the count at 0 a layer without momentum (a cumulative average) stores the batch's statistics themselves.
        scratch = {n: t.clone() if t.is_floating_point() else torch.zeros_like(t) for n, t in start.items()}
        with torch.no_grad():
            ensemble.network(ensemble.params, scratch, part.to(ensemble.device).unsqueeze(0), statistics="updated")
        for name, layer in norm_layers.items():
            # The layer moved its statistics by `momentum` towards those of the batch; undo that to read the batch's.
            momentum = 1.0 if layer.momentum is None else layer.momentum
            for key in (f"{name}.running_mean", f"{name}.running_var"):
                means[key] += (scratch[key] - (1 - momentum) * start[key]) / momentum / len(parts)
    keys = {f"{name}.{kind}" for name in norm_layers for kind in ("running_mean", "running_var")}
    return ensemble.with_state(
        ensemble.params, {name: means[name] if name in keys else tensor for name, tensor in start.items()}
    )
