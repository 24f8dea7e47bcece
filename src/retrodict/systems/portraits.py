"""Pictures of a law that was learned: what it does beside what was recorded, and the graph of its regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

DATA, MODEL = "#7a7a7a", "#c2410c"


def portrait(data: np.ndarray, path: np.ndarray, dt: float, names: Sequence[str]) -> Figure:
    """Attractor, time course and power spectra of a recording (T, N) and of a free run (T', N).

    Up to three channels span the attractor. A run that diverged is drawn as far as it is finite.
    """
    good = np.isfinite(path).all(1)
    path = path if good.all() else path[: int((~good).argmax())]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    shown = min(data.shape[1], 3)
    space = figure.add_subplot(1, 3, 1, projection="3d" if shown == 3 else None)
    course, spectrum = figure.add_subplot(1, 3, 2), figure.add_subplot(1, 3, 3)
    for series, colour, label in ((data, DATA, "recorded"), (path, MODEL, "simulated")):
        if len(series) < 2:
            continue
        axes = series[:, :shown] if shown > 1 else np.stack([series[:-1, 0], series[1:, 0]], 1)
        space.plot(*axes.T, color=colour, linewidth=0.6, label=label)
        stretch = series[: max(200, len(series) // 4)]
        course.plot(np.arange(len(stretch)) * dt, stretch[:, 0], color=colour, linewidth=1, label=label)
        power = np.abs(np.fft.rfft(series[:, 0] - series[:, 0].mean())) ** 2 / len(series)
        spectrum.loglog(np.fft.rfftfreq(len(series), dt)[1:], power[1:], color=colour, linewidth=0.8, label=label)
    space.set(xlabel=names[0], ylabel=names[1] if shown > 1 else f"{names[0]}, one step on", title="attractor")
    if shown == 3:
        space.set(zlabel=names[2])
    course.set(xlabel="time", ylabel=names[0], title="course")
    spectrum.set(xlabel="frequency", ylabel=f"power of {names[0]}", title="spectrum")
    course.legend(frameon=False, fontsize=8)
    return figure


def draw_graph(ax: Axes, names: Sequence[str], occupancy: np.ndarray, transitions: np.ndarray) -> None:
    """Regions on a circle, as large as they are often visited, with arrows as wide as a change is likely.

    Args:
        ax: where to draw.
        names: one per region.
        occupancy: share of the time (R,).
        transitions: (R, R), probability of the next region, staying included.
    """
    count = len(names)
    angle = np.pi / 2 - 2 * np.pi * np.arange(count) / count
    places = np.stack([np.cos(angle), np.sin(angle)], 1) * (count > 1)
    sizes = 300 + 2500 * occupancy
    ax.scatter(places[:, 0], places[:, 1], s=sizes, color="#e7d8c9", edgecolor=MODEL, zorder=2)
    for i, j in np.argwhere(transitions > 0):
        if i == j:
            continue
        ax.add_patch(
            FancyArrowPatch(
                places[i],
                places[j],
                connectionstyle="arc3,rad=0.2",
                arrowstyle="-|>",
                mutation_scale=12,
                shrinkA=np.sqrt(sizes[i]) / 2,
                shrinkB=np.sqrt(sizes[j]) / 2,
                linewidth=0.6 + 3 * float(transitions[i, j]) ** 0.5,
                color=DATA,
                zorder=1,
            )
        )
    for place, name, share, stay in zip(places, names, occupancy, np.diag(transitions), strict=True):
        ax.annotate(f"{name}\n{share:.1%}\nstays {stay:.0%}", place, ha="center", va="center", fontsize=7, zorder=3)
    ax.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", title="regions")
    ax.axis("off")
