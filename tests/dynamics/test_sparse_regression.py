"""Sparse regression against PySINDy and what is known, derivatives of polynomials, polynomial flows against closed forms."""

import numpy as np
import pytest

from retrodict.dynamics.derivatives import LocalPolynomial
from retrodict.dynamics.libraries import Monomials
from retrodict.dynamics.polynomial_flow import PolynomialFlow
from retrodict.dynamics.sparse_regression import Ensemble, dependent, normal_equations, refitted, stlsq, stlsq_of
from retrodict.errors import DataError


@pytest.fixture(scope="module")
def problem():
    """Theta (400, 10), y (400, 2) with noise, and the coefficients (10, 2) behind it."""
    rng = np.random.default_rng(0)
    theta = Monomials(2).transform(rng.normal(size=(400, 3)))
    true = np.zeros((10, 2))
    true[[1, 5], 0] = 2.0, -0.5
    true[[0, 3, 9], 1] = 0.3, -1.0, 0.25
    return theta, theta @ true + 0.02 * rng.normal(size=(400, 2)), true


@pytest.mark.parametrize(("threshold", "ridge"), [(0.1, 1e-5), (0.28, 0.5), (0.01, 0.0)])
def test_stlsq_is_that_of_pysindy(problem, threshold, ridge):
    pysindy = pytest.importorskip("pysindy", reason='pysindy is not installed: pip install "retrodict[chaos]"')
    theta, y, _ = problem
    reference = pysindy.STLSQ(threshold=threshold, alpha=ridge)
    for i in range(y.shape[1]):
        reference.fit(theta, y[:, i : i + 1])
        np.testing.assert_allclose(stlsq(theta, y, threshold, ridge)[:, i], reference.coef_[0], atol=1e-6)


def test_terms_are_found_and_several_thresholds_are_one_call(problem):
    theta, y, true = problem
    assert ((stlsq(theta, y, 0.1) != 0) == (true != 0)).all()
    assert stlsq(theta, y, 0.1) == pytest.approx(true, abs=0.01)
    thresholds = np.array([0.0, 0.1, 0.4, 9.0])
    together = stlsq_of(*normal_equations(theta, y), thresholds[:, None, None])
    for threshold, found in zip(thresholds, together, strict=True):
        assert found == pytest.approx(stlsq(theta, y, threshold))
    assert [np.count_nonzero(found) for found in together] == [20, 5, 3, 0]
    own = np.where(np.arange(10) == 1, 9.0, 0.1)[:, None]  # a threshold for every term
    assert np.flatnonzero((stlsq(theta, y, own) != 0).any(1)).tolist() == [0, 3, 5, 9]


def test_an_ensemble_is_sure_of_what_is_there_and_not_of_what_is_not(problem):
    theta, y, true = problem
    members = Ensemble(members=40, drop=2).fit(theta, y, 0.1, seed=0)
    assert members.inclusion[true != 0].min() > 0.95
    assert members.inclusion[true == 0].max() < 0.5  # some stand in for one that a member had to do without
    assert members.available.sum(1).tolist() == [8] * 40
    assert not members.coefficients[~members.available].any()
    whole = Ensemble(members=40, block=10).fit(theta, y, 0.1, seed=0)
    assert (whole.inclusion > 0.95).tolist() == (true != 0).tolist()
    assert whole.inclusion[true == 0].max() < 0.05
    assert whole.working() == pytest.approx(true, abs=0.02)
    assert whole.working("mean") == pytest.approx(true, abs=0.02)
    assert np.array_equal(whole.working(3), whole.coefficients[3])
    assert whole.std(theta[:5]) == pytest.approx((theta[:5] @ whole.coefficients).std(0))
    again = Ensemble(members=40, block=10).fit(theta, y, 0.1, seed=0)
    assert np.array_equal(again.coefficients, whole.coefficients)


def test_columns_that_repeat_others_are_named_and_do_not_break_the_regression():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 2))
    theta = np.column_stack([x, x[:, 0] - x[:, 1], rng.normal(size=100)])
    assert dependent(theta).tolist() == [True, True, True, False]
    assert not dependent(theta[:, [0, 1, 3]]).any()
    y = theta[:, [3]] + x[:, [0]]
    assert theta @ refitted(*normal_equations(theta, y), np.ones((4, 1), bool)) == pytest.approx(y)


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda: stlsq(np.ones((3, 2)), np.ones((4, 1)), 0.1), "are expected"),
        (lambda: stlsq(np.full((3, 2), np.nan), np.ones((3, 1)), 0.1), "not finite"),
        (lambda: Ensemble(drop=2).fit(np.ones((3, 2)), np.ones((3, 1)), 0.1), "members, rows and columns"),
        (lambda: LocalPolynomial(8, 4), "odd"),
        (lambda: LocalPolynomial(9, 9), "wider"),
        (lambda: LocalPolynomial(9, 4)(np.ones((8, 1)), 1.0), "series of 8"),
    ],
)
def test_what_makes_no_sense_is_refused(ask, sentence):
    with pytest.raises(DataError, match=sentence):
        ask()


@pytest.mark.parametrize(("window", "degree"), [(5, 4), (9, 8), (9, 4), (33, 4)])
def test_derivatives_of_polynomials_are_exact(window, degree):
    t = 0.1 * np.arange(60)
    powers = np.arange(degree + 1)
    series = (t[:, None] / 6) ** powers
    state, speed = LocalPolynomial(window, degree)(series, 0.1)
    inner = t[window // 2 : -(window // 2), None] / 6
    np.testing.assert_allclose(state, inner**powers, atol=1e-8)
    np.testing.assert_allclose(speed, powers * inner ** np.maximum(powers - 1, 0) / 6, atol=1e-7)


def test_a_wide_window_smooths_noise():
    noise = np.random.default_rng(0).normal(size=(5000, 1))
    spreads = [LocalPolynomial(window, 4)(noise, 1.0)[1].std() for window in (5, 9, 17, 33)]
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[-1] < 0.05 * spreads[0]


def test_a_polynomial_flow_is_its_closed_form():
    """dx/dt = -x (1 - x) is logistic decay; dy/dt = 1 + 3 x has the integral beside it."""
    powers = Monomials(2).exponents(2)
    coefficients = np.zeros((len(powers), 2))
    coefficients[[1, 3], 0] = -1, 1
    coefficients[[0, 1], 1] = 1, 3
    flow = PolynomialFlow(powers, coefficients, np.array([0.5, 1e3]))
    t = np.linspace(0, 3, 7)
    path = flow.simulate(np.array([[0.4, 100.0]]), t)[0]
    inverse = (1 / 0.4 - 1) * np.exp(t)
    assert path[:, 0] == pytest.approx(1 / (1 + inverse), abs=1e-8)
    integral = t - np.log((1 + inverse) / (1 + inverse[0]))  # of x
    assert path[:, 1] == pytest.approx(100 + t + 3 * integral, rel=1e-8)
    assert flow.derivative(np.array([0.4, 100.0])) == pytest.approx([-0.24, 2.2])
    assert flow.jacobian(np.array([[0.4, 100.0]]))[0] == pytest.approx(np.array([[-0.2, 0], [3, 0]]))
    grown = PolynomialFlow(np.array([[2]]), np.array([[1.0]]), np.ones(1)).simulate(np.ones((1, 1)), np.array([0, 0.5, 2.0]))
    assert grown[0, 1, 0] == pytest.approx(2)  # 1 / (1 - t)
    assert np.isnan(grown[0, 2, 0])  # it blew up at 1
