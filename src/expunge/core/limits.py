"""What is asked of a verdict where nothing else is said; help shows it before PyTorch is read.

Default row tolerance 1: the smallest round number of oracle standard deviations that 100 members tell nine times in
ten in every case of `benchmarks/verdict.py`.

Default tolerance 0.125 nats. A shift of d oracle standard deviations is a divergence of d^2 / 2, so 0.125 is half a
standard deviation at the 95th percentile of the examples: somebody who holds one model and knows both distributions
exactly tells unlearned from retrained by such an example's margin with accuracy Phi(d / 2) = 0.60 at best, instead of
0.50. As measured, with 100 members on each side and Gaussian margins, the P95 excess reaches 0.125 when all examples
shift by 0.40 standard deviations, or a tenth of them by 0.70. Of skewed margins most lie closer together than a
standard deviation: 0.08 to 0.22 reach it, or 0.14 to 0.37 of a tenth (`benchmarks/sensitivity.py --reach`).
"""

from __future__ import annotations

HOPED = "indistinguishable"
"""The one verdict that can be asked for."""
DEFAULT_TOLERANCE = 0.125
"""Nats above the floor that still count as indistinguishable; the module says why."""
DEFAULT_ROW_TOLERANCE = 1.0
"""Shift of a single forget row, in oracle standard deviations, that must not be missed; the module says why."""
FEWEST_MEMBERS = 20
"""Below this an interval says nothing, so an audit is refused."""
LEVEL = 0.05
"""Chance that a retrained model is told, of one model."""
POWER = 0.8
"""Share of pretrained models that the test must be shown to tell before a model is called compatible."""
