"""How well a model that runs freely reproduces a system: its attractor, its spectra, its forecasts.

The measures of dynamical-systems reconstruction as Hess et al. (ICML 2023) and Brenner et al. (NeurIPS 2024) report them; series
are (T, N). A generated series that diverged gives NaN and says so, it never raises: a run that failed is a result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter1d
from scipy.special import logsumexp

from retrodict.errors import DataError
from retrodict.metrics.series import Score, generated_like, recorded

MOST_BINNED = 5
"""Channels up to which space is divided into bins; beyond, nearly every bin is empty."""

Step = Callable[[np.ndarray], np.ndarray]


def state_space_divergence(
    true: ArrayLike,
    generated: ArrayLike,
    method: Literal["bins", "gmm"] = "bins",
    *,
    bins: int = 30,
    smoothing: float = 1e-5,
    margin: float = 0.1,
    scale: float = 1.0,
    limit: int = 10_000,
    samples: int = 1000,
    legacy: bool = False,
    seed: int = 0,
) -> Score:
    """D_stsp: the Kullback-Leibler divergence of where two series spend their time, whatever the order; 0 at best, in nats.

    `bins` divides space into cells over the range of the true series and compares smoothed histograms; generated points outside
    are dropped. `gmm` puts a Gaussian on every point and draws from the true mixture (Monte Carlo): for 6 channels and more.

    Args:
        true, generated: (T, N) and (T', N).
        method: `bins` or `gmm`.
        bins: cells per axis; 30, or 8 for series of some hundred steps.
        smoothing: added to the count of every cell.
        margin: how far the cells reach beyond the true series, in its standard deviations (ddof=1).
        scale: variance of the Gaussians.
        limit: the first so many points of both series become Gaussians.
        samples: Monte-Carlo samples.
        legacy: add up the Gaussians in single precision as published, dropping the samples at which either density underflows;
            by default the logarithm of the sum is taken, which drops none.
        seed: of the samples.

    Raises DataError for more than 5 channels in bins, an unusable true series or settings out of range.
    """
    x = recorded(true)
    y = generated_like(x, generated)
    if method not in ("bins", "gmm"):
        raise DataError(f"the methods are bins and gmm; got {method!r}.")
    settings = {"bins": bins, "smoothing": smoothing} if method == "bins" else {"scale": scale, "samples": samples}
    if min(bins, limit, samples) < 1 or smoothing <= 0 or scale <= 0 or margin < 0:
        raise DataError("bins, limit and samples start at 1; smoothing and scale are above 0, margin at least 0.")
    if method == "bins" and x.shape[1] > MOST_BINNED:
        raise DataError(f"{bins}^{x.shape[1]} bins are nearly all empty; use method='gmm' for more than {MOST_BINNED} channels.")
    if not np.isfinite(y).all():
        return Score(np.nan, diverged=True, settings=settings)
    if method == "bins":
        value, dropped = _binned(x, y, bins, smoothing, margin)
        return Score(value, diverged=dropped == len(y), dropped=dropped, settings=settings)
    value, dropped = _mixtures(x[:limit], y[:limit], scale, samples, legacy, seed)
    return Score(value, dropped=dropped, settings=settings)


def _binned(x: np.ndarray, y: np.ndarray, bins: int, smoothing: float, margin: float) -> tuple[float, int]:
    """Divergence and generated points outside; only occupied cells are held, so that memory is that of the series."""
    reach = margin * x.std(0, ddof=1)
    low, high = x.min(0) - reach, x.max(0) + reach
    inside = ((y >= low) & (y <= high)).all(1)
    if not inside.any():
        return float("nan"), len(y)

    def cells(points: np.ndarray) -> np.ndarray:
        at = np.minimum((points - low) / (high - low) * bins, bins - 1).astype(np.int64)
        return np.asarray(np.ravel_multi_index(tuple(at.T), (bins,) * points.shape[1]))

    occupied, which = np.unique(np.concatenate([cells(x), cells(y[inside])]), return_inverse=True)
    counts = [np.bincount(part, minlength=len(occupied)) for part in (which[: len(x)], which[len(x) :])]
    every = bins ** x.shape[1]
    totals = [count.sum() + smoothing * every for count in counts]
    p, q = ((count + smoothing) / total for count, total in zip(counts, totals, strict=True))
    elsewhere = (every - len(occupied)) * smoothing / totals[0] * np.log(totals[1] / totals[0])
    return float(np.sum(p * np.log(p / q)) + elsewhere), int((~inside).sum())


def _mixtures(x: np.ndarray, y: np.ndarray, scale: float, samples: int, legacy: bool, seed: int) -> tuple[float, int]:
    """Divergence and dropped samples; what both densities are divided by cancels, their counts of Gaussians do not."""
    rng = np.random.default_rng(seed)
    drawn = x[rng.integers(len(x), size=samples)] + np.sqrt(scale) * rng.normal(size=(samples, x.shape[1]))

    def log_density(centres: np.ndarray) -> np.ndarray:
        found = np.empty(samples)
        for rows in np.array_split(np.arange(samples), max(1, samples * len(centres) // 2_000_000)):
            exponents = _squares(drawn[rows], centres) / (-2 * scale)
            if legacy:
                with np.errstate(divide="ignore"):
                    found[rows] = np.log(np.exp(exponents.astype(np.float32)).mean(1))
            else:
                found[rows] = logsumexp(exponents, axis=1) - np.log(len(centres))
        return found

    difference = log_density(x) - log_density(y)  # infinite or NaN where a density underflowed
    kept = np.isfinite(difference)
    return float(difference[kept].mean()) if kept.any() else float("nan"), int((~kept).sum())


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances of all rows of `a` (n, N) to all of `b` (m, N), (n, m)."""
    origin = b.mean(0)  # near zero, the three terms cancel least
    a, b = a - origin, b - origin
    return np.asarray(np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0))


