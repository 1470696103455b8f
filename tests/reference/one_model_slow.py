"""Oddness the slow way: for each model the others are taken, their mean, spread and covariance worked out, and it."""

from __future__ import annotations

import numpy as np

WEIGHTS = {"direction": 1.5}
ONE_SIDED = ("furthest row",)


def apart(value, others):
    """A number less the mean of others, in their standard deviations, with the error of their mean."""
    n = len(others)
    return (value - np.mean(others)) / (np.std(others, ddof=1) * np.sqrt(1 + 1 / n))


def statistics(margins, pretrained=None):
    models = range(len(margins["forget"]))
    found: dict[str, list[float]] = {}

    def add(name, value):
        found.setdefault(name, []).append(value)

    for i in models:
        means = {}
        for split, values in margins.items():
            z = [apart(values[i, j], np.delete(values[:, j], i)) for j in range(values.shape[1])]
            means[split] = np.mean(z)
            add(split, means[split])
            add(f"{split} distance", np.log(np.mean(np.square(z))))
            if split == "forget":
                add("furthest row", np.log(np.max(np.abs(z))))
        rest = [means[split] for split in margins if split != "forget"]
        if rest:
            add("forget beside rest", means["forget"] - np.mean(rest))
        if len(rest) == 2:
            add("retain beside validation", means["retain"] - means["validation"])
    x, towards = standardised(margins, pretrained)
    ridge = 0.1 * np.mean([row @ row for row in x])
    for i in models:
        add("nearest", np.log(min(np.sum((x[i] - x[k]) ** 2) for k in models if k != i)))
        others = np.delete(x, i, axis=0)
        metric = np.linalg.inv(others.T @ others + ridge * np.eye(x.shape[1]))
        add("pattern", np.log(x[i] @ metric @ x[i]))
        if towards is not None:
            # Over the whole covariance, model i with it, less what its own presence takes away.
            add("direction", (x[i] @ metric @ towards) * ridge)
    return {name: np.array(values) for name, values in found.items()}


def standardised(margins, pretrained):
    rows, towards = [], []
    for split, values in margins.items():
        scale = values.std(0, ddof=1) * np.sqrt(values.shape[1])
        rows.append((values - values.mean(0)) / scale)
        if pretrained is not None:
            towards.append((pretrained[split] - values.mean(0)) / scale)
    return np.concatenate(rows, axis=1), np.concatenate(towards) if towards else None


def p_value(margins, pretrained=None, model=0):
    odd = []
    found = statistics(margins, pretrained)
    for i in range(len(margins["forget"])):
        sizes = []
        for name, values in found.items():
            size = WEIGHTS.get(name, 1.0) * apart(values[i], np.delete(values, i))
            sizes.append(size if name in ONE_SIDED else abs(size))
        odd.append(max(sizes))
    return np.mean(np.array(odd) >= odd[model] - 1e-9), found
