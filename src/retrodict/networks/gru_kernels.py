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
def cell(given: Array, t: int, r: Array, bias: Array, before: Array, after: Array, kept: Array) -> None:
    """Fill the state `after` (H, B) and `kept` (4 H, B): reset, update, new, inner.

    From what the inputs give to the gates, `given` (3 H, T, B) at t, the recurrent product r (3 H, B) and its bias (3 H, 1).
    """
    hidden, size = before.shape
    for j in range(hidden):
        i, n = hidden + j, 2 * hidden + j
        g_reset, g_update, g_new = given[j, t], given[i, t], given[n, t]
        r_reset, r_update, r_new = r[j], r[i], r[n]
        b_reset, b_update, b_new = bias[j, 0], bias[i, 0], bias[n, 0]
        k_reset, k_update, k_new, k_inner = kept[j], kept[i], kept[n], kept[3 * hidden + j]
        h, z = before[j], after[j]
        for b in range(size):
            reset = sigmoid(g_reset[b] + r_reset[b] + b_reset)
            update = sigmoid(g_update[b] + r_update[b] + b_update)
            inner = r_new[b] + b_new
            new = tanh(g_new[b] + reset * inner)
            k_reset[b], k_update[b], k_new[b], k_inner[b] = reset, update, new, inner
            z[b] = new + update * (h[b] - new)


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def cell_backward(by_after: Array, back: Array, before: Array, kept: Array, by_r: Array, by_given: Array, t: int) -> None:
    """Fill `by_r` (3 H, B) and `by_given` (3 H, T, B) at t, by the gradient of the state, `by_after` + `back`, (H, B) each.

    `back` then holds what reaches the state before past the gates; what reaches it by the recurrent product is still to be added.
    """
    hidden, size = before.shape
    for j in range(hidden):
        i, n = hidden + j, 2 * hidden + j
        k_reset, k_update, k_new, k_inner = kept[j], kept[i], kept[n], kept[3 * hidden + j]
        r_reset, r_update, r_new = by_r[j], by_r[i], by_r[n]
        g_reset, g_update, g_new = by_given[j, t], by_given[i, t], by_given[n, t]
        told, carried, h = by_after[j], back[j], before[j]
        for b in range(size):
            at = told[b] + carried[b]
            reset, update, new = k_reset[b], k_update[b], k_new[b]
            by_new = at * (ONE - update) * (ONE - new * new)
            by_reset = by_new * k_inner[b] * reset * (ONE - reset)
            by_update = at * (h[b] - new) * update * (ONE - update)
            r_reset[b], r_update[b], r_new[b] = by_reset, by_update, by_new * reset
            g_reset[b], g_update[b], g_new[b] = by_reset, by_update, by_new
            carried[b] = at * update


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def recurrence(gates: Array, around: Array, bias: Array, states: Array, kept: Array) -> None:
    """Fill `states` (T + 1, M, H, B), of which the first is given, and `kept` (T, M, 4 H, B), see `cell`.

    From gates (M, 3 H, T, B), recurrent weights (M, 3 H, H) and bias (M, 3 H, 1).
    """
    steps, members, hidden, size = len(kept), states.shape[1], states.shape[2], states.shape[3]
    r = np.empty((3 * hidden, size), f32)
    for t in range(steps):
        for m in range(members):
            np.dot(around[m], states[t, m], r)
            cell(gates[m], t, r, bias[m], states[t, m], states[t + 1, m], kept[t, m])


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def recurrence_backward(
    by_states: Array, around_t: Array, states: Array, kept: Array, by_gates: Array, by_around: Array, by_bias: Array
) -> None:
    """Fill `by_gates` (M, 3 H, T, B), and add to `by_around` (M, 3 H, H) and `by_bias` (M, 3 H), by `by_states` (T, M, H, B)."""
    steps, members, hidden, size = by_states.shape
    back, by_r, every = np.zeros((members, hidden, size), f32), np.empty((3 * hidden, size), f32), np.ones(size, f32)
    for t in range(steps - 1, -1, -1):
        for m in range(members):
            cell_backward(by_states[t, m], back[m], states[t, m], kept[t, m], by_r, by_gates[m], t)
            back[m] += np.dot(around_t[m], by_r)
            by_around[m] += np.dot(by_r, states[t, m].T)
            by_bias[m] += np.dot(by_r, every)
