"""Checkpoints that others made become an ensemble, and an ensemble becomes files that others can read.

Every member is held against the task's model: names, shapes, types, finite numbers. A saved ensemble is a folder:

    manifest.json                  members, seed, provenance, and for each member its file and SHA-256
    member-<index>.safetensors     parameters and buffers of one member, by the names of its `state_dict`

Nothing is ever unpickled: PyTorch's files are read by `torch.load(weights_only=True)`, which takes tensors alone.
"""

from __future__ import annotations

import copy
import glob
import hashlib
import io
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from expunge.core.checks import dense, described, instance
from expunge.core.digest import digest_tensors, own_digest
from expunge.core.ensemble import Ensemble
from expunge.core.errors import DamagedFileError, InputError
from expunge.core.modules import plain_attributes
from expunge.core.modules import state as state_of
from expunge.core.reading import check_memory
from expunge.core.schema import inside, write_atomically
from expunge.core.task import Task
from expunge.core.tree import State

FORMAT = "ensemble 1"

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
"""Files that hold a checkpoint; all but the first kind are PyTorch's, and may hold tensors alone."""

INSIDE = ("state_dict", "model_state_dict", "model_state", "model", "net", "weights", "params")
"""Names under which a training script puts a model's state beside other things, in the order of preference."""

FILES_EXPECTED = f"a folder, a pattern such as 'oracle/*.safetensors', or a list of files ({', '.join(SUFFIXES)})"

T = TypeVar("T")

SHOWN = 3
"""Names that a message lists before it counts the rest."""


@dataclass(frozen=True)
class Architecture:
    """The tensors of a task's model: what every checkpoint must hold."""

    task: Task
    params: dict[str, Tensor]
    buffers: dict[str, Tensor]
    names: dict[str, tuple[str, ...]]
    """For each tensor its names in a `state_dict`: several for a shared one, none for a buffer that is not kept."""
    drawn: frozenset[str] = frozenset()
    """Buffers and plain attributes that no `state_dict` keeps and that differ between models."""

    @classmethod
    def of(cls, task: Task) -> Architecture:
        """Return the tensors of a fresh model of the task; outputs, where models are known by these alone."""
        if task.model is None:
            one = torch.zeros((), dtype=torch.float64)
            sizes = {"train": len(task.train), "validation": len(task.validation)}
            outputs = {name: one.expand(size, *task.output_shape) for name, size in sizes.items()}
            return cls(task, outputs, {}, {name: (name,) for name in outputs})
        module, attributes = task.build(0), task.network.attributes
        params, buffers = state_of(module, attributes)
        kept = module.state_dict(keep_vars=True)
        own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        names = {name: tuple(key for key, value in kept.items() if value is own.get(name)) for name in params | buffers}
        again = dict(task.build(1).named_buffers())
        drawn = {name for name in again if not names[name] and not torch.equal(buffers[name], again[name])}
        return cls(task, params, buffers, names, frozenset({*drawn, *attributes}))

    @property
    def known(self) -> dict[str, str]:
        """The tensor that each name of a checkpoint means."""
        return {alias: name for name, aliases in self.names.items() for alias in (name, *aliases)}

    def fit(self, given: Mapping[str, Tensor] | nn.Module, where: str, *, finite: bool = True) -> State:
        """Return the tensors of one member by the architecture's names and in its types.

        Args:
            given: What a checkpoint holds, by name, or a module.
            where: How a message calls it.
            finite: Whether numbers that are not finite are refused.

        Raises:
            InputError: If names or shapes are others, a type cannot be converted without loss, layers that share a
                tensor have different ones, or a number is not finite.
        """
        known = self.known
        state = unwrapped(self._of_module(given) if isinstance(given, nn.Module) else given, known)
        lacking = [name for name, aliases in self.names.items() if aliases and not set(aliases) & set(state)]
        besides = [name for name in state if name not in known]
        if lacking or besides:
            said = [f"lacks {_listed(lacking)}"] * bool(lacking) + [f"has {_listed(besides)} besides"] * bool(besides)
            kind = type(self.task.network.template).__name__
            expected = "outputs as train and validation" if self.task.model is None else f"the state_dict of its {kind}"
            raise InputError(
                f"{where} does not fit the model of task {self.task.name!r}: it {' and '.join(said)}; expected "
                f"{expected}."
            )
        out: State = {}
        for name, like in {**self.params, **self.buffers}.items():
            found = [(alias, state[alias]) for alias in dict.fromkeys((name, *self.names[name])) if alias in state]
            fitted = [self._converted(tensor, like, f"{alias!r} of {where}", finite) for alias, tensor in found]
            if any(not torch.equal(fitted[0], other) for other in fitted[1:]):
                both = " and ".join(repr(alias) for alias, _ in found)
                raise InputError(f"{both} of {where} differ, expected one tensor: these layers of the model share it.")
            if not fitted and name in self.drawn:
                raise InputError(
                    f"{name!r} of the model is random and not part of its state_dict, so {where} lacks it; register it "
                    "as a buffer with persistent=True."
                )
            out[name] = fitted[0] if fitted else like.detach().clone()
        return out

    def _of_module(self, module: nn.Module) -> State:
        """Return all that belongs to a member by name: the `state_dict`, and what it leaves out."""
        slots = plain_attributes(module) if self.drawn else {}
        mine = {path for path in slots for name in self.drawn if path == name or path.endswith(f".{name}")}
        kept = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
        return {**{path: slots[path].read() for path in mine}, **dict(module.named_buffers()), **kept}

    def _converted(self, tensor: Tensor, like: Tensor, what: str, finite: bool) -> Tensor:
        dense(tensor, what)
        if tensor.shape != like.shape:
            raise InputError(
                f"{what} has shape {tuple(tensor.shape)}, expected {tuple(like.shape)} as in the model of task "
                f"{self.task.name!r}."
            )
        tensor = tensor.detach().cpu()
        if finite and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{what} is not finite; leave this model out, or train it again.")
        converted = tensor.to(like.dtype, copy=True).contiguous()
        if tensor.dtype != like.dtype and not torch.equal(converted.to(tensor.dtype), tensor):
            hint = "; give the task Recipe(precision='float64')" if tensor.dtype == torch.float64 else ""
            raise InputError(f"{what} is {tensor.dtype}, which {like.dtype} of the model cannot hold exactly{hint}.")
        return converted

    def ensemble(self, states: Sequence[State], names: Sequence[str]) -> Ensemble:
        """Return the members as an ensemble; equal members are refused, because copies are no evidence."""
        seen: dict[str, str] = {}
        for state, name in zip(states, names, strict=True):
            weights = digest_tensors(state)
            if weights in seen:
                raise InputError(
                    f"{seen[weights]} and {name} hold the same weights, expected models that were trained "
                    "independently; leave the copy out."
                )
            seen[weights] = name
        params = {name: torch.stack([state[name] for state in states]) for name in self.params}
        buffers = {name: torch.stack([state[name] for state in states]) for name in self.buffers}
        return Ensemble(self.task.network, params, buffers, tuple(range(len(states))), 0, given(params, buffers))


