"""Dynamic mode decompositions against linear systems that are known."""

import numpy as np
import pytest

from retrodict.dynamics.dmd import dmd, hankel_dmd, havok
from retrodict.errors import DataError

RNG = np.random.default_rng(0)


def test_a_linear_system_is_decomposed_and_forecast():
    true = RNG.normal(size=(4, 4)) / 2
    x = RNG.normal(size=(50, 4))
    modes = dmd(x, x @ true)
    expected = np.linalg.eigvals(true)
    assert np.abs(modes.eigenvalues[:, None] - expected).min(0).max() < 1e-10
    path = modes.forecast(x, 3)
    np.testing.assert_allclose(path[:, 0], x, atol=1e-10)
    np.testing.assert_allclose(path[:, 3], x @ np.linalg.matrix_power(true, 3), atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(modes.modes, axis=1), 1)


def test_redundant_columns_are_left_out():
    x = RNG.normal(size=(50, 2)) @ RNG.normal(size=(2, 5))
    assert len(dmd(x, 0.5 * x).eigenvalues) == 2
    assert len(dmd(x, 0.5 * x, rank=1).eigenvalues) == 1
    with pytest.raises(DataError, match="rows"):
        dmd(x, x[:-1])


def test_delays_see_frequencies_that_one_coordinate_hides():
    t = np.arange(200)
    series = (np.cos(0.3 * t) + 0.5 * np.cos(1.1 * t))[:, None]
    found = hankel_dmd(series, 10)
    assert np.abs(np.sort(np.abs(np.angle(found.eigenvalues)))[::2] - [0.3, 1.1]).max() < 1e-8


def test_havok_splits_a_linear_part_from_its_forcing():
    t = 0.01 * np.arange(3000)
    found = havok(np.cos(2 * t) + 0.5 * np.cos(5 * t), 100, 4, 0.01)
    assert found.coordinates.shape == (2901, 4)
    whole = np.linalg.lstsq(found.coordinates, np.gradient(found.coordinates, 0.01, axis=0), rcond=None)[0]
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(whole).imag), [-5, -2, 2, 5], atol=0.02)
    np.testing.assert_allclose(found.linear, whole[:3, :3], atol=0.02)
    with pytest.raises(DataError, match="2 to 5"):
        havok(t, 5, 6, 0.01)
