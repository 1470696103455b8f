"""The paper whole: every claim, figure and table of *Ascent Fails to Forget*, run again by one command.

Source: Mavrothalassitis, Puigdemont, Levi, Cevher, "Ascent Fails to Forget" (NeurIPS 2025, arXiv 2509.26427).
"""

from __future__ import annotations

from typing import Any


def paper() -> dict[str, Any]:
    """Return what `expunge reproduce` needs: presets, plan, run, page, and the answer in words."""
    from expunge.papers.ascent_fails_to_forget.report import reproduction as report
    from expunge.papers.ascent_fails_to_forget.reproduction import names, plan, study

    return {
        "presets": names.PRESETS,
        "default": "cpu",
        "options": ("only", "sets", "data"),
        "plan": plan.plan,
        "run": study.run,
        "draw": report.draw,
        "tell": report.print_answers,
        "answer": report.answer,
    }