def given(params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the provenance of weights that were given: nothing is known of them but themselves."""
    return {"specification": {"given": digest_tensors({**params, **buffers})}}


def from_modules(modules: Sequence[nn.Module], task: Task) -> Ensemble:
    """Return modules as an ensemble; see `Ensemble.from_modules`."""
    instance(Task, "an expunge.Task", task=task)
    members = list(modules) if isinstance(modules, Sequence | nn.ModuleList) else [modules]
    for place, module in enumerate(members):
        instance(nn.Module, "a trained torch.nn.Module", **{f"modules[{place}]": module})
    if not members:
        raise InputError("modules is empty, expected at least one trained torch.nn.Module.")
    like = Architecture.of(task)
    names = [f"modules[{place}]" for place in range(len(members))]
    states = [like.fit(module, name) for module, name in zip(members, names, strict=True)]
    ensemble = like.ensemble(states, names)
    x = task.train.x[:3]
    stacked = ensemble.logits(x)
    for module, name, outputs in zip(members, names, stacked, strict=True):
        with torch.no_grad():
            own = task.interface.run(copy.deepcopy(module).cpu().to(task.interface.dtype).eval(), x)
        if own.shape != outputs.shape or not torch.allclose(own, outputs, rtol=1e-3, atol=1e-4):
            raise InputError(
                f"{name} has the weights of the model of task {task.name!r}, but other outputs; expected a module of "
                f"the same class, made as Task(model=...) makes it."
            )
    return ensemble


def from_files(files: Any, task: Task) -> Ensemble:
    """Return checkpoints as an ensemble; see `Ensemble.from_files`."""
    instance(Task, "an expunge.Task", task=task)
    paths = find_files(files)
    like = Architecture.of(task)
    each = sum(tensor.nbytes for tensor in (*like.params.values(), *like.buffers.values()))
    check_memory(2 * each * len(paths), f"an ensemble of {len(paths):,} members")
    return like.ensemble([like.fit(read_state(path), str(path)) for path in paths], [str(path) for path in paths])


def find_files(files: Any) -> list[Path]:
    """Return the files that a folder, a pattern, or a list of files names; numbers in names count as numbers.

    Raises:
        InputError: If there is none, or one is not a file of a known kind.
    """
    if isinstance(files, str | os.PathLike):
        text = os.path.expanduser(os.fspath(files))
        if Path(text).is_dir():
            found = [path for path in Path(text).iterdir() if path.suffix in SUFFIXES]
        else:
            found = [Path(text)] if Path(text).exists() else [Path(path) for path in glob.glob(text, recursive=True)]
        found.sort(key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))])
    elif isinstance(files, Sequence) and all(isinstance(file, str | os.PathLike) for file in files):
        found = [Path(file).expanduser() for file in files]
    else:
        raise InputError(f"files is {described(files)}, expected {FILES_EXPECTED}.")
    if not found:
        raise InputError(f"no file matches {str(files)!r}, expected {FILES_EXPECTED}.")
    for path in found:
        if path.suffix not in SUFFIXES:
            raise InputError(f"{path} is no checkpoint by its name, expected {FILES_EXPECTED}.")
        if not path.is_file():
            raise InputError(f"{path} is {'a folder' if path.is_dir() else 'not there'}, expected {FILES_EXPECTED}.")
    return found


def read_state(path: Path) -> State:
    """Return the tensors of a model by name, from a safetensors file, or from one of PyTorch that holds tensors alone.

    Raises:
        InputError: If it is not such a file, is damaged, or holds other Python objects.
    """
    content, place = read_content(path)
    return dict(content if place is None else content[place])


def read_content(path: Path) -> tuple[Any, Any]:
    """Return all that a checkpoint holds, and the name under which the model's tensors are there; None if alone.

    Raises:
        InputError: As `read_state` does.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path), None
        except Exception as error:
            raise InputError(
                f"{path} is not a safetensors file, or damaged ({_first_line(error)}); get it again."
            ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # The loader stops at what is no tensor, before anything of it runs.
        kind = re.search(r"(?:GLOBAL|class|function) ([\w.]+)", str(error))
        if "weights_only" in str(error) or "Weights only" in str(error):
            raise InputError(
                f"{path} holds pickled Python objects{f' ({kind[1]})' if kind else ''}, which can run code and are "
                "never loaded; write torch.save(model.state_dict(), path) where the model was made, or a safetensors "
                "file."
            ) from error
        raise InputError(
            f"{path} is not a file of torch.save, or damaged ({_first_line(error)}); get it again."
        ) from error
    return content, _place_inside(content, path)


def _place_inside(content: Any, path: Path) -> Any:
    """Return where the state of a model is in what a training script saved: None for itself, or a usual name."""
    if _is_state(content):
        return None
    inside = {key: value for key, value in content.items() if _is_state(value)} if isinstance(content, Mapping) else {}
    chosen = [name for name in INSIDE if name in inside] or list(inside)
    if not chosen or (chosen[0] not in INSIDE and len(chosen) > 1):
        came = f"a mapping with {_listed(list(content))}" if isinstance(content, Mapping) else described(content)
        raise InputError(
            f"{path} holds {came}, expected the state_dict of a model, alone or under one of: {', '.join(INSIDE)}."
        )
    return chosen[0]


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in value.items())
    )


