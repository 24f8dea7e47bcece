"""The compiled loops of a GRU that is fed its own draws, forward and by hand backward; `latent_priors` wraps them for torch.

All arrays are C-contiguous and of single precision, the batch innermost. H units, D numbers of a draw.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from retrodict.networks.compiled import exp, f32
from retrodict.networks.gru_kernels import cell, cell_backward

Array = Any  # numba knows them by their types; annotations are for readers

HALF, ZERO = f32(1 / 2), f32(0)


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def draws(
    noise: Array,
    inwards: Array,
    inwards_bias: Array,
    around: Array,
    around_bias: Array,
    heads: Array,
    heads_bias: Array,
    bounds: Array,
    states: Array,
    kept: Array,
    moments: Array,
    drawn: Array,
) -> None:
    """Fill `drawn` (T + 1, D, B) and `states` (T + 1, H, B), of which the first are given, `kept` and `moments` (T, 2 D, B).

    Each draw is mean + exp(logvar / 2) noise, both linear in the state, logvar between `bounds` (2,).
    Weights: (3 H, D), (3 H,), (3 H, H), (3 H, 1), (2 D, H), (2 D,).
    """
    low, high = bounds
    steps, width, size = noise.shape
    hidden = states.shape[1]
    given, r = np.empty((3 * hidden, 1, size), f32), np.empty((3 * hidden, size), f32)
    for t in range(steps):
        np.dot(inwards, drawn[t], r)
        for j in range(3 * hidden):
            row, bias, rest = given[j, 0], inwards_bias[j], r[j]
            for b in range(size):
                row[b] = rest[b] + bias
        np.dot(around, states[t], r)
        cell(given, 0, r, around_bias, states[t], states[t + 1], kept[t])
        np.dot(heads, states[t + 1], moments[t])
        for j in range(width):
            mean, logvar = moments[t, j], moments[t, width + j]
            at_mean, at_logvar, e, z = heads_bias[j], heads_bias[width + j], noise[t, j], drawn[t + 1, j]
            for b in range(size):
                v = logvar[b] + at_logvar
                v = low if v < low else v
                v = high if v > high else v
                mean[b] += at_mean
                logvar[b] = v
                z[b] = mean[b] + exp(HALF * v) * e[b]


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def draws_backward(
    by_drawn: Array,
    by_moments: Array,
    noise: Array,
    inwards_t: Array,
    around_t: Array,
    heads_t: Array,
    bounds: Array,
    states: Array,
    kept: Array,
    moments: Array,
    drawn: Array,
    by_inwards: Array,
    by_inwards_bias: Array,
    by_around: Array,
    by_around_bias: Array,
    by_heads: Array,
    by_heads_bias: Array,
) -> None:
    """Add to the gradients of all weights, by those of the draws (T, D, B) and of their moments (T, 2 D, B)."""
    low, high = bounds
    steps, width, size = noise.shape
    hidden = states.shape[1]
    back, by_state = np.zeros((hidden, size), f32), np.empty((hidden, size), f32)
    by_z, by_m = np.zeros((width, size), f32), np.empty((2 * width, size), f32)
    by_given, by_g = np.empty((3 * hidden, 1, size), f32), np.empty((3 * hidden, size), f32)
    by_r, every = np.empty((3 * hidden, size), f32), np.ones(size, f32)
    for t in range(steps - 1, -1, -1):
        for j in range(width):
            logvar, e = moments[t, width + j], noise[t, j]
            told, carried = by_drawn[t, j], by_z[j]
            told_mean, told_logvar = by_moments[t, j], by_moments[t, width + j]
            row_mean, row_logvar = by_m[j], by_m[width + j]
            for b in range(size):
                at, v = told[b] + carried[b], logvar[b]
                slope = told_logvar[b] + at * e[b] * HALF * exp(HALF * v)
                row_mean[b] = told_mean[b] + at
                row_logvar[b] = ZERO if v <= low or v >= high else slope
        by_heads += np.dot(by_m, states[t + 1].T)
        by_heads_bias += np.dot(by_m, every)
        np.dot(heads_t, by_m, by_state)
        cell_backward(by_state, back, states[t], kept[t], by_r, by_given, 0)
        back += np.dot(around_t, by_r)
        by_around += np.dot(by_r, states[t].T)
        by_around_bias[:, 0] += np.dot(by_r, every)
        by_g[:] = by_given[:, 0]
        by_inwards += np.dot(by_g, drawn[t].T)
        by_inwards_bias += np.dot(by_g, every)
        np.dot(inwards_t, by_g, by_z)
