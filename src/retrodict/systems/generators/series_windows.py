"""Which episodes of a series windows can be made of, and what to say of the others."""

from __future__ import annotations

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories import Episode, Recordings
from retrodict.trajectories.features import STATE


def present(episode: Episode) -> np.ndarray:
    """At which steps every entry of the state was seen, (T,): neither NaN nor declared missing."""
    seen = np.isfinite(np.asarray(episode[STATE])).all(1)
    seen &= episode.there(STATE)
    return np.asarray(seen)


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
        if irregular and seen.sum() < 2:
            raise DataError(f"{episode} has {int(seen.sum())} observed step(s); a window needs at least 2.")
        if irregular:
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


def _refuse_clock(episode: Episode, *, even: bool) -> None:
    apart = np.diff(np.asarray(episode["timestamp"], np.float64).reshape(-1))
    if (apart <= 0).any():
        raise DataError(f"{episode}: time stamps do not increase at step {int((apart <= 0).argmax()) + 1}; sort or mend them.")
    if even and len(apart) and np.ptp(apart) > 0.01 * apart.mean():
        raise DataError(
            f"{episode} has an uneven clock ({apart.min():.4g} to {apart.max():.4g} between steps); set irregular=True and "
            "every=<seconds between steps>."
        )
