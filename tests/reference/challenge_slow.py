"""The challenge's attacks written as plain loops over the published grid of thresholds."""

import math

import numpy as np

DELTA = 1e-5


def rates_to_epsilon(fpr, fnr):
    if fpr == 0 and fnr == 0:
        return math.inf
    if fpr == 0 or fnr == 0:
        return math.nan
    ways = [math.log(1 - DELTA - a) - math.log(b) for a, b in ((fpr, fnr), (fnr, fpr)) if 1 - DELTA - a > 0]
    return max([0.0, *ways])


def epsilon(u, o):
    found = []
    positive, negative = (o, u) if np.median(o) > np.median(u) else (u, o)
    low, high = min(u.min(), o.min()), max(u.max(), o.max())
    cuts = np.linspace(low, high, math.ceil((high - low) * 100))
    found += [rates_to_epsilon(np.mean(negative >= t), np.mean(positive < t)) for t in cuts]
    positive, negative = (o, u) if np.ptp(u) >= np.ptp(o) else (u, o)
    width = np.ptp(positive)
    low, high = positive.min() + width - 2, positive.max() + 2
    for right in np.linspace(low, high, math.ceil((high - low) * 100)):
        for left in np.linspace(right - width - 2, right - width + 2, 400):
            inside = [(left <= s) & (s <= right) for s in (negative, positive)]
            found.append(rates_to_epsilon(np.mean(inside[0]), np.mean(~inside[1])))
    return min(50.0, np.nanmax(found))
