"""Training by a command of the shell, in any framework: it leaves weights, or outputs alone.

    task = ex.Task(..., model=MyNet, fit=ex.tasks.command("python train.py --rows {rows} --seed {seed} --out {out}"))

`{rows}` is a text file with the positions of the member's rows in the training data, one a line; `{seed}` a whole
number below 2^31; `{out}` a path at which nothing is yet. The command leaves one file there (its name may go on, as in
`{out}.npz`), or a folder with it:

    weights        the model's state_dict, as .safetensors or as a PyTorch file that holds tensors alone
    outputs alone  for a task with model=None: arrays `train` and `validation` in a .npz or .safetensors file, or
                   train.npy and validation.npy: outputs for all examples of the task, in its order
"""

from __future__ import annotations

import hashlib
import os
import shlex
import string
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from expunge.core import InputError
from expunge.core.checkpoints import SUFFIXES, read_state
from expunge.core.checks import described
from expunge.core.children import die_with_parent
from expunge.core.outputs_alone import OutputsAlone

NAMES = ("rows", "seed", "out")
"""What a command must name."""

SHOWN_LINES = 6
"""Lines of what a command said that a message repeats."""


@dataclass(frozen=True)
class Command:
    """What `command` returns: a `fit` that runs a command."""

    template: str
    words: tuple[str, ...] = field(repr=False)
    source: str
    """Digest of the files that the command names, so that a changed script is another training."""

    def __call__(self, model: Any, dataset: Any, seed: int) -> Mapping[str, Tensor] | OutputsAlone:
        """Run the command for the rows of one member, and return the weights or the outputs that it leaves."""
        with tempfile.TemporaryDirectory(prefix="expunge-") as name:
            folder = Path(name)
            rows, out = folder / "rows.txt", folder / "out"
            np.savetxt(rows, dataset.rows, fmt="%d")
            words = [word.format(rows=rows, seed=seed, out=out) for word in self.words]
            one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            try:
                done = subprocess.run(
                    words,
                    env={**one_thread, **os.environ},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    check=False,
                    preexec_fn=die_with_parent if os.name == "posix" else None,
                )
            except OSError as error:
                raise InputError(f"the command {words[0]!r} cannot be run ({error.strerror}).") from error
            if done.returncode:
                said = "\n".join(f"    {line}" for line in done.stdout.rstrip().splitlines()[-SHOWN_LINES:])
                raise InputError(f"the command ended with exit code {done.returncode}: {shlex.join(words)}\n{said}")
            files = sorted(path for path in folder.rglob("*") if path.is_file() and path != rows)
            return _outputs(files) if model is None else _weights(files)


def command(template: str) -> Command:
    """Return a `fit` that runs a command for each member.

    Args:
        template: The command with `{rows}`, `{seed}` and `{out}` in it; it is split into words as a shell would, and
            run without one, in the current folder.

    Raises:
        InputError: If a place is missing, or another one is there. When run: if the command fails, or leaves nothing
            that can be read.

    >>> command("Rscript train.R {rows} {seed} {out}").words
    ('Rscript', 'train.R', '{rows}', '{seed}', '{out}')
    """
    if not isinstance(template, str):
        raise InputError(f"the command is {described(template)}, expected text.")
    try:
        words = tuple(shlex.split(template))
        found = {name for word in words for _, name, _, _ in string.Formatter().parse(word) if name is not None}
    except ValueError as error:
        raise InputError(f"the command {template!r} cannot be read ({error}).") from error
    if found != set(NAMES):
        came = ", ".join(f"{{{name}}}" for name in sorted(found)) or "none"
        raise InputError(
            f"the command {template!r} has the places {came}, expected {{rows}}, {{seed}} and {{out}}, each at least "
            'once, as in "python train.py --rows {rows} --seed {seed} --out {out}"; write {{ for a brace.'
        )
    digest = hashlib.sha256()
    for word in words:
        if "{" not in word and Path(word).is_file():
            digest.update(Path(word).read_bytes())
    return Command(template, words, digest.hexdigest()[:12])


def _weights(files: list[Path]) -> Mapping[str, Tensor]:
    if len(files) != 1:
        raise InputError(
            f"the command left {_names(files)} at {{out}}, expected one file with the model's weights "
            f"({', '.join(SUFFIXES)}); for outputs alone make the task with model=None."
        )
    return read_state(_named(files[0]))


def _outputs(files: list[Path]) -> OutputsAlone:
    found: dict[str, Any] = {}
    for path in map(_named, files):
        try:
            if path.suffix == ".npy":
                found[path.stem] = np.load(path, allow_pickle=False)
            elif path.suffix == ".npz":
                with np.load(path, allow_pickle=False) as content:
                    found.update({name: content[name] for name in content.files})
            elif path.suffix == ".safetensors":
                found.update(read_state(path))
        except (ValueError, OSError) as error:
            raise InputError(f"{path.name}, which the command left, cannot be read ({error}).") from error
    if set(found) != {"train", "validation"}:
        raise InputError(
            f"the command left {_names(files)} at {{out}} with the arrays {sorted(found)}, expected `train` and "
            "`validation` in a .npz or .safetensors file, or train.npy and validation.npy."
        )
    return OutputsAlone(**found)


def _named(path: Path) -> Path:
    """Give a file that is called `out`, as it was told, the ending that its content has."""
    if path.suffix:
        return path
    head = path.read_bytes()[:10]
    kind = ".npz" if head[:2] == b"PK" else ".npy" if head[1:6] == b"NUMPY" else ""
    return path.rename(path.with_name(path.name + (kind or (".safetensors" if head[8:9] == b"{" else ".pt"))))


def _names(files: list[Path]) -> str:
    return ", ".join(path.name for path in files) or "no file"
