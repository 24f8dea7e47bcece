import numba
import numpy as np
import pytest
import torch

from retrodict.dynamics.ensemble import flow
from retrodict.errors import DataError
from retrodict.metrics.dimension import correlation_dimension, kaplan_yorke_dimension
from retrodict.metrics.lyapunov import flow_lyapunov_spectrum, lyapunov_spectrum

A = np.array([[1.2, 0.3, 0.0], [0.0, 0.7, -0.4], [0.1, 0.0, 0.5]])
RATES = np.sort(np.log(np.abs(np.linalg.eigvals(A))))[::-1]


def henon(x):
    return np.stack([1 - 1.4 * x[..., 0] ** 2 + x[..., 1], 0.3 * x[..., 0]], -1)


def henon_slope(x):
    slope = np.zeros((*x.shape, 2))
    slope[..., 0, 0], slope[..., 0, 1], slope[..., 1, 0] = -2.8 * x[..., 0], 1, 0.3
    return slope


def rk4(f, x, dt):
    k1 = f(x)
    k2 = f(x + dt / 2 * k1)
    k3 = f(x + dt / 2 * k2)
    k4 = f(x + dt * k3)
    return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def lorenz(x):
    return torch.stack([10 * (x[:, 1] - x[:, 0]), x[:, 0] * (28 - x[:, 2]) - x[:, 1], x[:, 0] * x[:, 1] - 8 / 3 * x[:, 2]], -1)


def roessler(x):
    return torch.stack([-x[:, 1] - x[:, 2], x[:, 0] + 0.2 * x[:, 1], 0.2 + x[:, 2] * (x[:, 0] - 5.7)], -1)


def test_a_linear_map_has_the_logarithms_of_its_eigenvalues():
    found = lyapunov_spectrum(lambda x: x @ A.T, lambda x: np.tile(A, (len(x), 1, 1)), np.zeros(3), steps=2000, dt=0.5)
    assert found.per_step == pytest.approx(RATES, abs=1e-6)
    assert found.per_time == pytest.approx(2 * RATES, abs=2e-6)


def test_arrays_tensors_and_compiled_functions_agree():
    @numba.njit
    def step(x):
        return np.array([1 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]])

    @numba.njit
    def slope(x):
        return np.array([[-2.8 * x[0], 1.0], [0.3, 0.0]])

    start, options = np.array([0.1, 0.1]), {"steps": 30, "transient": 0}
    arrays = lyapunov_spectrum(henon, henon_slope, start, **options)
    compiled = lyapunov_spectrum(step, slope, start, **options)
    tensors = lyapunov_spectrum(
        lambda x: torch.stack([1 - 1.4 * x[:, 0] ** 2 + x[:, 1], 0.3 * x[:, 0]], -1), None, torch.tensor(start), **options
    )
    assert compiled.per_step == pytest.approx(arrays.per_step, abs=1e-9)
    assert tensors.per_step == pytest.approx(arrays.per_step, abs=1e-9)
    long = lyapunov_spectrum(step, slope, start, steps=200_000)
    assert long.per_step == pytest.approx([0.419, -1.623], abs=0.002)  # Sprott, Chaos and Time-Series Analysis (2003)
    assert long.kaplan_yorke == pytest.approx(1.258, abs=0.002)


@pytest.mark.parametrize(
    ("flow", "dt", "steps", "largest", "within", "trace"),
    [(lorenz, 0.01, 4000, 0.9056, 0.02, -41 / 3), (roessler, 0.05, 6000, 0.0714, 0.004, None)],
)
def test_literature_values_of_flows(flow, dt, steps, largest, within, trace):
    starts = torch.from_numpy(np.random.default_rng(0).normal(1, 1, (48, 3))).double()
    found = lyapunov_spectrum(lambda x: rk4(flow, x, dt), None, starts, steps=steps, dt=dt, transient=3000)
    assert found.largest == pytest.approx(largest, abs=within)
    assert found.per_time[1] == pytest.approx(0, abs=0.01)
    assert found.spread[0] / dt < within
    if trace is not None:
        assert found.per_time.sum() == pytest.approx(trace, rel=1e-3)
        assert found.kaplan_yorke == pytest.approx(2.062, abs=0.003)


