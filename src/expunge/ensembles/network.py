"""One architecture evaluated for a whole stack of members at once: by hand-stacked layers, or by `torch.vmap`.

Which form is used for a task is found by trying (see `trial.py`); what neither can do goes one by one (`one.py`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from expunge.core import Interface, Outcome, Statistics
from expunge.core.modules import copied, hooked, plain_attributes
from expunge.core.outcomes import Classes
from expunge.ensembles.by_hand import Written, joined, made, write_out
from expunge.ensembles.chain import linear_layers, outputs
from expunge.ensembles.direct import library
from expunge.ensembles.layers import Context, Unsupported, compile_layers
from expunge.ensembles.skeleton import Skeleton, Traits

WIDE = 600
"""Numbers that a pixel of a convolution reads, on average over multiplications, above which PyTorch's own convolutions
are faster than the compiled kernels. Written out, ResNet-9 of width 16 (385) took 0.87 times as long as by autograd, a
member at a time; of width 24 (582) as long, of width 32 (779) 1.2 times and of width 64 (1,566) 1.7 times (AVX-512)."""


class LayerNetwork:
    """A stack evaluated by hand-stacked layers (see `layers.py`)."""

    kind = "layers"
    outcome: Outcome = Classes()
    attributes: tuple[str, ...] = ()
    reason = ""

    def __init__(self, template: nn.Module, example: Tensor, interface: Interface | None = None) -> None:
        """Compile a module.

        Args:
            template: The architecture.
            example: One example, shape (1, ...), for measuring activations.
            interface: How the module is called; by default with one tensor.

        Raises:
            Unsupported: If the module has no hand-stacked form.
        """
        self.template = template
        self.interface = interface or Interface()
        if self.interface.fields:
            raise Unsupported("it takes inputs by name")
        for kind, where in hooked(template):
            raise Unsupported(f"{where} has a {kind} hook")
        self._run = compile_layers(copied(template))
        self.widest = widest_activation(template, example, self.interface)
        self.kept = _kept(template, example, self.interface)
        self.noisy = any(isinstance(layer, nn.Dropout) for layer in template.modules())
        self.by_hand: list[Written] | None = None
        """What makes the layers of a pass with written-out gradients, where there is one (see `by_hand.py`)."""
        if library() is None or _reads(template, example, self.interface) <= WIDE:
            with contextlib.suppress(Unsupported):
                self.by_hand = write_out(copied(template))
        self.chain = linear_layers([layer for layer, _ in joined(made(self.by_hand or ()))])
        """The layers that compiled kernels take as a chain, or none."""

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
        members = len(next(iter(params.values())))
        context = Context(params, buffers, members, statistics == "updated", noise)
        return self._run(context, self.interface.prepare(x))

    def predict(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return what a call does for the same batch for every member, without a graph."""
        found = outputs(self.chain, params, self.interface.prepare(x)[0]) if self.chain and len(x) == 1 else None
        return self(params, buffers, x) if found is None else found


class ModuleNetwork:
    """Base of the forms that evaluate the module itself, with members' numbers in it."""

    kind: str
    outcome: Outcome = Classes()
    reason = ""

    def __init__(
        self, template: nn.Module, example: Tensor, interface: Interface | None = None, traits: Traits | None = None
    ) -> None:
        """Wrap a module.

        Args:
            template: The architecture.
            example: One example, shape (1, ...), for measuring activations.
            interface: How the module is called; by default with one tensor.
            traits: What is known of it beside its registered weights.
        """
        self.template = template
        self.interface = interface or Interface()
        self.traits = traits or Traits()
        self.attributes = self.traits.attributes
        self.widest = widest_activation(template, example, self.interface)
        self._local = threading.local()

    def skeleton(self, statistics: Statistics, noisy: bool) -> Skeleton:
        """Return this thread's copy of the module, in the mode asked for."""
        # A copy holds one member's numbers while it runs, so every thread needs its own.
        if not hasattr(self._local, "skeleton"):
            self._local.skeleton = Skeleton(self.template, self.traits)
        found: Skeleton = self._local.skeleton
        found.set_mode(statistics, noisy)
        return found


