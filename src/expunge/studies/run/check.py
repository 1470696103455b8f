"""The check of a task: does its training do what an oracle needs, in minutes before hours of it?

An oracle is a model that never saw some rows and is the same whenever it is made again. So training must follow its
rows and its seed, and nothing else; its outputs must be finite and of the right shape. A `fit` is run four times on
half of the rows (at most 1,000): twice alike, once with another seed, once with other rows.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.core import Ensemble, InputError, Task, has_statistics
from expunge.core.checkpoints import Architecture
from expunge.core.checks import instance, plain_arguments, seeds, whole
from expunge.core.errors import noted
from expunge.core.examples import Examples
from expunge.core.seeds import derive, generator
from expunge.core.tree import State
from expunge.ensembles import train
from expunge.ensembles.chunks import one_thread_each, pick_device, worker_count
from expunge.ensembles.own_loop import fitted, run_fit
from expunge.ensembles.plan import TASK_EXPECTED

MOST_ROWS = 1000
"""Rows of a trial at most."""

TRIED_EXAMPLES = 500
"""Validation examples on which outputs are looked at, at most."""


NEEDED = frozenset({"does it run", "other seed, other model", "other rows, other model", "is it trained", "outputs"})
"""Questions without whose answers an audit would be of nothing; what else fails is said."""

SEED_IGNORED = (
    "fit ignores its seed, and an ensemble would be one model many times. Start from the model that fit is given, and "
    "draw orders and noise from seed; for an estimator write from_estimator(..., bootstrap=True)."
)
ROWS_IGNORED = (
    "fit ignores the data set it is given, so an oracle would have seen what it must not. Train on dataset, not on "
    "data read elsewhere."
)


@dataclass(frozen=True)
class Answer:
    """What the check found about one question."""

    question: str
    passed: bool | None
    """Whether an audit can rely on it; None where there is nothing to pass."""
    sentence: str


@dataclass(frozen=True)
class Check:
    """All answers."""

    answers: tuple[Answer, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(answer.passed is not False for answer in self.answers)

    def __str__(self) -> str:
        """Return a line an answer."""
        signs = {True: "ok   ", False: "FAILS", None: "     "}
        return "\n".join(f"{signs[a.passed]} {a.question}: {a.sentence}" for a in self.answers)

    __repr__ = __str__


@dataclass(frozen=True)
class _Trial:
    """What one training left."""

    made: object
    """What `fit` returned: a module where it trained one."""
    state: State
    data: Examples
    seconds: float


@plain_arguments
def check(task: Task, *, members: int = 100, seed: int = 0, progress: Callable[[str], None] | None = None) -> Check:
    """Answer, in sentences, whether a task's training does what oracles need.

    Args:
        task: The task; one that trains by a recipe has little to be asked.
        members: For how many members the time is told.
        seed: Of the trials.
        progress: Called with what is tried next.

    Raises:
        InputError: If something given is of the wrong kind; what training does wrong is an answer.
    """
    instance(Task, TASK_EXPECTED, task=task)
    whole(members=members)
    seeds(seed=seed)
    answers: list[Answer] = []
    if task.fit is None:
        begin = time.perf_counter()
        with one_thread_each():
            ensemble = train(task, members=1, seed=seed, workers=1)
        answers.append(Answer("rows and seed", True, "the task trains by a recipe, which follows both."))
        answers += [*_outputs(task, ensemble, None), _time(time.perf_counter() - begin, len(task.train), task, members)]
        return Check(tuple(answers))

    size = min(len(task.train) // 2, MOST_ROWS)
    order = torch.randperm(len(task.train), generator=generator(seed, "check"))
    rows, others = order[:size].sort().values, order[-size:].sort().values
    tell = noted(progress or (lambda _: None), "progress, which check called")
    try:
        like = Architecture.of(task)
        trials = []
        for what, own, number in (
            (f"training on {size} rows", rows, 0),
            ("training again with the same rows and seed", rows, 0),
            ("training with another seed", rows, 1),
            ("training on other rows", others, 0),
        ):
            tell(what)
            trials.append(_trial(task, like, own, derive(seed, "check", number)))
    except InputError as error:
        return Check((Answer("does it run", False, str(error)),))
    first, again, other_seed, other_rows = trials
    answers.append(Answer("does it run", True, f"fit trained on {size} of {len(task.train)} rows, four times."))
    answers += [
        _same(first, again),
        _differs("seed", "with another seed", first, other_seed, SEED_IGNORED),
        _differs("rows", "on other rows", first, other_rows, ROWS_IGNORED),
    ]
    if task.model is not None:
        answers.append(_moved(task, first, derive(seed, "check", 0)))
    params = {name: first.state[name].unsqueeze(0) for name in like.params or first.state}
    buffers = {name: first.state[name].unsqueeze(0) for name in like.buffers}
    answers += _outputs(task, Ensemble(task.network, params, buffers, (0,), seed), first.made)
    answers += [_passes(task, first), _time(again.seconds, size, task, members)]
    return Check(tuple(answer for answer in answers if answer.sentence))


def _trial(task: Task, like: Architecture, rows: Tensor, seed: int) -> _Trial:
    data = Examples(task.train[rows], task.interface, rows.numpy())
    begin = time.perf_counter()
    with one_thread_each():
        made = run_fit(task, data, seed, "the trial")
    seconds = time.perf_counter() - begin
    state = fitted(task, like, made, "the trial")
    return _Trial(made, {name: tensor.clone() for name, tensor in state.items()}, data, seconds)


def _equal(one: State, other: State) -> bool:
    """Return whether all numbers are the same; NaN equals itself."""
    return all(torch.equal(one[name].nan_to_num(), other[name].nan_to_num()) for name in one)


def _same(first: _Trial, again: _Trial) -> Answer:
    what = "same rows and seed, same model"
    if _equal(first.state, again.state):
        return Answer(what, True, "trained twice, it came out the same to the last bit.")
    floating = [name for name, tensor in first.state.items() if tensor.is_floating_point()]
    gap = max(float((first.state[name] - again.state[name]).abs().max()) for name in floating)
    return Answer(
        what,
        False,
        f"trained twice, it came out different (by {gap:.2g} at most), so no run can be repeated or gone on with. Draw "
        "all that is random from seed (PyTorch, NumPy and random are seeded), and keep nothing between calls.",
    )


def _differs(what: str, how: str, first: _Trial, other: _Trial, fault: str) -> Answer:
    question = f"other {what}, other model"
    if not _equal(first.state, other.state):
        return Answer(question, True, f"{how} it came out different.")
    return Answer(question, False, f"{how} it came out the same: {fault}")


def _moved(task: Task, first: _Trial, seed: int) -> Answer:
    fresh = dict(task.build(derive(seed, "initialisation")).named_parameters())
    if any(not torch.equal(first.state[name], tensor.detach()) for name, tensor in fresh.items()):
        return Answer("is it trained", True, "training changed the weights.")
    return Answer(
        "is it trained",
        False,
        f"fit left the model as it was; with {len(first.data)} rows, is there a full batch? Train the model that fit "
        "is given, or return the trained one.",
    )


def _outputs(task: Task, ensemble: Ensemble, made: object) -> list[Answer]:
    """Return whether the model's outputs are sound, and in evaluation mode those that it has itself."""
    what = "outputs"
    part = task.validation[:TRIED_EXAMPLES]
    if not bool(ensemble.finite().all()):
        return [Answer(what, False, "the trained model holds numbers that are not finite; lower its rate.")]
    logits = ensemble.logits(part.x)
    try:
        task.outcome.check(logits[0], part.y)
    except InputError as error:
        return [Answer(what, False, str(error))]
    if not bool(torch.isfinite(logits).all()):
        return [Answer(what, False, "the trained model puts out numbers that are not finite; lower its rate.")]
    if isinstance(made, nn.Module):
        with torch.no_grad():
            module = copy.deepcopy(made).cpu().to(task.interface.dtype).eval()
            own = task.interface.run(module, part.x[:8])
        if own.shape != logits[0, :8].shape or not torch.allclose(own, logits[0, :8], rtol=1e-3, atol=1e-4):
            sentence = (
                "the module that fit returned has the model's weights and other outputs; return one that model() makes."
            )
            return [Answer(what, False, sentence)]
    name = task.outcome.utility_name
    reached = float(task.outcome.utility(logits, part.y))
    sound = f"finite, {tuple(logits.shape[2:])} an example; {name} {reached:.3f} on validation examples."
    remark = getattr(task.fit, "remark", lambda _: "")(ensemble.params)
    return [Answer(what, True, sound + remark), _statistics(task, ensemble)]


