"""Full-batch gradient descent of a deep linear network, compiled: it sees its data only through second moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numba import njit

from retrodict.errors import DataError


@dataclass(frozen=True)
class Descent:
    """What a network did while it learned.

    Attributes:
        steps: steps (T,) at which weights were kept, 0 first.
        weights: one array (T, out, in) per layer.
        losses: mean squared error / 2 before each step and after the last, (steps done + 1,).
    """

    steps: np.ndarray
    weights: tuple[np.ndarray, ...]
    losses: np.ndarray


def descend(
    weights: Sequence[np.ndarray],
    cross: np.ndarray,
    covariance: np.ndarray,
    energy: float,
    rate: float,
    steps: int,
    *,
    every: int = 1,
    stop: float = -np.inf,
) -> Descent:
    """Train y = W x, W = W_N ... W_1, on all samples at once and in float64, by gradient descent on E|y - W x|^2 / 2.

    Args:
        weights: initial matrices (out, in), the first layer first; they are not changed.
        cross, covariance, energy: S31 = E[y x^T], S11 = E[x x^T] and E[|y|^2].
        rate, steps: of gradient descent.
        every: steps between kept weights.
        stop: ends as soon as the loss is at or below.

    A loss that is no longer finite ends the descent too and is the last of `losses`.
    Raises DataError where the matrices do not form a chain from x to y.
    """
    shapes = [np.shape(w) for w in weights]
    chain = [(a[0], b[1]) for a, b in pairwise(shapes)]
    if not shapes or any(len(s) != 2 for s in shapes) or any(a != b for a, b in chain):
        raise DataError(f"layers of shapes {shapes} do not form a chain: each takes what the one before gives out.")
    if (shapes[-1][0], shapes[0][1]) != cross.shape:
        raise DataError(f"layers of shapes {shapes} do not lead from {cross.shape[1]} inputs to {cross.shape[0]} outputs.")
    size = max(max(s) for s in shapes)
    stack = np.zeros((len(shapes), size, size))  # rows and columns of zeros stay zeros, so one size serves all layers
    for padded, w in zip(stack, weights, strict=True):
        padded[: w.shape[0], : w.shape[1]] = w
    s31, s11 = np.zeros((size, size)), np.zeros((size, size))
    s31[: cross.shape[0], : cross.shape[1]], s11[: len(covariance), : len(covariance)] = cross, covariance
    kept, losses = _descend(stack, s31, s11, float(energy), float(rate), int(steps), int(every), float(stop))
    layers = tuple(kept[:, i, : s[0], : s[1]].copy() for i, s in enumerate(shapes))
    return Descent(np.arange(len(kept)) * every, layers, losses)


@njit(cache=True)
def _descend(
    w: np.ndarray, s31: np.ndarray, s11: np.ndarray, energy: float, rate: float, steps: int, every: int, stop: float
) -> tuple[np.ndarray, np.ndarray]:  # pragma: no cover
    depth, size = w.shape[0], w.shape[1]
    kept = np.empty((steps // every + 1, depth, size, size))
    losses = np.empty(steps + 1)
    below = np.empty((depth + 1, size, size))
    below[0] = np.eye(size)
    back, gradient = np.empty((size, size)), np.empty((size, size))
    step = 0
    while True:
        for i in range(depth):
            np.dot(w[i], below[i], below[i + 1])
        moved = np.dot(below[depth], s11)
        losses[step] = 0.5 * (energy + np.sum(below[depth] * (moved - 2 * s31)))
        if step % every == 0:
            kept[step // every] = w
        if step == steps or losses[step] <= stop or not np.isfinite(losses[step]):
            break
        error = s31 - moved
        for i in range(depth - 1, -1, -1):
            np.dot(error, below[i].T, gradient)
            np.dot(w[i].T, error, back)
            w[i] += rate * gradient
            error[:] = back
        step += 1
    return kept[: step // every + 1], losses[: step + 1]