class VmapNetwork(ModuleNetwork):
    """A stack evaluated by `torch.vmap` over the module itself: slower, and right for most modules without noise.

    Raises:
        Unsupported: If a module is known to come out wrong.
    """

    kind = "vmap"

    def __init__(
        self, template: nn.Module, example: Tensor, interface: Interface | None = None, traits: Traits | None = None
    ) -> None:
        super().__init__(template, example, interface, traits)
        for kind, where in hooked(self.template):
            if kind != "forward":
                raise Unsupported(f"{where} has a hook on its gradient")
        if self.traits.draws:
            raise Unsupported("it draws random numbers while training")
        slots = plain_attributes(self.template)
        for name in self.attributes:
            if not isinstance(slots[name].value, Tensor):
                raise Unsupported(f"models differ in the plain attribute {name!r}, which is no tensor")
        for name, layer in self.template.named_modules():
            if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
                # Its padding row gets a gradient in every member but the first.
                raise Unsupported(f"the embedding {name!r} has a padding row")

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
        batch = x.expand(members, *x.shape[1:]) if len(x) != members else x

        def one(p: dict[str, Tensor], b: dict[str, Tensor], inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            own = {name: tensor.clone() for name, tensor in b.items()}
            return skeleton.run(p, own, lambda module: self.interface.run(module, inputs))

        logits, moved = torch.vmap(one, randomness="error")(dict(params), dict(buffers), batch)
        if statistics == "updated":
            for name, tensor in moved.items():
                buffers[name].copy_(tensor.detach())
        return logits


def _kept(module: nn.Module, example: Tensor, interface: Interface) -> int:
    """Return how many numbers a written-out step keeps for one example.

    Each layer's output and its gradient, but of a ReLU, which is done in place; without compiled kernels also the
    inputs of each convolution, three times (see `columns.py`), each as often as it is read.
    """
    total = 0

    def note(layer: nn.Module, _: object, output: object) -> None:
        nonlocal total
        if not isinstance(output, Tensor) or next(layer.children(), None) is not None or isinstance(layer, nn.ReLU):
            return
        total += 2 * output[0].numel()
        if isinstance(layer, nn.Conv2d) and library() is None:
            total += 3 * layer.weight[0].numel() * output[0, 0].numel()

    _observe(module, example, interface, note)
    return total


def _reads(module: nn.Module, example: Tensor, interface: Interface) -> float:
    """Return how many numbers a pixel of a convolution reads, on average over all multiplications of convolutions."""
    reads: list[tuple[int, int]] = []

    def note(layer: nn.Module, _: object, output: object) -> None:
        if isinstance(layer, nn.Conv2d) and isinstance(output, Tensor):
            each = layer.weight[0].numel()
            reads.append((each, each * output[0].numel()))

    _observe(module, example, interface, note)
    return sum(each * products for each, products in reads) / max(1, sum(products for _, products in reads))


def widest_activation(module: nn.Module, example: Tensor, interface: Interface) -> int:
    """Return the largest number of values that any layer puts out for one example."""
    widest = example[0].numel()

    def note(_: nn.Module, __: object, output: object) -> None:
        nonlocal widest
        if isinstance(output, Tensor):
            widest = max(widest, output.numel() // 2)

    _observe(module, example, interface, note)
    return widest


def _observe(
    module: nn.Module, example: Tensor, interface: Interface, note: Callable[[nn.Module, object, object], None]
) -> None:
    """Call `note` with each layer, its inputs and its output for two copies of an example."""
    probe = copied(module).eval()
    for layer in probe.modules():
        layer.register_forward_hook(note)
    with torch.no_grad():
        # Twice, because a batch norm without running statistics cannot normalise a single example.
        interface.run(probe, torch.cat([example, example]))
