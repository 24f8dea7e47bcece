"""Is the mean of something linear in what is given? A test by random Fourier features and sign flips."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from retrodict.errors import DataError


def linearity_test(
    values: ArrayLike, given: ArrayLike, bandwidth: float, *, features: int = 100, draws: int = 999, seed: int = 0
) -> float:
    """p-value of E[values | given] being affine in `given`, small where it is not.

    The residual of the least-squares affine fit is held against random Fourier features of `given`; how large their moments are
    by chance is found by flipping the signs of whole residuals: a wild bootstrap, which asks of them no more than symmetry.

    Args:
        values: (n, d), on data that the values were not fitted to.
        given: (n, k).
        bandwidth: scale of the curvature looked for, in the units of `given`.
        features, draws, seed: of the features and the flips.

    Raises DataError where there are fewer rows than the affine fit and its residual need.
    """
    v, a = np.asarray(values, float), np.asarray(given, float)
    if len(v) != len(a) or len(v) < a.shape[1] + 3:
        raise DataError(f"a test of linearity needs pairs, at least {a.shape[1] + 3} of them, got {len(v)} and {len(a)}.")
    rng = np.random.default_rng(seed)
    design = np.linalg.qr(np.column_stack([np.ones(len(a)), a]))[0]
    waves = np.cos(a @ rng.normal(size=(a.shape[1], features)) / bandwidth + rng.uniform(0, 2 * np.pi, features))
    rest, waves = v - design @ (design.T @ v), waves - design @ (design.T @ waves)
    rest = rest / np.maximum(rest.std(0), 1e-300)
    found = float(((waves.T @ rest) ** 2).sum())
    chance = [float(((waves.T @ (rest * rng.choice((-1.0, 1.0), (len(rest), 1)))) ** 2).sum()) for _ in range(draws)]
    return (1 + sum(value >= found for value in chance)) / (draws + 1)
