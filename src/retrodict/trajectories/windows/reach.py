"""Reach: where the steps that a window reads lie in their episodes, for many anchors at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.windows.spans import Between, Edge, Reading, Span, Window


class Clock:
    """Irregular times of the steps of many episodes, for finding the row nearest to a time."""

    def __init__(self, timestamps: Sequence[np.ndarray], names: Sequence[str]) -> None:
        for times, name in zip(timestamps, names, strict=True):
            if not (np.diff(times) >= 0).all():
                raise DataError(
                    f"{name}: its timestamps go back at step {int((np.diff(times) < 0).argmax()) + 1}; they must ascend."
                )
        self.lengths = np.array([len(times) for times in timestamps])
        self.begins = np.cumsum(self.lengths) - self.lengths
        spans = np.array([times[-1] - times[0] for times in timestamps]) + 1
        # Episodes are laid behind each other on one axis, a second apart, so that one search serves a whole batch.
        self.shifts = np.cumsum(spans) - spans - np.array([times[0] for times in timestamps])
        self.axis = np.concatenate([times + shift for times, shift in zip(timestamps, self.shifts, strict=True)])

    def nearest(self, positions: np.ndarray, frames: np.ndarray, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows (B, T) nearest to `seconds` (T,) around the anchors, and by how many seconds they come too early."""
        begin = self.begins[positions][:, None]
        last = begin + self.lengths[positions][:, None] - 1
        wanted = self.axis[begin[:, 0] + frames][:, None] + seconds
        after = np.clip(np.searchsorted(self.axis, wanted), begin, last)
        before = np.clip(after - 1, begin, last)
        rows = np.where(wanted - self.axis[before] <= self.axis[after] - wanted, before, after)
        return rows - begin, wanted - self.axis[rows]


class Reach(ABC):
    """Where one reading lies around anchors: `frames` (B,) of episodes at `positions` (B,) that have `lengths` (B,) steps."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of steps T."""

    @abstractmethod
    def locate(
        self, positions: np.ndarray, frames: np.ndarray, lengths: np.ndarray, strides: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Steps (B, T) held within their episodes, and a mask (B, T) of those that truly lie there; `strides` (B,) as drawn."""

    @abstractmethod
    def fits(
        self, positions: np.ndarray, frames: np.ndarray, lengths: np.ndarray, stride: int, edges: tuple[Edge, Edge]
    ) -> np.ndarray:
        """True (N,) for the anchors whose steps, at that stride, do not overrun an end where the edge is `drop`."""


class Rows(Reach):
    """Steps counted in rows: `multiple * stride drawn + constant` from the anchor."""

    def __init__(self, spans: Sequence[Span], fps: float | None) -> None:
        multiples, constants = [], []
        for span in spans:
            if isinstance(span.stride, tuple):
                multiples.append(np.arange(-span.before, span.after + 1))
                constants.append(np.full(len(span), int(span.offset)))
            else:
                multiples.append(np.zeros(len(span), np.int64))
                constants.append(np.rint(span.steps * (1 if span.every is None else fps)).astype(np.int64))
        self.multiples, self.constants = np.concatenate(multiples), np.concatenate(constants)
        self.drawn = bool(self.multiples.any())

    def __len__(self) -> int:
        return len(self.constants)

    def relative(self, strides: np.ndarray) -> np.ndarray:
        """Rows from the anchor, (T,), or (B, T) where they depend on the stride."""
        return self.multiples * strides[:, None] + self.constants if self.drawn else self.constants

    def locate(
        self, positions: np.ndarray, frames: np.ndarray, lengths: np.ndarray, strides: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        steps = frames[:, None] + self.relative(strides)
        held = np.clip(steps, 0, lengths[:, None] - 1)
        return held, held == steps

    def fits(
        self, positions: np.ndarray, frames: np.ndarray, lengths: np.ndarray, stride: int, edges: tuple[Edge, Edge]
    ) -> np.ndarray:
        relative = self.relative(np.array([stride]))
        overruns = np.zeros(len(frames), bool)
        if edges[0] == "drop":
            overruns |= frames + relative.min() < 0
        if edges[1] == "drop":
            overruns |= frames + relative.max() >= lengths
        return ~overruns


class RowsBetween(Rows):
    """The rows from the first step of a span up to its last."""

    def __init__(self, span: Span, fps: float | None) -> None:
        scale = 1 if span.every is None else fps or 0
        self.largest = span.strides[-1] if span.every is None else int(np.rint(span.every * scale))
        self.hops, self.drawn = len(span) - 1, isinstance(span.stride, tuple)
        self.before, self.offset = span.before, int(np.rint(span.offset * scale))
        self.numbers = np.arange(self.hops * self.largest)

    def __len__(self) -> int:
        return len(self.numbers)

    def relative(self, strides: np.ndarray) -> np.ndarray:
        stride = strides[:, None] if self.drawn else np.array([[self.largest]])
        return np.asarray(self.offset - self.before * stride + np.minimum(self.numbers, self.hops * stride - 1))

    def locate(
        self, positions: np.ndarray, frames: np.ndarray, lengths: np.ndarray, strides: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        held, inside = super().locate(positions, frames, lengths, strides)
        return held, inside & (self.numbers < self.hops * strides[:, None]) if self.drawn else inside


class Times(Reach):
    """Steps counted in seconds on an irregular clock: the nearest row, if one lies within half the time between steps."""

    def __init__(self, spans: Sequence[Span], clock: Clock) -> None:
        self.clock = clock
        self.seconds = np.concatenate([span.steps for span in spans])
        # A little more than half, so that rounding does not decide about rows that lie exactly between two steps.
        self.tolerance = np.concatenate([np.full(len(span), span.every or 0.0) for span in spans]) * 0.5000005

    def __len__(self) -> int:
        return len(self.seconds)

    def locate(
        self, positions: np.ndarray, frames: np.ndarray, lengths: np.ndarray, strides: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        steps, off = self.clock.nearest(positions, frames, self.seconds)
        return steps, np.abs(off) <= self.tolerance

    def fits(
        self, positions: np.ndarray, frames: np.ndarray, lengths: np.ndarray, stride: int, edges: tuple[Edge, Edge]
    ) -> np.ndarray:
        ends = [int(self.seconds.argmin()), int(self.seconds.argmax())]
        steps, off = self.clock.nearest(positions, frames, self.seconds[ends])
        overruns = np.zeros(len(frames), bool)
        if edges[0] == "drop":
            overruns |= (steps[:, 0] == 0) & (off[:, 0] < -self.tolerance[ends[0]])
        if edges[1] == "drop":
            overruns |= (steps[:, 1] == lengths - 1) & (off[:, 1] > self.tolerance[ends[1]])
        return ~overruns


def reach(window: Window, reading: Reading, fps: float | None, clock: Clock | None) -> Reach:
    """The reach of a reading of a window; `clock` serves spans in seconds where there is no `fps`."""
    if isinstance(reading, Between):
        if window.every is not None and fps is None:
            raise DataError("Between() counts rows, and there is no steady number of them between seconds on an irregular clock.")
        return RowsBetween(window.span, fps)
    spans = (reading,) if isinstance(reading, Span) else reading
    in_seconds = [span.every is not None for span in spans]
    if fps is not None or not any(in_seconds):
        return Rows(spans, fps)
    if clock is None or not all(in_seconds):
        raise DataError(
            "these recordings have an irregular clock; the spans of one feature are all in seconds or all in rows there."
        )
    return Times(spans, clock)