def spectrum_distance(true: ArrayLike, generated: ArrayLike, sigma: float = 20.0) -> Score:
    """D_H: Hellinger distance of smoothed power spectra, mean over channels; 0 for equal spectra, 1 for disjoint ones.

    Each channel is standardised by its own mean and deviation (ddof=1), its power smoothed along frequency by a Gaussian. The
    width is in frequency bins, so the bandwidth depends on T: report both (they stand in `settings`).

    Args:
        true, generated: (T, N), equally long.
        sigma: width of the smoothing in bins; 20, or 1 for series of some hundred steps.

    Raises DataError for unequal lengths, an unusable true series, or a negative `sigma`. A generated channel that is constant has
    no spectrum: NaN, and `diverged`.
    """
    x = recorded(true)
    y = generated_like(x, generated)
    if len(x) != len(y):
        raise DataError(f"spectra are compared at equal lengths, got {len(x)} and {len(y)} steps; cut the longer one.")
    if sigma < 0:
        raise DataError(f"sigma is a width of at least 0 bins, got {sigma}.")
    settings = {"sigma": sigma, "length": len(x)}
    if not np.isfinite(y).all() or (np.ptp(y, 0) == 0).any():
        return Score(np.nan, diverged=True, settings=settings)
    with np.errstate(over="ignore", invalid="ignore"):
        p, q = _spectrum(x, sigma), _spectrum(y, sigma)
        distance = float((np.linalg.norm(np.sqrt(p) - np.sqrt(q), axis=0) / np.sqrt(2)).mean())
    return Score(distance, diverged=not np.isfinite(distance), settings=settings)


def _spectrum(x: np.ndarray, sigma: float) -> np.ndarray:
    """Smoothed power at each frequency as shares of the whole, (T // 2 + 1, N)."""
    power = np.abs(np.fft.rfft((x - x.mean(0)) / x.std(0, ddof=1), axis=0)) ** 2
    if sigma > 0:
        power = np.maximum(gaussian_filter1d(power, sigma, axis=0, mode="reflect", truncate=4.0), 0)
    return np.asarray(power / power.sum(0))


def prediction_error(
    step: Step, states: ArrayLike, n: int = 20, *, encode: Step | None = None, observe: Step | None = None
) -> Score:
    """PE(n): mean squared error of a free run after exactly n steps, over all starts in the series and all channels.

    Args:
        step: model states (B, M) -> states one step later; every start is in one batch.
        states: the recorded series (T, N).
        n: steps; the errors on the way there do not count.
        encode, observe: from observations (B, N) to model states and back, where they differ.

    Raises DataError when the series is not longer than n.
    """
    x = recorded(states, "the series", varying=False)
    if not 1 <= n < len(x):
        raise DataError(f"errors after {n} steps need n of at least 1 and a series longer than n; this one has {len(x)} steps.")
    with np.errstate(over="ignore", invalid="ignore"):
        z = x[:-n] if encode is None else encode(x[:-n])
        for _ in range(n):
            z = step(z)
        error = float(np.mean((np.asarray(z if observe is None else observe(z), np.float64) - x[n:]) ** 2))
    good = bool(np.isfinite(error))
    return Score(error if good else np.nan, diverged=not good, settings={"n": n, "starts": len(x) - n})
