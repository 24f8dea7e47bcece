"""Figures of a labelling and of policies: calibration, bars with intervals, curves. All return matplotlib figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retrodict import metrics
from retrodict.reports.style import FAINT, INK, SERIES, WRONG


def reliability(answers: Mapping[str, tuple[np.ndarray, np.ndarray]], bins: int = 15) -> Figure:
    """How often labels are right against how sure they say they are; on the diagonal, confidence is the chance of being right.

    Args:
        answers: what to compare (such as before and after calibration) -> (confidence (n,) in [0, 1], right (n,) bool).
        bins: bins of equally many labels each.
    """
    figure, (curve, spread) = _axes(4.4, 4.9, height_ratios=(5, 1))
    curve.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    edges = np.linspace(0, 1, 26)
    for colour, (name, (confidence, right)) in zip(SERIES, answers.items(), strict=False):
        found = metrics.reliability(confidence, right, bins)
        curve.plot(found.confidence, found.accuracy, color=colour, marker="o", markersize=4, linewidth=1.6, label=name)
        share = np.histogram(confidence, edges)[0] / found.counts.sum()
        spread.stairs(share, edges, color=colour, linewidth=1.4)
    curve.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that is right", aspect="equal")
    spread.set(xlabel="confidence of a label", ylabel="share\nof labels", ylim=(0, None))
    _legend(curve, "upper left")
    return figure


def bars(values: Mapping[str, tuple[float, float, float]], axis: str, reference: tuple[str, float] | None = None) -> Figure:
    """Means with confidence intervals, one bar each, with the numbers written out.

    Args:
        values: name -> (mean, low, high).
        axis: what is measured, with its unit.
        reference: a named line to compare with.
    """
    figure, (ax,) = _axes(6.6, 0.55 + 0.5 * len(values))
    places = np.arange(len(values))[::-1]
    for i, (place, (mean, low, high)) in enumerate(zip(places, values.values(), strict=True)):
        ax.barh(place, mean, height=0.55, color=SERIES[i % len(SERIES)], alpha=0.85)
        ax.plot([low, high], [place, place], color=INK, linewidth=1.4, solid_capstyle="butt")
        ax.annotate(
            f"{_number(mean)}  [{_number(low)}, {_number(high)}]",
            (max(high, mean), place),
            (7, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
        )
    if reference is not None:
        ax.axvline(reference[1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        ax.annotate(reference[0], (reference[1], 1), (3, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
                    fontsize=8.5, color=FAINT)  # fmt: skip
    ax.set_yticks(places, list(values))
    ax.set_xlabel(axis)
    ax.margins(x=0.25)
    ax.set_xlim(left=min(0, *(low for _, low, _ in values.values())))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return figure


def lines(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], x: str, y: str) -> Figure:
    """Curves name -> (x (n,), y (n,)), such as losses over steps or errors over budgets."""
    figure, (ax,) = _axes(6.2, 3.2)
    for i, (name, (along, up)) in enumerate(curves.items()):
        ax.plot(along, up, color=SERIES[i % len(SERIES)], linewidth=1.6, label=name)
    ax.set(xlabel=x, ylabel=y)
    if len(curves) > 1:
        _legend(ax, "best")
    return figure


def histogram(counts: Sequence[int] | np.ndarray, axis: str, mark: tuple[str, float] | None = None) -> Figure:
    """How values in [0, 1] are spread over bins of equal width, with a marked threshold where there is one."""
    figure, (ax,) = _axes(6.2, 2.4)
    ax.stairs(counts, np.linspace(0, 1, len(counts) + 1), fill=True, color=SERIES[0], alpha=0.85)
    if mark is not None:
        ax.axvline(mark[1], color=WRONG, linewidth=1.4)
        side = "right" if mark[1] > 0.5 else "left"
        ax.annotate(mark[0], (mark[1], 1), (-5 if side == "right" else 5, -4), xycoords=("data", "axes fraction"),
                    textcoords="offset points", ha=side, va="top", fontsize=9, color=WRONG)  # fmt: skip
    ax.set(xlabel=axis, ylabel="steps", xlim=(0, 1))
    return figure


# ---- drawing --------------------------------------------------------------------------------------------------------------


def _axes(width: float, height: float, height_ratios: tuple[int, ...] = (1,)) -> tuple[Figure, list[Axes]]:
    """Axes one below the other, sharing x, drawn in the page's ink on nothing."""
    with matplotlib.rc_context({"font.size": 9.5, "text.color": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(len(height_ratios), 1, sharex=True, squeeze=False, height_ratios=height_ratios)
    axes: list[Axes] = grid[:, 0].tolist()
    for ax in axes:
        ax.set_facecolor("none")
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(FAINT)
        ax.tick_params(color=FAINT, labelcolor=INK, labelsize=9)
    return figure, axes


def _legend(ax: Axes, place: Literal["upper left", "best"]) -> None:
    ax.legend(loc=place, frameon=False, fontsize=9, labelcolor=INK, handlelength=1.4)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
