import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline
from scipy.linalg import expm

from retrodict.dynamics.ode import ERROR, NODES, STAGES, driven, moments, odeint
from retrodict.dynamics.splines import CubicPath
from retrodict.errors import DataError

TIMES = torch.linspace(0, 2, 9, dtype=torch.float64)


def rotate(t, x):
    return torch.stack([x[..., 1], -x[..., 0]], -1)


def rotated(x0):
    turn = torch.stack([torch.stack([TIMES.cos(), TIMES.sin()], -1), torch.stack([-TIMES.sin(), TIMES.cos()], -1)], 1)
    return torch.einsum("tij,bj->tbi", turn, x0)


@pytest.fixture
def start():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(5, 2)))


def error(start, method, **options):
    return float((odeint(rotate, start, TIMES, method, **options) - rotated(start)).abs().max())


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("rk4", 4)])
def test_methods_have_their_order(start, method, order):
    coarse, fine = error(start, method, substeps=8), error(start, method, substeps=16)
    assert np.log2(coarse / fine) == pytest.approx(order, abs=0.15)


def test_the_tableau_of_tsit5_is_of_fifth_order():
    assert [sum(row) for row in STAGES] == pytest.approx(list(NODES), abs=1e-13)
    assert sum(ERROR) == pytest.approx(0, abs=1e-14)
    b, c = np.array(STAGES[-1]), np.array(NODES[:-1])
    for power in range(5):
        assert b @ c**power == pytest.approx(1 / (power + 1), abs=1e-13)


def test_tsit5_keeps_its_tolerance_and_counts_the_hardest_member(start):
    assert error(start, "tsit5", rtol=1e-9, atol=1e-9) < 1e-7
    assert error(start, "tsit5") < 5e-3
    fast = odeint(lambda t, x: -50 * x, torch.tensor([[1.0], [1e-8]]), [0.0, 1.0], "tsit5")
    assert float(fast[-1].abs().max()) < 1e-5


def test_time_and_parameters_are_handed_on_and_time_may_fall():
    def f(t, x, rate):
        return rate * torch.cos(t) * x

    times = torch.linspace(0, 3, 7, dtype=torch.float64)
    x0 = torch.ones(2, 1, dtype=torch.float64)
    expected = torch.exp(1.5 * times.sin())[:, None, None].expand(-1, 2, 1)
    for method in ("rk4", "tsit5"):
        path = odeint(f, x0, times, method, substeps=20, rtol=1e-8, atol=1e-8, params=(1.5,))
        torch.testing.assert_close(path, expected, rtol=1e-5, atol=1e-5)
        back = odeint(f, path[-1], times.flip(0), method, substeps=20, rtol=1e-8, atol=1e-8, params=(1.5,))
        torch.testing.assert_close(back[-1], x0, rtol=1e-5, atol=1e-5)


def test_semi_implicit_euler_keeps_the_energy_of_an_oscillator():
    x0 = (torch.ones(1, 1), torch.zeros(1, 1))
    times = torch.linspace(0, 200, 2001)
    q, v = odeint(lambda t, x: (x[1], -x[0]), x0, times, "semi-implicit")
    energy = (q**2 + v**2).squeeze()
    assert energy.min() > 0.85
    assert energy.max() < 1.15
    with pytest.raises(DataError, match="pair"):
        odeint(rotate, torch.ones(1, 2), [0, 1], "semi-implicit")


@pytest.mark.parametrize(("method", "options"), [("rk4", {"substeps": 2}), ("tsit5", {"rtol": 1e-8, "atol": 1e-8})])
def test_gradients_flow_to_the_start_and_the_parameters(method, options):
    def final(x0, rate):
        return odeint(lambda t, x, r: -r * x**3, x0, [0.0, 0.5, 1.0], method, params=(rate,), **options)[-1]

    x0 = torch.tensor([[0.5], [1.5]], dtype=torch.float64, requires_grad=True)
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    # The steps adapt to the numbers, so differences see the step size too: it is as small as the tolerance.
    assert torch.autograd.gradcheck(final, (x0, rate), atol=1e-5)


def test_blow_up_is_named():
    with pytest.raises(DataError, match=r"reached t = (0\.99|1)"):
        odeint(lambda t, x: x**2, torch.ones(1, 1, dtype=torch.float64), [0.0, 2.0], "tsit5", max_steps=300)


def test_moments_are_those_of_the_linear_equation():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(2, 2)) - 2 * np.eye(2)
    noise = np.diag([0.5, 0.1])
    slope = torch.from_numpy(a)
    field = moments(lambda t, x: x @ slope.T, torch.from_numpy(noise))
    mean0, cov0 = torch.ones(1, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)[None]
    mean, cov = odeint(field, (mean0, cov0), [0.0, 0.7], substeps=50)
    assert mean[-1, 0].numpy() == pytest.approx(expm(0.7 * a) @ np.ones(2), abs=1e-8)
    lyapunov = solve_ivp(
        lambda t, p: (a @ p.reshape(2, 2) + p.reshape(2, 2) @ a.T + noise).ravel(), (0, 0.7), np.eye(2).ravel(), rtol=1e-10
    )
    assert cov[-1, 0].numpy().ravel() == pytest.approx(lyapunov.y[:, -1], abs=1e-6)


def test_the_path_is_the_natural_spline():
    rng = np.random.default_rng(0)
    times, values = np.sort(rng.uniform(0, 5, 8)), rng.normal(size=(2, 8, 3))
    path = CubicPath(torch.from_numpy(times), torch.from_numpy(values))
    for b in range(2):
        reference = CubicSpline(times, values[b], bc_type="natural")
        for t in rng.uniform(times[0], times[-1], 10):
            at = torch.tensor(t, dtype=torch.float64)
            assert path.value(at)[b].numpy() == pytest.approx(reference(t))
            assert path.derivative(at)[b].numpy() == pytest.approx(reference(t, 1))
    with pytest.raises(DataError, match="rising times"):
        CubicPath(torch.tensor([0.0, 0.0]), torch.zeros(1, 2, 1))


def test_a_path_drives_an_equation():
    """With f = 1, the state follows the path; the gradient reaches the path's values."""
    times = torch.linspace(0, 3, 6, dtype=torch.float64)
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 6, 1))).requires_grad_()
    path = CubicPath(times, values)
    z = odeint(driven(lambda z: torch.ones(4, 1, 1, dtype=torch.float64), path), path.value(times[0]), times, substeps=4)
    torch.testing.assert_close(z.movedim(0, 1), values, rtol=1e-8, atol=1e-8)
    z[-1].sum().backward()
    assert values.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda x: odeint(rotate, x, [0, 1, 0.5]), "times must rise"),
        (lambda x: odeint(rotate, x, [0, 1], "heun"), "methods are"),
        (lambda x: odeint(rotate, x, [0, 1], substeps=0), "start at 1"),
    ],
)
def test_bad_input_is_named(start, ask, sentence):
    with pytest.raises(DataError, match=sentence):
        ask(start)
