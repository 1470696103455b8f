"""Figures of the theory study, one function a result, drawn from arrays and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from expunge.report.plots import BLUE, CYCLE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, STYLE

Arrays = Mapping[str, np.ndarray[Any, Any]]


def figure(name: str, arrays: Arrays) -> Figure:
    """Return the figure of one result.

    Args:
        name: Name of the result, one of `FIGURES`.
        arrays: Its arrays.
    """
    with matplotlib.rc_context(STYLE):
        return FIGURES[name](arrays)


def _axes(columns: int, width: float = 5.2, height: float = 3.9) -> tuple[Figure, list[Axes]]:
    made = Figure(figsize=(width * columns, height))
    return made, [made.add_subplot(1, columns, k + 1) for k in range(columns)]


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y)


def lemma_1(a: Arrays) -> Figure:
    """Smallest significant gap by size; observed gaps of real oracles against the bound."""
    made, (left, right) = _axes(2)
    who = ("population accuracy known", "test set of 360", "test set of 10,000")
    for curve, color, dash, name in zip(a["curves"], CYCLE, ("-", "--", "-."), who, strict=False):
        left.loglog(a["sizes"], curve, dash, color=color, label=name)
    left.legend()
    _label(left, "Smallest gap that is significant at 95 %", "size of the forget set |F|", "accuracy gap t (share)")
    right.step(a["thresholds"], a["observed"][1], color=RED, label="pretrained (has seen F)", where="post")
    right.step(a["thresholds"], a["observed"][0], color=GREEN, label="oracle (has not)", where="post")
    right.plot(a["thresholds"], a["bound"], "--", color="#1c2126", label="Lemma 1's bound on oracles")
    right.set_ylim(-0.03, 1.5)
    right.legend(loc="upper right")
    _label(
        right,
        "Random forget sets of digits",
        "accuracy gap t, forget against test",
        "share of sets with gap of t or more",
    )
    return made


def lemmas_2_to_5(a: Arrays) -> Figure:
    """Phase diagrams, and the distance ratio by forget weight."""
    made, panels = _axes(len(a["ridges"]) + 1, 4.1, 4.3)
    colors = [GREEN, RED, ORANGE, "#3a3f45", "#cfd3d8"]
    words = ["towards the oracle", "away from it", "past it", "to infinity"]
    for axes, ridge, codes in zip(panels, a["ridges"], a["codes"], strict=False):
        axes.pcolormesh(
            a["relative"],
            a["share"],
            codes,
            cmap=ListedColormap(colors),
            norm=BoundaryNorm(np.arange(-0.5, 5.5), 5),
            shading="nearest",
            rasterized=True,
        )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.grid(False)
        _label(axes, f"lambda = {ridge:g}", "alpha in units of |F| / |R|", "forget share |F| / |D|")
    made.legend(
        handles=[Patch(color=c, label=w) for c, w in zip(colors, words, strict=False)],
        loc="outside lower center",
        ncols=4,
    )
    last = panels[-1]
    for curve, alpha, color in zip(a["ratios"], a["alphas"], CYCLE, strict=False):
        last.plot(a["weights"], np.where(np.isfinite(curve), curve, np.nan), color=color, label=f"alpha = {alpha:g}")
    last.axhline(1, color=GREY, lw=1, ls=":")
    last.set_ylim(0, 3)
    last.legend(title="|R| 90, |F| 10", loc="upper center")
    _label(
        last,
        "Which forget weight helps",
        "forget weight a (0 oracle, 1 pretrained)",
        "distance / distance of doing nothing",
    )
    return made


def corollary_1(a: Arrays) -> Figure:
    """Distance of descent-ascent from the oracle as the ridge vanishes."""
    made, (axes,) = _axes(1, 6.5)
    for pair, line, group, color in zip(a["pairs"], a["asymptote"], a["groups"], CYCLE, strict=False):
        axes.semilogx(a["ridges"], pair[:, 1], color=color, label=f"|w_R - w_DA|, |R_j| / |R| = {group:g}")
        axes.semilogx(a["ridges"], line, ":", color=color, lw=1)
    axes.semilogx(a["ridges"], a["pairs"][0, :, 0], color="#1c2126", ls="--", label="|w_R - w_D| (all: zero)")
    axes.legend()
    _label(axes, "At alpha = |F| / |R|; dotted: log(|R_j| / (lambda |R|))", "ridge lambda", "distance from the oracle")
    return made


def alternating(a: Arrays) -> Figure:
    """Errors of the doubled-ridge prediction, and the case where it fails."""
    made, (left, right) = _axes(2)
    left.loglog(a["rates"], a["step_errors"], "o-", ms=3, color=BLUE, label="one step")
    left.loglog(a["rates"], a["rest_errors"], "s-", ms=3, color=ORANGE, label="point of rest")
    for power, reference in ((2, a["step_errors"]), (1, a["rest_errors"])):
        left.loglog(a["rates"], reference[0] * 2 * (a["rates"] / a["rates"][0]) ** power, ":", color=GREY, lw=1)
    left.legend()
    _label(left, "Error of the prediction (dotted: slopes 1 and 2)", "step size eta", "|alternating - predicted|")
    right.plot(a["simultaneous"], "--", color=RED, label="simultaneous, ridge 2 lambda")
    right.plot(a["path"], color=GREEN, label="alternating")
    right.set_xlim(0, max(60, 3 * len(a["simultaneous"])))
    right.legend()
    _label(right, "Ascent stronger than descent, eta = 0.1", "steps", "weight w")
    return made


def two_directions(a: Arrays) -> Figure:
    """All stationary points as alpha grows: minimum and saddle meet and vanish."""
    made, panels = _axes(2)
    for axis, (axes, name) in enumerate(
        zip(panels, ("x, margin of retained points", "y, margin of forgotten points"), strict=True)
    ):
        axes.axhline(a["oracle"][axis], color=GREEN, ls="-.", label="oracle")
        axes.plot(a["alphas"], a["path"][axis], color=BLUE, label="pretrained")
        axes.plot(a["alphas"], a["path"][2 + axis], color=RED, label="descent-ascent: minimum")
        axes.plot(a["alphas"], a["path"][4 + axis], ":", color=RED, label="descent-ascent: saddle")
        alive = np.isfinite(a["path"][2])
        if not alive.all():
            axes.axvspan(
                a["alphas"][alive].max(), a["alphas"].max(), color="#d9dde1", lw=0, label="no stationary point"
            )
        _label(axes, name, "alpha = |F_j| / r", "margin (nats)")
    panels[0].legend()
    return made


def figure_4(a: Arrays) -> Figure:
    """Provable and true windows of alpha."""
    count = len(a["forgets"])
    made, panels = _axes(count, 3.7, 4.2)
    for axes, forget, rows in zip(panels, a["forgets"], a["windows"], strict=True):
        scale = forget / (1 - forget)
        true = rows[:, 2] < rows[:, 3]
        axes.fill_between(
            a["correlations"], rows[:, 2] / scale, rows[:, 3] / scale, where=true, color=SKY, alpha=0.45, lw=0
        )
        proved = rows[:, 0] < rows[:, 1]
        axes.fill_between(
            a["correlations"], rows[:, 0] / scale, rows[:, 1] / scale, where=proved, color=RED, alpha=0.75, lw=0
        )
        axes.set_ylim(0, 1.25)
        _label(axes, f"|F| / |D| = {forget:g}", "correlation eps", "alpha in units of |F| / |R|")
    handles = [
        Patch(color=RED, alpha=0.75, label="harm proved (Lemmas 9 and 10)"),
        Patch(color=SKY, alpha=0.45, label="harm, from the solutions themselves"),
    ]
    made.legend(handles=handles, loc="outside lower center", ncols=2)
    return made


def appendix_j(a: Arrays) -> Figure:
    """Convergence to one direction."""
    made, (axes,) = _axes(1, 6.5)
    for k, (name, color, dash) in enumerate(
        (("pretrained", BLUE, "-"), ("oracle", GREEN, "--"), ("descent-ascent", RED, "-."))
    ):
        axes.loglog(a["gaps"], np.maximum(a["errors"][:, k], 1e-16), dash, color=color, label=name)
    axes.legend()
    _label(axes, "Two directions become one", "1 - eps", "distance from the one-direction formula")
    return made


def figure_5(a: Arrays) -> Figure:
    """Landscapes in three conventions with minima and paths."""
    names = ("literal: targets ±1, output σ", "symmetric: targets ±1, output 2σ − 1", "zero-one: targets 0/1, output σ")
    objectives = ("pretrained", "oracle", "descent-ascent")
    made = Figure(figsize=(11.5, 10.2))
    grid = made.subplots(3, 3, sharex=True, sharey=True)
    for i in range(3):
        for j in range(3):
            axes = grid[i][j]
            loss = a["losses"][i, j]
            levels = loss.min() + (np.quantile(loss, 0.85) - loss.min()) * np.linspace(0, 1, 16) ** 2
            axes.contourf(a["axis_a"], a["axis_b"], loss, levels=levels, cmap="cividis_r", extend="max")
            axes.grid(False)
            marks = a["minima"][i]
            down, tune = a["paths"][i]
            if j == 2:
                axes.plot(down[:, 0], down[:, 1], color=RED, lw=2)
            if j == 1:
                axes.plot(tune[:, 0], tune[:, 1], color="#ffffff", lw=3.5)
                axes.plot(tune[:, 0], tune[:, 1], color=RED, lw=2)
            for (x, y), marker, color in zip(marks, "osX", ("#ffffff", "#56B4E9", "#D55E00"), strict=False):
                axes.plot(x, y, marker, color=color, mec="#1c2126", ms=9)
            axes.plot(*marks[3], "P", color=PURPLE, mec="#1c2126", ms=7)
            axes.set_title(f"{objectives[j]}" if i else f"loss of {objectives[j]}")
            if i == 2:
                axes.set_xlabel("a, coefficient of x")
            if j == 0:
                axes.set_ylabel(names[i] + "\nb, coefficient of x²")
    handles = [
        Line2D([], [], ls="", marker=m, color=c, mec="#1c2126", ms=9, label=t)
        for m, c, t in (
            ("o", "#ffffff", "pretrained minimum"),
            ("s", "#56B4E9", "oracle minimum"),
            ("X", "#D55E00", "where unlearning ends"),
            ("P", PURPLE, "where fine-tuning on R ends"),
        )
    ]
    made.legend(handles=handles, loc="outside lower center", ncols=4)
    return made


def teacher_mixture(a: Arrays) -> Figure:
    """Distance by weight and by elastic pull, and where ascent helps."""
    made, panels = _axes(4, 4.4, 4.1)
    before = float(a["limits"][2])
    panels[0].semilogy(a["gammas"], a["exact"][:, 0], color=BLUE, label="theory")
    mean, spread = a["simulated"].mean(0), a["simulated"].std(0, ddof=1) / math.sqrt(len(a["simulated"]))
    panels[0].errorbar(
        [-1, 0.3], mean[:2], yerr=3 * spread[:2], fmt="o", color=RED, ms=5, capsize=3, label="simulation, 3 s.e."
    )
    panels[0].axhline(before, color=GREY, ls=":", lw=1.2)
    panels[0].axvline(a["limits"][1], color="#1c2126", ls="--", lw=1.2, label="no minimum beyond")
    panels[0].set_ylim(1e-5, 10)
    panels[0].legend(loc="lower left")
    _label(
        panels[0], "Descent-ascent by weight", "ascent weight gamma (-1: do nothing)", "squared distance to oracle / d"
    )
    panels[1].loglog(a["pulls"], a["tuned"], color=BLUE, label="fine-tuning on R with pull kappa")
    panels[1].axhline(before, color=GREY, ls=":", label="doing nothing")
    panels[1].legend(loc="lower right")
    _label(panels[1], "Fine-tuning that stays near", "elastic pull kappa", "squared distance to oracle / d")
    for axes, key, rows, name in (
        (panels[2], "by_share", a["shares"], "forgotten share of group -"),
        (panels[3], "by_correlation", a["correlations"], "group-label correlation m"),
    ):
        mesh = axes.pcolormesh(a["similarities"], rows, a[key], cmap="cividis", shading="nearest", rasterized=True)
        axes.grid(False)
        axes.set_facecolor("#eceef0")
        made.colorbar(mesh, ax=axes, label="largest gamma that helps")
        _label(axes, "Where ascent beats doing nothing", "similarity of the two rules q", name)
    return made


def skew(a: Arrays) -> Figure:
    """Cost of forgetting, tracks of fine-tuning, geometric skew."""
    made, (left, middle, right) = _axes(3, 4.6)
    for cost, p, color in zip(a["cost"], a["agreements"], CYCLE, strict=False):
        left.semilogx(a["pretraining"], cost, color=color, label=f"p = {p:g}")
    left.legend()
    left.set_ylim(0)
    _label(
        left, "Time until the trace is a tenth (R balanced)", "pretraining time", "fine-tuning time / pretraining time"
    )
    names = ("R balanced", "F is the whole minority")
    for k, (name, color) in enumerate(zip(names, (BLUE, RED), strict=True)):
        middle.semilogx(a["times"], a["tracks"][0, k], color=color, label=f"fine-tuned, {name}")
        middle.semilogx(a["times"], a["tracks"][1, k], "--", color=color, label=f"oracle, {name}")
    middle.legend()
    _label(middle, "Statistical skew", "training time on R", "spurious weight v")
    for curve, noise, color in zip(a["margin"], a["noises"], CYCLE, strict=False):
        right.plot(a["minorities"], curve, color=color, label=f"noise length {noise:g}")
    right.legend()
    _label(right, "Geometric skew: 100 majority points", "minority points", "spurious / invariant weight, max margin")
    return made


def exact_oracles(a: Arrays) -> Figure:
    """Removal estimates against exact oracles."""
    made, panels = _axes(2)
    for axes, errors, name in zip(panels, a["errors"], ("Ridge regression", "Logistic regression"), strict=True):
        for row, color, mark, who in zip(
            errors,
            (GREY, ORANGE, BLUE),
            "os^",
            ("doing nothing", "influence function", "Newton step on R"),
            strict=True,
        ):
            axes.loglog(a["sizes"], np.maximum(row, 1e-16), f"{mark}-", ms=4, color=color, label=who)
        _label(axes, name, "size of the forget set |F| (of 400)", "distance to the oracle")
    panels[0].legend()
    return made


FIGURES: dict[str, Callable[[Arrays], Figure]] = {
    "lemma-1": lemma_1,
    "lemmas-2-5": lemmas_2_to_5,
    "corollary-1": corollary_1,
    "alternating": alternating,
    "two-directions": two_directions,
    "fig-4": figure_4,
    "app-j": appendix_j,
    "fig-5": figure_5,
    "teacher-mixture": teacher_mixture,
    "skew": skew,
    "exact-oracles": exact_oracles,
}
"""How each result is drawn."""
