"""The compiled loops of the recurrent scan, forward and by hand backward; `scan` wraps them for torch.

All arrays are C-contiguous and of one floating type. A loop over steps does one small matrix product (BLAS) for each matrix and
one pass over the batch; the gradients of the matrices are left to products over all steps at once. Vectors of parameters come
repeated over the batch, (B, M) or (B, H), so that a pass runs over one flat piece of memory. As little is kept as can be: a step
writes its state to where the next one starts from, and only the first n entries, which are asked for, are copied out. Compiled
when first called for a type, and kept on disk.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from retrodict.dynamics.scan import MIXED, SPARSE

Array = Any  # numba knows them by their types; annotations are for readers


@numba.njit(inline="always")
def _force(state: Array, signal: Array, kind: int, every: int, alpha: float, step: int) -> None:
    """Turn a state (B, M) into what the next step starts from: its first N entries become the signal or are mixed with it."""
    if kind == MIXED:
        s = signal[step]
        for b in range(s.shape[0]):
            for n in range(s.shape[1]):
                state[b, n] += alpha * (s[b, n] - state[b, n])
    elif kind == SPARSE and (step + 1) % every == 0:
        state[:, : signal.shape[2]] = signal[step]


@numba.njit(inline="always")
def _force_backward(grad: Array, seen: Array, signal: Array, kind: int, every: int, alpha: float, step: int) -> Any:
    """Turn the gradient of what `_force` gave into that of the state, in place; returns the gradient of alpha."""
    by_alpha = grad.dtype.type(0)
    if kind == MIXED:
        s, z, kept = signal[step], seen[step], grad.dtype.type(1) - alpha
        for b in range(s.shape[0]):
            for n in range(s.shape[1]):
                by_alpha += grad[b, n] * (s[b, n] - z[b, n])
                grad[b, n] *= kept
    elif kind == SPARSE and (step + 1) % every == 0:
        grad[:, : signal.shape[2]] = 0
    return by_alpha


@numba.njit(inline="always")
def _add_seen(grad: Array, by_seen: Array) -> None:
    """Add the gradient of the entries that are seen, (B, n), to that of a state (B, M)."""
    for b in range(by_seen.shape[0]):
        for n in range(by_seen.shape[1]):
            grad[b, n] += by_seen[b, n]


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
    seen: Array,
) -> None:
    """The map z' = a z + W max(z, floor) + h, with a floor of 0 for a rectified entry and -inf for a linear one.

    Fills `seen` (T, B, n) with states, `inputs` (T + 1, B, M) with what each step started from, and `active` (T, B, M) with
    max(inputs, floor).
    """
    inputs[0] = z0
    steps, entries = len(seen), seen.shape[2]
    af, hf, ff = a.reshape(-1), h.reshape(-1), floor.reshape(-1)
    for t in range(steps):
        x, phi, z = inputs[t].reshape(-1), active[t].reshape(-1), inputs[t + 1].reshape(-1)
        for i in range(len(x)):
            phi[i] = x[i] if x[i] > ff[i] else ff[i]
        np.dot(active[t], w_t, inputs[t + 1])
        for i in range(len(x)):
            z[i] += af[i] * x[i] + hf[i]
        if len(drive):
            inputs[t + 1] += drive[t]
        seen[t] = inputs[t + 1][:, :entries]
        if t + 1 < steps:
            _force(inputs[t + 1], signal, kind, every, alpha, t)


@numba.njit(cache=True)
def almost_linear_backward(
    by_seen: Array,
    a: Array,
    w: Array,
    floor: Array,
    signal: Array,
    kind: int,
    every: int,
    alpha: float,
    inputs: Array,
    seen: Array,
    by_state: Array,
) -> tuple[Array, float]:
    """Fill `by_state` (T, B, M) with the gradients of the states before forcing; returns those of z0 and of alpha."""
    zero = a.dtype.type(0)
    steps, by_alpha = len(seen), zero
    u, by_z0 = np.empty_like(a), np.empty_like(a)
    af, ff, uf = a.reshape(-1), floor.reshape(-1), u.reshape(-1)
    by_state[steps - 1] = 0
    _add_seen(by_state[steps - 1], by_seen[steps - 1])
    for t in range(steps - 1, -1, -1):
        np.dot(by_state[t], w, u)
        before = by_state[t - 1] if t else by_z0
        x, d, e = inputs[t].reshape(-1), by_state[t].reshape(-1), before.reshape(-1)
        for i in range(len(x)):
            e[i] = af[i] * d[i] + (uf[i] if x[i] > ff[i] else zero)
        if t:
            by_alpha += _force_backward(before, seen, signal, kind, every, alpha, t - 1)
            _add_seen(before, by_seen[t - 1])
    return by_z0, by_alpha


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
    seen: Array,
) -> None:
    """The map z' = A z + W1 [relu(W2 z + h2) - relu(W2 z)] + h1, the second rectifier where `clipped`.

    Fills `seen` (T, B, n) with states, `inputs` (T + 1, B, M) with what each step started from, `hidden` (T, B, H) with W2 z and
    `active` (T, B, H) with the bracket. `a` is the transpose of A where it is `full`, else its diagonal repeated over the batch.
    """
    zero = z0.dtype.type(0)
    inputs[0] = z0
    steps, entries = len(seen), seen.shape[2]
    through = np.empty_like(z0)
    af, h1f, h2f, thf = a.reshape(-1), h1.reshape(-1), h2.reshape(-1), through.reshape(-1)
    for t in range(steps):
        x, pre, r, z = inputs[t].reshape(-1), hidden[t].reshape(-1), active[t].reshape(-1), inputs[t + 1].reshape(-1)
        np.dot(inputs[t], w2_t, hidden[t])
        if clipped:
            for i in range(len(pre)):
                lifted = pre[i] + h2f[i]
                r[i] = (lifted if lifted > zero else zero) - (pre[i] if pre[i] > zero else zero)
        else:
            for i in range(len(pre)):
                lifted = pre[i] + h2f[i]
                r[i] = lifted if lifted > zero else zero
        np.dot(active[t], w1_t, inputs[t + 1])
        if full:
            np.dot(inputs[t], a, through)
            for i in range(len(x)):
                z[i] += thf[i] + h1f[i]
        else:
            for i in range(len(x)):
                z[i] += af[i] * x[i] + h1f[i]
        if len(drive):
            inputs[t + 1] += drive[t]
        seen[t] = inputs[t + 1][:, :entries]
        if t + 1 < steps:
            _force(inputs[t + 1], signal, kind, every, alpha, t)


@numba.njit(cache=True)
def shallow_backward(
    by_seen: Array,
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
    seen: Array,
    by_state: Array,
    by_hidden: Array,
) -> tuple[Array, Array, float]:
    """Fill the gradients `by_state` (T, B, M) of the states before forcing and `by_hidden` (T, B, H) of W2 z.

    Returns those of z0, of h2 (B, H), and of alpha. `a` is A where it is `full`, else its diagonal repeated over the batch.
    """
    zero = by_seen.dtype.type(0)
    steps, by_alpha = len(seen), zero
    by_z0 = np.empty_like(by_state[0])
    through, y, by_h2 = np.empty_like(by_z0), np.empty_like(h2), np.zeros_like(h2)
    af, h2f, thf, yf, gf = a.reshape(-1), h2.reshape(-1), through.reshape(-1), y.reshape(-1), by_h2.reshape(-1)
    by_state[steps - 1] = 0
    _add_seen(by_state[steps - 1], by_seen[steps - 1])
    for t in range(steps - 1, -1, -1):
        pre, q = hidden[t].reshape(-1), by_hidden[t].reshape(-1)
        np.dot(by_state[t], w1, y)
        for i in range(len(pre)):
            lifted = yf[i] if pre[i] + h2f[i] > zero else zero
            gf[i] += lifted
            q[i] = lifted - (yf[i] if clipped and pre[i] > zero else zero)
        before = by_state[t - 1] if t else by_z0
        np.dot(by_hidden[t], w2, before)
        d, e = by_state[t].reshape(-1), before.reshape(-1)
        if full:
            np.dot(by_state[t], a, through)
            for i in range(len(e)):
                e[i] += thf[i]
        else:
            for i in range(len(e)):
                e[i] += af[i] * d[i]
        if t:
            by_alpha += _force_backward(before, seen, signal, kind, every, alpha, t - 1)
            _add_seen(before, by_seen[t - 1])
    return by_z0, by_h2, by_alpha
