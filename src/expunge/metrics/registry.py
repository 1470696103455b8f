"""Every metric that an audit, `expunge score` and their reports show: a new one is a file and a line here."""

from __future__ import annotations

from functools import partial

from expunge.metrics.distances import DISTANCES
from expunge.metrics.fade import fade_reading
from expunge.metrics.from_margins import (
    read_challenge,
    read_distance,
    read_epsilon,
    read_joint,
    read_klom,
    read_one_direction,
    read_published,
    read_ulira,
)
from expunge.metrics.from_outputs import (
    FPR,
    read_accuracy,
    read_attack,
    read_challenge_score,
    read_outputs,
    read_svc,
    read_tug_of_war,
)
from expunge.metrics.klom_variants import PUBLISHED
from expunge.metrics.metric import Metric
from expunge.metrics.outputs import activation_distance_reading

KLOM = "KLoM, p95"
"""The metric of verdicts."""
PUBLIC = "KLoM as published (easydub), p95"
"""The published estimator that an audit shows beside it."""

_ATTACKS = {"auc": "AUC", "balanced_accuracy": "balanced accuracy", "tpr": f"TPR at FPR {FPR:g}"}
_FEATURES = ("loss", "entropy", "modified_entropy", "confidence")
_ROUTES = ("clopper-pearson", "gaussian-dp")
_LOGITS = ("logits/forget", "logits/retain", "logits/validation")
_ATTACK_ABOUT = "One threshold on the {} that tells forget from validation examples, beside the same for oracles."


def _attack(feature: str, statistic: str) -> Metric:
    words = feature.replace("_", " ")
    return Metric(
        f"population attack ({words}), {_ATTACKS[statistic]}",
        "attacks",
        partial(read_attack, feature=feature, statistic=statistic),
        "closer",
        _ATTACK_ABOUT.format(words),
        ("margins", "margins/validation") if feature == "loss" else ("logits", "logits/validation"),
        ("forget",),
    )


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            KLOM,
            "KLoM",
            partial(read_klom, summary="p95"),
            "lower",
            "Divergence between unlearned and oracle margins over members, 95th percentile over examples.",
            audited=True,
        ),
        Metric("KLoM, mean", "KLoM", partial(read_klom, summary="mean"), "lower", "Its mean over examples."),
        *(
            Metric(
                f"KL({name}), p95",
                "KLoM",
                partial(read_one_direction, direction=way),  # type: ignore[arg-type]
                "lower",
                "One direction of KLoM alone.",
            )
            for way, name in (("unlearned_oracle", "unlearned | oracle"), ("oracle_unlearned", "oracle | unlearned"))
        ),
        *(
            Metric(
                name.replace("_", " "),
                "distances",
                partial(read_distance, name=name),
                "lower",
                "Distance between the laws of unlearned and oracle margins, mean over examples.",
            )
            for name in DISTANCES
        ),
        Metric(
            "classifier two-sample test",
            "joint tests",
            partial(read_joint, test="classifier"),
            "lower",
            "How often a classifier of whole members tells unlearned ones from oracles.",
        ),
        Metric(
            "mmd squared",
            "joint tests",
            partial(read_joint, test="mmd"),
            "lower",
            "Kernel distance between the laws of whole members.",
        ),
        Metric("accuracy", "outputs", read_accuracy, "closer", "Mean accuracy of members.", ("logits",)),
        Metric(
            "activation distance",
            "outputs",
            partial(read_outputs, read=activation_distance_reading),
            "lower",
            "Distance between the probabilities of a member and an oracle.",
            ("logits",),
        ),
        Metric(
            "fade",
            "outputs",
            partial(read_outputs, read=fade_reading),
            "lower",
            "Symmetric divergence between the predictions of a member and an oracle.",
            ("logits",),
        ),
        *(
            Metric(
                f"KLoM as published ({name}), p95",
                "published elsewhere",
                partial(read_published, variant=name),
                "lower",
                "KLoM as a public code computes it, defects included.",
                published=True,
                audited=name == "easydub",
            )
            for name in PUBLISHED
        ),
        Metric(
            "U-LiRA, balanced accuracy",
            "attacks",
            read_ulira,
            "closer",
            "A likelihood-ratio attack on each forget example, with shadow models from both sides.",
            splits=("forget",),
        ),
        *(_attack(feature, statistic) for feature in _FEATURES for statistic in _ATTACKS),
        Metric(
            "SVC attack (confidence), efficacy",
            "attacks",
            read_svc,
            "closer",
            "Share of forget examples that a classifier of confidences takes for non-members.",
            _LOGITS,
            ("forget",),
        ),
        Metric(
            "tug-of-war",
            "outputs",
            read_tug_of_war,
            "closer",
            "Product over the splits of one minus the difference in accuracy.",
            _LOGITS,
            ("forget",),
        ),
        *(
            Metric(
                f"epsilon, lower bound (mean margin, {route})",
                "epsilon",
                partial(read_epsilon, route=route),  # type: ignore[arg-type]
                "lower",
                "What the mean margin of members shows about a differential-privacy guarantee of the deletion.",
                splits=("forget",),
            )
            for route in _ROUTES
        ),
        Metric(
            "forgetting quality (NeurIPS 2023 challenge)",
            "published elsewhere",
            read_challenge,
            "closer",
            "Points of the challenge's attacks on each forget example.",
            splits=("forget",),
            published=True,
        ),
        Metric(
            "score (NeurIPS 2023 challenge)",
            "published elsewhere",
            read_challenge_score,
            "closer",
            "The same times the ratios of accuracies.",
            ("margins", "logits/retain", "logits/validation"),
            ("forget",),
            published=True,
        ),
    )
}
"""Metrics by name, in the order in which tables show those of one group."""


def listing() -> str:
    """Return the page of the documentation that lists the registry, as Markdown."""
    lines = [
        "# List of metrics",
        "",
        "What `expunge score` prints, from the registry `expunge.metrics.METRICS`; every audit reads those marked *.",
        "*Better* says which way, always beside what oracles read.",
        "",
    ]
    for group in dict.fromkeys(metric.group for metric in METRICS.values()):
        lines += [f"## {group}", "", "| metric | better | needs | read on | what it says |", "|---|---|---|---|---|"]
        for metric in METRICS.values():
            if metric.group == group:
                name = metric.name.replace("|", "\\|") + (" *" if metric.audited else "")
                splits = "every split" if len(metric.splits) == 3 else ", ".join(metric.splits)
                needs = ", ".join(need.replace("/", " on ") for need in metric.needs)
                lines.append(f"| {name} | {metric.direction} | {needs} | {splits} | {metric.about} |")
        lines.append("")
    return "\n".join(lines)
