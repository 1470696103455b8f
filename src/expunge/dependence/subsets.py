"""Subset ensembles: many models, each trained on its own random share of the examples, kept as margins.

    S_k  uniform among the subsets of round(alpha n) examples,      k = 1 ... K
    m_ki = margin of target i under the model trained on S_k

What is kept of a model is a row of margins and correct answers on the targets, so memory is bounded by (K, targets) and
one block of weights. Subset k, its model and its row depend on (task, alpha, seed, k) alone: 500 subsets are the first
500 of 1,000.

Source: Ilyas et al., "Datamodels: Predicting Predictions from Training Data" (arXiv 2202.00622), sec. 2.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expunge.core import DivergedError, Ensemble, InputError, Network, Split, Task, margins_from_logits
from expunge.core.checks import plain_arguments, whole
from expunge.core.digest import digest_tensors
from expunge.core.errors import noted
from expunge.core.reading import check_memory
from expunge.core.seeds import derive
from expunge.ensembles import train
from expunge.ensembles.plan import TRAINER
from expunge.ensembles.store import Shelf

Array = np.ndarray[Any, Any]
Progress = Callable[[int, int], None]

BLOCK_NUMBERS = 2**28
"""Weights that a block of models may hold (1 GiB in float32)."""

LARGEST_BLOCK = 250
"""Models trained before their margins are written; a killed run loses less, since their weights are kept meanwhile."""


MEASURED_NUMBERS = 2**26
"""Logits that are held at once while a block is measured."""


@dataclass(frozen=True)
class Targets:
    """Examples whose margins are recorded."""

    x: torch.Tensor
    """Inputs, shape (targets, ...)."""
    y: torch.Tensor
    """Labels, shape (targets,)."""
    own: Array
    """Position of each target in the training data, -1 for others, shape (targets,), int64."""

    def __len__(self) -> int:
        return len(self.y)

    @classmethod
    def of(cls, task: Task, examples: str | Split = "all") -> Targets:
        """Return targets of a task.

        Args:
            task: The task.
            examples: `train`; `all` (the training examples, then the validation examples); or other examples.

        Raises:
            InputError: If the word is another, or the examples are not of the task's shape.
        """
        n = np.arange(len(task.train), dtype=np.int64)
        if isinstance(examples, Split):
            if examples.x.shape[1:] != task.train.x.shape[1:] or len(examples) == 0:
                raise InputError(
                    f"targets have inputs of shape {tuple(examples.x.shape)}, expected (targets, "
                    f"{', '.join(map(str, task.train.x.shape[1:]))}) with at least one target."
                )
            return cls(examples.x, examples.y, np.full(len(examples), -1, dtype=np.int64))
        if examples == "train":
            return cls(task.train.x, task.train.y, n)
        if examples == "all":
            x, y = torch.cat([task.train.x, task.validation.x]), torch.cat([task.train.y, task.validation.y])
            return cls(x, y, np.concatenate([n, np.full(len(task.validation), -1, dtype=np.int64)]))
        raise InputError(f"targets = {examples!r}, expected 'train', 'all' or a Split of examples.")


@dataclass(frozen=True)
class SubsetEnsemble:
    """Margins of K models, each trained on its own subset."""

    masks: Array
    """Whether example j was in subset k, shape (subsets, examples), boolean."""
    margins: Array
    """Shape (subsets, targets), float32; NaN where a model is not finite."""
    correct: Array
    """Whether the model's answer was right, shape (subsets, targets), boolean."""
    own: Array
    """Position of each target in the training data, -1 for others, shape (targets,)."""
    alpha: float
    """Share of the examples in a subset, exactly: subset size / examples."""
    seconds: float = 0.0
    """Wall-clock seconds that training took; 0 where everything was found in the store."""

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, subsets: slice) -> SubsetEnsemble:
        """Return some of the subsets; arrays are views."""
        return replace(self, masks=self.masks[subsets], margins=self.margins[subsets], correct=self.correct[subsets])

    @cached_property
    def finite(self) -> Array:
        """Which models have only finite margins, shape (subsets,), boolean."""
        return np.asarray(np.isfinite(self.margins).all(1))

    def usable(self) -> SubsetEnsemble:
        """Return the subsets whose models are finite."""
        keep = self.finite
        return replace(self, masks=self.masks[keep], margins=self.margins[keep], correct=self.correct[keep])


