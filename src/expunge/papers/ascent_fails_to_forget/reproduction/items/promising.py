"""What the paper names as promising and does not study: rewinding, noise, influence, certified removal.

Two audits of random set 2, by the same rules as those of the figures:

    the network      rewind (an earlier state of its own training, on from there on what is retained), a Newton step
                     (influence), noisy fine-tuning (clipped steps and noise, certified against itself), Fisher noise
    a convex model   logistic regression on digits, where removal can be certified against retraining: Newton steps with
                     a bound, descent to delete; and noisy descent (Langevin), certified against itself

The list is short and declared, with few settings each; that something passes or fails here says nothing of its other
settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core import Recipe
from expunge.core.record import ConfigurationRecord, ForgetRecord
from expunge.methods import (
    CertifiedRemoval,
    ClippedNoisy,
    DescentToDelete,
    FisherNoise,
    Method,
    Newton,
    NoisyDescent,
    Rewind,
)
from expunge.papers.ascent_fails_to_forget.finding import Table
from expunge.papers.ascent_fails_to_forget.reproduction import sets
from expunge.papers.ascent_fails_to_forget.reproduction.context import Context
from expunge.papers.ascent_fails_to_forget.reproduction.item import Found, Item
from expunge.papers.ascent_fails_to_forget.reproduction.items.batch_norm import SET
from expunge.papers.ascent_fails_to_forget.reproduction.items.figures import plane
from expunge.papers.ascent_fails_to_forget.reproduction.reading import Reached, apart, reached, something
from expunge.papers.ascent_fails_to_forget.reproduction.record import Chart
from expunge.tasks import choose, logistic

PART, CONVEX = "promising", "promising/convex"
"""Folders of the two audits."""
SHARES = (0.5, 0.8)
"""Of training, after which rewinding begins."""
NOISE = 0.02
"""On the published weights of the convex model."""
NAMES: Mapping[str, str] = {
    Rewind.name: "rewinding",
    Newton.name: "influence",
    ClippedNoisy.name: "noise (Langevin)",
    FisherNoise.name: "noise",
    CertifiedRemoval.name: "certified removal",
    DescentToDelete.name: "certified removal",
    NoisyDescent.name: "noise (Langevin)",
}
"""Which of the paper's names a method answers."""


def of_network(recipe: Recipe) -> list[Method]:
    """Return what is tried on the network."""
    return [
        *(Rewind(share=share) for share in SHARES),
        Newton(damping=0.1, steps=10),
        ClippedNoisy(batch_size=recipe.batch_size),
        FisherNoise(alpha=1e-6),
    ]


def of_convex() -> list[Method]:
    """Return what is tried on the convex model."""
    return [CertifiedRemoval(steps=2), DescentToDelete(steps=50), NoisyDescent(epochs=20, sigma=NOISE)]


def check(context: Context) -> Found:
    """Audit both lists, and say what reaches the oracles."""
    images = context.preset.figures
    task = context.task(images)
    network = context.audited(
        images, PART, (SET,), lambda grid, recipe: of_network(recipe), keep=kept(task.recipe), forecast=False
    )[SET]
    convex = _convex(context)
    forgets = {"network": network, "logistic regression": convex}
    found = {where: list(reached(forget)) for where, forget in forgets.items()}
    return Found(
        "new result",
        _sentences(found, forgets),
        size=context.setting(images, context.preset.members)
        + f"; forget set {sets.words(SET)}, {network.size} rows; logistic regression on digits with noise of {NOISE:g} "
        f"on its weights, {convex.size} rows",
        tables=[_table(found, forgets)],
        charts=[
            Chart(
                caption="What the paper names as promising, a dot a setting",
                panels=[plane(where, forget, "retain") for where, forget in forgets.items()],
                colours="cost relative to retraining",
                log_colours=True,
            )
        ],
        pages={
            "audit of the network": context.page(PART, SET),
            "audit of logistic regression": f"{CONVEX}/{convex.name}/report.html",
        },
    )


def kept(recipe: Recipe) -> tuple[int, ...]:
    """Return the epochs of training after which rewinding needs its state."""
    return tuple(sorted({epoch for share in SHARES for epoch in Rewind(share=share).states(recipe)}))


def _convex(context: Context) -> ForgetRecord:
    task = logistic("digits", noise=NOISE)
    size = sets.size_of(SET, len(task.train))
    choice = choose(task, f"random:{size}", seed=context.seed)
    return context.audit(choice, CONVEX, of_convex(), forecast=False).forget_sets[0]


def _sentences(found: Mapping[str, Sequence[Reached]], forgets: Mapping[str, ForgetRecord]) -> list[str]:
    every = [(where, each) for where, each_of in found.items() for each in each_of]
    passed = [f"{each.label} ({where})" for where, each in every if each.chosen.verdict.name == "indistinguishable"]
    open_ = [f"{each.label} ({where})" for where, each in every if each.chosen.verdict.name == "undecided"]
    sentences = [
        f"{len(passed)} of {len(every)} methods pass the verdict by their honest choice"
        + (": " + ", ".join(passed) if passed else "")
        + (f"; with so few members it is undecided for {', '.join(open_)}" if open_ else "")
        + "."
    ]
    for where, each_of in found.items():
        forget = forgets[where]
        nothing = f"doing nothing is {apart(forget.pretrained):.2f} nats above the floor"
        if not something(forget):
            nothing += ", within its interval: there is nothing to unlearn that could be seen"
        told = ", ".join(f"{each.label} {each.honest:.2f} at {each.chosen.cost:.0%} of retraining" for each in each_of)
        sentences.append(f"On the {where} {nothing}; honest choices: {told}.")
    claims = [(each.label, each.chosen.claim) for _, each in every if each.chosen.claim is not None]
    if claims:
        told = "; ".join(
            f"{label}: epsilon {claim.epsilon:.3g}" + ("" if claim.holds else ", void here") for label, claim in claims
        )
        sentences.append(f"What is certified, at delta {claims[0][1].delta:g}: {told}.")
    return sentences


def _table(found: Mapping[str, Sequence[Reached]], forgets: Mapping[str, ForgetRecord]) -> Table:
    rows: list[list[Any]] = []
    for where, each_of in found.items():
        rows.append([where, "doing nothing", "", "", "", f"{apart(forgets[where].pretrained):.2f}", "", ""])
        rows += [
            [
                "",
                NAMES[each.method],
                each.chosen.id,
                f"{each.chosen.cost:.2g}",
                f"{each.least:.2f}",
                f"{each.honest:.2f}",
                each.chosen.verdict.name,
                _claim(each.chosen),
            ]
            for each in each_of
        ]
    return Table(
        title="Worst P95 of KLoM above the floor over F, R and V, nats",
        columns=["model", "named", "method", "cost", "best", "honest choice", "verdict", "certificate"],
        rows=rows,
    )


def _claim(chosen: ConfigurationRecord) -> str:
    if chosen.claim is None:
        return ""
    void = "" if chosen.claim.holds else " (void)"
    return f"epsilon {chosen.claim.epsilon:.3g}, delta {chosen.claim.delta:g}{void}"


ITEM = Item(
    ("P18",),
    "Named as promising: rewinding, noise, influence, certified removal",
    "Methods that do not climb, such as rewinding, noise, influence functions and certified removal, are named as "
    "promising; the paper does not study them.",
    check,
    work=frozenset({"promising"}),
)
