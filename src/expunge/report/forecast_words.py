"""What a forecast says in words: its headline, what an outlook means, and the definitions of its page."""

from __future__ import annotations

from dataclasses import dataclass

from expunge.core.forecast import ForecastRecord, Outlook
from expunge.report.definitions import DEFINITIONS as AUDIT_DEFINITIONS
from expunge.report.definitions import SETTING_TERM, SPLITS_TERM
from expunge.report.headline import Headline


@dataclass(frozen=True)
class OutlookWords:
    """How one outlook is explained."""

    meaning: str
    """What is predicted."""
    action: str
    """What to do about it."""


OUTLOOKS: dict[Outlook, OutlookWords] = {
    "nothing to unlearn": OutlookWords(
        "The pretrained models are predicted to behave like retrained ones already, within the tolerance.",
        "No unlearning is needed for the behaviour to match. Whether the data must be deleted is another question.",
    ),
    "can work": OutlookWords(
        "Some setting, stopped at the right time, is predicted to come within the tolerance on all three splits.",
        "Try it, with an audit: which setting and which time is what a user does not know beforehand.",
    ),
    "partly": OutlookWords(
        "The best setting is predicted to cover at least half of the way to retraining, and not all of it.",
        "Useful only if a remaining trace is acceptable.",
    ),
    "breaks first": OutlookWords(
        "The forget margins can be brought to the retrained level, but retain or validation is predicted to suffer "
        "more than is gained.",
        "Do not use it for this forget set. Retrain.",
    ),
    "cannot forget": OutlookWords(
        "No setting is predicted to bring the forget margins to the retrained level.",
        "Do not use it for this forget set. Retrain.",
    ),
}
"""Every outlook of the record's schema, best first."""


def forecast_headline(forecast: ForecastRecord) -> Headline:
    """Return the first sentence of the advice, as what to do and why, with its tone.

    Args:
        forecast: Of one forget set.
    """
    first = forecast.advice[0] if forecast.advice else "No advice is on record."
    what, colon, why = first.partition(": ")
    outlooks = {method.outlook for method in forecast.methods if not method.control}
    if "nothing to unlearn" in outlooks or first.startswith("Nothing to unlearn"):
        tone = "empty"
    elif any(method.outlook == "can work" and method.best.cost < 1 for method in forecast.methods):
        tone = "good"
    else:
        # A method that works at the price of retraining is no reason not to retrain.
        tone = "open" if outlooks & {"can work", "partly"} or not outlooks else "bad"
    return Headline(tone, f"{what}." if colon else first, _capital(why) if colon else "")


def _capital(text: str) -> str:
    """Begin a sentence with a capital, but leave the name of a run as it is."""
    return text if "/" in text.split(" ")[0] else text[:1].upper() + text[1:]


DEFINITIONS: list[tuple[str, str]] = [
    (
        "Forecast",
        "A prediction made from the pretrained models, their data and their recipe alone: no model is retrained and "
        "nothing is unlearned. It is first order: the models are linearised where they are, so large movements are "
        "predicted worse than small ones. An audit shows forecast and outcome side by side.",
    ),
    (
        "Predicted oracle",
        "What a pretrained model would have become had it never seen the forget examples, by unrolled influence: the "
        "training of some members is followed in segments, in each of which gradient and curvature are constant.",
    ),
    (
        "Predicted path",
        "Every method with every setting is run, by its own code and batch orders, on a reduced model: logits that are "
        "linear in a few coordinates, with a real softmax. So a path is what the first-order model does, not a fit.",
    ),
    (
        "KLoM above the floor",
        "Kullback-Leibler (KL) divergence of margins between the predicted unlearned and the predicted retrained "
        "models, in nats (units of the natural logarithm), 95th percentile over examples: 95 % score lower. Both are "
        "the same members moved differently, so the noise that makes the floor of an audit cancels: 0 is a perfect "
        "match.",
    ),
    (
        "Damage at target",
        "Follow a path until the mean forget margin has fallen to that of the predicted oracle: this is how far "
        "validation then is from retraining, mean KLoM above the floor, for the setting that damages least.",
    ),
    (
        "Outlook",
        "One word for a method: can work, partly, breaks first, cannot forget, or nothing to unlearn; explained below.",
    ),
    *[
        (term, text)
        for term, text in AUDIT_DEFINITIONS
        if term in (SPLITS_TERM, SETTING_TERM, "Margin", "Cost", "Control")
    ],
]
"""Terms and their explanation, for someone who has not read the paper."""