def unwrapped(state: Mapping[str, T], known: Mapping[str, str]) -> dict[str, T]:
    """Drop what a wrapper put before every name: `module.` of DataParallel, `_orig_mod.` of torch.compile.

    Args:
        state: What there is by name; the order stays.
        known: Names without a wrapper.
    """
    own = dict(state)
    while own and not set(own) & set(known):
        parts = [name.partition(".") for name in own]
        if len({head for head, _, _ in parts}) > 1 or not all(rest for _, _, rest in parts):
            return dict(state)
        own = {rest: tensor for (_, _, rest), tensor in zip(parts, own.values(), strict=True)}
    return own


def save(ensemble: Ensemble, folder: Path | str) -> Path:
    """Write an ensemble into a new folder; see `Ensemble.save`."""
    instance((str, os.PathLike), "the path of a folder", folder=folder)
    place = Path(folder).expanduser()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise InputError(f"{place} is there already, expected a new or empty folder.")
    members = []
    for row, member in enumerate(ensemble.ids):
        state = {name: tensor[row] for name, tensor in {**ensemble.params, **ensemble.buffers}.items()}
        content = save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
        file = f"member-{member:05d}.safetensors"
        write_atomically(place / file, content)
        members.append({"id": member, "file": file, "sha256": hashlib.sha256(content).hexdigest()})
    manifest = {
        "format": FORMAT,
        "seed": ensemble.seed,
        "params": list(ensemble.params),
        "members": members,
        "provenance": dict(ensemble.provenance),
    }
    manifest = json.loads(json.dumps(manifest, default=str))
    manifest["sha256"] = own_digest(manifest)
    # Written last: a folder without it is not a saved ensemble.
    write_atomically(place / "manifest.json", json.dumps(manifest, indent=1).encode())
    return place


