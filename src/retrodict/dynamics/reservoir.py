"""An echo-state reservoir, compiled: r' = (1 - leak) r + leak tanh(W r + V x + b), with W sparse."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

Array = Any  # numba knows them by their types; annotations are for readers


def random_reservoir(
    units: int, inputs: int, *, radius: float, degree: int, scale: float, bias: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Columns (U, degree) and weights (U, degree) of W, V (U, N) and b (U,), float64; W has the spectral radius asked for."""
    rng = np.random.default_rng(seed)
    columns = np.stack([rng.choice(units, min(degree, units), replace=False) for _ in range(units)])
    weights = rng.uniform(-1, 1, columns.shape)
    dense = np.zeros((units, units))
    np.put_along_axis(dense, columns, weights, 1)
    weights *= radius / np.abs(np.linalg.eigvals(dense)).max()
    return columns, weights, scale * rng.uniform(-1, 1, (units, inputs)), bias * rng.uniform(-1, 1, units)


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def drive(r: Array, x: Array, columns: Array, weights: Array, inputs: Array, bias: Array, leak: float) -> Array:
    """Reservoir states (T, U) after each of the observations x (T, N), from r (U,) on."""
    states = np.empty((len(x), len(r)))
    before = r
    for t in range(len(x)):
        for u in range(len(r)):
            total = bias[u]
            for k in range(columns.shape[1]):
                total += weights[u, k] * before[columns[u, k]]
            for n in range(x.shape[1]):
                total += inputs[u, n] * x[t, n]
            states[t, u] = (1 - leak) * before[u] + leak * np.tanh(total)
        before = states[t]
    return states


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def run_freely(
    r: Array, steps: int, columns: Array, weights: Array, inputs: Array, bias: Array, leak: float, readout: Array
) -> Array:
    """What is read out (steps, B, N) after each step of reservoirs r (B, U) that are fed what they say: x = [r, 1] readout."""
    batch, units = r.shape
    width = readout.shape[1]
    said = np.empty((steps, batch, width))
    state, after = r.copy(), np.empty_like(r)
    for t in range(steps):
        x = state @ readout[:units] + readout[units]
        for b in range(batch):
            for u in range(units):
                total = bias[u]
                for k in range(columns.shape[1]):
                    total += weights[u, k] * state[b, columns[u, k]]
                for n in range(width):
                    total += inputs[u, n] * x[b, n]
                after[b, u] = (1 - leak) * state[b, u] + leak * np.tanh(total)
        state, after = after, state
        said[t] = state @ readout[:units] + readout[units]
    return said
