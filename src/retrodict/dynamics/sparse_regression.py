"""Sparse regression: sequentially thresholded least squares, and ensembles of it that say how sure one may be of each term.

Rows of a library Theta (T, F) are samples, its columns functions; targets y (T, D) are met by Theta coefficients (F, D). All that
depends on T is summed up once in Theta'Theta and Theta'y, so that rounds, thresholds and members cost little.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from retrodict.errors import DataError

JITTER = 1e-13
"""Added to the diagonal of a correlation matrix, so that columns that depend on each other share what they explain."""


def stlsq(theta: np.ndarray, y: np.ndarray, threshold: ArrayLike, ridge: float = 0.0, rounds: int = 20) -> np.ndarray:
    """Coefficients (..., F, D): least squares, again and again without those that came out below the threshold.

    (Brunton, Proctor and Kutz, 2016.) The last solution, on the terms that stay, is free of the ridge. Each column of y keeps
    terms of its own.

    Args:
        theta: (T, F).
        y: (T, D).
        threshold: one number, or an array that broadcasts to (..., F, D): one for each term, several sets of them at once.
        ridge: weight of the sum of squares of the coefficients.
        rounds: at most.

    Raises DataError where theta and y do not fit or are not finite.
    """
    gram, moment = normal_equations(theta, y)
    return stlsq_of(gram, moment, threshold, ridge, rounds)


def normal_equations(theta: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Theta'W Theta (F, F) and Theta'W y (F, D), with weights (T,) of the rows.

    Raises DataError where theta and y do not fit or are not finite.
    """
    if theta.ndim != 2 or y.ndim != 2 or len(theta) != len(y) or not len(y):
        raise DataError(f"a library (T, F) and targets (T, D) are expected, got {list(theta.shape)} and {list(y.shape)}.")
    if not np.isfinite(theta).all() or not np.isfinite(y).all():
        raise DataError("the library or the targets are not finite.")
    weighed = theta if weights is None else theta * weights[:, None]
    return weighed.T @ theta, weighed.T @ y


def stlsq_of(
    gram: np.ndarray,
    moment: np.ndarray,
    threshold: ArrayLike,
    ridge: float = 0.0,
    rounds: int = 20,
    available: np.ndarray | None = None,
) -> np.ndarray:
    """As `stlsq`, of Theta'Theta (..., F, F) and Theta'y (..., F, D); `available` (..., F) says which terms may be used."""
    least = np.swapaxes(np.broadcast_to(threshold, np.broadcast_shapes(np.shape(threshold), moment.shape)), -1, -2)
    kept = np.ones(least.shape, bool) if available is None else np.broadcast_to(available[..., None, :], least.shape)
    for _ in range(rounds):
        found = _solved(gram, moment, kept, ridge)
        now = kept & (np.abs(found) >= least)
        if (now == kept).all():
            break
        kept = now
    return np.swapaxes(_solved(gram, moment, kept, 0.0), -1, -2)


def dependent(theta: np.ndarray, tolerance: float = 1e-6) -> np.ndarray:
    """Which columns of theta (T, F) are, on these rows, combinations of others to within a tolerance, (F,) of True and False."""
    _, sizes, directions = np.linalg.svd(theta / np.maximum(np.linalg.norm(theta, axis=0), 1e-300), full_matrices=False)
    nothing = directions[sizes < tolerance * sizes[0]]
    return np.asarray((nothing**2).sum(0) > 0.01)


def refitted(gram: np.ndarray, moment: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Least squares (F, D) on a support (F, D) of True and False."""
    return np.swapaxes(_solved(gram, moment, support.T, 0.0), -1, -2)


def _solved(gram: np.ndarray, moment: np.ndarray, kept: np.ndarray, ridge: float) -> np.ndarray:
    """Ridge regression (..., D, F) on the terms kept (..., D, F)."""
    size = np.sqrt(np.maximum(np.diagonal(gram, axis1=-2, axis2=-1), 1e-300))[..., None, :]
    both = kept[..., :, None] & kept[..., None, :]
    correlation = gram[..., None, :, :] / (size[..., :, None] * size[..., None, :]) * both
    diagonal = np.where(kept, JITTER + ridge / size**2, 1.0)
    wanted = np.where(kept, np.swapaxes(moment, -1, -2) / size, 0.0)
    return np.asarray(
        np.linalg.solve(correlation + diagonal[..., None] * np.eye(gram.shape[-1]), wanted[..., None])[..., 0] / size
    )


@dataclass(frozen=True)
class Ensemble:
    """How STLSQ is repeated on parts of the data and of the library.  (Ensemble-SINDy: Fasel et al., 2022)

    Attributes:
        members: how many.
        bag: rows drawn for each, with replacement, as a share of all.
        drop: columns of the library that each has to do without.
        block: rows that follow each other and are drawn together: those of a series are not independent.
    """

    members: int = 20
    bag: float = 0.6
    drop: int = 0
    block: int = 1

    def fit(
        self, theta: np.ndarray, y: np.ndarray, threshold: ArrayLike, ridge: float = 0.0, rounds: int = 20, seed: int = 0
    ) -> Members:
        """The members; see `stlsq`.

        Raises DataError for settings that leave nothing to draw from.
        """
        if self.members < 1 or not self.bag > 0 or not 0 <= self.drop < theta.shape[1] or self.block < 1:
            raise DataError(f"an ensemble has members, rows and columns; got {self} for {theta.shape[1]} columns.")
        rng = np.random.default_rng(seed)
        of = np.arange(len(theta)) // self.block
        blocks = int(of[-1]) + 1
        drawn = max(1, round(self.bag * blocks))
        sums = [
            normal_equations(theta, y, np.bincount(rng.integers(0, blocks, drawn), minlength=blocks)[of].astype(float))
            for _ in range(self.members)
        ]
        gram, moment = (np.stack(part) for part in zip(*sums, strict=True))
        available = np.ones((self.members, theta.shape[1]), bool)
        for row in available:
            row[rng.choice(len(row), self.drop, replace=False)] = False
        return Members(stlsq_of(gram, moment, threshold, ridge, rounds, available), available)


@dataclass(frozen=True)
class Members:
    """Coefficients that an ensemble found.

    Attributes:
        coefficients: (n, F, D).
        available: (n, F), which terms each member could use.
    """

    coefficients: np.ndarray
    available: np.ndarray

    @cached_property
    def inclusion(self) -> np.ndarray:
        """(F, D), the share of the members that found a term, among those that could use it."""
        return np.asarray((self.coefficients != 0).sum(0) / np.maximum(self.available.sum(0), 1)[:, None])

    def working(self, how: Literal["median", "mean"] | int = "median") -> np.ndarray:
        """The one matrix (F, D) to print, predict and simulate with: median, mean, or a member."""
        if isinstance(how, int):
            return np.asarray(self.coefficients[how])
        return np.asarray(np.median(self.coefficients, 0) if how == "median" else self.coefficients.mean(0))

    def std(self, theta: np.ndarray) -> np.ndarray:
        """Standard deviations (T, D) of what is said of rows theta (T, F): sqrt(theta Cov theta')."""
        centred = self.coefficients - self.coefficients.mean(0)
        return np.asarray(np.sqrt(np.mean((theta @ centred) ** 2, 0)))
