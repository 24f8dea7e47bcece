"""The coefficients of worlds whose law is a polynomial, and whether a law that was found is the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from retrodict.dynamics.libraries import Monomials


def polynomial_law(derivative: Callable[[np.ndarray], np.ndarray], points: np.ndarray, degree: int = 2) -> np.ndarray | None:
    """The coefficients (F, d) of a vector field over `Monomials(degree)`, None where it is no polynomial of at most this degree.

    It is asked at points (n, d), n well above F.
    """
    size = np.abs(points).max(0)
    monomials = Monomials(degree)
    library, slopes = monomials.transform(points / size), derivative(points)
    scaled, *_ = np.linalg.lstsq(library, slopes, rcond=None)
    scale = np.abs(slopes).max(0)
    if (np.abs(library @ scaled - slopes) > 1e-8 * scale).any():
        return None
    scaled[np.abs(scaled) < 1e-7 * scale] = 0
    return np.asarray(scaled / monomials.transform(size)[:, None])


def same_law(found: np.ndarray, true: np.ndarray, tolerance: float = 0.05) -> bool:
    """Whether two laws have the same terms, with coefficients that differ by at most this share."""
    return bool(((found != 0) == (true != 0)).all() and (np.abs(found - true) <= tolerance * np.abs(true)).all())
