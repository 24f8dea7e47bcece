"""Spectral measures of measure-preserving systems: how the energy of an observable is spread over frequencies.

Moments a_n = <g, K^n g> / 2 pi are Fourier coefficients of a measure on the circle; a filter or a rational kernel smooths it, so
that it converges to the density from finitely many.  (Colbrook and Townsend, 2024.)
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from retrodict.errors import DataError

FILTERS = {
    "fejer": lambda x: 1 - x,
    "cosine": lambda x: (1 + np.cos(np.pi * x)) / 2,
    "fourth": lambda x: 1 - x**4 * (-20 * x**3 + 70 * x**2 - 84 * x + 35),
    "bump": lambda x: np.exp(-2 / np.maximum(1 - x, 1e-12) * np.exp(-0.109550455106347 / np.maximum(x, 1e-12) ** 4)),
}
"""Weight of the n-th of N moments as a function of x = n/N in [0, 1]; `bump` is of infinite order."""

Filter = Literal["fejer", "cosine", "fourth", "bump"]


def autocorrelations(series: np.ndarray, moments: int) -> np.ndarray:
    """a_0, ..., a_moments of an observable along one long trajectory (T,), by FFT; complex.

    Raises DataError where the series is not longer than twice the moments asked for.
    """
    g = np.asarray(series, np.complex128)
    if g.ndim != 1 or len(g) <= 2 * moments:
        raise DataError(f"{moments} moments need one trajectory of more than {2 * moments} steps, got shape {list(g.shape)}.")
    spectrum = np.fft.fft(g, 2 * len(g))
    sums = np.fft.ifft(np.abs(spectrum) ** 2)[: moments + 1]  # sum over t of g(t + n) conj(g(t))
    return sums / (len(g) - np.arange(moments + 1)) / (2 * np.pi)


def operator_moments(operator: np.ndarray, coefficients: np.ndarray, moments: int) -> np.ndarray:
    """a_0, ..., a_moments of g = sum of coefficients times orthonormal functions, from an operator (r, r) on them."""
    found, v = [], np.asarray(coefficients, np.complex128)
    for _ in range(moments + 1):
        found.append(np.vdot(coefficients, v))
        v = operator @ v
    return np.array(found) / (2 * np.pi)


def filtered_density(moments: np.ndarray, angles: np.ndarray, filter: Filter = "bump") -> np.ndarray:
    """Density at angles (n,) in radians, the sum over k of filter(|k|/N) a_k exp(i k angle) with a_-k = conj(a_k), (n,)."""
    count = len(moments) - 1
    weighted = moments * FILTERS[filter](np.arange(count + 1) / max(count, 1))
    # <g, K^n g> is the integral of exp(i n theta): its conjugate is the Fourier coefficient.
    waves = np.exp(1j * np.outer(angles, np.arange(1, count + 1)))
    density: np.ndarray = weighted[0].real + 2 * (waves @ weighted[1:].conj()).real
    return density


def rational_density(eigenangles: np.ndarray, masses: np.ndarray, angles: np.ndarray, width: float, order: int = 6) -> np.ndarray:
    """Density at angles (n,) of point masses at eigenangles, smoothed by the rational kernel of an order, periodic.

    Args:
        eigenangles, masses: of a measure-preserving compression: the argument of each eigenvalue and |<g, eigenfunction>|^2.
        width: of the kernel in radians.
        order: of convergence as the width shrinks; 1 is the Poisson kernel.
    """
    steps = np.arange(1, order + 1)
    poles = 2 * steps / (order + 1) - 1 + 1j
    # The kernel integrates to one and its first order-1 moments vanish.
    shares = np.linalg.solve(np.vander(poles, increasing=True).T, np.eye(order)[0])
    theta = (angles[:, None] - eigenangles[None])[..., None]
    upper = shares / (2 * np.tan((theta - width * poles) / 2))
    lower = shares.conj() / (2 * np.tan((theta - width * poles.conj()) / 2))
    kernel = (upper - lower).sum(-1) / (2j * math.pi)
    density: np.ndarray = (kernel.real * masses).sum(1)
    return density
