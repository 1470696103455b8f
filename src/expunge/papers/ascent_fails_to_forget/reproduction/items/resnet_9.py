"""ResNet-9 on CIFAR-10: does what holds of the small network hold of the paper's, on a random and a component set?"""

from __future__ import annotations

from expunge.papers.ascent_fails_to_forget.finding import Table
from expunge.papers.ascent_fails_to_forget.reproduction import sets
from expunge.papers.ascent_fails_to_forget.reproduction.context import Context
from expunge.papers.ascent_fails_to_forget.reproduction.item import Found, Item
from expunge.papers.ascent_fails_to_forget.reproduction.items.figures import planes, verdict_of
from expunge.papers.ascent_fails_to_forget.reproduction.reading import apart, reached


def check(context: Context) -> Found:
    """Audit gradient ascent on the residual network."""
    forgets = context.residual()
    images = context.preset.residual or context.preset.figures
    part = "residual" if context.preset.residual else "figures"
    rows: list[list[str | int | float | None]] = []
    passed = 0
    for number, forget in forgets.items():
        for each in reached(forget):
            passed += each.chosen.verdict.name == "indistinguishable"
            accuracy = each.chosen.accuracy
            rows.append(
                [
                    sets.words(number),
                    each.label,
                    round(apart(forget.pretrained), 2),
                    round(each.least, 2),
                    round(each.honest, 2),
                    each.chosen.verdict.name,
                    f"{forget.pretrained_accuracy['validation']:.1%}",
                    f"{accuracy['validation']:.1%}",
                ]
            )
    header = [
        "forget set",
        "method",
        "doing nothing",
        "best of grid",
        "honest choice",
        "verdict",
        "accuracy before",
        "after",
    ]
    return Found(
        verdict_of(passed, len(rows)),
        [
            f"{passed} of {len(rows)} honest choices pass the verdict on {len(forgets)} forget sets.",
            "The best of the grid, which nobody knows in advance, leaves "
            + " and ".join(f"{row[3]} of {row[2]} nats" for row in rows)
            + " above the floor.",
        ],
        size=context.setting(images, context.preset.members),
        tables=[Table(title="Worst P95 of KLoM above the floor over F, R and V, nats", columns=header, rows=rows)],
        charts=[planes("Gradient ascent on the residual network", forgets, "validation")],
        pages={f"audit of set {number}": context.page(part, number) for number in forgets},
    )


ITEM = Item(
    ("P17",),
    "ResNet-9",
    "The same on ResNet-9 and CIFAR-10, the paper's own experiment.",
    check,
    work=frozenset({"residual"}),
)
