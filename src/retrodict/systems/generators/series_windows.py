"""Which episodes of a series windows can be made of, and what to say of the others."""

from __future__ import annotations

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories import Episode, Recordings
from retrodict.trajectories.features import STATE

SLACK = 0.5000005
"""Part of the time between steps within which a row stands for a step."""


def present(episode: Episode) -> np.ndarray:
    """At which steps every entry of the state was seen, (T,): neither NaN nor declared missing."""
    seen = np.isfinite(np.asarray(episode[STATE])).all(1)
    seen &= episode.there(STATE)
    return np.asarray(seen)


def observed(episode: Episode, frames: int, every: float | None, fps: float | None) -> np.ndarray:
    """How many of the `frames` steps of the window that begins at each row were seen, (T,)."""
    seen, rows = present(episode), np.arange(episode.length)
    if every is None:
        before = np.concatenate([[0], seen.cumsum()])
        return np.asarray(before[np.minimum(rows + frames, len(rows))] - before[:-1])
    times, wanted = _windows_at(episode, frames, every, fps)
    after = np.clip(np.searchsorted(times, wanted), 0, len(times) - 1)
    before = np.maximum(after - 1, 0)
    near = np.where(wanted - times[before] <= times[after] - wanted, before, after)
    return np.asarray((seen[near] & (np.abs(times[near] - wanted) <= SLACK * every)).sum(1))


def _windows_at(episode: Episode, frames: int, every: float, fps: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Times (T,) of the rows, and those (T, frames) at which the window that begins at each is read, in seconds."""
    times = np.arange(episode.length) / fps if fps else np.asarray(episode["timestamp"], np.float64).reshape(-1)
    return times, times[:, None] + np.arange(frames) * every


def refuse_unusable(recordings: Recordings, frames: int, *, irregular: bool, every: float | None) -> None:
    """Raise DataError naming the first episode that cannot be cut into windows of `frames` steps.

    Args:
        irregular: steps may be missing, and episodes shorter than a window.
        every: seconds between the steps of a window, for uneven clocks.
    """
    for episode in recordings:
        if "timestamp" in episode:
            _refuse_clock(episode, even=recordings.fps is None and every is None)
        seen = present(episode)
        if irregular:
            most = int(observed(episode, frames, every, recordings.fps).max())
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
            _refuse_gaps(episode, frames, every, recordings.fps)


def _refuse_gaps(episode: Episode, frames: int, every: float, fps: float | None) -> None:
    times, wanted = _windows_at(episode, frames, every, fps)
    gaps = (wanted[:, -1] <= times[-1] + SLACK * every) & (observed(episode, frames, every, fps) < frames)
    if gaps.any():
        raise DataError(
            f"{episode}: read every {every:g} s, the window that begins at step {int(gaps.argmax())} lacks some of its {frames} "
            "steps, as the clock leaves them out; set irregular=True, or every to what the clock keeps."
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
