"""Koopman operators: estimation, residuals and pseudospectra against truths in closed form."""

import numpy as np
import pytest
import torch

from retrodict.dynamics import koopman
from retrodict.dynamics.kernels import KERNELS, default_width
from retrodict.dynamics.koopman import Galerkin, fit_operator, galerkin, galerkin_from_grams
from retrodict.dynamics.libraries import Fourier, Legendre
from retrodict.dynamics.spectral_measures import (
    FILTERS,
    autocorrelations,
    filtered_density,
    operator_moments,
    rational_density,
)
from retrodict.errors import DataError


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def circle(f, count=1024, degree=10):
    """Fourier modes before and after a map of the circle, sampled at equally spaced points."""
    x = (torch.arange(count, dtype=torch.float64)[:, None] + 0.5) / count
    library = Fourier((degree,), (0.0,), (1.0,))
    return library.transform(x), library.transform(f(x) % 1)


# ---- estimation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["qr", "pinv", "ridge"])
def test_a_linear_system_is_found(method):
    true, z = draw(4, 4), draw(3, 50, 4, seed=1)
    found = fit_operator(z, z @ true, method=method, ridge=1e-10)
    assert found.shape == (3, 4, 4)
    torch.testing.assert_close(found.mean(0), true, atol=1e-8, rtol=0)


def test_ridge_is_solved_in_the_smaller_dimension():
    z, z_plus = draw(6, 9), draw(6, 9, seed=1)
    wide = fit_operator(z, z_plus, method="ridge", ridge=0.1)
    direct = torch.linalg.solve(z.T @ z + 0.1 * torch.eye(9).double(), z.T @ z_plus)
    torch.testing.assert_close(wide, direct)


def test_weights_count_rows():
    z, z_plus = draw(20, 3), draw(20, 3, seed=1)
    times = torch.arange(20) % 3
    counted = fit_operator(z.repeat_interleave(times, 0), z_plus.repeat_interleave(times, 0))
    torch.testing.assert_close(fit_operator(z, z_plus, weights=times.double()), counted)


def test_the_measure_preserving_operator_is_an_isometry_of_the_samples():
    z, z_plus = draw(60, 5), draw(60, 5, seed=1)
    k = fit_operator(z, z_plus, method="measure-preserving")
    gram = z.T @ z
    torch.testing.assert_close(k.T @ gram @ k, gram)
    assert (koopman.eigenvalues(k).abs() - 1).abs().max() < 1e-10


@pytest.mark.parametrize("method", ["qr", "pinv", "ridge", "measure-preserving"])
def test_estimation_is_differentiable(method):
    z, z_plus = draw(8, 3).requires_grad_(), draw(8, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: fit_operator(a, b, method=method, ridge=0.1), (z, z_plus))


def test_too_few_rows_are_refused():
    with pytest.raises(DataError, match="at least 5 rows"):
        fit_operator(draw(4, 5), draw(4, 5))
    with pytest.raises(DataError, match="one shape"):
        fit_operator(draw(4, 5), draw(5, 5))


def test_gradients_of_eigenvalues_survive_a_collision():
    k = torch.tensor([[1.0, 1.0], [0.0, 1.0]], requires_grad=True)
    koopman.eigenvalues(k).abs().sum().backward()
    assert torch.isfinite(k.grad).all()
    assert torch.linalg.matrix_norm(k.grad) <= 10 + 1e-4
    k = draw(4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda k: koopman.eigenvalues(k, limit=1e9).abs(), (k,))


# ---- residuals --------------------------------------------------------------------------------------------------------


def test_the_doubling_map_is_an_isometry_and_its_edmd_eigenvalues_are_spurious():
    operator = galerkin(*circle(lambda x: 2 * x))
    z = torch.tensor([0, 0.5, 0.9, 1, 1.2], dtype=torch.complex128)
    torch.testing.assert_close(operator.tau(z), (1 - z.abs()).abs(), atol=1e-8, rtol=0)
    values, vectors = operator.eigenpairs()
    spurious = values.abs() < 0.5
    assert spurious.sum() == 20
    assert (operator.residuals(values, vectors)[spurious] > 0.999).all()