def is_saved(folder: Any) -> TypeGuard[str | Path]:
    """Return whether a path is the folder of a saved ensemble."""
    return isinstance(folder, str | os.PathLike) and (Path(folder).expanduser() / "manifest.json").is_file()


def load(folder: Path | str, task: Task | None = None) -> Ensemble:
    """Return a saved ensemble; see `Ensemble.load`."""
    instance((str, os.PathLike), "the path of a folder", folder=folder)
    instance((Task, type(None)), "an expunge.Task, whose models these are", task=task)
    place = Path(folder).expanduser()
    if not is_saved(place):
        raise InputError(
            f"{place} holds no saved ensemble (manifest.json), expected a folder that ensemble.save wrote; for "
            "files of others use Ensemble.from_files."
        )
    try:
        manifest = json.loads((place / "manifest.json").read_text())
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}, expected {FORMAT}")
        if manifest.get("sha256", own_digest(manifest)) != own_digest(manifest):
            raise ValueError("it was changed: its SHA-256 is not that of what it says")
        members = [
            (int(each["id"]), inside(place, Path(each["file"]).name), each["sha256"]) for each in manifest["members"]
        ]
        seed, own, provenance = int(manifest["seed"]), list(manifest["params"]), dict(manifest["provenance"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFileError(
            f"{place / 'manifest.json'} is damaged, or not of a saved ensemble ({error})."
        ) from error
    like = None if task is None else Architecture.of(task)
    states = []
    for _, path, digest in members:
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != digest:
            raise DamagedFileError(f"{path} is {'altered' if content else 'missing'}; save the ensemble again.")
        state = load_tensors(content)
        states.append(state if like is None else like.fit(state, str(path), finite=False))
    stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    params = {name: stacked[name] for name in (own if like is None else like.params)}
    buffers = {name: tensor for name, tensor in stacked.items() if name not in params}
    network = _NoNetwork() if task is None else task.network
    return Ensemble(network, params, buffers, tuple(member for member, _, _ in members), seed, provenance)


def read(models: Any, task: Task, what: str) -> Ensemble:
    """Return models of a task in any form: an ensemble, the folder of a saved one, or checkpoints.

    Args:
        models: An `Ensemble`, or what `load` or `from_files` takes.
        task: Their task.
        what: How a message calls them, such as "pretrained".

    Raises:
        InputError: If they are something else, or of another architecture.
    """
    if not isinstance(models, Ensemble):
        if not isinstance(models, str | os.PathLike | Sequence):
            raise InputError(f"{what} is {described(models)}, expected an expunge.Ensemble, or {FILES_EXPECTED}.")
        return load(models, task) if is_saved(models) else from_files(models, task)
    like, state = Architecture.of(task), {**models.params, **models.buffers}
    # Members of a stack share names, shapes and types.
    like.fit({name: tensor[0] for name, tensor in state.items()}, f"{what}[0]", finite=False)
    params = {name: state[name].to(kind.dtype) for name, kind in like.params.items()}
    buffers = {name: state[name].to(kind.dtype) for name, kind in like.buffers.items()}
    return models.with_state(params, buffers, network=task.network, states=models.states)


class _NoNetwork:
    """Stands where an ensemble was loaded without its task: it has weights, and cannot be evaluated."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise InputError(
            "this ensemble was loaded without its task, so its weights are known and its model is not; expected "
            "Ensemble.load(folder, task)."
        )


def export(ensemble: Ensemble, member: int, path: Path | str) -> Path:
    """Write one member as a checkpoint; see `Ensemble.export`."""
    instance((str, os.PathLike), "the path of a file", path=path)
    member = ensemble.position(member)
    place = Path(path).expanduser()
    if place.suffix not in SUFFIXES or place.is_dir():
        raise InputError(f"path = {str(path)!r}, expected the name of a file that ends in {', '.join(SUFFIXES)}.")
    # A copy each: a safetensors file has no tensors that share memory.
    state = {name: tensor.clone().contiguous() for name, tensor in ensemble.module(member).state_dict().items()}
    if place.suffix == ".safetensors":
        return write_atomically(place, save_tensors(state))
    content = io.BytesIO()
    torch.save(state, content)
    return write_atomically(place, content.getvalue())


def _listed(names: Sequence[Any]) -> str:
    """Return the first names, and how many there are besides.

    >>> _listed(["a", "b"]), _listed(["a", "b", "c", "d"])
    ("'a', 'b'", "'a', 'b', 'c' and 1 more")
    """
    rest = len(names) - SHOWN
    return ", ".join(repr(name) for name in names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
