"""What the measures of time series share: a score that says when it is not to be trusted, and what series are admitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from retrodict.errors import DataError


@dataclass(frozen=True)
class Score:
    """A number about a generated series, and whether there was anything to measure.

    Attributes:
        value: the number; NaN where `diverged`, or where everything had to be dropped.
        diverged: the generated series is not finite, or has collapsed or left so far that the number is undefined.
        dropped: points, samples or starts that were left out.
        settings: what the number depends on beside the data (bins, sigma, length, ...), to be reported with it.
    """

    value: float
    diverged: bool = False
    dropped: int = 0
    settings: Mapping[str, float] = field(default_factory=dict)

    def __float__(self) -> float:
        return self.value


def recorded(series: ArrayLike, name: str = "the true series", *, varying: bool = True) -> np.ndarray:
    """A recorded series as float64 (T, N).

    Raises DataError when it is not two-dimensional, not finite (naming row and column), shorter than 2, or, where it must be
    `varying`, constant in a channel.
    """
    x = np.asarray(series, np.float64)
    if x.ndim != 2 or len(x) < 2 or not x.shape[1]:
        raise DataError(f"{name} has shape {list(x.shape)}; (T, N) with at least 2 steps is expected.")
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise DataError(f"{name} is not finite in row {row}, column {column}; drop or mend the step first.")
    if varying and (constant := np.flatnonzero(np.ptp(x, 0) == 0)).size:
        raise DataError(f"{name} is constant in channel {constant[0]}, which has no scale to measure by; leave the channel out.")
    return x


def generated_like(true: np.ndarray, generated: ArrayLike) -> np.ndarray:
    """A generated series as float64 (T', N), finite or not; raises DataError where its channels are not those of `true`."""
    x = np.asarray(generated, np.float64)
    if x.ndim != 2 or x.shape[1] != true.shape[1] or not len(x):
        raise DataError(f"the generated series has shape {list(x.shape)}; (T, {true.shape[1]}) like the true one is expected.")
    return x
