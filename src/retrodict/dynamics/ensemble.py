"""Ensembles of trajectories, compiled: many initial states of one flow, each with steps of its own size, read at given times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import float64, int64, void
from numba.extending import is_jitted
from numpy.typing import ArrayLike

from retrodict.dynamics.runge_kutta import (
    FLOW,
    ROWS,
    SIGNATURE,
    STAGES,
    attempt,
    derive,
    first_step,
    interpolant,
    next_size,
    read,
)
from retrodict.errors import DataError

COMPLETE, BLEW_UP, GAVE_UP = 0, 1, 2
Flow = Callable[..., Any]


def flow(function: Callable[..., None]) -> Flow:
    """Compile `function(t, x, parameters, dx)`, which writes the derivative of x (d,) into dx, for `integrate_ensemble`."""
    compiled: Flow = numba.njit(SIGNATURE, error_model="numpy", nogil=True)(function)
    return compiled


@dataclass(frozen=True)
class Ensemble:
    """Trajectories side by side.

    Attributes:
        states: (B, T, d); NaN after the time at which a trajectory ended early.
        times: (T,).
        ended: (B,), the time that each reached: the last of `times`, or that of its blow-up or surrender.
        outcome: (B,), `COMPLETE`, `BLEW_UP` (no step is small enough) or `GAVE_UP` (`max_steps` are not enough: it is stiff).
    """

    states: np.ndarray
    times: np.ndarray
    ended: np.ndarray
    outcome: np.ndarray

    @property
    def complete(self) -> np.ndarray:
        """(B,), whether each reached the last time."""
        return np.asarray(self.outcome == COMPLETE)


def integrate_ensemble(
    rhs: Flow,
    initial: ArrayLike,
    times: ArrayLike,
    parameters: ArrayLike = (),
    *,
    rtol: float = 1e-9,
    atol: float | None = None,
    max_steps: int = 1_000_000,
) -> Ensemble:
    """Integrate dx/dt = rhs from every initial state by Dormand-Prince 8(5,3), read at `times` by its interpolant.

    Args:
        rhs: a flow made by `flow`.
        initial: (B, d), or (d,) for one.
        times: (T,), rising; the first is that of the initial states.
        parameters: (n,) handed to the flow, or (B, n), one row per member.
        rtol, atol: tolerances on the error of a step; `atol` is `rtol` where not given.
        max_steps: per trajectory.

    A trajectory that blows up is no error: it ends, and `ended` says when.

    Raises DataError where times do not rise, states are not finite, or shapes do not fit.
    """
    if not is_jitted(rhs):
        raise DataError("integrate_ensemble takes a compiled flow: decorate the right-hand side with dynamics.ensemble.flow.")
    x = np.atleast_2d(np.array(initial, np.float64, order="C"))
    t = np.ascontiguousarray(times, np.float64)
    p = np.array(parameters, np.float64, order="C")
    p = np.array(np.broadcast_to(p, (len(x), p.shape[-1])), order="C")
    if x.ndim != 2 or not x.size or not np.isfinite(x).all():
        raise DataError(f"initial states are finite numbers (B, d), got shape {list(np.shape(initial))}.")
    if t.ndim != 1 or not len(t) or not np.isfinite(t).all() or (np.diff(t) <= 0).any():
        raise DataError("times must rise, the first being that of the initial states.")
    if rtol <= 0 or (atol is not None and atol <= 0) or max_steps < 1:
        raise DataError(f"tolerances are above 0 and max_steps at least 1; got {rtol}, {atol}, {max_steps}.")
    states = np.full((len(x), len(t), x.shape[1]), np.nan)
    ended, outcome = np.empty(len(x)), np.empty(len(x), np.int64)
    _compiled_integrate()(rhs, x, t, p, rtol, rtol if atol is None else atol, max_steps, states, ended, outcome)
    return Ensemble(states, t, ended, outcome)


@cache
def _compiled_integrate() -> Any:
    matrix = float64[:, ::1]
    arrays = (matrix, float64[::1], matrix)
    signature = void(FLOW, *arrays, float64, float64, int64, float64[:, :, ::1], float64[::1], int64[::1])
    return numba.njit(signature, cache=True, error_model="numpy", nogil=True)(_integrate)


def _integrate(
    rhs: Any,
    initial: np.ndarray,
    times: np.ndarray,
    parameters: np.ndarray,
    rtol: float,
    atol: float,
    max_steps: int,
    states: np.ndarray,
    ended: np.ndarray,
    outcome: np.ndarray,
) -> None:
    """Fill states (B, T, d), ended (B,) and outcome (B,)."""
    d = initial.shape[1]
    slopes, curve, after = np.empty((ROWS, d)), np.empty((7, d)), np.empty(d)
    for b in range(len(initial)):
        y, t, p = initial[b].copy(), times[0], parameters[b]
        states[b, 0] = y
        derive(rhs, d, t, y, p, slopes[0])
        h = first_step(rhs, d, t, y, p, slopes, rtol, atol)
        due, steps = 1, 0
        outcome[b] = COMPLETE
        while due < len(times):
            if steps == max_steps:
                outcome[b] = GAVE_UP
                break
            if not h > 10 * np.spacing(abs(t)) or not np.isfinite(h):
                outcome[b] = BLEW_UP
                break
            steps += 1
            error = attempt(rhs, d, t, y, h, p, rtol, atol, slopes, after)
            if error <= 1.0:
                if times[due] <= t + h:
                    interpolant(rhs, d, t, y, h, p, slopes, after, curve)
                    while due < len(times) and times[due] <= t + h:
                        read(curve, (times[due] - t) / h, y, states[b, due])
                        due += 1
                t += h
                y[:] = after
                slopes[0] = slopes[STAGES]
            h = next_size(h, error)
        ended[b] = times[-1] if outcome[b] == COMPLETE else t
