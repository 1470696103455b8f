"""What has a name on the command line, and help shows: tasks of the proof, results of the theory."""

from __future__ import annotations

DIAL = "teacher-mixture"
"""Name that asks for the dial instead of a task."""

DEFAULT_TASKS = ("digits", "digits:cnn", "tabular", DIAL)

RESULTS = {
    "lemma-1": "random_sets.lemma_1",
    "lemmas-2-5": "one.lemmas_2_to_5",
    "corollary-1": "one.corollary_1",
    "alternating": "one.alternating",
    "two-directions": "two.two_directions",
    "fig-4": "two.figure_4",
    "app-j": "two.appendix_j",
    "fig-5": "beyond.figure_5",
    "teacher-mixture": "beyond.mixture",
    "skew": "beyond.skews",
    "exact-oracles": "beyond.exact_oracles",
}
"""Module of `theory_study` and function that check a result."""
