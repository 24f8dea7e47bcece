"""The compiled loops of a neural controlled equation, forward and by hand backward; `neural_cde` wraps them for torch.

All arrays are C-contiguous and of single precision. The batch is the innermost axis; the products with weights are small matrix
products (BLAS). Compiled when first called, and kept on disk.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from retrodict.networks.compiled import ONE, f32, tanh

Array = Any  # numba knows them by their types; annotations are for readers

HALF, THIRD, SIXTH = f32(1 / 2), f32(1 / 3), f32(1 / 6)
ZERO = f32(0)


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def controlled(
    rises: Array, inner: Array, inner_bias: Array, last: Array, last_bias: Array, states: Array, units: Array, matrices: Array
) -> None:
    """Fill `states` (T, H, B), of which the first is given, `units` (T - 1, 4, L + 1, H, B) and `matrices` (T - 1, 4, H C, B).

    One step of the classical Runge-Kutta method between two times. `rises` (T - 1, 3, C, B) are what drives it at the beginning,
    the middle and the end of a step, for a whole step; `units` are each stage's state and what the hidden layers make of it,
    `matrices` what the last layer does. Weights: (L, H, H), (L, H), (H C, H), (H C,).
    """
    gaps, layers, hidden, size = units.shape[0], units.shape[2] - 1, units.shape[3], units.shape[4]
    channels = rises.shape[2]
    k, total = np.zeros((hidden, size), f32), np.empty((hidden, size), f32)
    for t in range(gaps):
        x = states[t]
        for stage in range(4):
            ahead = ZERO if stage == 0 else ONE if stage == 3 else HALF
            weight = THIRD if stage == 1 or stage == 2 else SIXTH
            rise, matrix = rises[t, (stage + 1) // 2], matrices[t, stage]
            a = units[t, stage, 0]
            for j in range(hidden):
                for b in range(size):
                    a[j, b] = x[j, b] + ahead * k[j, b] if stage > 0 else x[j, b]
            for i in range(layers):
                after = units[t, stage, i + 1]
                np.dot(inner[i], units[t, stage, i], after)
                for j in range(hidden):
                    row, bias = after[j], inner_bias[i, j]
                    for b in range(size):
                        u = row[b] + bias
                        row[b] = ZERO if u < ZERO else u
            np.dot(last, units[t, stage, layers], matrix)
            for j in range(hidden):
                slope = k[j]
                for b in range(size):
                    slope[b] = ZERO
                for c in range(channels):
                    row, bias, driver = matrix[j * channels + c], last_bias[j * channels + c], rise[c]
                    for b in range(size):
                        row[b] = tanh(row[b] + bias)
                        slope[b] += row[b] * driver[b]
                moved = total[j]
                for b in range(size):
                    moved[b] = weight * slope[b] + (moved[b] if stage > 0 else ZERO)
        for j in range(hidden):
            for b in range(size):
                states[t + 1, j, b] = x[j, b] + total[j, b]


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def controlled_backward(
    by_states: Array,
    rises: Array,
    inner_t: Array,
    last_t: Array,
    units: Array,
    matrices: Array,
    by_start: Array,
    by_rises: Array,
    by_inner: Array,
    by_inner_bias: Array,
    by_last: Array,
    by_last_bias: Array,
) -> None:
    """Fill `by_start` (H, B) and add to the other gradients, from those of all states, (T, H, B)."""
    gaps, layers, hidden, size = units.shape[0], units.shape[2] - 1, units.shape[3], units.shape[4]
    channels = rises.shape[2]
    carried, by_k, by_x = by_start, np.empty((hidden, size), f32), np.empty((hidden, size), f32)
    by_matrix, by_units = np.empty((hidden * channels, size), f32), np.empty((hidden, size), f32)
    every = np.ones(size, f32)
    for j in range(hidden):
        for b in range(size):
            carried[j, b] = by_states[gaps, j, b]
    for t in range(gaps - 1, -1, -1):
        for j in range(hidden):
            for b in range(size):
                by_x[j, b] = carried[j, b]
        for stage in range(3, -1, -1):
            weight = THIRD if stage == 1 or stage == 2 else SIXTH
            ahead = ONE if stage == 2 else HALF  # how far the next stage stands along this one's slope
            rise, by_rise = rises[t, (stage + 1) // 2], by_rises[t, (stage + 1) // 2]
            for j in range(hidden):
                for b in range(size):
                    by_k[j, b] = weight * carried[j, b] + (ahead * by_units[j, b] if stage < 3 else ZERO)
                slope = by_k[j]
                for c in range(channels):
                    row, driver, by_driver = matrices[t, stage, j * channels + c], rise[c], by_rise[c]
                    by_row = by_matrix[j * channels + c]
                    for b in range(size):
                        by_driver[b] += slope[b] * row[b]
                        by_row[b] = slope[b] * driver[b] * (ONE - row[b] * row[b])
            by_last += np.dot(by_matrix, units[t, stage, layers].T)
            by_last_bias += np.dot(by_matrix, every)
            np.dot(last_t, by_matrix, by_units)
            for i in range(layers - 1, -1, -1):
                made = units[t, stage, i + 1]
                for j in range(hidden):
                    row, given = by_units[j], made[j]
                    for b in range(size):
                        row[b] = row[b] if given[b] > ZERO else ZERO
                by_inner[i] += np.dot(by_units, units[t, stage, i].T)
                by_inner_bias[i] += np.dot(by_units, every)
                by_units[:] = np.dot(inner_t[i], by_units)
            for j in range(hidden):
                for b in range(size):
                    by_x[j, b] += by_units[j, b]
        for j in range(hidden):
            for b in range(size):
                carried[j, b] = by_x[j, b] + by_states[t, j, b]
