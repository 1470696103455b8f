"""The statement: what the numbers of a record show, what that assumes, and what nobody can read from them.

It follows from the record of the audit and that of the checkpoint alone, so a check writes it once more and
compares.
"""

from __future__ import annotations

from pathlib import Path

from expunge.core.claim import beside
from expunge.core.evidence import Checkpoint, Statement
from expunge.core.record import ConfigurationRecord, ForgetRecord, Record

TRIED = 6
"""Methods that a sentence names."""


def state(record: Record, released: Checkpoint | None, *, rows: bool) -> Statement:
    """Return the statement on a run.

    Args:
        record: Of the audit, as it stands in the bundle.
        released: Of the checkpoint that was made for the request, if it was handed in.
        rows: Whether the bundle holds digests of the rows.
    """
    return Statement(
        request=_request(record),
        done=_done(record, released),
        shown=_shown(record, released, rows),
        assumed=_assumed(record, rows),
        not_shown=_not_shown(record, released, rows),
    )


def _request(record: Record) -> list[str]:
    task = record.task
    found = [
        f"Forget set {forget.name}: {_count(forget.size, 'row')} of the {task.get('train', 'unknown number of'):,} "
        f"training rows of task {record.task.get('name')!r}; {forget.how}."
        if isinstance(task.get("train"), int)
        else f"Forget set {forget.name}: {_count(forget.size, 'row')} of task {task.get('name')!r}; {forget.how}."
        for forget in record.forget_sets
    ]
    return [*found, "The question: do the models behave as if they had never seen these rows?"]


def _done(record: Record, released: Checkpoint | None) -> list[str]:
    given = sorted({e.role.partition(",")[0] for e in record.ensembles if e.given})
    found = [
        f"An audit, begun {_time(record.started)}: {_count(record.members, 'model')} trained on all rows, unlearned by "
        "each method below, and held against models that were retrained without the forget rows.",
    ]
    if given:
        found.append(f"Given to the audit rather than trained by it: {', '.join(given)} models.")
    made = None if released is None else released.record
    if made is not None and made.after is not None:
        found += [
            f"{made.label} then unlearned {_count(made.forget.size, 'row')} ({made.forget.name}) from the checkpoint "
            f"{Path(made.before.path).name}, SHA-256 {made.before.sha256}.",
            f"The checkpoint that was made: {made.after.path}, SHA-256 {made.after.sha256}.",
        ]
    return found


def _shown(record: Record, released: Checkpoint | None, rows: bool) -> list[str]:
    found = [sentence for forget in record.forget_sets for sentence in _of_set(forget)]
    found += [] if released is None else _of_checkpoint(released)
    found.append(
        f"Tolerance: {record.tolerance:g} nats of KLoM above the floor, at the 95th percentile of the rows, where the "
        "floor is what retrained models read of other retrained models. To pass, a method had to be shown to lie "
        "within it (two one-sided tests at 5 % on each of three splits); that no difference was seen is not enough."
    )
    found.append(
        "Scores and verdicts of all settings on this page follow from the margins in the bundle: expunge verify "
        "--recompute computes them once more."
    )
    if rows:
        found.append(
            "Which rows the data were, and which of them were forgotten: the bundle holds a digest of each under a "
            "key. Whoever has the data and the key can check them; nobody else can read or guess a row from them."
        )
    return found


def _of_set(forget: ForgetRecord) -> list[str]:
    by_id = {c.id: c for c in forget.configurations}
    chosen = [by_id[s.chosen] for s in forget.selections if s.chosen in by_id]
    candidates = [c for c in chosen if not c.control]
    passing = [c for c in chosen if c.verdict.name == "indistinguishable"]
    examples = {split: score.examples for split, score in forget.floor.items()}
    looked = ", ".join(f"{count:,} {split}" for split, count in examples.items())
    members = max((score.oracles for score in forget.floor.values()), default=0)
    found = [
        f"{forget.name}: compared on {looked} rows with {_count(members, 'model')} retrained without the forget rows. "
        + (
            f"Not told from retraining: {', '.join(_name(c) for c in passing)}."
            if passing
            else f"None of {_count(len(chosen), 'method')} was found indistinguishable from retraining."
        )
    ]
    found += [f"{forget.name}, {_name(c)}: {c.verdict.sentence}" for c in candidates[:TRIED]]
    found += [f"{forget.name}, {_name(c)}: {beside(c.claim, c.epsilon)}" for c in candidates if c.claim is not None]
    if forget.nothing_to_unlearn:
        found.append(
            f"{forget.name}: before unlearning, the models already behave on these rows as if they had not seen them."
        )
    return found


