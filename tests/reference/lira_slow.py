"""LiRA from its definition and from the published program's, one target, example and augmentation at a time."""

import math
import statistics

from scipy import stats


def _sides(shadow, trained, example, view):
    values = [(float(shadow[k, example, view]), bool(trained[k, example])) for k in range(len(shadow))]
    return [v for v, inside in values if inside], [v for v, inside in values if not inside]


def _score(mode, phi, inside, outside):
    """Score of one margin; each side is (mean, standard deviation)."""
    if mode == "online":
        return stats.norm.logpdf(phi, *inside) - stats.norm.logpdf(phi, *outside)
    return stats.norm.logcdf(phi, *outside) if mode == "offline" else -stats.norm.logpdf(phi, *outside)


def lira(target, shadow, trained, mode, variance):
    """Scores as nested lists, targets by examples; arrays are (models, examples, augmentations)."""
    _, examples, views = shadow.shape
    sides = {(i, a): _sides(shadow, trained, i, a) for i in range(examples) for a in range(views)}

    def spread(side, i, a):
        mine = sides[i, a][side]
        if variance == "per_example":
            return statistics.stdev(mine)
        if variance == "per_example_published":
            return statistics.pstdev(mine)
        if variance == "fixed":
            squares = sum((v - statistics.fmean(s[side])) ** 2 for s in sides.values() for v in s[side])
            return math.sqrt(squares / sum(len(s[side]) - 1 for s in sides.values()))
        # As published: every margin of the side at once; online, the shadows in stand for both sides.
        whose = 0 if mode == "online" else side
        return statistics.pstdev([v for s in sides.values() for v in s[whose]])

    laws = {
        (i, a): [(statistics.median(sides[i, a][side]), spread(side, i, a)) for side in (0, 1)]
        for i in range(examples)
        for a in range(views)
    }
    return [
        [sum(_score(mode, float(phi[i, a]), *laws[i, a]) for a in range(views)) for i in range(examples)]
        for phi in target
    ]