def subset_masks(examples: int, subsets: int, alpha: float = 0.5, seed: int = 0, first: int = 0) -> Array:
    """Return random subsets of exactly round(alpha * examples) examples each.

    Args:
        examples: Number of examples n, at least 2.
        subsets: Number of subsets K, at least 1.
        alpha: Share of the examples in a subset, above 0 and below 1.
        seed: Another seed gives other subsets.
        first: Index of the first subset; a subset depends on `seed` and its own index only.

    Returns:
        Shape (subsets, examples), boolean.

    Raises:
        InputError: If alpha leaves (0, 1), or rounds to no example or to all of them.

    >>> subset_masks(10, 3, 0.3).sum(1).tolist()
    [3, 3, 3]
    """
    whole(2, examples=examples)
    whole(subsets=subsets)
    size = subset_size(examples, alpha)
    masks = np.zeros((subsets, examples), dtype=bool)
    for row, mask in enumerate(masks):
        rng = np.random.default_rng(derive(seed, "subset", first + row))
        mask[rng.choice(examples, size, replace=False)] = True
    return masks


def subset_size(examples: int, alpha: float) -> int:
    """Return round(alpha * examples), checked to leave something in and something out."""
    if not math.isfinite(alpha) or not 0 < alpha < 1:
        raise InputError(f"alpha = {alpha}, expected a share of the examples above 0 and below 1, such as 0.5.")
    size = round(alpha * examples)
    if not 0 < size < examples:
        raise InputError(
            f"alpha = {alpha} of {examples} examples is {size}, expected at least 1 and fewer than all; choose an "
            "alpha nearer to 0.5."
        )
    return size


@plain_arguments
def train_subsets(
    task: Task,
    *,
    subsets: int = 1000,
    alpha: float = 0.5,
    targets: str | Split = "all",
    seed: int = 0,
    store: Path | str | None = None,
    device: str | torch.device = "auto",
    chunk: int | None = None,
    workers: int | None = None,
    network: Network | None = None,
    progress: Progress | None = None,
) -> SubsetEnsemble:
    """Train one model on each of K random subsets, block by block, and keep their margins on the targets.

    Args:
        task: Data, model and recipe; a subset is trained for the recipe's epochs.
        subsets: Number of subsets K, at least 1.
        alpha: Share of the examples in a subset, above 0 and below 1 (arXiv 2202.00622: .1, .2, .5, .75).
        targets: Whose margins: `train`, `all` (training, then validation examples) or a `Split`.
        seed: The study's seed; decides subsets and models.
        store: Folder in which rows are kept and found again; a killed run goes on there. None keeps nothing.
        device: `auto`, `cpu`, `cuda`, or a torch device.
        chunk: Models trained together; None measures the fastest.
        workers: Chunks that run at once on the CPU; None uses every core.
        network: How the stack is evaluated; None chooses.
        progress: Called with subsets done and in all.

    Raises:
        InputError: If the request cannot be carried out; before any training.
        DivergedError: If no model is finite.
        DamagedFileError: If a file in the store is altered.
    """
    whole(subsets=subsets)
    n = len(task.train)
    size = subset_size(n, alpha)
    aims = Targets.of(task, targets)
    check_memory(5 * subsets * len(aims), f"the margins of {subsets:,} subset models")
    progress = None if progress is None else noted(progress, "progress, which train_subsets called")
    network = network or task.network
    shelf = None if store is None else Shelf(Path(store), _specification(task, size, aims, seed))
    weights = None if shelf is None else shelf.folder / "weights"
    size_of_block = _block(task)
    rows: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    began, trained = time.perf_counter(), False
    # Blocks start at fixed indices whatever K is, and a row that is kept is never made again.
    blocks = [range(start, min(start + size_of_block, subsets)) for start in range(0, subsets, size_of_block)]
    while blocks:
        for block in blocks:
            with contextlib.nullcontext(list(block)) if shelf is None else shelf.claim(block) as mine:
                for first, count in _runs(mine):
                    trained = True
                    if shelf is not None and shelf.chunk:
                        chunk = shelf.chunk  # rounding can depend on how many models share a kernel
                    positions = np.nonzero(subset_masks(n, count, alpha, seed, first))[1].reshape(count, size)
                    ensemble = train(
                        task,
                        members=count,
                        examples=positions,
                        seed=derive(seed, "subsets") % 2**31,
                        first=first,
                        store=weights,
                        device=device,
                        chunk=chunk,
                        workers=workers,
                        network=network,
                        progress=_share(progress, first, subsets, task.recipe.epochs),
                    )
                    chunk = chunk or int(ensemble.provenance["chunk"])
                    margins, correct = _measure(ensemble, aims, task.classes)
                    ids = list(range(first, first + count))
                    if shelf is None or weights is None:
                        rows.update(zip(ids, zip(margins, correct, strict=True), strict=True))
                    else:
                        if not shelf.chunk:
                            shelf.begin(chunk)
                        shelf.save(ids, {"margins": margins, "correct": correct}, {})
                        _remove(weights, ensemble)
        left = set() if shelf is None else shelf.left(range(subsets))  # by another process, which ended
        blocks = [block for block in blocks if left & set(block)]
    wanted = list(range(subsets))
    if shelf is None:
        table = {
            "margins": torch.stack([rows[k][0] for k in wanted]),
            "correct": torch.stack([rows[k][1] for k in wanted]),
        }
    else:
        table = shelf.load(wanted)[0]
    made = SubsetEnsemble(
        masks=subset_masks(n, subsets, alpha, seed),
        margins=table["margins"].numpy(),
        correct=table["correct"].numpy(),
        own=aims.own,
        alpha=size / n,
        seconds=time.perf_counter() - began if trained else 0.0,
    )
    if not made.finite.any():
        raise DivergedError(
            f"all {subsets} subset models of task {task.name!r} became non-finite while training on {size} examples; "
            f"lower the recipe's lr ({task.recipe.lr})."
        )
    return made


