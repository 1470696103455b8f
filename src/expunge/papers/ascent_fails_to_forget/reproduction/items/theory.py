"""Lemmas, corollary and figures of the theory: each is a finding of `expunge theory`, run once for all of them."""

from __future__ import annotations

from expunge.papers.ascent_fails_to_forget.reproduction.context import Context
from expunge.papers.ascent_fails_to_forget.reproduction.item import Found, Item


def _item(name: str, rows: tuple[str, ...], title: str, claim: str) -> Item:
    def check(context: Context) -> Found:
        finding = context.finding(name)
        return Found(
            finding.verdict,
            [finding.sentence],
            size="exact, or simulated: " + ", ".join(f"{key} {value}" for key, value in finding.parameters.items()),
            tables=finding.tables,
            pages={"theory, with its figure": f"theory/report.html#{name}"},
        )

    return Item(rows, title, claim, check, work=frozenset({"theory"}))


LEMMA_1 = _item(
    "lemma-1",
    ("P7",),
    "Lemma 1: random forget sets",
    "The accuracy of retrained models on a random forget set is the test accuracy, up to Hoeffding's bound; pushing "
    "below it is over-forgetting.",
)
LEMMAS_2_5 = _item(
    "lemmas-2-5",
    ("P8",),
    "Lemmas 2 to 5: one direction",
    "In logistic regression along one direction, descent-ascent goes away from the oracle for a range of overlaps of "
    "forget and retain set.",
)
COROLLARY_1 = _item(
    "corollary-1",
    ("P8",),
    "Corollary 1: unbounded harm",
    "Doing nothing can be as close to the oracle as one likes while descent-ascent is as far as one likes.",
)
ALTERNATING = _item(
    "alternating",
    ("P9",),
    "App. D.3: alternating steps",
    "Alternating descent and ascent is, for small steps, simultaneous descent-ascent with the ridge doubled.",
)
TWO_DIRECTIONS = _item(
    "two-directions",
    ("P10",),
    "Lemmas 6 to 10 and 12: two correlated directions",
    "Where forget and retain examples share directions, bounds on the solutions show that descent-ascent moves away "
    "from the oracle in both.",
)
FIG_4 = _item(
    "fig-4",
    ("P10",),
    "Fig. 4: the window of provable harm",
    "Over the correlation of the two directions there is a window of overlaps in which descent-ascent is provably "
    "harmful.",
)
FIG_5 = _item(
    "fig-5",
    ("P11",),
    "Fig. 5: the wrong basin",
    "In a network with two parameters descent-ascent falls into another basin, and fine-tuning on the retain set "
    "cannot leave it.",
)
APP_J = _item(
    "app-j",
    ("P16",),
    "App. J: the limit of equal directions",
    "What becomes of the two-direction problem as the directions coincide.",
)
