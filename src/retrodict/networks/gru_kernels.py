"""The compiled loops of gated recurrent units, forward and by hand backward; `gru` wraps them for torch.

All arrays are C-contiguous and of single precision. The batch is the innermost axis, so that every gate of every unit is one pass
over neighbouring memory; the recurrent product of a step is one small matrix product (BLAS). Compiled when first called, and
kept on disk.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

Array = Any  # numba knows them by their types; annotations are for readers

# Loops become vectors where divisions do not stop to ask about zero (`error_model`), and run faster with additions fused into
# multiplications (`contract`).

f32 = np.float32
ONE, TWO = f32(1), f32(2)


@numba.njit(inline="always", error_model="numpy", fastmath={"contract"})
def _exp(x: Any) -> Any:
    """e^x to a unit in the last place or two: a power of two, and a polynomial over half an octave to either side.

    Written out because the compiler makes vectors of it, and not of calls of the mathematical library. (Coefficients: Moshier,
    Cephes, expf.)
    """
    x = f32(-87) if x < f32(-87) else x  # written so that what is not a number stays none
    x = f32(87) if x > f32(87) else x
    octave = np.floor(x * f32(1.44269504) + f32(0.5))
    r = x - octave * f32(0.693359375) + octave * f32(2.12194440e-4)  # ln 2 in two parts, the first one exact
    p = f32(1.9875691500e-4)
    p = p * r + f32(1.3981999507e-3)
    p = p * r + f32(8.3334519073e-3)
    p = p * r + f32(4.1665795894e-2)
    p = p * r + f32(1.6666665459e-1)
    p = p * r + f32(5.0000001201e-1)
    p = p * r * r + r + ONE
    return p * np.int32((np.int32(octave) + np.int32(127)) << np.int32(23)).view(f32)


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
                    reset = ONE / (ONE + _exp(-(g_reset[b] + r_reset[b] + b_reset)))
                    update = ONE / (ONE + _exp(-(g_update[b] + r_update[b] + b_update)))
                    inner = r_new[b] + b_new
                    new = ONE - TWO / (_exp(TWO * (g_new[b] + reset * inner)) + ONE)
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