def test_a_rotation_is_known_to_the_last_digit():
    operator = galerkin(*circle(lambda x: x + 2**0.5))
    values, vectors = operator.eigenpairs()
    assert operator.residuals(values, vectors).max() < 1e-10
    true = torch.exp(2j * torch.pi * torch.arange(-10, 11).double() * 2**0.5)
    assert (values[:, None] - true).abs().min(0)[0].max() < 1e-10


def test_a_non_normal_spectrum_is_polluted_and_the_residual_tells():
    nodes, weights = np.polynomial.legendre.leggauss(100)
    x = torch.from_numpy((nodes[:, None] - 1) / 2)
    library = Legendre(39, (-1.0,), (0.0,))
    y = torch.exp(-2 * x**2) - 1 - np.exp(-2)
    operator = galerkin(library.transform(x), library.transform(y), torch.from_numpy(weights / 2))
    values, vectors = operator.eigenpairs()
    residuals = operator.residuals(values, vectors)
    kept = residuals < 0.01
    assert kept.sum() == 16
    assert values[kept].imag.abs().max() < 1e-8
    assert residuals[~kept].min() > 0.023


def test_lanczos_reaches_the_smallest_singular_value():
    operator = Galerkin(torch.eye(30).double(), draw(30, 30) / 30**0.5, 0.1 * draw(30, 30, seed=1))
    z = torch.polar(torch.linspace(0, 1.2, 20).double(), torch.linspace(0, 6, 20).double())
    found, vectors = operator.minimisers(z)
    torch.testing.assert_close(found, operator.tau(z), atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(operator.residuals(z, vectors), found)


def test_residuals_on_fresh_pairs_are_those_of_the_grams():
    psi_x, psi_y = draw(400, 6), draw(400, 6, seed=1)
    weights = torch.rand(400, generator=torch.Generator().manual_seed(2)).double()
    values, vectors = galerkin(draw(50, 6, seed=3), draw(50, 6, seed=4)).eigenpairs()
    again = galerkin(psi_x, psi_y, weights)
    torch.testing.assert_close(koopman.residual(values, vectors, psi_x, psi_y, weights), again.residuals(values, vectors))


def test_grams_give_the_same_operator():
    psi_x, psi_y = draw(400, 6, dtype=torch.complex128), draw(400, 6, seed=1, dtype=torch.complex128)
    z = torch.tensor([0.1 + 0.3j, 0.9, -1j])
    direct = galerkin(psi_x, psi_y).tau(z)
    grams = galerkin_from_grams(psi_x.mH @ psi_x / 400, psi_x.mH @ psi_y / 400, psi_y.mH @ psi_y / 400).tau(z)
    torch.testing.assert_close(direct, grams)


def test_noise_counts_as_residual_unless_successors_are_repeated():
    x = draw(20_000, 1)
    ys = 0.5 * x + 0.8 * torch.stack([draw(20_000, 1, seed=1), draw(20_000, 1, seed=2)])
    half, identity = torch.tensor([0.5], dtype=torch.complex128), torch.ones(1, 1, dtype=torch.complex128)
    assert koopman.residual(half, identity, x, ys[0]).item() == pytest.approx(0.8, abs=0.02)
    assert koopman.residual(half, identity, x, ys).item() < 0.1


def test_bounds_hold_for_all_candidates_at_once():
    held = 0
    z, v = torch.tensor([0.0, 0.5, 1.0], dtype=torch.complex128), torch.eye(1, dtype=torch.complex128).expand(1, 3)
    true = torch.sqrt(torch.tensor([1.25, 1.0, 1.25])).double()  # y = x / 2 + noise of variance 1
    for seed in range(100):
        x = draw(200, 1, seed=seed)
        y = 0.5 * x + draw(200, 1, seed=1000 + seed)
        sums = koopman.residual_sums(z, v, x, y, blocks=torch.arange(200) // 4)
        held += bool((koopman.upper_bounds(*sums, level=0.1) >= true).all())
    assert held >= 80
    with pytest.raises(DataError, match="10 independent blocks"):
        koopman.upper_bounds(torch.ones(3, 1), torch.ones(3, 1))


def test_the_cover_keeps_the_best_point_in_reach():
    grid = torch.tensor([0, 0.1, 0.2, 3], dtype=torch.complex128)
    kept = koopman.spectrum_cover(grid, torch.tensor([0.3, 0.05, 0.3, 1.5]), factor=1)
    assert kept.tolist() == [False, True, False, False]


def test_dependent_functions_are_named_and_left_out():
    psi = draw(50, 3)
    doubled = torch.cat([psi, psi[:, :1], torch.zeros(50, 1)], 1)
    with pytest.warns(UserWarning, match="5 functions have rank 3 at a cutoff of 1e-10"):
        operator = galerkin(doubled, doubled)
    assert operator.rank == 3
    with pytest.raises(DataError, match="zero at every sample"):
        galerkin(torch.zeros(9, 2), torch.zeros(9, 2))


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_are_positive_definite_and_their_residuals_exact(kernel):
    x = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)).double()
    k, width = KERNELS[kernel], default_width(x)
    gram = k(x, x, width)
    torch.testing.assert_close(gram.diagonal(), torch.ones(40).double())
    assert torch.linalg.eigvalsh(gram).min() > -1e-10
    still = galerkin_from_grams(gram, gram, gram)  # the identity map
    values, vectors = still.eigenpairs()
    assert (values - 1).abs().max() < 1e-5
    assert still.residuals(values, vectors).max() < 1e-3


