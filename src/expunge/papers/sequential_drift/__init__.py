"""Sequential drift: does unlearning request after request drift away from retraining, and does real data stop it?

Source of the question: Zenil, "On the Limits of Self-Improving in LLMs" (arXiv 2601.05280): models that are trained on
their own outputs drift as a random walk where the share of outside data tends to 0.
"""

from __future__ import annotations

from typing import Any


def paper() -> dict[str, Any]:
    """Return what `expunge reproduce` needs: presets, plan, run, page, and the answer in words."""
    from expunge.papers.sequential_drift import report, study

    return {
        "presets": tuple(study.PRESETS),
        "default": "cpu",
        "options": (),
        "plan": study.plan,
        "run": study.run,
        "draw": report.draw,
        "tell": report.print_tables,
        "answer": report.answer,
    }
