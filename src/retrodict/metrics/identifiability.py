"""Whether a recorded series can tell its law at all, asked before anything is learned from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Weights of the fourth difference; its variance over white noise of variance 1 is the sum of their squares.
FOURTH = np.array([1.0, -4.0, 6.0, -4.0, 1.0])

TURNS = 5
"""Decorrelation times that a recording must span, at least."""

NOISE = 0.5
"""Share of a channel's standard deviation that may be white noise, at most."""

REST = 0.8
"""Share of the steps that may be at rest, at most."""


def noise_share(series: np.ndarray) -> np.ndarray:
    """How much of each channel of (T, N) is white noise, as a share of its standard deviation, (N,) in [0, 1].

    A motion that is sampled finely enough is a cubic over five steps, so that its fourth difference is noise alone (the
    difference-based estimator of variance; Gasser, Sroka and Jennen-Steinmetz, 1986). Coarse sampling reads as noise too.
    """
    if len(series) < 2 * len(FOURTH):
        return np.full(series.shape[1], np.nan)
    rough = sum(w * series[i : len(series) - 4 + i] for i, w in enumerate(FOURTH))
    spread = series.std(0)
    # Half the samples are wild where the motion is fast: the median absolute value is that of the noise.
    sigma = np.median(np.abs(rough), 0) / 0.6745 / np.sqrt((FOURTH**2).sum())
    return np.asarray(np.clip(np.divide(sigma, spread, out=np.ones_like(spread), where=spread > 0), 0, 1))


def decorrelation_steps(series: np.ndarray) -> int:
    """Steps after which the autocorrelation of the slowest channel of (T, N) has fallen below 1/e; T where it never does."""
    length = len(series)
    centred = series - series.mean(0)
    spectrum = np.abs(np.fft.rfft(centred, 2 * length, axis=0)) ** 2
    correlation = np.fft.irfft(spectrum, axis=0)[:length]
    correlation = np.divide(correlation, correlation[0], out=np.ones_like(correlation), where=correlation[0] > 0)
    below = correlation < np.exp(-1)
    return int(np.where(below.any(0), below.argmax(0), length).max())


def rest_share(series: np.ndarray) -> float:
    """Share of the steps of (T, N) at which no channel moves by more than a millionth of its range."""
    moved = np.abs(np.diff(series, axis=0)) > 1e-6 * np.ptp(series, axis=0)
    return float(1 - moved.any(1).mean()) if len(moved) else 1.0


def obstacles(episodes: Sequence[np.ndarray], names: Sequence[str]) -> tuple[str, ...]:
    """Why no law can be read off these series (T, N), one sentence each; none where nothing stands against it.

    Args:
        episodes: runs of the same system, each (T, N), finite.
        names: what the N channels are called.
    """
    found = []
    everything = np.concatenate(episodes)
    constant = np.ptp(everything, axis=0) == 0
    for name, value in zip(np.asarray(names, object)[constant], everything[0, constant], strict=True):
        found.append(f"the channel {name!r} is constant ({value:g}): what it does elsewhere cannot be known; leave it out.")
    if constant.all():
        return tuple(found)
    moving = [run[:, ~constant] for run in episodes]
    longest = max(moving, key=len)
    still = rest_share(longest)
    if still > REST:
        found.append(
            f"it is at rest in {still:.0%} of its steps: without a transient the terms of a law cannot be told apart; record "
            "motion that starts away from the resting state."
        )
    slow = decorrelation_steps(longest)
    if sum(map(len, moving)) < TURNS * slow:
        found.append(
            f"it is too short: {sum(map(len, moving)):,} steps span less than {TURNS} decorrelation times of {slow:,} steps; "
            "record longer or more often."
        )
    noise = np.nanmax(np.stack([noise_share(run) for run in moving]), 0)
    worst = int(np.argmax(noise)) if np.isfinite(noise).any() else -1
    if worst >= 0 and noise[worst] > NOISE:
        name = np.asarray(names, object)[~constant][worst]
        found.append(
            f"it is too noisy, or sampled too coarsely: {noise[worst]:.0%} of the spread of {name!r} looks like white noise "
            f"(at most {NOISE:.0%} can be used); record finer, or average."
        )
    return tuple(found)
