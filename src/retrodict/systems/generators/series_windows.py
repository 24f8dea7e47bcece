"""Which episodes of a series windows can be made of, and what to say of the others."""

from __future__ import annotations

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories import Episode, Recordings, Window
from retrodict.trajectories.features import STATE
from retrodict.trajectories.windows.reach import Clock, Reach, reach


def present(episode: Episode) -> np.ndarray:
    """At which steps every entry of the state was seen, (T,): neither NaN nor declared missing."""
    seen = np.isfinite(np.asarray(episode[STATE])).all(1)
    seen &= episode.there(STATE)
    return np.asarray(seen)


def observed(episode: Episode, window: Window, fps: float | None) -> np.ndarray:
    """How many steps of the window that begins at each row were seen, (T,)."""
    held, inside = _reach(episode, window, fps).locate(*_anchors(episode), np.ones(episode.length, np.int64))
    return np.asarray((present(episode)[held] & inside).sum(1))


def _reach(episode: Episode, window: Window, fps: float | None) -> Reach:
    clock = None if fps or window.every is None else Clock([np.asarray(episode["timestamp"]).reshape(-1)], [str(episode)])
    return reach(window, window.span, fps, clock)


def _anchors(episode: Episode) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every row of the only episode, as a reach asks for it: positions, rows and lengths, (T,) each."""
    rows = np.arange(episode.length)
    return np.zeros_like(rows), rows, np.full_like(rows, episode.length)


def refuse_unusable(recordings: Recordings, window: Window, *, irregular: bool) -> None:
    """Raise DataError naming the first episode that cannot be cut into windows.

    Args:
        window: what is read, from a row on; `every` for uneven clocks.
        irregular: steps may be missing, and episodes shorter than a window.
    """
    frames, every = len(window), window.every
    for episode in recordings:
        if "timestamp" in episode:
            _refuse_clock(episode, even=recordings.fps is None and every is None)
        seen = present(episode)
        if irregular:
            most = int(observed(episode, window, recordings.fps).max())
            if most < 2:
                raise DataError(f"{episode}: no window has more than {most} observed step(s); a window needs at least 2.")
            continue
        if not seen.all():
            step = int(np.argmin(seen))
            what = "missing" if np.isfinite(episode[STATE][step]).all() else "not finite"
            raise DataError(f"{episode}: {STATE!r} is {what} at step {step}; mend it, or set irregular=True.")
        if episode.length < frames:
            raise DataError(
                f"{episode} has {episode.length} steps, windows have {frames}: set irregular=True, which takes the rest as "
                "missing, or make frames shorter."
            )
        if every is not None:
            _refuse_gaps(episode, window, recordings.fps)


def _refuse_gaps(episode: Episode, window: Window, fps: float | None) -> None:
    whole = _reach(episode, window, fps).fits(*_anchors(episode), 1, ("drop", "drop"))
    gaps = whole & (observed(episode, window, fps) < len(window))
    if gaps.any():
        raise DataError(
            f"{episode}: read every {window.every:g} s, the window that begins at step {int(gaps.argmax())} lacks some of its "
            f"{len(window)} steps, as the clock leaves them out; set irregular=True, or every to what the clock keeps."
        )


def _refuse_clock(episode: Episode, *, even: bool) -> None:
    apart = np.diff(np.asarray(episode["timestamp"], np.float64).reshape(-1))
    if (apart <= 0).any():
        raise DataError(f"{episode}: time stamps do not increase at step {int((apart <= 0).argmax()) + 1}; sort or mend them.")
    if even and len(apart) and np.ptp(apart) > 0.01 * apart.mean():
        raise DataError(
            f"{episode} has an uneven clock ({apart.min():.4g} to {apart.max():.4g} between steps); set irregular=True and "
            "every=<seconds between steps>."
        )
