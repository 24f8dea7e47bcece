"""The compiled loops of gated recurrent units, forward and by hand backward; `gru` wraps them for torch.

All arrays are C-contiguous and of single precision. The batch is the innermost axis, so that every gate of every unit is one pass
over neighbouring memory; the recurrent product of a step is one small matrix product (BLAS). Compiled when first called, and
kept on disk.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from retrodict.networks.compiled import ONE, f32, sigmoid, tanh

Array = Any  # numba knows them by their types; annotations are for readers


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def recurrence(gates: Array, around: Array, bias: Array, states: Array, kept: Array) -> None:
    """Fill `states` (T + 1, M, H, B), of which the first is given, and `kept` (T, M, 4 H, B): reset, update, new, inner.

    From gates (M, 3 H, T, B), recurrent weights (M, 3 H, H) and bias (M, 3 H, 1).
    """
    steps, members, hidden, size = len(kept), states.shape[1], states.shape[2], states.shape[3]
    r = np.empty((3 * hidden, size), f32)
    for t in range(steps):
        for m in range(members):
            before, after, k = states[t, m], states[t + 1, m], kept[t, m]
            np.dot(around[m], before, r)
            for j in range(hidden):
                i, n = hidden + j, 2 * hidden + j
                g_reset, g_update, g_new = gates[m, j, t], gates[m, i, t], gates[m, n, t]
                r_reset, r_update, r_new = r[j], r[i], r[n]
                b_reset, b_update, b_new = bias[m, j, 0], bias[m, i, 0], bias[m, n, 0]
                k_reset, k_update, k_new, k_inner = k[j], k[i], k[n], k[3 * hidden + j]
                h, z = before[j], after[j]
                for b in range(size):
                    reset = sigmoid(g_reset[b] + r_reset[b] + b_reset)
                    update = sigmoid(g_update[b] + r_update[b] + b_update)
                    inner = r_new[b] + b_new
                    new = tanh(g_new[b] + reset * inner)
                    k_reset[b], k_update[b], k_new[b], k_inner[b] = reset, update, new, inner
                    z[b] = new + update * (h[b] - new)


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def recurrence_backward(
    by_states: Array, around_t: Array, states: Array, kept: Array, by_gates: Array, by_around: Array, by_bias: Array
) -> None:
    """Fill `by_gates` (M, 3 H, T, B), and add to `by_around` (M, 3 H, H) and `by_bias` (M, 3 H), by `by_states` (T, M, H, B)."""
    steps, members, hidden, size = by_states.shape
    carried, by_r, every = np.zeros((members, hidden, size), f32), np.empty((3 * hidden, size), f32), np.ones(size, f32)
    for t in range(steps - 1, -1, -1):
        for m in range(members):
            before, k, c = states[t, m], kept[t, m], carried[m]
            for j in range(hidden):
                i, n = hidden + j, 2 * hidden + j
                k_reset, k_update, k_new, k_inner = k[j], k[i], k[n], k[3 * hidden + j]
                r_reset, r_update, r_new = by_r[j], by_r[i], by_r[n]
                g_reset, g_update, g_new = by_gates[m, j, t], by_gates[m, i, t], by_gates[m, n, t]
                given, back, h = by_states[t, m, j], c[j], before[j]
                for b in range(size):
                    at = given[b] + back[b]
                    reset, update, new = k_reset[b], k_update[b], k_new[b]
                    by_new = at * (ONE - update) * (ONE - new * new)
                    by_reset = by_new * k_inner[b] * reset * (ONE - reset)
                    by_update = at * (h[b] - new) * update * (ONE - update)
                    r_reset[b], r_update[b], r_new[b] = by_reset, by_update, by_new * reset
                    g_reset[b], g_update[b], g_new[b] = by_reset, by_update, by_new
                    back[b] = at * update
            c += np.dot(around_t[m], by_r)
            by_around[m] += np.dot(by_r, before.T)
            by_bias[m] += np.dot(by_r, every)
