"""Items of the paper by their names on the command line, in the order of the page."""

from __future__ import annotations

ITEMS = {
    "klom": "klom.ITEM",
    "forget-sets": "forget_sets.ITEM",
    "fig-1": "figures.FIG_1",
    "fig-2": "figures.FIG_2",
    "fig-3": "figures.FIG_3",
    "fig-6-7": "figures.FIG_6_7",
    "lemma-1": "theory.LEMMA_1",
    "lemmas-2-5": "theory.LEMMAS_2_5",
    "corollary-1": "theory.COROLLARY_1",
    "alternating": "theory.ALTERNATING",
    "two-directions": "theory.TWO_DIRECTIONS",
    "fig-4": "theory.FIG_4",
    "fig-5": "theory.FIG_5",
    "app-j": "theory.APP_J",
    "table-1": "table_1.ITEM",
    "cross-influence": "cross_influence.ITEM",
    "checklist": "checklist.ITEM",
    "resnet-9": "resnet_9.ITEM",
    "published-table": "published_table.ITEM",
    "batch-norm": "batch_norm.ITEM",
    "scrub-published": "scrub.ITEM",
    "promising": "promising.ITEM",
    "living-17": "living_17.ITEM",
}
"""Module of `items` and what it calls the item."""

PRESETS = ("tiny", "cpu", "paper")
"""Sizes, from the smallest."""
