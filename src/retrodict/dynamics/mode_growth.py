"""How one mode of a deep linear network grows: the equation tau du/dt = N u^(2-2/N) (s - u) solved for every depth at once.

(Saxe, McClelland and Ganguli, 2014, sections 1.1 and 3.) With w = u/s = 1/(1 + sign e^-y), where the sign is + below the
target s and - above it, the equation becomes d(theta)/dy = (1 + sign e^-y)^b with b = 1 - 2/N and theta = N s^(2-2/N) t / tau:
smooth and monotone for every number N of weight matrices. N = 1 gives the exponential, N = 2 the logistic curve, N = inf (time
rescaled by N) the limit of infinite depth. Time is found from strength by quadrature, strength from time by inverting that.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from retrodict.errors import DataError

CELL = 0.05
"""Step of the table in y; quintic Hermite interpolation between its entries is then right to about 1e-12."""

GROWN = 40.0
"""Beyond this y, u equals s in double precision."""

NODES, WEIGHTS = np.polynomial.legendre.leggauss(10)


def growth(times: ArrayLike, targets: ArrayLike, starts: ArrayLike, depth: float, tau: float = 1.0) -> np.ndarray:
    """Strengths u (T, k) of k modes at times (T,).

    Args:
        times: at least 0, in the unit of `tau` (optimiser steps where tau = 1 / learning rate); for infinite depth, in tau / N.
        targets: s (k,), above 0.
        starts: u0 (k,) or one for all, at least 0; above s the mode decays. At exactly 0 it stays there unless `depth` is 1.
        depth: number N of weight matrices, at least 1; `math.inf` for the limit.

    Raises DataError for a depth, a target, a start or a time out of these ranges.
    """
    at, s, u0 = _checked(targets, starts, depth, times)
    if depth == 1:
        return np.asarray(s + (u0 - s) * np.exp(-at[:, None] / tau))
    order = np.argsort(at, kind="stable")
    angles, sign = at[order] / tau, np.where(u0 < s, 1.0, -1.0)
    moves = (u0 > 0) & (u0 != s)
    grown = np.empty((len(s), len(at)))
    grown[~moves] = u0[~moves, None]
    for kind in (1.0, -1.0):
        moving = np.flatnonzero(moves & (sign == kind))
        if moving.size:
            y = _logit(u0[moving] / s[moving])
            table = _table(float(y.min()), kind, _exponent(depth))
            curve = (table.angles, table.shares, table.first, table.second)
            _fill(grown, moving, order, angles, _speed(s[moving], depth), table.angle(y), s[moving], *curve)
    return grown.T


def growth_time(ends: ArrayLike, targets: ArrayLike, starts: ArrayLike, depth: float, tau: float = 1.0) -> np.ndarray:
    """Time (k,) that each mode takes from its start to `ends` (k,): inf where it never gets there, 0 where it began beyond.

    Arguments as in `growth`.
    """
    _, s, u0 = _checked(targets, starts, depth, 0.0)
    end = np.broadcast_to(np.asarray(ends, float), s.shape)
    rises = u0 < s
    never = np.where(rises, end >= s, end <= s) | ((u0 == 0) & (depth != 1))
    took = np.where(never, math.inf, 0.0)
    took[there := np.where(rises, end <= u0, end >= u0)] = 0.0
    for i in np.flatnonzero(~never & ~there):
        if depth == 1:
            took[i] = tau * math.log((s[i] - u0[i]) / (s[i] - end[i]))
        else:
            y = _logit(np.array([u0[i], end[i]]) / s[i])
            angle = _table(float(y.min()), 1.0 if rises[i] else -1.0, _exponent(depth)).angle(y)
            took[i] = tau * (angle[1] - angle[0]) / _speed(s[i], depth)
    return took


def slope(strengths: ArrayLike, targets: ArrayLike, depth: float, tau: float = 1.0) -> np.ndarray:
    """du/dt of modes (..., k) at given strengths."""
    u, s = np.asarray(strengths, float), np.asarray(targets, float)
    factor = 1.0 if math.isinf(depth) else depth
    return np.asarray(factor * np.maximum(u, 0.0) ** (1 + _exponent(depth)) * (s - u) / tau)


def unbalanced_growth(times: ArrayLike, target: float, first: float, second: float, tau: float = 1.0) -> np.ndarray:
    """Strength u = a b (T,) of one mode behind two weights that begin unequal, a = `first` and b = `second`.

    c = |a^2 - b^2| is conserved; with u = (c/2) sinh(theta), tau d(theta)/dt = 2 s - c sinh(theta). In A = c e^theta this is a
    Riccati equation whose solution is written so that c = 0 is the balanced curve (re-derived; Saxe et al., appendix A).
    """
    at, s = np.asarray(times, float), float(target)
    c, u0 = abs(first**2 - second**2), first * second
    root = math.hypot(2 * s, c)
    rest, high, low = math.sqrt(4 * u0**2 + c**2), 2 * s + root, -(c**2) / (2 * s + root)
    begin = rest + 2 * u0 if u0 >= 0 else c**2 / (rest - 2 * u0)  # c e^theta, without cancellation
    if begin == 0:
        return np.full(at.shape, u0)  # nothing there, or a saddle of opposite signs without anything conserved
    ratio = (begin - high) / (begin - low) * np.exp(-root * at / tau)
    grown = (high - low * ratio) / (1 - ratio)
    return np.asarray((grown - c**2 / grown) / 4)


def largest_rate(targets: ArrayLike, depth: int) -> float:
    """The learning rate at which gradient descent loses its fixed point, 2 / (N s_max^(2-2/N)): twice one over the curvature."""
    return float(2 / (depth * np.max(np.asarray(targets, float)) ** (2 - 2 / depth)))


# ---- details ------------------------------------------------------------------------------------------------------------------


class Table(NamedTuple):
    """The one curve that all modes of a depth share, each from its own place on.

    Attributes:
        knots, angles: y and theta (K,), rising.
        shares: w = u/s at the knots.
        first, second: dw/dtheta and its derivative by theta at the knots.
        sign, exponent: of the integrand (1 + sign e^-y)^exponent.
    """

    knots: np.ndarray
    angles: np.ndarray
    shares: np.ndarray
    first: np.ndarray
    second: np.ndarray
    sign: float
    exponent: float

    def angle(self, y: np.ndarray) -> np.ndarray:
        """Theta at any y between the first and the last knot."""
        cell = np.clip(np.searchsorted(self.knots, y, "right") - 1, 0, len(self.knots) - 1)
        return np.asarray(self.angles[cell] + _integral(self.knots[cell], y, self.sign, self.exponent))


def _table(lowest: float, sign: float, b: float) -> Table:
    if sign > 0:  # theta is 0 at y = 0, so that it is exact to rounding where a mode rises, however small others begin
        below = max(math.ceil(-lowest / CELL), 0) + 1
        knots = CELL * np.arange(-below, math.ceil(GROWN / CELL) + 1)
    else:  # finer cells, as the curve bends more, that shrink towards the pole at y = 0
        cell = CELL / 2
        near = np.exp(np.arange(math.log(min(lowest, 1.0)), 0.0, cell))
        knots, below = np.concatenate([near, 1.0 + cell * np.arange(math.ceil(GROWN / cell))]), len(near)
    rises = _integral(knots[:-1], knots[1:], sign, b)
    angles = np.concatenate([-np.cumsum(rises[:below][::-1])[::-1], [0.0], np.cumsum(rises[below:])])
    e = sign * np.exp(-knots)
    w = 1 / (1 + e)
    left = e * w  # 1 - w, without cancellation
    first = w ** (1 + b) * left
    return Table(knots, angles, w, first, first * w**b * ((1 + b) * left - w), sign, b)


def _integral(low: np.ndarray, high: np.ndarray, sign: float, b: float) -> np.ndarray:
    y = low[:, None] + (high - low)[:, None] * (1 + NODES) / 2
    return np.asarray((high - low) / 2 * ((1 + sign * np.exp(-y)) ** b @ WEIGHTS))


@njit(cache=True)
def _fill(
    out: np.ndarray,
    moving: np.ndarray,
    order: np.ndarray,
    times: np.ndarray,
    speeds: np.ndarray,
    begins: np.ndarray,
    targets: np.ndarray,
    angles: np.ndarray,
    shares: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
) -> None:  # pragma: no cover
    """Write strengths of modes that are at angle `begins` at time 0 into their rows, by quintic Hermite interpolation.

    Times are rising, and `order` says in which column each of them is written. Beyond the last knot a mode equals its target.
    """
    for m in range(len(moving)):
        row, target = out[moving[m]], targets[m]
        cell = max(np.searchsorted(angles, begins[m]), 1)
        loaded = -1
        for i in range(len(times)):
            angle = begins[m] + speeds[m] * times[i]
            while cell < len(angles) and angles[cell] < angle:
                cell += 1
            if cell == len(angles):
                for rest in range(i, len(times)):
                    row[order[rest]] = target
                break
            if cell != loaded:
                loaded = cell
                low, took = cell - 1, angles[cell] - angles[cell - 1]
                w, d0, d1 = shares[low], took * first[low], took * first[cell]
                c0, c1 = took * took * second[low], took * took * second[cell]
                rise, turn, bend = shares[cell] - w - d0 - 0.5 * c0, d1 - d0 - c0, c1 - c0
                p3, p4, p5 = 10 * rise - 4 * turn + 0.5 * bend, -15 * rise + 7 * turn - bend, 6 * rise - 3 * turn + 0.5 * bend
                start, pace = angles[low], 1 / took
            x = (angle - start) * pace
            row[order[i]] = target * (w + x * (d0 + x * (0.5 * c0 + x * (p3 + x * (p4 + x * p5)))))


def _checked(targets: ArrayLike, starts: ArrayLike, depth: float, times: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    at, s = np.atleast_1d(np.asarray(times, float)), np.atleast_1d(np.asarray(targets, float))
    u0 = np.array(np.broadcast_to(np.asarray(starts, float), s.shape))
    if not depth >= 1:
        raise DataError(f"a network has at least one weight matrix, got depth {depth}.")
    if not (np.isfinite(s).all() and (s > 0).all()):
        raise DataError("a mode to be learned has a finite strength above 0; drop modes that the data do not have.")
    if not (np.isfinite(u0).all() and (u0 >= 0).all()):
        raise DataError("a mode begins at a finite strength of at least 0.")
    if not (np.isfinite(at).all() and (at >= 0).all()):
        raise DataError("times must be finite and at least 0.")
    return at, s, u0


def _exponent(depth: float) -> float:
    return 1.0 if math.isinf(depth) else 1 - 2 / depth


def _speed(s: np.ndarray, depth: float) -> np.ndarray:
    """d(theta)/dt in units of 1 / tau."""
    return np.asarray(s**2 if math.isinf(depth) else depth * s ** (2 - 2 / depth))


def _logit(w: np.ndarray) -> np.ndarray:
    """The y of w = 1 / (1 + sign e^-y), for w other than 0 and 1."""
    below = w < 1
    return np.where(below, np.log(w) - np.log1p(-np.where(below, w, 0.5)), -np.log1p(-1 / np.where(below, 2.0, w)))
