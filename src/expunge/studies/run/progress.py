"""Live progress: what runs, how far it is, how long it will take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

STEP, BAR = 44, 30
"""Columns of a terminal for the name of the step and for the bar, where there is room."""
NUMBERS = 36
"""Columns that the share, the time left and the clock take, with the gaps between them."""

PULSE_SECONDS = 60.0
"""How long a log file is left without a line."""


class Pulse:
    """Prints a line whenever there was none for a minute, as long as the block lasts.

    Args:
        console: Where to print; None is silent.
        say: Returns the line.
    """

    def __init__(self, console: Console | None, say: Callable[[], str]) -> None:
        self.console, self.say = console, say
        self.last = time.monotonic()
        """When the last line was printed; moved on by others who print."""
        self._over = threading.Event()

    def __enter__(self) -> Pulse:
        self.last = time.monotonic()
        if self.console is not None:
            threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(max(0.001, self.last + PULSE_SECONDS - time.monotonic())):
            if self.console is not None and time.monotonic() >= self.last + PULSE_SECONDS:
                self.last = time.monotonic()
                self.console.print(self.say(), markup=False, highlight=False, soft_wrap=True)


def minutes(since: float) -> str:
    """Return how long something has taken, in words."""
    seconds = time.monotonic() - since
    return f"{seconds / 60:.0f} min" if seconds >= 59.5 else f"{seconds:.0f} s"


class Reporter:
    """One bar over the whole study, in units of work, with the current step beside it.

    Args:
        console: Where to draw; a terminal gets a live bar, anything else one line a step, and one a minute in steps
            that take longer. None is silent.
    """

    def __init__(self, console: Console | None) -> None:
        self.console = console
        self.total = 1.0
        self.done = 0.0
        self.began = time.monotonic()
        self._spent = 0.0
        self._live = bool(console and console.is_terminal)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._what, self._since = "starting", self.began
        self._pulse = Pulse(None if self._live else console, self._still)
        room = max(0, console.width - NUMBERS) if console else 0
        self._bar_width = min(BAR, room // 3)
        self._step_width = min(STEP, room - self._bar_width)

    def start(self, total: float) -> Reporter:
        """Set the amount of work, in units of training one ensemble, before entering the context."""
        self.total = max(total, 1e-9)
        return self

    def __enter__(self) -> Reporter:
        self.began = self._since = time.monotonic()
        self._pulse.__enter__()
        if self._live:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=self._bar_width),
                TaskProgressColumn(),
                TextColumn("{task.fields[left]}", markup=False),
                TimeElapsedColumn(),
                console=self.console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._named("starting"), total=self.total, left="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pulse.__exit__()
        if self._bar is not None:
            self._bar.stop()

    def step(self, what: str) -> None:
        """Say what runs now."""
        self._what, self._since = what, time.monotonic()
        self._pulse.last = self._since
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=self._named(what))
        elif self.console is not None:
            self.console.print(f"{self._share()} {what}{self._left()}", markup=False, highlight=False, soft_wrap=True)

    def _still(self) -> str:
        return f"{self._share()} {self._what}, for {minutes(self._since)} now{self._left()}"

    def _share(self) -> str:
        return f"[{min(1.0, self.done / self.total):4.0%}]"

    def advance(self, amount: float, *, spent: bool = True) -> None:
        """Add work done; `spent=False` for work that was found finished, which says nothing about speed."""
        self.done += amount
        if spent:
            self._spent += amount
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=min(self.done, self.total), left=self._left())

    def note(self, text: str) -> None:
        """Print a line that stays."""
        if self.console is not None:
            self.console.print(text, markup=False, highlight=False)

    def _named(self, what: str) -> str:
        """Return a step's name in exactly its room, so that the bar does not jump."""
        width = self._step_width
        return (what if len(what) <= width else what[: max(0, width - 1)] + "…").ljust(width)

    def _left(self) -> str:
        elapsed = time.monotonic() - self.began
        if self._spent <= 0 or elapsed < 2:
            return ""
        seconds = max(0.0, self.total - self.done) * elapsed / self._spent
        return f"  about {seconds / 60:.0f} min left" if seconds > 90 else f"  about {seconds:.0f} s left"


class Share:
    """Turns the progress of one step (done, in all) into work done.

    Args:
        reporter: Of the whole study.
        work: What the step takes, in units of training one ensemble.
    """

    def __init__(self, reporter: Reporter, work: float = 1.0) -> None:
        self.reporter, self.work, self.given = reporter, work, 0.0

    def __call__(self, done: int, total: int) -> None:
        """Say how far the step is."""
        share = max(self.given, done / max(total, 1))
        self.reporter.advance((share - self.given) * self.work)
        self.given = share

    def finish(self, *, spent: bool) -> None:
        """Say that the step is over; `spent=False` if its result was found and cost no time."""
        self.reporter.advance((1.0 - self.given) * self.work, spent=spent)
        self.given = 1.0
