"""The test of linearity: even under what it assumes, small where the mean bends."""

import numpy as np
import pytest

from retrodict.errors import DataError
from retrodict.metrics.linearity import linearity_test


def trials(seed, bend=0.0):
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1, 1, (400, 2))
    return action @ rng.normal(size=(2, 2)) + bend * action**2 + rng.normal(size=(400, 2)), action


def test_p_values_are_even_where_the_mean_is_linear():
    found = np.array([linearity_test(*trials(seed), 0.7, draws=99) for seed in range(60)])
    assert 0.35 < found.mean() < 0.65
    assert (found < 0.1).mean() < 0.2


def test_a_bend_is_seen():
    assert linearity_test(*trials(0, bend=0.7), 0.7, draws=199) == pytest.approx(1 / 200)


def test_too_few_rows_are_refused():
    with pytest.raises(DataError, match="at least 5"):
        linearity_test(np.ones((4, 1)), np.ones((4, 2)), 1.0)
