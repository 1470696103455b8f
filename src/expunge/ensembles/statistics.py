"""Recalibration: normalisation statistics computed afresh from given examples, weights untouched."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from expunge.core import Ensemble, InputError
from expunge.core.modules import copied, updating
from expunge.core.renamed import renamed
from expunge.core.stopping import check_stopped


@renamed("batch")
def recalibrate(ensemble: Ensemble, x: Tensor, *, batch_size: int = 256) -> Ensemble:
    """Return the ensemble with running statistics re-estimated on `x`, each batch weighing the same.

    Args:
        ensemble: Any ensemble; one without running statistics is returned as it is.
        x: Inputs that the statistics shall describe, shape (examples, ...), usually the retain set.
        batch_size: Examples a batch; a last batch of fewer than 2 examples is left out.

    Returns:
        An ensemble with the same parameters and other buffers.

    Raises:
        InputError: If `x` has fewer than 2 examples.
    """
    # Only those that training moves: a layer that the model keeps in evaluation mode stays as it is.
    moving = updating(copied(ensemble.network.template))
    norm_layers = {n: layer for n, layer in moving.items() if isinstance(layer, nn.modules.batchnorm._NormBase)}
    if not norm_layers:
        return ensemble
    parts = [part for part in torch.split(x, batch_size) if len(part) > 1]
    if not parts:
        raise InputError(f"x has {len(x)} examples in batches of {batch_size}, expected batches of at least 2.")
    start = {name: tensor.detach().clone() for name, tensor in ensemble.buffers.items()}
    keys = [f"{name}.{kind}" for name in norm_layers for kind in ("running_mean", "running_var")]
    counts = {f"{name}.num_batches_tracked" for name in norm_layers}
    means = {key: torch.zeros_like(start[key]) for key in keys}
    for part in parts:
        check_stopped()
        # From statistics of 0 and a count of 0, a layer stores `momentum` times those of the batch (1 times without a
        # momentum); what was stored before, however large or broken, has no part in it.
        scratch = {n: torch.zeros_like(t) if n in means or n in counts else t.clone() for n, t in start.items()}
        with torch.no_grad():
            ensemble.network(ensemble.params, scratch, part.to(ensemble.device).unsqueeze(0), statistics="updated")
        for name, layer in norm_layers.items():
            momentum = 1.0 if layer.momentum is None else layer.momentum
            for key in (f"{name}.running_mean", f"{name}.running_var"):
                means[key] += scratch[key] / momentum / len(parts)
    return ensemble.with_state(ensemble.params, {**start, **means})
