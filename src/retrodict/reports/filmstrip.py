"""Filmstrips: frames with what was done after each, from several sources, to be compared by eye."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from retrodict.errors import DataError
from retrodict.metrics import Rightness
from retrodict.reports.style import FAINT, INK, RIGHT, WRONG
from retrodict.trajectories import ActionSpace, Discrete, MultiBinary

WIDTH, LEFT, GAP, LINE, PARAGRAPH, LETTER = 11.0, 0.75, 0.09, 0.155, 0.07, 0.069
"""Inches: the strip, its left margin for the sources' names, between frames, a line of text, more between sources, a letter."""


def filmstrip(
    frames: np.ndarray,
    space: ActionSpace,
    actions: Mapping[str, np.ndarray],
    confidence: np.ndarray | None = None,
    columns: int = 8,
) -> Figure:
    """Frames with, below each, what was done after it: one paragraph per source, such as `true` and `inferred`.

    Where the second source is wrong by the first (see `metrics.Rightness`), it and the frame are drawn in the colour of errors.

    Args:
        frames: (n, H, W, C) uint8.
        space: what the flat actions mean.
        actions: source -> flat actions (n, width).
        confidence: (n,) in [0, 1], written below.
        columns: frames in a row.

    Raises DataError when the number of actions is not the number of frames.
    """
    for source, flat in actions.items():
        if len(flat) != len(frames):
            raise DataError(f"filmstrip: {len(flat)} {source!r} actions were given for {len(frames)} frames.")
    flats = list(actions.values())
    agree = Rightness.of(space, flats[0]).joint(flats[1], flats[0]) if len(flats) > 1 else None

    wide = (WIDTH - LEFT) / columns - GAP
    words = {source: [_wrapped(spell(space, action), wide) for action in flat] for source, flat in actions.items()}
    tall = wide * frames.shape[1] / frames.shape[2]
    deepest = {source: max(map(len, said)) for source, said in words.items()}
    below = sum(LINE * n + PARAGRAPH for n in deepest.values()) + (LINE if confidence is not None else 0) + 0.32
    rows = -(-len(frames) // columns)
    height = rows * (tall + below)
    figure = Figure(figsize=(WIDTH, height))

    def write(x: float, y: float, text: str, colour: str, ha: str = "left") -> None:
        figure.text(x / WIDTH, y / height, text, color=colour, ha=ha, va="top", fontsize=8.5)

    for i, frame in enumerate(frames):
        x, y = LEFT + (i % columns) * (wide + GAP), height - (i // columns) * (tall + below) - tall
        axes = figure.add_axes((x / WIDTH, y / height, wide / WIDTH, tall / height))
        axes.set_axis_off()
        axes.imshow(frame.squeeze(-1) if frame.shape[-1] == 1 else frame, cmap="gray", interpolation="nearest", aspect="auto")
        if agree is not None:
            edge = RIGHT if agree[i] else WRONG
            axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, linewidth=2.4, edgecolor=edge))
        y -= 0.07
        for k, (source, said) in enumerate(words.items()):
            if i % columns == 0:
                write(LEFT - 0.1, y, source, FAINT, ha="right")
            wrong = k == 1 and agree is not None and not agree[i]
            for n, word in enumerate(said[i]):
                write(x, y - n * LINE, word, WRONG if wrong else INK)
            y -= deepest[source] * LINE + PARAGRAPH
        if confidence is not None:
            write(x, y, f"{confidence[i]:.0%} sure", FAINT)
    return figure


def spell(space: ActionSpace, action: np.ndarray) -> list[str]:
    """One flat action in words: a line for each button pressed, choice made and number other than zero, or `nothing`."""
    said = []
    decoded = space.decode(np.asarray(action, np.float32))
    for name, part in space.parts.items():
        if isinstance(part, MultiBinary):
            said += [_plain(button) for button, on in zip(part.names, decoded[name], strict=True) if on]
        elif isinstance(part, Discrete):
            said.append(_plain(part.names[int(decoded[name])]))
        else:
            said += [f"{_plain(n)} {v:+.2g}" for n, v in zip(part.names, decoded[name], strict=True) if abs(v) > 1e-6]
    return said or ["nothing"]


def _wrapped(said: list[str], wide: float) -> list[str]:
    return [line for word in said for line in textwrap.wrap(word, max(int(wide / LETTER), 8))]


def _plain(name: str) -> str:
    return name.lower().replace("_", " ")
