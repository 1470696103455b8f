"""What outputs mean, one outcome a file; to add one, write its file and its line in `OUTCOMES`."""

from expunge.core.outcomes.binary import Binary
from expunge.core.outcomes.classes import Classes
from expunge.core.outcomes.labels import Labels
from expunge.core.outcomes.outcome import Outcome
from expunge.core.outcomes.regression import Regression
from expunge.core.outcomes.sequences import Sequences

OUTCOMES: dict[str, type[Outcome]] = {
    outcome.name: outcome for outcome in (Classes, Binary, Labels, Regression, Sequences)
}
"""Every outcome by its name."""

__all__ = ["OUTCOMES", "Binary", "Classes", "Labels", "Outcome", "Regression", "Sequences"]
