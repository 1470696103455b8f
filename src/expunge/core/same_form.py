"""Other weights in the form in which weights came: a module like the module, a checkpoint like the checkpoint.

Names, prefixes of wrappers, types, shared tensors and the metadata of a safetensors file stay. Of a PyTorch file that
holds more than the model (an optimiser's state, a second copy of the weights), entries with tensors are left out: they
were computed from the forget set as well.
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from expunge.core.checkpoints import Architecture, find_files, read_content, unwrapped
from expunge.core.digest import digest_tensors
from expunge.core.ensemble import Ensemble
from expunge.core.errors import DivergedError, InputError
from expunge.core.modules import copied, plain_attributes
from expunge.core.tree import State

PLAIN = (bool, int, float, str, type(None))
"""Kinds of value beside a model's tensors that stay."""


@dataclass(frozen=True)
class Stored:
    """One checkpoint file as it was read."""

    path: Path
    state: Mapping[str, Tensor]
    """The model's tensors by the file's own names."""
    content: Any
    """All that is in the file."""
    place: Any
    """The name under which the model's tensors are in it; None if alone."""
    metadata: Mapping[str, str] | None
    """Of a safetensors file."""
    sha256: str
    """Of the file."""

    @classmethod
    def read(cls, path: Path | str) -> Stored:
        """Read a checkpoint; see `core.checkpoints.read_content`.

        Raises:
            InputError: If it is none, is damaged, or holds Python objects.
        """
        found = find_files(path)
        if len(found) != 1:
            raise InputError(f"{path} names {len(found)} files, expected the checkpoint of one model.")
        file = found[0]
        content, place = read_content(file)
        metadata = None
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                metadata = opened.metadata()
        with open(file, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return cls(file, content if place is None else content[place], content, place, metadata, digest)

    @property
    def format(self) -> str:
        """What kind of file it is, in words."""
        if self.path.suffix == ".safetensors":
            return "safetensors"
        return "PyTorch state_dict" if self.place is None else f"PyTorch state_dict under {self.place!r}"

    @property
    def weights(self) -> str:
        """Digest of the model's tensors: their names, types and numbers."""
        return digest_tensors(self.state)

    @property
    def left_out(self) -> list[str]:
        """Entries beside the model that hold more than plain values, and are not written again."""
        beside = {} if self.place is None else {key: self.content[key] for key in self.content if key != self.place}
        return [str(key) for key, value in beside.items() if not _is_plain(value)]

    def with_weights(self, member: Mapping[str, Tensor], like: Architecture) -> bytes:
        """Return the content of a file of the same form with the weights of another member.

        Args:
            member: Its tensors by the architecture's names.
            like: The architecture.
        """
        known = like.known
        names = [known[alias] for alias in unwrapped(self.state, known)]
        made: dict[str, Tensor] = {}
        first: dict[Any, str] = {}
        for (key, tensor), name in zip(self.state.items(), names, strict=True):
            twin = first.setdefault((name, *_memory(tensor)), key)
            made[key] = made[twin] if twin != key else _like(tensor, member[name])
        if self.path.suffix == ".safetensors":
            return save_tensors(made, metadata=None if self.metadata is None else dict(self.metadata))
        state: Any = made
        if isinstance(self.state, OrderedDict):
            state = OrderedDict(made)
            if hasattr(self.state, "_metadata"):
                state._metadata = self.state._metadata
        if self.place is not None:
            kept = {key: value for key, value in self.content.items() if _is_plain(value)}
            # In their order, with the model where it was.
            state = {key: kept.get(key, state) for key in self.content if key in kept or key == self.place}
        content = io.BytesIO()
        torch.save(state, content)
        return content.getvalue()


@torch.no_grad()
def like_module(module: nn.Module, member: Mapping[str, Tensor], like: Architecture) -> nn.Module:
    """Return a copy of a module, in its types and on its device, with the weights of another member.

    Args:
        module: Of the architecture, perhaps in a wrapper; it is not changed.
        member: Tensors by the architecture's names.
        like: The architecture.
    """
    made, known = copied(module), like.known
    tensors = {**dict(made.named_parameters()), **dict(made.named_buffers())}
    bare = unwrapped(tensors, known)
    for alias, tensor in bare.items():
        tensor.copy_(member[known[alias]])
    attributes = like.task.network.attributes
    if attributes:
        slots = plain_attributes(made)
        prefix = next(iter(tensors)).removesuffix(next(iter(bare)))
        for name in attributes:
            slots[prefix + name].put(member[name].detach().clone())
    return made


def member_state(ensemble: Ensemble, member: int = 0) -> State:
    """Return the tensors of one member of a stack, on the CPU."""
    return {name: tensor[member].detach().cpu() for name, tensor in {**ensemble.params, **ensemble.buffers}.items()}


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    """Return what two tensors have in common that are one."""
    return (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride())


def _like(tensor: Tensor, values: Tensor) -> Tensor:
    made = values.to(tensor.dtype).clone().contiguous()
    if not bool(torch.isfinite(made).all()):
        raise DivergedError(
            f"the unlearned model is not finite in {tensor.dtype}, the type of the checkpoint; nothing was written."
        )
    return nn.Parameter(made, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made


def _is_plain(value: Any) -> bool:
    """Return whether a value is made of Python's plain ones, so that no weights can be in it."""
    if isinstance(value, Mapping):
        return all(_is_plain(each) for pair in value.items() for each in pair)
    if isinstance(value, list | tuple | set):
        return all(_is_plain(each) for each in value)
    return isinstance(value, PLAIN)
