"""One adaptive step of Dormand and Prince's 8(5,3) method, compiled, with its seventh-order interpolant.

The tableau is scipy's (Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.5 and II.6). A flow is handed
over as a compiled function pointer: the integrators are compiled once for all systems and kept on disk, a new system costs only
the compilation of its right-hand side.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import float64, void
from scipy.integrate import DOP853

SIGNATURE = void(float64, float64[::1], float64[::1], float64[::1])
FLOW = numba.types.FunctionType(SIGNATURE)
"""`flow(t, x, parameters, dx)`: writes the derivative of the state x (d,) into dx (d,)."""

STAGES = 12
A, B, C = (np.ascontiguousarray(part) for part in (DOP853.A, DOP853.B, DOP853.C))
E3, E5 = np.ascontiguousarray(DOP853.E3), np.ascontiguousarray(DOP853.E5)
EXTRA_A, EXTRA_C, DENSE = (np.ascontiguousarray(part) for part in (DOP853.A_EXTRA, DOP853.C_EXTRA, DOP853.D))
ROWS = STAGES + 1 + len(EXTRA_C)
"""Derivatives held of a step: its stages, the one at its end, and those for the interpolant."""
APART = np.finfo(float).eps ** (1 / 3)
SAFETY, SMALLEST, LARGEST = 0.9, 0.2, 10.0

compiled = numba.njit(cache=True, error_model="numpy", nogil=True)


@compiled  # type: ignore[untyped-decorator]
def derive(flow: Any, d: int, t: float, y: np.ndarray, parameters: np.ndarray, dy: np.ndarray) -> None:
    """The derivative of y = (state (d,), directions (k, d)): the directions are carried by the linearised flow.

    What the linearised flow does to a direction is a central difference along it, so a flow needs no Jacobian.
    """
    flow(t, y[:d], parameters, dy[:d])
    if len(y) == d:
        return
    size = 0.0
    for i in range(d):
        size = max(size, abs(y[i]))
    ahead, behind, slope = np.empty(d), np.empty(d), np.empty(d)
    for at in range(d, len(y), d):
        length = 0.0
        for i in range(d):
            length = max(length, abs(y[at + i]))
        h = APART * max(size, 1e-3) / max(length, 1e-300)
        for i in range(d):
            ahead[i], behind[i] = y[i] + h * y[at + i], y[i] - h * y[at + i]
        flow(t, ahead, parameters, slope)
        flow(t, behind, parameters, ahead)
        for i in range(d):
            dy[at + i] = (slope[i] - ahead[i]) / (2 * h)


@compiled  # type: ignore[untyped-decorator]
def first_step(flow: Any, d: int, t: float, y: np.ndarray, p: np.ndarray, slopes: np.ndarray, rtol: float, atol: float) -> float:
    """A cautious first step from y, whose derivative is slopes[0] (Hairer et al., II.4)."""
    n = len(y)
    d0 = d1 = d2 = 0.0
    for i in range(n):
        scale = atol + abs(y[i]) * rtol
        d0 += (y[i] / scale) ** 2
        d1 += (slopes[0, i] / scale) ** 2
    d0, d1 = np.sqrt(d0 / n), np.sqrt(d1 / n)
    h = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
    derive(flow, d, t + h, y + h * slopes[0], p, slopes[1])
    for i in range(n):
        d2 += ((slopes[1, i] - slopes[0, i]) / (atol + abs(y[i]) * rtol)) ** 2
    d2 = np.sqrt(d2 / n) / h
    steepest = max(d1, d2)
    if not np.isfinite(steepest):
        return h
    return min(100 * h, max(1e-6, h * 1e-3) if steepest <= 1e-15 else (0.01 / steepest) ** 0.125)


@compiled  # type: ignore[untyped-decorator]
def attempt(
    flow: Any,
    d: int,
    t: float,
    y: np.ndarray,
    h: float,
    p: np.ndarray,
    rtol: float,
    atol: float,
    slopes: np.ndarray,
    after: np.ndarray,
) -> float:
    """Try a step of h from y, whose derivative is slopes[0]; fills `slopes` and `after`.

    Returns the error in units of the tolerance: the step is good where it is at most 1. NaN where the numbers ran out.
    """
    n = len(y)
    for stage in range(1, STAGES):
        for i in range(n):
            total = 0.0
            for j in range(stage):
                total += A[stage, j] * slopes[j, i]
            after[i] = y[i] + h * total
        derive(flow, d, t + C[stage] * h, after, p, slopes[stage])
    for i in range(n):
        total = 0.0
        for j in range(STAGES):
            total += B[j] * slopes[j, i]
        after[i] = y[i] + h * total
    derive(flow, d, t + h, after, p, slopes[STAGES])
    fifth = third = 0.0
    for i in range(n):
        e5 = e3 = 0.0
        for j in range(STAGES + 1):
            e5 += E5[j] * slopes[j, i]
            e3 += E3[j] * slopes[j, i]
        scale = atol + max(abs(y[i]), abs(after[i])) * rtol
        fifth += (e5 / scale) ** 2
        third += (e3 / scale) ** 2
    if fifth == 0.0:
        return 0.0 if third == 0.0 else 1e-10
    return float(h * fifth / np.sqrt((fifth + 0.01 * third) * n))


@compiled  # type: ignore[untyped-decorator]
def next_size(h: float, error: float) -> float:
    """The size of the next step after one of h with this error."""
    if not np.isfinite(error):
        return h * SMALLEST
    factor = LARGEST if error == 0.0 else SAFETY * error**-0.125
    return h * min(LARGEST if error <= 1.0 else 1.0, max(SMALLEST, factor))


@compiled  # type: ignore[untyped-decorator]
def interpolant(
    flow: Any,
    d: int,
    t: float,
    y: np.ndarray,
    h: float,
    p: np.ndarray,
    slopes: np.ndarray,
    after: np.ndarray,
    curve: np.ndarray,
) -> None:
    """Fill the coefficients `curve` (7, n) of the interpolant of a step that was good."""
    n = len(y)
    between = np.empty(n)
    for extra in range(len(EXTRA_C)):
        row = STAGES + 1 + extra
        for i in range(n):
            total = 0.0
            for j in range(row):
                total += EXTRA_A[extra, j] * slopes[j, i]
            between[i] = y[i] + h * total
        derive(flow, d, t + EXTRA_C[extra] * h, between, p, slopes[row])
    for i in range(n):
        change = after[i] - y[i]
        curve[0, i] = change
        curve[1, i] = h * slopes[0, i] - change
        curve[2, i] = 2 * change - h * (slopes[STAGES, i] + slopes[0, i])
        for k in range(len(DENSE)):
            total = 0.0
            for j in range(ROWS):
                total += DENSE[k, j] * slopes[j, i]
            curve[3 + k, i] = h * total


@compiled  # type: ignore[untyped-decorator]
def read(curve: np.ndarray, share: float, y: np.ndarray, out: np.ndarray) -> None:
    """The state at a share in [0, 1] of the step that began at y."""
    for i in range(len(y)):
        value = 0.0
        for k in range(len(curve)):
            value = (value + curve[len(curve) - 1 - k, i]) * (share if k % 2 == 0 else 1 - share)
        out[i] = y[i] + value