def _statistics(task: Task, ensemble: Ensemble) -> Answer:
    what = "statistics in evaluation mode"
    if not has_statistics(ensemble.network.template):
        return Answer(what, None, "")
    fresh = dict(task.build(0).named_buffers())
    running = [name for name in fresh if name.endswith(("running_mean", "running_var"))]
    if any(not torch.equal(ensemble.buffers[name][0].cpu(), fresh[name]) for name in running):
        return Answer(what, True, "normalisation uses the statistics that training stored.")
    return Answer(
        what,
        False,
        "training stored no normalisation statistics, so models are judged with those they began with; train in "
        "training mode: model.train().",
    )


def _passes(task: Task, first: _Trial) -> Answer:
    """Return how often rows were read, against the epochs that costs are told in."""
    passes, epochs = float(first.data.reads.double().mean()), task.recipe.epochs
    if task.model is None or passes == 0 or round(passes) == epochs:
        return Answer("cost", None, "")
    return Answer(
        "cost",
        None,
        f"fit read each row {passes:g} times, and the task's recipe says {epochs} epochs, in which methods count what "
        f"they cost; give the task recipe=Recipe(epochs={max(1, round(passes))}, ...), with your rate and batch size.",
    )


def _time(seconds: float, rows: int, task: Task, members: int) -> Answer:
    each = seconds * len(task.train) / rows
    cores = worker_count(pick_device("auto")) if task.fit is not None else 1
    total = each * members / min(cores, members)
    beside = f" side by side on {cores} cores" if cores > 1 else ""
    guess = f", extrapolated from {rows}" if rows < len(task.train) else ""
    most = "at most " if task.fit is None else ""
    return Answer(
        "time",
        None,
        f"{members} members would take {most}about {span(total)}{beside} ({span(each)} each, on {len(task.train)} "
        f"rows{guess}); an audit trains five ensembles, and retrains one.",
    )


def span(seconds: float) -> str:
    """Return a time in the unit that suits it.

    >>> span(0.25), span(90), span(9000), span(300000)
    ('0.25 s', '90 s', '2.5 h', '3.5 days')
    >>> span(119.4), span(100 * 86400)
    ('119 s', '100 days')
    """
    units = (("days", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))
    name, size = next((unit for unit in units if seconds >= 2 * unit[1]), units[-1])
    count = seconds / size
    return f"{count:.0f} {name}" if count >= 10 else f"{count:.2g} {name}"
