"""The compiled loops of the recurrent scan, forward and by hand backward; `scan` wraps them for torch.

All arrays are C-contiguous and of one floating type. A loop over steps does one small matrix product (BLAS) for each matrix and
one pass over the batch; the gradients of the matrices are left to products over all steps at once. Vectors of parameters come
repeated over the batch, (B, M) or (B, H), so that a pass runs over one flat piece of memory. Compiled when first called for a
type, and kept on disk.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from retrodict.dynamics.scan import MIXED, SPARSE

Array = Any  # numba knows them by their types; annotations are for readers


@numba.njit(inline="always")
def _force(state: Array, signal: Array, kind: int, every: int, alpha: float, step: int, out: Array) -> None:
    """Fill `out` (B, M), what the next step starts from: a state, its first N entries replaced by the signal or mixed with it."""
    out[:] = state
    if kind == MIXED:
        s = signal[step]
        for b in range(s.shape[0]):
            for n in range(s.shape[1]):
                out[b, n] += alpha * (s[b, n] - state[b, n])
    elif kind == SPARSE and (step + 1) % every == 0:
        out[:, : signal.shape[2]] = signal[step]


@numba.njit(inline="always")
def _force_backward(grad: Array, state: Array, signal: Array, kind: int, every: int, alpha: float, step: int) -> Any:
    """Turn the gradient of what `_force` gave into that of the state, in place; returns the gradient of alpha."""
    by_alpha = grad.dtype.type(0)
    if kind == MIXED:
        s, kept = signal[step], grad.dtype.type(1) - alpha
        for b in range(s.shape[0]):
            for n in range(s.shape[1]):
                by_alpha += grad[b, n] * (s[b, n] - state[b, n])
                grad[b, n] *= kept
    elif kind == SPARSE and (step + 1) % every == 0:
        grad[:, : signal.shape[2]] = 0
    return by_alpha


@numba.njit(cache=True)
def almost_linear(
    z0: Array,
    a: Array,
    w_t: Array,
    h: Array,
    floor: Array,
    drive: Array,
    signal: Array,
    kind: int,
    every: int,
    alpha: float,
    inputs: Array,
    active: Array,
    out: Array,
) -> None:
    """Z' = a z + W max(z, floor) + h: fill `out` (T, B, M) with states, `inputs` with what each step started from, `active` with
    max(inputs, floor). `floor` is 0 for a rectified entry and -inf for a linear one.
    """
    inputs[0] = z0
    af, hf, ff = a.reshape(-1), h.reshape(-1), floor.reshape(-1)
    for t in range(len(out)):
        x, phi, z = inputs[t].reshape(-1), active[t].reshape(-1), out[t].reshape(-1)
        for i in range(len(x)):
            phi[i] = x[i] if x[i] > ff[i] else ff[i]
        np.dot(active[t], w_t, out[t])
        for i in range(len(x)):
            z[i] += af[i] * x[i] + hf[i]
        if len(drive):
            out[t] += drive[t]
        if t + 1 < len(out):
            _force(out[t], signal, kind, every, alpha, t, inputs[t + 1])


@numba.njit(cache=True)
def almost_linear_backward(
    grad: Array,
    a: Array,
    w: Array,
    floor: Array,
    signal: Array,
    kind: int,
    every: int,
    alpha: float,
    inputs: Array,
    out: Array,
    by_state: Array,
) -> tuple[Array, float]:
    """Fill `by_state` (T, B, M) with the gradients of the states before forcing; returns those of z0 and of alpha."""
    zero = a.dtype.type(0)
    d, u, by_alpha = grad[-1].copy(), np.empty_like(grad[-1]), zero
    af, ff, df, uf = a.reshape(-1), floor.reshape(-1), d.reshape(-1), u.reshape(-1)
    for t in range(len(out) - 1, -1, -1):
        by_state[t] = d
        np.dot(d, w, u)
        x = inputs[t].reshape(-1)
        for i in range(len(x)):
            df[i] = af[i] * df[i] + (uf[i] if x[i] > ff[i] else zero)
        if t:
            by_alpha += _force_backward(d, out[t - 1], signal, kind, every, alpha, t - 1)
            d += grad[t - 1]
    return d, by_alpha


@numba.njit(cache=True)
def shallow(
    z0: Array,
    a: Array,
    full: bool,
    w1_t: Array,
    w2_t: Array,
    h1: Array,
    h2: Array,
    clipped: bool,
    drive: Array,
    signal: Array,
    kind: int,
    every: int,
    alpha: float,
    inputs: Array,
    hidden: Array,
    active: Array,
    out: Array,
) -> None:
    """Z' = A z + W1 [relu(W2 z + h2) - relu(W2 z)] + h1, the second rectifier where `clipped`: fill `out` (T, B, M) with states,
    `inputs` with what each step started from, `hidden` (T, B, H) with W2 z and `active` (T, B, H) with the bracket.

    `a` is the transpose of A where it is `full`, else its diagonal repeated over the batch.
    """
    zero = z0.dtype.type(0)
    inputs[0] = z0
    through = np.empty_like(z0)
    af, h1f, h2f, thf = a.reshape(-1), h1.reshape(-1), h2.reshape(-1), through.reshape(-1)
    for t in range(len(out)):
        x, pre, r, z = inputs[t].reshape(-1), hidden[t].reshape(-1), active[t].reshape(-1), out[t].reshape(-1)
        np.dot(inputs[t], w2_t, hidden[t])
        if clipped:
            for i in range(len(pre)):
                lifted = pre[i] + h2f[i]
                r[i] = (lifted if lifted > zero else zero) - (pre[i] if pre[i] > zero else zero)
        else:
            for i in range(len(pre)):
                lifted = pre[i] + h2f[i]
                r[i] = lifted if lifted > zero else zero
        np.dot(active[t], w1_t, out[t])
        if full:
            np.dot(inputs[t], a, through)
            for i in range(len(x)):
                z[i] += thf[i] + h1f[i]
        else:
            for i in range(len(x)):
                z[i] += af[i] * x[i] + h1f[i]
        if len(drive):
            out[t] += drive[t]
        if t + 1 < len(out):
            _force(out[t], signal, kind, every, alpha, t, inputs[t + 1])


@numba.njit(cache=True)
def shallow_backward(
    grad: Array,
    a: Array,
    full: bool,
    w1: Array,
    w2: Array,
    h2: Array,
    clipped: bool,
    signal: Array,
    kind: int,
    every: int,
    alpha: float,
    hidden: Array,
    out: Array,
    by_state: Array,
    by_hidden: Array,
) -> tuple[Array, Array, float]:
    """Fill the gradients `by_state` (T, B, M) of the states before forcing and `by_hidden` (T, B, H) of W2 z.

    Returns those of z0, of h2 (B, H), and of alpha. `a` is A where it is `full`, else its diagonal repeated over the batch.
    """
    zero = a.dtype.type(0)
    d, through, by_alpha = grad[-1].copy(), np.empty_like(grad[-1]), zero
    y, by_h2 = np.empty_like(h2), np.zeros_like(h2)
    af, h2f, df, thf, yf, gf = a.reshape(-1), h2.reshape(-1), d.reshape(-1), through.reshape(-1), y.reshape(-1), by_h2.reshape(-1)
    for t in range(len(out) - 1, -1, -1):
        by_state[t] = d
        pre, q = hidden[t].reshape(-1), by_hidden[t].reshape(-1)
        np.dot(d, w1, y)
        for i in range(len(pre)):
            lifted = yf[i] if pre[i] + h2f[i] > zero else zero
            gf[i] += lifted
            q[i] = lifted - (yf[i] if clipped and pre[i] > zero else zero)
        if full:
            np.dot(d, a, through)
            np.dot(by_hidden[t], w2, d)
            d += through
        else:
            np.dot(by_hidden[t], w2, through)
            for i in range(len(df)):
                df[i] = af[i] * df[i] + thf[i]
        if t:
            by_alpha += _force_backward(d, out[t - 1], signal, kind, every, alpha, t - 1)
            d += grad[t - 1]
    return d, by_h2, by_alpha