def test_a_compiled_flow_has_the_literature_values():
    @flow
    def rhs(t, x, p, dx):
        dx[0] = p[0] * (x[1] - x[0])
        dx[1] = x[0] * (p[1] - x[2]) - x[1]
        dx[2] = x[0] * x[1] - p[2] * x[2]

    starts = np.random.default_rng(0).normal(5, 1, (8, 3))
    found = flow_lyapunov_spectrum(rhs, starts, [10, 28, 8 / 3], interval=0.1, intervals=4000, transient=300)
    assert found.per_time == pytest.approx([0.9056, 0, -14.5723], abs=0.01)  # Sprott (2003)
    blown = flow_lyapunov_spectrum(rhs, [[1e300, 1e300, 0]], [10, 28, 8 / 3], interval=0.1)
    assert blown.diverged


def test_divergence_gives_nan_and_a_flag():
    with np.errstate(over="ignore"):
        found = lyapunov_spectrum(lambda x: 1e99 * x, lambda x: np.full((len(x), 1, 1), 1e99), np.ones(1), steps=50)
    assert found.diverged
    assert np.isnan(found.per_time).all()
    assert np.isnan(found.kaplan_yorke)


def test_a_direction_that_is_annihilated_has_minus_infinity():
    found = lyapunov_spectrum(lambda x: x * [0.5, 0], lambda x: np.tile(np.diag([0.5, 0]), (len(x), 1, 1)), np.ones(2), steps=9)
    assert found.per_step.tolist() == pytest.approx([np.log(0.5), -np.inf])


def test_nonsense_is_refused():
    with pytest.raises(DataError, match="steps start at 1"):
        lyapunov_spectrum(henon, henon_slope, np.zeros(2), steps=0)
    with pytest.raises(DataError, match="without a Jacobian"):
        lyapunov_spectrum(henon, None, np.zeros(2))


@pytest.mark.parametrize(
    ("spectrum", "dimension"),
    [([0.906, 0, -14.572], 2.0622), ([-1, -2], 0), ([1, -0.5], 2), ([0, -1], 1), ([np.nan, 1], np.nan), ([0.4, -np.inf], 1)],
)
def test_kaplan_yorke(spectrum, dimension):
    assert kaplan_yorke_dimension(spectrum) == pytest.approx(dimension, abs=1e-4, nan_ok=True)


def test_correlation_dimension_of_what_is_known():
    rng = np.random.default_rng(0)
    assert correlation_dimension(rng.uniform(size=(4000, 2)), 0).value == pytest.approx(2, abs=0.1)
    angle = rng.uniform(0, 2 * np.pi, 3000)
    assert correlation_dimension(np.c_[np.cos(angle), np.sin(angle)], 0).value == pytest.approx(1, abs=0.05)
    orbit = [np.zeros(2)]
    for _ in range(6000):
        orbit.append(henon(orbit[-1]))
    assert correlation_dimension(np.array(orbit[100:]), 5).value == pytest.approx(1.22, abs=0.04)  # Grassberger, Procaccia 1983


def test_without_a_theiler_window_a_slow_walk_looks_like_a_line():
    """Brownian motion has dimension 2; pairs close in time make it seem less."""
    walk = np.random.default_rng(1).normal(size=(8000, 3)).cumsum(0)
    assert correlation_dimension(walk, 0).value < correlation_dimension(walk, 200).value


def test_correlation_dimension_says_what_it_cannot_do():
    assert correlation_dimension(np.full((100, 2), np.nan), 0).diverged
    with pytest.raises(DataError, match="Theiler"):
        correlation_dimension(np.random.default_rng(0).normal(size=(50, 2)), 40)