# ---- spectral measures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILTERS)
def test_a_smooth_density_is_recovered_from_moments(name):
    angles = np.linspace(-np.pi, np.pi, 50)
    n = np.arange(400)
    moments = 0.5**n / (2 * np.pi)  # of the Poisson kernel
    true = (1 - 0.25) / (1 + 0.25 - np.cos(angles)) / (2 * np.pi)
    error = np.abs(filtered_density(moments, angles, name) - true).max()
    assert error < (0.01 if name == "fejer" else 1e-4 if name == "cosine" else 1e-7)


def test_moments_agree_between_trajectory_and_operator():
    t = np.arange(20_000)
    g = np.exp(0.3j * t) + 2 * np.exp(-1.1j * t)
    moments = autocorrelations(g, 20)
    operator = np.diag(np.exp(1j * np.array([0.3, -1.1])))
    np.testing.assert_allclose(moments, operator_moments(operator, np.array([1, 2]), 20), atol=2e-3)
    with pytest.raises(DataError, match="more than 40 steps"):
        autocorrelations(g[:40], 20)


@pytest.mark.parametrize("order", [1, 2, 6])
def test_rational_kernels_keep_the_mass_and_find_the_atoms(order):
    angles = np.linspace(-np.pi, np.pi, 20_001)
    density = rational_density(np.array([0.5, -2.0]), np.array([1.0, 3.0]), angles, 0.02, order)
    assert np.trapezoid(density, angles) == pytest.approx(4, rel=1e-3)
    assert angles[density.argmax()] == pytest.approx(-2.0, abs=0.01)


def test_higher_orders_converge_faster():
    angles, fine = np.array([0.0, 1.0]), np.linspace(-np.pi, np.pi, 4001)[:-1]
    true = lambda a: (1 + np.cos(a)) / (2 * np.pi)  # noqa: E731
    masses = true(fine) * (fine[1] - fine[0])
    errors = [np.abs(rational_density(fine, masses, angles, 0.1, order) - true(angles)).max() for order in (1, 2, 4)]
    assert errors[0] > 5 * errors[1] > 5 * errors[2]
