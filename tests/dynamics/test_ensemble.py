import numpy as np
import pytest
from scipy.integrate import solve_ivp

from retrodict.dynamics.ensemble import BLEW_UP, GAVE_UP, flow, integrate_ensemble
from retrodict.dynamics.tangent import grow
from retrodict.errors import DataError


@pytest.fixture(scope="module")
def lorenz():
    @flow
    def rhs(t, x, p, dx):
        dx[0] = p[0] * (x[1] - x[0])
        dx[1] = x[0] * (p[1] - x[2]) - x[1]
        dx[2] = x[0] * x[1] - p[2] * x[2]

    return rhs


@pytest.fixture(scope="module")
def powers():
    @flow
    def rhs(t, x, p, dx):
        dx[0] = p[0] * x[0] ** p[1]

    return rhs


LORENZ = [10, 28, 8 / 3]


@pytest.mark.parametrize("rtol", [1e-9, 1e-12])
def test_it_agrees_with_scipy_at_every_time(lorenz, rtol):
    times = np.linspace(0, 3, 200)
    start = np.random.default_rng(0).normal(0, 5, (4, 3))
    ours = integrate_ensemble(lorenz, start, times, LORENZ, rtol=rtol)
    assert ours.complete.all()
    for x0, states in zip(start, ours.states, strict=True):
        theirs = solve_ivp(
            lambda t, x: [10 * (x[1] - x[0]), x[0] * (28 - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]],
            (0, 3),
            x0,
            "DOP853",
            times,
            rtol=1e-13,
            atol=1e-13,
        )
        assert np.abs(states - theirs.y.T).max() < 2000 * rtol


def test_dense_times_cost_nothing_in_accuracy(powers):
    times = np.linspace(0, 5, 1000)
    decay = integrate_ensemble(powers, [[1.0], [2.0]], times, [-1.0, 1.0], rtol=1e-11)
    expected = np.array([1.0, 2.0])[:, None] * np.exp(-times)
    assert np.abs(decay.states[..., 0] - expected).max() < 1e-9


def test_members_have_parameters_of_their_own(powers):
    both = integrate_ensemble(powers, [[1.0], [1.0]], [0, 1], [[-1.0, 1.0], [-2.0, 1.0]])
    assert both.states[:, -1, 0] == pytest.approx(np.exp([-1, -2]))


def test_the_time_of_a_blow_up_is_reported_and_the_others_go_on(powers):
    found = integrate_ensemble(powers, [[1.0], [0.1]], np.linspace(0, 2, 21), [1.0, 2.0])
    assert found.outcome.tolist() == [BLEW_UP, 0]
    assert found.ended == pytest.approx([1.0, 2.0], abs=1e-6)
    assert np.isfinite(found.states[0, :10]).all()
    assert np.isnan(found.states[0, 11:]).all()
    assert found.states[1, -1, 0] == pytest.approx(0.1 / (1 - 0.2))


def test_a_stiff_flow_gives_up_and_says_how_far_it_came(powers):
    found = integrate_ensemble(powers, [[1.0]], [0, 1e4], [-1e3, 1.0], max_steps=1000)
    assert found.outcome.tolist() == [GAVE_UP]
    assert 0 < found.ended[0] < 1e4


def test_time_is_handed_to_the_flow():
    @flow
    def rhs(t, x, p, dx):
        dx[0] = np.cos(t)

    found = integrate_ensemble(rhs, [0.0], np.linspace(1, 4, 10))
    assert found.states[0, :, 0] == pytest.approx(np.sin(found.times) - np.sin(1))


def test_directions_of_a_linear_flow_grow_by_its_eigenvalues():
    @flow
    def rhs(t, x, p, dx):
        dx[0] = 0.5 * x[0] + x[1]
        dx[1] = -0.25 * x[1]
        dx[2] = -2 * x[2]

    sums, last = grow(rhs, np.zeros((2, 3)), np.zeros(0), 0.5, 100, 200, count=3, rtol=1e-8, max_steps=10**6)
    assert sums / 100 == pytest.approx(np.tile([0.5, -0.25, -2], (2, 1)), abs=1e-6)
    assert (last == 0).all()


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda f: integrate_ensemble(lambda t, x: x, [1.0], [0, 1]), "compiled flow"),
        (lambda f: integrate_ensemble(f, [np.nan, 0, 0], [0, 1], LORENZ), "finite"),
        (lambda f: integrate_ensemble(f, [1.0, 0, 0], [0, 0], LORENZ), "rise"),
        (lambda f: integrate_ensemble(f, [1.0, 0, 0], [0, 1], LORENZ, rtol=0), "tolerances"),
    ],
)
def test_bad_input_is_named(lorenz, ask, sentence):
    with pytest.raises(DataError, match=sentence):
        ask(lorenz)
