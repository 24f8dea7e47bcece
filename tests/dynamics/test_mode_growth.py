"""Growth of a mode against closed forms, against an ODE solver, and against itself."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp

from retrodict.dynamics.mode_growth import growth, growth_time, largest_rate, slope, unbalanced_growth
from retrodict.errors import DataError

S = np.array([3.0, 1.0, 0.5])
T = np.linspace(0, 20, 301)


def test_a_shallow_network_learns_exponentially_at_one_rate_for_all_modes():
    assert growth(T, S, 0.01, 1, tau=2.0) == pytest.approx(S + (0.01 - S) * np.exp(-T[:, None] / 2), abs=1e-14)


@pytest.mark.parametrize("u0", [1e-12, 1e-4, 0.2, 5.0])
def test_two_layers_learn_along_the_published_sigmoid(u0):
    rise = np.exp(np.minimum(2 * S * T[:, None] / 2.0, 500))
    assert growth(T, S, u0, 2, tau=2.0) == pytest.approx(S * rise / (rise - 1 + S / u0), rel=1e-10)


@pytest.mark.parametrize("u0", [1e-3, 0.2, 5.0])
@pytest.mark.parametrize("depth", [1.5, 3, 4, 8, 64])
def test_any_depth_solves_its_equation(depth, u0):
    times = T / depth
    found = growth(times, S, u0, depth)
    for s, u in zip(S, found.T, strict=True):
        solved = solve_ivp(
            lambda t, x, s=s: depth * x ** (2 - 2 / depth) * (s - x),
            (0, times[-1]),
            [u0],
            "DOP853",
            times,
            rtol=1e-12,
            atol=1e-14,
        )
        assert u == pytest.approx(solved.y[0], abs=1e-8)


def test_infinite_depth_follows_the_published_implicit_solution():
    u0, s = 0.05, 0.8
    u = growth(T, s, u0, math.inf)[:, 0]
    middle = (u > 0.1) & (u < 0.79)
    t = np.log(u * (u0 - s) / (u0 * (u - s))) / s**2 + 1 / (s * u0) - 1 / (s * u)
    assert middle.sum() > 10
    assert t[middle] == pytest.approx(T[middle], abs=1e-9)
    deep = growth(T / 4000, s, u0, 4000)[:, 0]
    assert deep == pytest.approx(u, abs=2e-2)


def test_the_time_to_a_strength_is_the_published_one():
    found = growth_time([0.5, 0.7, 0.2], [1.0, 0.9, 0.1], [1e-3, 0.2, 0.8], 2, tau=3.0)
    u, s, u0 = np.array([0.5, 0.7, 0.2]), np.array([1.0, 0.9, 0.1]), np.array([1e-3, 0.2, 0.8])
    assert found == pytest.approx(3 / (2 * s) * np.log(u * (s - u0) / (u0 * (s - u))), rel=1e-11)
    integral = quad(lambda x: 1 / (5 * x ** (2 - 2 / 5) * (1 - x)), 1e-3, 0.5, epsabs=0, epsrel=1e-12, limit=200)[0]
    assert growth_time(0.5, 1.0, 1e-3, 5) == pytest.approx(integral, rel=1e-9)


@settings(max_examples=60)
@given(
    depth=st.sampled_from([1, 2, 3, 7, 100, math.inf]),
    start=st.floats(1e-4, 3.0),
    first=st.floats(0.0, 4.0),
    second=st.floats(0.0, 4.0),
)
def test_growing_twice_is_growing_on(depth, start, first, second):
    there = growth([first], 0.7, start, depth)[0, 0]
    on, once = growth([second], 0.7, there, depth)[0, 0], growth([first + second], 0.7, start, depth)[0, 0]
    assert on == pytest.approx(once, rel=1e-6, abs=1e-12)


@settings(max_examples=60)
@given(depth=st.sampled_from([1, 2, 5, math.inf]), share=st.floats(0.02, 0.98))
def test_time_inverts_strength(depth, share):
    took = growth_time(share, 1.0, 0.01, depth)
    assert growth(took, 1.0, 0.01, depth)[0, 0] == pytest.approx(max(share, 0.01), abs=1e-9)


def test_a_mode_at_zero_never_learns_unless_the_network_is_shallow():
    assert growth([0.0, 5.0], [1.0, 2.0], [0.0, 0.1], 2)[:, 0].tolist() == [0.0, 0.0]
    assert growth_time(0.5, 1.0, 0.0, 2)[0] == math.inf
    assert growth_time(0.5, 1.0, 0.0, 1)[0] == pytest.approx(math.log(2))
    assert growth_time(0.5, 1.0, 0.7, 3)[0] == 0.0
    assert growth_time(1.0, 1.0, 0.7, 3)[0] == math.inf


def test_times_come_back_in_the_order_in_which_they_were_asked():
    times = np.array([3.0, 0.0, 9.0, 1.0])
    assert growth(times, S, 0.01, 4) == pytest.approx(growth(np.sort(times), S, 0.01, 4)[[2, 0, 3, 1]])


@pytest.mark.parametrize("depth", [1, 2, 6, math.inf])
def test_the_slope_is_that_of_the_curve(depth):
    u = growth([1.0 - 1e-5, 1.0, 1.0 + 1e-5], S, 0.3, depth)
    assert slope(u[1], S, depth) == pytest.approx((u[2] - u[0]) / 2e-5, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.1), (0.1, 0.3), (1.0, -0.2), (0.01, 1e-9), (-0.3, -0.1)])
def test_unequal_weights_follow_their_own_equation(a, b):
    solved = solve_ivp(
        lambda t, z: [z[1] * (1.3 - z[0] * z[1]), z[0] * (1.3 - z[0] * z[1])],
        (0, 20),
        [a, b],
        "DOP853",
        T,
        rtol=1e-11,
        atol=1e-13,
    )
    assert unbalanced_growth(T, 1.3, a, b) == pytest.approx(solved.y[0] * solved.y[1], abs=1e-9)


def test_equal_weights_are_the_limit_of_unequal_ones():
    balanced = growth(T, 1.3, 0.01, 2)[:, 0]
    assert unbalanced_growth(T, 1.3, 0.1, 0.1) == pytest.approx(balanced, abs=1e-12)
    assert unbalanced_growth(T, 1.3, 0.1 + 1e-9, 0.1 - 1e-9) == pytest.approx(balanced, abs=1e-7)


def test_the_largest_rate_is_that_of_the_curvature():
    assert largest_rate([0.2, 0.5], 1) == pytest.approx(2.0)
    assert largest_rate([0.2, 0.5], 2) == pytest.approx(2 / (2 * 0.5))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((T, S, 0.1, 0.5), "at least one weight matrix"),
        ((T, [0.0], 0.1, 2), "above 0"),
        ((T, S, -0.1, 2), "at least 0"),
        (([-1.0], S, 0.1, 2), "times"),
        ((T, [np.nan], 0.1, 2), "finite"),
    ],
)
def test_what_has_no_solution_is_refused(arguments, said):
    with pytest.raises(DataError, match=said):
        growth(*arguments)
