"""Symbolic dynamics, against shifts whose entropy is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodict.errors import DataError
from retrodict.metrics.symbolic import symbol_graph, word_entropy


def test_occupancy_and_transitions_of_a_sequence():
    graph = symbol_graph(np.array([7, 7, 3, 7, 7, 7, 3, 7]))
    assert graph.codes.tolist() == [7, 3]
    assert graph.occupancy.tolist() == [0.75, 0.25]
    np.testing.assert_allclose(graph.transitions, [[0.6, 0.4], [1, 0]])
    assert (graph.covering(0.75), graph.covering(0.99)) == (1, 2)


def test_the_golden_mean_shift_has_the_entropy_of_the_golden_mean():
    rng, symbols = np.random.default_rng(0), [0]
    while len(symbols) < 20_000:
        symbols.append(0 if symbols[-1] else int(rng.integers(2)))
    expected = np.log((1 + np.sqrt(5)) / 2)
    assert symbol_graph(np.array(symbols)).entropy == pytest.approx(expected)
    assert word_entropy(np.array(symbols), 10) == pytest.approx(expected, rel=0.1)


def test_a_periodic_sequence_has_no_entropy():
    symbols = np.tile([0, 1, 2], 50)
    assert symbol_graph(symbols).entropy == pytest.approx(0, abs=1e-9)
    assert word_entropy(symbols, 20) == pytest.approx(np.log(3) / 20)


def test_codes_that_are_hardly_visited_are_left_out():
    symbols = np.array([0] * 50 + [1] + [0] * 50)
    assert symbol_graph(symbols, least=0.05).codes.tolist() == [0]


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=60))
def test_rows_of_transitions_are_probabilities_and_occupancies_add_up(symbols):
    graph = symbol_graph(np.array(symbols))
    assert graph.occupancy.sum() == pytest.approx(1)
    rows = graph.transitions.sum(1)
    assert np.all(np.isclose(rows, 1) | (rows == 0))
    assert graph.entropy <= np.log(len(graph.codes)) + 1e-9


@pytest.mark.parametrize("bad", [lambda: symbol_graph(np.array([1])), lambda: word_entropy(np.array([1, 2]), 3)])
def test_too_little_is_refused(bad):
    with pytest.raises(DataError):
        bad()
