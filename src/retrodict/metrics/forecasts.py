"""Errors of forecasts against what came.

Forecasts are arrays (T, D) of one start or (S, T, D) of several, aligned with the truth step by step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from retrodict.errors import DataError


def nrmse(
    predicted: ArrayLike, true: ArrayLike, steps: Sequence[int] | None = None, scale: ArrayLike | None = None
) -> np.ndarray:
    """Root mean squared error over starts at given steps, per channel in units of `scale`, mean over channels; (len(steps),).

    Args:
        predicted, true: (T, D) or (S, T, D).
        steps: positions along T (0 is the first forecast step); all where not given.
        scale: (D,), by default the standard deviation of the true values per channel.

    Raises DataError where shapes differ, a step lies outside, or a channel has no scale.
    """
    p, x = _aligned(predicted, true)
    where = np.arange(x.shape[1]) if steps is None else np.asarray(steps, int)
    if ((where < 0) | (where >= x.shape[1])).any():
        raise DataError(f"steps 0 to {x.shape[1] - 1} were forecast; asked for {where.tolist()}.")
    error = np.sqrt(((p[:, where] - x[:, where]) ** 2).mean(0))
    return np.asarray((error / _scale(x, scale)).mean(-1))


def smape(predicted: ArrayLike, true: ArrayLike) -> float:
    """Symmetric mean absolute percentage error, from 0 to 200, over starts, steps and channels; 0/0 counts as no error."""
    p, x = _aligned(predicted, true)
    size = np.abs(p) + np.abs(x)
    share = np.divide(np.abs(p - x), size, out=np.zeros_like(size), where=size > 0)
    return float(200 * np.where(np.isfinite(p), share, 1.0).mean())


def valid_time(
    predicted: ArrayLike,
    true: ArrayLike,
    threshold: float = 0.4,
    *,
    scale: ArrayLike | None = None,
    unit: float = 1.0,
    cap: float | None = None,
) -> np.ndarray:
    """How long each forecast holds: the time of the first step whose normalised error exceeds the threshold; (S,).

    The error of a step is the root of the mean over channels of ((predicted - true) / scale)^2. A forecast that never fails is
    valid as long as it runs.

    Args:
        predicted, true: (T, D) or (S, T, D); the first row is one step after the start.
        threshold: error that still counts as valid.
        scale: (D,), by default the standard deviation of the true values per channel.
        unit: time per step in the unit that is wanted (Lyapunov times, periods).
        cap: largest value given, in that unit.

    Raises DataError where shapes differ or a channel has no scale.
    """
    p, x = _aligned(predicted, true)
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.sqrt((((p - x) / _scale(x, scale)) ** 2).mean(-1))
    failed = ~(error <= threshold)  # NaN has failed too
    steps = np.where(failed.any(1), failed.argmax(1), x.shape[1])
    times = steps * unit
    return np.asarray(times if cap is None else np.minimum(times, cap))


def relative_l2(predicted: ArrayLike, true: ArrayLike, mass: ArrayLike | None = None) -> np.ndarray:
    """|predicted - true| / |true| of vectors (..., n), (...,); in the norm of a mass matrix (n, n), dense or sparse, where given.

    Raises DataError where shapes differ or a true vector is zero.
    """
    p, x = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    if p.shape != x.shape or not x.ndim:
        raise DataError(f"predicted {list(p.shape)} and true {list(x.shape)} must be vectors (..., n) of one shape.")

    def norm(v: np.ndarray) -> np.ndarray:
        weighed = v if mass is None else (mass @ v.reshape(-1, v.shape[-1]).T).T.reshape(v.shape)  # type: ignore[operator]
        return np.asarray(np.sqrt((v * weighed).sum(-1)))

    size = norm(x)
    if (size == 0).any():
        raise DataError("a true vector is zero, so no error is relative to it; leave it out.")
    return np.asarray(norm(p - x) / size)


def _aligned(predicted: ArrayLike, true: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    p, x = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    if p.shape != x.shape or x.ndim not in (2, 3) or not x.size:
        raise DataError(
            f"forecasts of shape {list(p.shape)} against {list(x.shape)}: (T, D) or (S, T, D) of one shape is expected; "
            "a forecast longer than what came after cannot be judged."
        )
    return (p[None], x[None]) if x.ndim == 2 else (p, x)


def _scale(true: np.ndarray, scale: ArrayLike | None) -> np.ndarray:
    size = true.reshape(-1, true.shape[-1]).std(0) if scale is None else np.asarray(scale, np.float64)
    if size.shape not in ((), true.shape[-1:]) or not (size > 0).all():
        raise DataError(f"errors are measured in units above 0, one per channel; got {size.tolist()}.")
    return size
