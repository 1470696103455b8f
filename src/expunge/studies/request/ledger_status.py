"""Where a ledger stands: what its lines say together, and what they let expect of the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from expunge.core import Task
from expunge.studies.request.drift import predicted_drift
from expunge.studies.request.ledger_file import Accepted, Request


@dataclass(frozen=True)
class State:
    """What the lines say, taken together."""

    requests: tuple[Request, ...]
    runs: tuple[Accepted, ...]
    head: str

    @property
    def done(self) -> dict[int, int]:
        """The run of each request that was carried out."""
        return {request: run.run for run in self.runs for request in run.requests}

    @property
    def pending(self) -> tuple[Request, ...]:
        """Requests that no run carried out."""
        return tuple(request for request in self.requests if request.request not in self.done)

    @property
    def removed(self) -> list[int]:
        """Rows that are gone, sorted."""
        return sorted(row for request in self.requests if request.request in self.done for row in request.rows)

    @property
    def since(self) -> tuple[Accepted, ...]:
        """Runs since the model was last trained from nothing."""
        last = max((place for place, run in enumerate(self.runs, start=1) if run.retrained), default=0)
        return self.runs[last:]


@dataclass(frozen=True)
class RequestStatus:
    """One request and what became of it."""

    request: int
    at: str
    """When it was entered, ISO 8601 in UTC."""
    rows: int
    """Rows that it was the first to name."""
    known: int
    """Rows that earlier requests had named."""
    source: str
    note: str
    run: int | None
    """The run that carried it out; None while it is pending."""


@dataclass(frozen=True)
class Status:
    """Where a ledger stands."""

    task: str
    examples: int
    """Training rows of the task."""
    requests: tuple[RequestStatus, ...]
    pending: int
    """Rows that are still to be forgotten."""
    removed: int
    """Rows that the last accepted model was made without."""
    runs: int
    last_run: str
    """When the last run was accepted; empty before."""
    model: str
    """The last accepted checkpoint; empty before the first run."""
    model_sha256: str
    runs_since_retraining: int
    drift: float
    """Predicted excess of KLoM over the floor, in nats (`drift`)."""
    drift_after: float
    """The same after a run of the pending requests with the methods used so far."""
    tolerance: float
    """Above this the advice is to retrain."""
    advice: str
    head: str
    """Digest of the last line; kept elsewhere, it shows that no line was taken away."""


def status_of(state: State, task: Task, folder: Path, tolerance: float) -> Status:
    """Return where a ledger stands.

    Args:
        state: What its lines say.
        task: Its task.
        folder: Its folder.
        tolerance: Predicted drift in nats above which the advice is to retrain.
    """
    rows = {request.request: len(request.rows) for request in state.requests}
    pending = sum(rows[request.request] for request in state.pending)
    used, removed = {run.method for run in state.since}, sum(rows[n] for run in state.since for n in run.requests)
    share, done = 1 / len(task.train), state.done
    drift = predicted_drift(used, share * removed)
    # A method that is not known yet is taken for the worst that was measured.
    after = predicted_drift(used or {""}, share * (removed + pending)) if pending else drift
    last = state.runs[-1] if state.runs else None
    return Status(
        task=task.name,
        examples=len(task.train),
        requests=tuple(
            RequestStatus(
                one.request, one.at, len(one.rows), len(one.known), one.source, one.note, done.get(one.request)
            )
            for one in state.requests
        ),
        pending=pending,
        removed=len(state.removed),
        runs=len(state.runs),
        last_run=last.at if last else "",
        model=str(folder / last.checkpoint) if last else "",
        model_sha256=last.checkpoint_sha256 if last else "",
        runs_since_retraining=len(state.since),
        drift=drift,
        drift_after=after,
        tolerance=tolerance,
        advice=_advice(drift, after, tolerance, pending),
        head=state.head,
    )


def _advice(drift: float, after: float, tolerance: float, pending: int) -> str:
    rule = "a rule measured on digits, not on this model: docs/sequential_drift.md"
    if drift > tolerance:
        return (
            f"Retrain: after the runs since the last training from nothing a drift of {drift:.2f} nats is to be "
            f"expected, above the tolerance of {tolerance:g} ({rule})."
        )
    if pending and after > tolerance:
        return (
            f"Let the next run retrain: with another method a drift of {after:.2f} nats is to be expected after it, "
            f"above the tolerance of {tolerance:g} ({rule})."
        )
    return f"No need to retrain yet: expected drift {drift:.2f} nats, tolerance {tolerance:g} ({rule})."
