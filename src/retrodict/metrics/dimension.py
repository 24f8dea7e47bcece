"""Dimensions of attractors: from the Lyapunov spectrum (Kaplan, Yorke) and from distances of points (Grassberger, Procaccia)."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import ArrayLike

from retrodict.errors import DataError
from retrodict.metrics.series import recorded

BINS_PER_E = 10
"""Radii per factor of e at which pairs are counted."""
FEWEST_PAIRS = 50


def kaplan_yorke_dimension(spectrum: ArrayLike) -> float:
    """K + (sum of the k largest exponents) / |next one|, for the largest k whose sum is not negative.

    0 where the largest exponent is negative, the number of exponents (d,) where no sum is; NaN where one of them is not a number.
    """
    exponents = np.sort(np.asarray(spectrum, np.float64).ravel())[::-1]
    if np.isnan(exponents).any():
        return float("nan")
    sums = np.cumsum(exponents)
    k = int((sums >= 0).cumprod().sum())
    if k == 0 or k == len(exponents):
        return float(k)
    return float(k + sums[k - 1] / abs(exponents[k]))


@dataclass(frozen=True)
class CorrelationDimension:
    """How the share of close pairs grows with the radius.

    Attributes:
        value: slope of log C(r) over log r in the scaling range; NaN where `diverged` or too few pairs are close.
        radii, shares: r and C(r), (n,) each, for a look at the slope.
        range: smallest and largest radius that the slope was taken over.
        diverged: the series is not finite.
    """

    value: float
    radii: np.ndarray
    shares: np.ndarray
    range: tuple[float, float]
    diverged: bool = False


def correlation_dimension(
    series: ArrayLike, theiler: int, *, shares: tuple[float, float] = (1e-4, 1e-2), limit: int = 10_000
) -> CorrelationDimension:
    """The correlation dimension of points (T, N).

    Pairs that are close in time are close in space whatever the attractor: those at most `theiler` steps apart do not count.

    Args:
        series: (T, N), in coordinates that may be compared (standardise them where their units differ).
        theiler: about the time after which the series has forgotten itself, in steps; 0 for independent points.
        shares: the scaling range, as the shares of close pairs between which the slope is taken.
        limit: at most so many points, evenly chosen, are compared.

    Raises DataError for a series that is not (T, N), is constant in a channel, or too short for its Theiler window.
    """
    values = np.asarray(series, np.float64)
    nothing = np.zeros(0)
    if values.ndim == 2 and not np.isfinite(values).all():
        return CorrelationDimension(float("nan"), nothing, nothing, (np.nan, np.nan), diverged=True)
    points = recorded(values, "the series")
    if not 0 < shares[0] < shares[1] <= 1 or theiler < 0 or limit < 2:
        raise DataError("shares rise within (0, 1], theiler is at least 0 and limit at least 2.")
    rows = np.unique(np.linspace(0, len(points) - 1, min(limit, len(points))).astype(np.int64))
    if len(points) < 2 * theiler + 10:
        raise DataError(f"{len(points)} steps are too few for a Theiler window of {theiler}; give a longer series.")
    points = points[rows]
    largest = float(np.linalg.norm(np.ptp(points, 0)))
    counts = _close_pairs(points, rows, theiler, np.log(largest), BINS_PER_E, 40 * BINS_PER_E)[::-1]
    pairs = np.cumsum(counts)
    share = pairs / pairs[-1]
    radii = largest * np.exp(-np.arange(len(counts))[::-1] / BINS_PER_E)
    scaling = (share >= shares[0]) & (share <= shares[1]) & (pairs >= FEWEST_PAIRS)
    if scaling.sum() < 3:
        return CorrelationDimension(float("nan"), radii, share, (np.nan, np.nan))
    slope = float(np.polyfit(np.log(radii[scaling]), np.log(share[scaling]), 1)[0])
    return CorrelationDimension(slope, radii, share, (float(radii[scaling][0]), float(radii[scaling][-1])))


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _close_pairs(points: np.ndarray, rows: np.ndarray, theiler: int, top: float, per_e: int, bins: int) -> np.ndarray:
    """Counts (bins,) of pairs by how many e-th parts their distance lies below exp(top)."""
    counts = np.zeros(bins, np.int64)
    n, d = points.shape
    for i in range(n):
        for j in range(i):
            if rows[i] - rows[j] <= theiler:
                break
            square = 0.0
            for k in range(d):
                square += (points[i, k] - points[j, k]) ** 2
            at = bins - 1 if square == 0.0 else int((top - 0.5 * np.log(square)) * per_e)
            counts[min(max(at, 0), bins - 1)] += 1
    return counts
