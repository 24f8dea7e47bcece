"""Directions carried along by a flow or a map and kept orthonormal: what Lyapunov exponents are read from, compiled."""

from __future__ import annotations

from functools import cache
from typing import Any

import numba
import numpy as np
from numba import float64, int64, void

from retrodict.dynamics.runge_kutta import FLOW, ROWS, STAGES, attempt, derive, next_size


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def orthonormalise(directions: np.ndarray, sums: np.ndarray, counts: bool) -> None:
    """Gram-Schmidt in place on the rows of `directions` (k, d); adds the logarithms of lengths to `sums` where it counts."""
    k, d = directions.shape
    for j in range(k):
        for i in range(j):
            along = 0.0
            for r in range(d):
                along += directions[i, r] * directions[j, r]
            for r in range(d):
                directions[j, r] -= along * directions[i, r]
        square = 0.0
        for r in range(d):
            square += directions[j, r] ** 2
        length = np.sqrt(square)
        if counts:
            sums[j] += np.log(length) if length > 0 else -np.inf
        for r in range(d):
            directions[j, r] = directions[j, r] / length if length > 0 else (1.0 if r == j else 0.0)


def grow(
    rhs: Any,
    initial: np.ndarray,
    parameters: np.ndarray,
    interval: float,
    transient: int,
    intervals: int,
    *,
    count: int,
    rtol: float,
    max_steps: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Follow `count` directions of every orbit over intervals of time; they are orthonormal at the start of each.

    Args:
        rhs: a flow made by `ensemble.flow`.
        initial: (B, d).
        parameters: (n,) handed to the flow.
        interval: time between orthonormalisations.
        transient, intervals: how many pass before the growth counts, and how many count.
        rtol: relative and absolute tolerance of a step; the directions are as exact as central differences are, about 1e-9.
        max_steps: per orbit.

    Returns logarithms of growth (B, count) and where the orbits ended (B, d); NaN for one that blew up or took too many steps.
    """
    sums, last = np.empty((len(initial), count)), np.empty(initial.shape)
    _compiled_grow()(rhs, initial, parameters, interval, transient, intervals, rtol, max_steps, sums, last)
    return sums, last


@cache
def _compiled_grow() -> Any:
    matrix = float64[:, ::1]
    signature = void(FLOW, matrix, float64[::1], float64, int64, int64, float64, int64, matrix, matrix)
    return numba.njit(signature, cache=True, error_model="numpy", nogil=True)(_grow)


def _grow(
    rhs: Any,
    initial: np.ndarray,
    parameters: np.ndarray,
    interval: float,
    transient: int,
    intervals: int,
    tolerance: float,
    max_steps: int,
    sums: np.ndarray,
    last: np.ndarray,
) -> None:
    d, k = initial.shape[1], sums.shape[1]
    n = d * (1 + k)
    slopes, y, after = np.empty((ROWS, n)), np.empty(n), np.empty(n)
    for b in range(len(initial)):
        y[:d] = initial[b]
        y[d:] = 0.0
        for j in range(k):
            y[d + j * d + j] = 1.0
        sums[b] = 0.0
        size, steps = interval / 10, 0
        for number in range(transient + intervals):
            t = 0.0  # of the interval; flows here are autonomous
            derive(rhs, d, t, y, parameters, slopes[0])
            while t < interval and steps < max_steps and size > 1e-14 * interval:
                steps += 1
                whole = size >= interval - t
                h = interval - t if whole else size
                error = attempt(rhs, d, t, y, h, parameters, tolerance, tolerance, slopes, after)
                if error <= 1.0:
                    t = interval if whole else t + h
                    y[:] = after
                    slopes[0] = slopes[STAGES]
                    size = max(size, next_size(h, error)) if whole else next_size(h, error)
                else:
                    size = next_size(h, error)
            if t < interval:
                sums[b] = np.nan
                y[:] = np.nan
                break
            orthonormalise(y[d:].reshape(k, d), sums[b], number >= transient)
        last[b] = y[:d]
