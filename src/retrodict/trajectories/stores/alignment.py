"""Which row of a log belongs to which frame of a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.stores.headers import Headers
from retrodict.trajectories.stores.logs import Log
from retrodict.trajectories.stores.series import seconds_of

SLACK = 0.1
"""A row up to this share of a frame late counts as in time: clocks are written with few digits, and rounding is no delay."""

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
LIKE = 10
"""A log up to so many times as long or as short as its videos is theirs; rows fewer frames apart than this follow the frames."""


@dataclass(frozen=True)
class Film:
    """A video to which a log belongs.

    Attributes:
        name: for messages.
        frames: how many it has.
        fps: frames per second, on average where they are uneven.
        uneven: where frames are not shown at equal intervals, when each is, in seconds from the first, (frames,).
    """

    name: str
    frames: int
    fps: float
    uneven: np.ndarray | None = None

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    @property
    def times(self) -> np.ndarray:
        """When each frame is shown, (frames,)."""
        return np.arange(self.frames) / self.fps if self.uneven is None else self.uneven


@dataclass(frozen=True)
class Match:
    """The row of a log for each frame of a video: the nearest at or before it.

    Attributes:
        rows: position among the rows of the video, (frames,).
        known: False for frames without a row, (frames,): those before the first (`rows` says the first), and those so long after
            the last one (which `rows` says) that another would have been due.
        mismatch: the longest time, in seconds, by which a row lies before its frame.
        means: `frame`, `time` or `order`: what was matched.
    """

    rows: np.ndarray
    known: np.ndarray
    mismatch: float
    means: str


def match(log: Log, headers: Headers, rows: np.ndarray, film: Film, *, from_start: bool) -> Match:
    """Match rows of a log with the frames of a video, by frame number where the log has it, else by time, else one by one.

    `from_start` says that the log's clock was not started with each video, so that its first row goes with the first frame.

    Raises DataError where frames or times do not fit the video, or nothing says what belongs together.
    """
    if headers.frame is not None:
        return _by_frame(log, headers.frame, rows, film)
    times = video_clock(log, headers, rows)
    if times is not None:
        return _by_time(log, times - times[0] if from_start else times, film)
    if len(rows) != film.frames:
        raise DataError(
            f"{log.path} has {len(rows)} rows for the {film.frames} frames of {film.name} and no column of times or frames; "
            "add a column called time or frame."
        )
    return Match(np.arange(len(rows)), np.ones(len(rows), bool), 0.0, "order")


def video_clock(log: Log, headers: Headers, rows: np.ndarray) -> np.ndarray | None:
    """The clock of rows in seconds, (rows,); None where there is none. Raises DataError where it runs backwards."""
    seconds = seconds_of(log, headers)
    if seconds is None:
        return None
    times = seconds[rows]
    if (back := np.flatnonzero(np.diff(times) < 0)).size:
        raise DataError(f"{log.path}, {log.line(int(rows[back[0] + 1]))}: its clock runs backwards; sort the rows.")
    return np.asarray(times)


def unit_by_length(where: str, clocks: Sequence[np.ndarray], films: Sequence[Film]) -> float:
    """The unit in seconds of a clock that does not say it: the one in which all logs together are about as long as their videos.

    Args:
        where: the file and the column, for messages.
        clocks: of the rows of each video, (rows,), in the unknown unit.
        films: the videos.

    Raises DataError where they are in no unit; and where they are, but with far more rows than frames, while in a longer unit
    rows follow the frames: of a session that was logged throughout and filmed for a moment, or of a very fast log.
    """
    span, seconds = sum(float(np.ptp(clock)) for clock in clocks), sum(film.seconds for film in films)
    apart = span / max(sum(len(clock) - 1 for clock in clocks), 1) * sum(film.frames for film in films) / seconds
    fitting = [name for name, unit in UNITS.items() if seconds / LIKE <= span * unit <= seconds * LIKE]
    if fitting:
        best = fitting[0]
        following = [name for name, unit in UNITS.items() if unit > UNITS[best] and apart * unit < LIKE]
        if not following:
            return UNITS[best]
        longer = following[-1]
        why = f"in {best} it has {1 / (apart * UNITS[best]):.4g} rows a frame, in {longer} rows lie "
        why += f"{apart * UNITS[longer]:.3g} frames apart but go on far longer"
    else:
        why = "no unit makes them alike"
    lengths = ", ".join(f"{span * unit:.4g} s if it counts {name}" for name, unit in UNITS.items())
    raise DataError(
        f"{where} does not say its unit, and the length of the {len(films)} video(s) does not tell: they last {seconds:.4g} s "
        f"and the log {lengths}; {why}. Name the unit: call the column time_s, time_ms, time_us or time_ns."
    )


def _by_time(log: Log, times: np.ndarray, film: Film) -> Match:
    shown = film.times
    rows = np.searchsorted(times, shown + SLACK / film.fps, side="right") - 1
    known = (rows >= 0) & (shown < _ends(times, 1 / film.fps))
    if not known.any():
        raise DataError(
            f"{log.path} goes from {times[0]:g} to {times[-1]:g} s and {film.name} from 0 to {film.seconds:g} s: no frame "
            "has a row."
        )
    mismatch = float(np.max(shown[known] - times[rows[known]], initial=0.0))
    return Match(np.maximum(rows, 0), known, mismatch, "time")


def _ends(clock: np.ndarray, frame: float) -> float:
    """From when on the last row of a log holds no longer: its longest interval after that row, or one frame."""
    return float(clock[-1] + (1 + SLACK) * max(frame, np.diff(clock).max(initial=0)))


def _by_frame(log: Log, name: str, rows: np.ndarray, film: Film) -> Match:
    numbers = log.columns[name][rows]
    if numbers.dtype.kind not in "iu":
        raise DataError(f"{log.path}: {name!r} holds {numbers.dtype}; whole frame numbers in every row are expected.")
    if (back := np.flatnonzero(np.diff(numbers) < 0)).size:
        raise DataError(f"{log.path}, {log.line(int(rows[back[0] + 1]))}: {name!r} runs backwards; sort the rows.")
    if numbers[0] == 1 and numbers[-1] == film.frames:  # counted from 1, to the last frame
        numbers = numbers - 1
    if numbers[0] < 0 or numbers[-1] >= film.frames:
        worst = numbers[0] if numbers[0] < 0 else numbers[-1]
        raise DataError(f"{log.path} names frame {worst}; {film.name} has frames 0 to {film.frames - 1}.")
    shown = np.arange(film.frames)
    places = np.searchsorted(numbers, shown, side="right") - 1
    known = (places >= 0) & (shown < _ends(numbers, 1))
    mismatch = float((shown[known] - numbers[places[known]]).max(initial=0)) / film.fps
    return Match(np.maximum(places, 0), known, mismatch, "frame")
