"""The registry by names: every method, and the module and class that it is read from when it is used.

Help shows these names, and does not wait for PyTorch. A new method is its file and its line here.
"""

from __future__ import annotations

CONTROLS = {
    "do_nothing": "do_nothing.DoNothing",
    "retrain": "retrain.Retrain",
    "early_stopped_retrain": "early_stopped_retrain.EarlyStoppedRetrain",
    "fine_tune": "fine_tune.FineTune",
    "statistics_alone": "statistics_alone.StatisticsAlone",
}
"""Baselines that every table shows."""

CANDIDATES = {
    "gradient_ascent": "gradient_ascent.GradientAscent",
    "gradient_descent_ascent": "gradient_descent_ascent.GradientDescentAscent",
    "unsir": "unsir.UNSIR",
    "scrub": "scrub.Scrub",
    "bad_teacher": "bad_teacher.BadTeacher",
    "margin_matching": "margin_matching.MarginMatching",
    "newton": "newton.Newton",
    "certified_removal": "certified_removal.CertifiedRemoval",
    "descent_to_delete": "descent_to_delete.DescentToDelete",
    "rewind_to_delete": "rewind_to_delete.RewindToDelete",
    "noisy_descent": "noisy_descent.NoisyDescent",
    "clipped_noisy": "clipped_noisy.ClippedNoisy",
    "cf_k": "last_layers.CFk",
    "eu_k": "last_layers.EUk",
    "evidential_repair": "evidential_repair.EvidentialRepair",
    "ssd": "ssd.SSD",
    "fisher_noise": "fisher_noise.FisherNoise",
    "l1_sparse": "l1_sparse.L1Sparse",
    "neg_grad_plus": "neg_grad_plus.NegGradPlus",
    "recall_inputs": "recall_inputs.RecallInputs",
    "replay": "replay.Replay",
    "rfe": "rfe.RFE",
    "random_labels": "random_labels.RandomLabels",
    "salun": "salun.SalUn",
    "perturb_and_repair": "perturb_and_repair.PerturbAndRepair",
    "primal_dual": "primal_dual.PrimalDual",
    "rewind": "rewind.Rewind",
    "deltagrad": "deltagrad.DeltaGrad",
    "small_batch_retrain": "small_batch_retrain.SmallBatchRetrain",
    "sisa": "sisa.Sisa",
}
"""What can be the answer."""

DEFAULT_METHODS: tuple[str, ...] = ("gradient_ascent", "gradient_descent_ascent", "scrub", "margin_matching")
"""The candidates that an audit or a forecast tries where none are named: a declared list, so that a new method changes
neither what an audit takes nor what it finds."""

ALL_METHODS = "all"
"""What stands for every method of the registry."""
