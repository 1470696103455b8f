"""Request after request: each step starts from the last model, which also labels what is kept, but for a share of it.

    theta_0                  trained on all of D
    request k                rows F_k are to be forgotten; R_k = D without F_1, ..., F_k is kept
    anchor A                 a fixed share of D minus all F, drawn once: these rows keep their real labels for ever
    labels of step k         y_i for i in A; for all others of R_k drawn from softmax(f(x_i; theta_{k-1}))
    theta_k                  the method's result, from theta_{k-1}, on F_k (real labels) and R_k (labels as above)

With share 1 every kept row has its real label, which is how the methods are used. With share 0 a model teaches its
successor and nothing else does. The teacher of SCRUB is theta_{k-1} in every case.

Source: Zenil, "On the Limits of Self-Improving in LLMs" (arXiv 2601.05280), where the share of exogenous data in a
recursion of self-training tends to 0 and models drift as a random walk; unlearning as such a recursion is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.core import Ensemble, ForgetSet, Task
from expunge.core.seeds import derive, generator
from expunge.core.tree import concatenate
from expunge.ensembles.chunks import run_chunks, split
from expunge.methods import Method
from expunge.methods.problem import Problem

Indices = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Blocks:
    """Which rows are removed at each request, and which keep their real labels."""

    task: Task
    removed: tuple[Indices, ...]
    """Rows of each request, F_1, F_2, ..., disjoint."""
    order: Indices
    """All rows that stay to the end, in random order: the first share of them is the anchor."""

    @classmethod
    def draw(cls, task: Task, requests: int, size: int, seed: int) -> Blocks:
        """Return blocks that are drawn at random.

        Args:
            task: Whose training examples are removed.
            requests: How many blocks.
            size: Rows of a block.
            seed: The study's seed.
        """
        order = torch.randperm(len(task.train), generator=generator(seed, "sequential drift", "blocks")).numpy()
        blocks = tuple(np.sort(order[start : start + size]) for start in range(0, requests * size, size))
        return cls(task, blocks, order[requests * size :])

    def so_far(self, request: int) -> ForgetSet:
        """Return all rows of the requests 1 to `request`: what the oracle of that request has never seen."""
        rows = np.concatenate(self.removed[:request])
        how = f"all rows of the first {request} requests"
        return ForgetSet.of(self.task, rows, name=f"requests-1-{request}", how=how)

    def anchor(self, share: float) -> Indices:
        """Return the rows that keep their real labels; those of a smaller share are among those of a larger one."""
        return np.sort(self.order[: round(share * len(self.order))])

    def kept(self, most: int) -> Indices:
        """Return at most so many rows that are never removed, the same at every request, for scoring."""
        return np.sort(self.order[::-1][:most])


class Relabelled(Problem):
    """The problem of one request: F_k is forgotten, rows that left before are gone, kept rows have given labels.

    Args:
        start: The last models.
        blocks: Which rows leave when.
        request: Number of the request, from 1.
        share: Share of the rows that keep their real labels, 0 to 1; from 1 on all of R_k does.
        seed: The study's seed.
        purpose: Separates the batch orders of different methods.
    """

    def __init__(self, start: Ensemble, blocks: Blocks, request: int, share: float, seed: int, purpose: str) -> None:
        now = blocks.removed[request - 1]
        gone = blocks.so_far(request - 1).indices if request > 1 else ()
        forget = ForgetSet.of(blocks.task, now, name=f"request-{request}", how="one request", gone=gone)
        super().__init__(start, blocks.task, forget, derive(seed, "request", request), purpose)
        self.labels = self._labels(blocks.anchor(share), share)

    @torch.no_grad()
    def _labels(self, anchor: Indices, share: float) -> Tensor:
        """Return the label of every training row for every member, (members, training examples)."""
        real = self.y.expand(len(self.start), -1)
        if share >= 1:
            return real
        logits = self.start.logits(self.x)
        noise = torch.stack(
            [
                torch.rand(logits.shape[1:], generator=generator(seed, "labels"), dtype=torch.float64)
                for seed in self.seeds
            ]
        )
        # Gumbel's way to draw from a softmax; where logits are not finite the first class comes out.
        drawn = (
            (logits.double() - torch.log(-torch.log(noise.clamp(1e-300, 1 - 1e-16)))).nan_to_num(nan=-1e300).argmax(-1)
        )
        fixed = torch.zeros(len(self.y), dtype=torch.bool)
        fixed[torch.from_numpy(anchor)] = True
        fixed[self.forget] = True
        return torch.where(fixed, real.cpu(), drawn).to(self.y.device)


def step(
    start: Ensemble, blocks: Blocks, request: int, method: Method, share: float, *, seed: int, chunk: int, workers: int
) -> Ensemble:
    """Return the models after one more request.

    Args:
        start: The models after the request before.
        blocks: Which rows leave when.
        request: Number of the request, from 1.
        method: What unlearns; it must take kept examples in batches, or by `take_pass`.
        share: Share of the kept rows whose labels are real, 0 to 1.
        seed: The study's seed.
        chunk: Members that go through together.
        workers: Chunks that run at once.
    """

    def work(part: range) -> Ensemble:
        problem = Relabelled(start[part.start : part.stop], blocks, request, share, seed, method.order or method.name)
        *_, last = method.stops(problem)
        return last.ensemble

    done = run_chunks(work, split(len(start), chunk), start.device, workers)
    buffers = concatenate([one.buffers for one in done]) if start.buffers else {}
    return start.with_state(concatenate([one.params for one in done]), buffers)