def _of_checkpoint(released: Checkpoint) -> list[str]:
    made = released.record
    failed = ", ".join(check.name for check in made.failed_checks)
    said = f"failed: {failed}" if failed else f"all {_count(len(made.checks), 'runtime check')} passed"
    found = [f"The checkpoint among the models of the audit: {released.verdict.sentence}"] if released.verdict else []
    found.append(f"The checkpoint: {said}. What the run says of it: {' '.join(made.advice)}".strip())
    if made.claim is not None:
        found.append(f"The checkpoint: {made.claim.sentence}.")
    if made.audit is not None:
        found.append(f"The setting is {made.audit.configuration} of an audit that found: {made.audit.verdict}")
    return found


def _assumed(record: Record, rows: bool) -> list[str]:
    found = [
        "The rows named here are the rows that the request is about, and all of them; duplicates or near-duplicates of "
        "them elsewhere in the data count as other rows.",
        "The models were made as the record says: the retrained ones without the forget rows, each from its own seed, "
        "by the training that made the model in use. A reader who has the data can repeat it; from this bundle alone "
        "it is taken on trust.",
        "What is not a function of the margins is taken from the record: costs, accuracies, forecasts, readings on "
        "calibration sets, illusion gaps, and the scores of settings that were tried and not chosen.",
    ]
    if any(e.given for e in record.ensembles):
        found.append("What the models that were given had been trained on is taken on trust.")
    planted = [forget.name for forget in record.forget_sets if forget.chooser == "mislabelled"]
    if planted:
        found.append(f"Before training, the run gave the forget rows of {', '.join(planted)} wrong labels, on purpose.")
    if rows:
        found.append(
            "The key of the rows' digests is kept by the owner of the data; who gets it can test guesses about rows."
        )
    found += [f"Note of the run: {note}" for note in record.notes]
    return found


def _not_shown(record: Record, released: Checkpoint | None, rows: bool) -> list[str]:
    smallest = [
        c.verdict.missed.row
        for forget in record.forget_sets
        for c in forget.configurations
        if c.verdict.missed is not None and c.verdict.missed.row is not None
    ]
    row = (
        f"A single row shifted by less than about {max(smallest):.2f} standard deviations of retrained models could "
        "have been missed, and so could any"
        if smallest
        else "There may be a"
    )
    found = [
        f"Smaller effects. {row} difference within the tolerance.",
        f"Other inputs. What was compared is the {record.statistic} on the three splits above; on inputs that are in "
        "none of them nothing was looked at.",
        "Other attackers. The comparison is of one who sees the margins of many models on these rows. One who reads "
        "weights, follows gradients, asks other questions, or holds the model before against the model after may learn "
        "more.",
        _one_or_many(released),
        "Copies. Backups, logs, caches, features and embeddings computed from the rows, other models trained on them, "
        "and checkpoints that were released before are out of scope.",
        "The data themselves. That the rows were deleted where they are stored cannot be seen in a model.",
        "The law. Whether this satisfies a regulation or a contract is for those who read it to say.",
        "Who made this, and when. A bundle can be made by anybody; the root digest below, signed, says whose it is. "
        "Whoever changes the bundle and all digests in it makes another bundle with another root digest.",
    ]
    if not rows:
        found.append("Which rows the data were: the run kept no digests of them.")
    return found


def _one_or_many(released: Checkpoint | None) -> str:
    """Say whether the verdicts are on the model in use."""
    many = "One model rather than many. The verdicts on methods are over models that differ by their seeds"
    if released is None:
        return f"{many}, not on one checkpoint."
    if released.verdict is None:
        return f"{many}; the checkpoint that was made is one more, and was not itself held against the oracles."
    return (
        f"{many}; that on the checkpoint is a rank among {released.verdict.oracles} oracles, which cannot be finer "
        f"than one in {released.verdict.oracles + 1}."
    )


def _time(iso: str) -> str:
    """Write a time as people do."""
    return iso.replace("T", " ", 1)[:16] + " UTC" if iso.endswith(("+00:00", "Z")) else iso


def _name(configuration: ConfigurationRecord) -> str:
    control = " (control)" if configuration.control else ""
    return f"{configuration.label}{control}"


def _count(amount: int, noun: str) -> str:
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"