def _remove(weights: Path, ensemble: Ensemble) -> None:
    """Delete the weights of a block, whose rows are kept; those of other processes stay."""
    made = ensemble.provenance
    for part in made.get("parts", [made["specification"]]):
        shutil.rmtree(Shelf(weights, part).folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        weights.rmdir()


def _measure(ensemble: Ensemble, targets: Targets, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return margins (members, targets), NaN where a model is not finite, and correct answers likewise."""
    together = max(1, MEASURED_NUMBERS // (len(ensemble) * classes))
    sound = ensemble.finite()[:, None]
    margins, correct = [], []
    for start in range(0, len(targets), together):
        y = targets.y[start : start + together]
        logits = ensemble.logits(targets.x[start : start + together])
        finite = sound & torch.isfinite(logits).all(-1)
        margins.append(torch.where(finite, margins_from_logits(logits, y).float(), torch.nan))
        correct.append((logits.argmax(-1) == y) & finite)
    return torch.cat(margins, 1), torch.cat(correct, 1)


def _specification(task: Task, size: int, targets: Targets, seed: int) -> dict[str, Any]:
    """Return what a row depends on; not how many there are."""
    return {
        "kind": "subset margins",
        "trainer": TRAINER,
        "task": task.fingerprint,
        "recipe": task.recipe.to_dict(),
        "size": size,
        "seed": seed,
        "targets": digest_tensors({"x": targets.x, "y": targets.y, "own": torch.from_numpy(targets.own)}),
    }


def _block(task: Task) -> int:
    numbers = sum(parameter.numel() for parameter in task.build(0).parameters())
    return max(1, min(LARGEST_BLOCK, BLOCK_NUMBERS // numbers))


def _runs(indices: list[int]) -> list[tuple[int, int]]:
    """Return runs of consecutive indices as (first, count).

    >>> _runs([0, 1, 2, 5, 6])
    [(0, 3), (5, 2)]
    """
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and index == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((index, 1))
    return runs


def _share(progress: Progress | None, before: int, subsets: int, epochs: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, _total: progress(before + done // max(1, epochs), subsets)
