"""Derivatives of recorded series."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import savgol_filter

from retrodict.errors import DataError


@dataclass(frozen=True)
class LocalPolynomial:
    """States and speeds from a polynomial fitted to a window around each step.  (Savitzky and Golay, 1964)

    A window of `degree` + 1 steps is met exactly, which makes it the central difference of order `degree`; a wider one smooths.

    Attributes:
        window: steps, odd.
        degree: of the polynomial, below `window`.
    """

    window: int
    degree: int

    def __post_init__(self) -> None:
        if self.window % 2 == 0 or not 0 < self.degree < self.window:
            raise DataError(f"a window is odd and wider than the degree is high; got {self.window} and {self.degree}.")

    def __call__(self, series: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """States and speeds, each (T - window + 1, d), of a series (T, d) at equal spacing; the ends are left out.

        Raises DataError for a series shorter than the window.
        """
        if len(series) < self.window:
            raise DataError(f"a derivative over {self.window} steps was asked of a series of {len(series)}.")
        inner = slice(self.window // 2, len(series) - self.window // 2)
        state = savgol_filter(series, self.window, self.degree, axis=0)[inner]
        speed = savgol_filter(series, self.window, self.degree, deriv=1, delta=dt, axis=0)[inner]
        return np.asarray(state), np.asarray(speed)
