"""Spans and windows: which steps around an anchor a system reads of each feature, by row or by time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from retrodict.errors import DataError

Edge = Literal["replicate", "drop"]


@dataclass(frozen=True)
class Span:
    """Steps around an anchor: `before` steps back, the anchor, `after` steps on.

    Attributes:
        before, after: how many steps back and on, T = before + 1 + after.
        stride: rows between steps. A tuple is drawn from for every window; all spans that have the same tuple get the same draw.
        offset: rows by which the whole span is moved; seconds where `every` is given.
        every: seconds between steps, in place of `stride`: the row nearest in time is read, by `fps` or by an irregular
            `timestamp`; steps that have no row within half of `every` are marked False in the mask.
    """

    before: int = 0
    after: int = 0
    stride: int | tuple[int, ...] = 1
    offset: float = 0
    every: float | None = None

    def __post_init__(self) -> None:
        if self.before < 0 or self.after < 0 or min(self.strides) < 1 or (self.every is not None and self.every <= 0):
            raise DataError(f"{self}: before and after are at least 0, strides at least 1, every above 0; offset moves a span.")
        if self.every is not None and self.stride != 1:
            raise DataError(f"{self}: give either a stride in rows or every in seconds.")
        if self.every is None and self.offset != int(self.offset):
            raise DataError(f"{self}: the offset counts rows; give every for a span in seconds.")

    def __len__(self) -> int:
        return self.before + 1 + self.after

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides that may be drawn, ascending."""
        return (self.stride,) if isinstance(self.stride, int) else tuple(sorted(self.stride))

    @property
    def steps(self) -> np.ndarray:
        """Steps relative to the anchor, (T,), at the largest stride; in seconds where `every` is given."""
        numbers = np.arange(-self.before, self.after + 1)
        return numbers * (self.strides[-1] if self.every is None else self.every) + self.offset


@dataclass(frozen=True)
class Between:
    """Every row from the window's first step up to, not including, its last: the k actions of a pair k steps apart.

    Where the stride is drawn it is as long as the largest needs, and marked False in the mask past the one drawn.
    """


Reading = Span | Between | tuple[Span, ...]
"""What is read of a feature: a span, the rows between, or several spans one after the other (past and future)."""


@dataclass(frozen=True)
class Window:
    """What a system reads around a step.

    Attributes:
        before, after, stride, offset, every: the span read around the anchor, T = before + 1 + after steps; see `Span`.
        features: names read with that span, or a mapping name -> own `Span`, `Between()` or several spans one after the other
            (None for the window's).
        optional: features that an episode may lack; they come as zeros with `mask.<feature>` False there, and not at all where
            no episode has them.
        edge: windows that overrun their episode repeat its first or last step, marked False in the mask (`replicate`), or are
            left out (`drop`); never zero-filled. A pair says it for the start and for the end.
        image_size: (height, width) to which camera frames are brought; None keeps theirs.
        reverse: probability with which a window is read backwards in time.
    """

    before: int = 0
    after: int = 0
    features: tuple[str, ...] | Mapping[str, Reading | None] = ()
    stride: int | tuple[int, ...] = 1
    offset: float = 0
    optional: tuple[str, ...] = ()
    edge: Edge | tuple[Edge, Edge] = "replicate"
    image_size: tuple[int, int] | None = None
    every: float | None = None
    reverse: float = 0.0

    def __post_init__(self) -> None:
        drawn = {span.stride for span in self.all_spans if isinstance(span.stride, tuple)}
        if len(drawn) > 1:
            raise DataError(f"one stride is drawn for each window, but its spans draw from {' and '.join(map(str, drawn))}.")
        if any(isinstance(reading, Between) for reading in self.spans.values()) and len(self) < 2:
            raise DataError("Between() reads the rows between a window's steps; this window has one step.")

    @property
    def span(self) -> Span:
        return Span(self.before, self.after, self.stride, self.offset, self.every)

    @property
    def spans(self) -> dict[str, Reading]:
        """Feature name -> what is read of it."""
        if isinstance(self.features, Mapping):
            return {name: self.span if reading is None else reading for name, reading in self.features.items()}
        return dict.fromkeys(self.features, self.span)

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides that are drawn from, ascending; empty where nothing is drawn."""
        return next((span.strides for span in self.all_spans if isinstance(span.stride, tuple)), ())

    @property
    def edges(self) -> tuple[Edge, Edge]:
        """What happens at the start and at the end of an episode."""
        return self.edge if isinstance(self.edge, tuple) else (self.edge, self.edge)

    def __len__(self) -> int:
        return len(self.span)

    @property
    def all_spans(self) -> list[Span]:
        """The window's own span and those of its features."""
        spans = [self.span]
        for reading in self.spans.values():
            spans += [reading] if isinstance(reading, Span) else reading if isinstance(reading, tuple) else []
        return spans
