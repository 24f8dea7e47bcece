"""Feature libraries: values in closed form, names, bounds, and agreement with pysindy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.dynamics.delays import delay_pairs, hankel
from retrodict.dynamics.libraries import Controlled, Delays, Encoded, Fourier, Legendre, Monomials, RadialBasis
from retrodict.errors import DataError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("interactions", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_monomials_agree_with_pysindy(bias, interactions):
    pysindy = pytest.importorskip("pysindy")
    x = RNG.normal(size=(7, 3))
    theirs = pysindy.PolynomialLibrary(3, include_bias=bias, include_interaction=interactions).fit(x)
    ours = Monomials(3, bias, interactions)
    names = theirs.get_feature_names(["x", "y", "z"])
    assert sorted(ours.names(("x", "y", "z"))) == sorted(names)
    order = [names.index(name) for name in ours.names(("x", "y", "z"))]
    np.testing.assert_allclose(ours.transform(x), np.asarray(theirs.transform(x))[:, order])


def test_monomials_have_gradients_at_zero():
    x = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Monomials(3).values, (x,))


def test_libraries_stand_side_by_side():
    library = Monomials(2) + Controlled(Monomials(1)) + Monomials(1, bias=False)
    x, u = RNG.normal(size=(5, 2)), RNG.normal(size=(5, 1))
    values = library.transform(x, u)
    names = library.names(("a", "b"), ("u",))
    assert values.shape == (5, len(names))
    assert names[6:9] == ("u", "a u", "b u")
    np.testing.assert_allclose(values[:, 8], x[:, 1] * u[:, 0])
    with pytest.raises(DataError, match="inputs"):
        library.transform(x)


def test_fourier_is_orthonormal_on_its_torus():
    library = Fourier((3, 2), (0.0, -1.0), (2.0, 2.0))
    a, b = np.meshgrid(2 * np.arange(16) / 16, -1 + 2 * np.arange(16) / 16, indexing="ij")
    psi = library.transform(np.stack([a.ravel(), b.ravel()], 1))
    np.testing.assert_allclose(psi.conj().T @ psi / len(psi), np.eye(7 * 5), atol=1e-12)
    assert library.names(("a", "b"))[0] == "1"
    assert "exp(2πi(+1 a -1 b))" in library.names(("a", "b"))


def test_legendre_is_orthonormal_on_its_box():
    nodes, weights = np.polynomial.legendre.leggauss(12)
    a, b = np.meshgrid(nodes, nodes, indexing="ij")
    points = np.stack([a.ravel() * 2 + 1, b.ravel()], 1)  # [-1, 3] x [-1, 1]
    psi = Legendre(5, (-1.0, -1.0), (3.0, 1.0)).transform(points)
    mass = np.outer(weights * 2, weights).ravel()[:, None]
    np.testing.assert_allclose(psi.T @ (mass * psi), np.eye(21), atol=1e-10)


@pytest.mark.parametrize(
    "library",
    [
        Fourier((3, 1), (-1.0, -1.0), (2.0, 2.0)),
        Legendre(4, (-1.0, -1.0), (1.0, 1.0)),
        RadialBasis(torch.from_numpy(RNG.uniform(-1, 1, (6, 2))), 0.7),
        RadialBasis(torch.from_numpy(RNG.uniform(-1, 1, (6, 2))), 0.7, "gaussian"),
    ],
)
@settings(max_examples=30)
@given(data=st.lists(st.floats(-1, 1), min_size=4, max_size=4))
def test_functions_keep_the_bounds_that_they_claim(library, data):
    x, y = np.array(data[:2]), np.array(data[2:])
    tops, slopes = (bound.numpy() for bound in library.regularity())
    fx, fy = library.transform(x[None])[0], library.transform(y[None])[0]
    assert (np.abs(fx) <= tops + 1e-12).all()
    assert (np.abs(fx - fy) <= slopes * np.linalg.norm(x - y) + 1e-12).all()


def test_unbounded_functions_claim_no_bounds():
    with pytest.raises(DataError, match="no known bounds"):
        Monomials(2).regularity()


def test_radial_functions_have_the_papers_form():
    x = RNG.normal(size=(200, 2))
    library = RadialBasis.fit(x, 5, seed=3)
    assert library.width == pytest.approx(np.linalg.norm(x - x.mean(0), axis=1).mean())
    far = np.linalg.norm(x[:1] - library.centres.numpy(), axis=1)
    np.testing.assert_allclose(library.transform(x[:1])[0], np.exp(-2 * far / library.width))
    with pytest.raises(DataError, match="different states"):
        RadialBasis.fit(np.zeros((9, 2)), 5)


def test_delays_are_windows_of_one_episode():
    series = np.arange(10.0)[:, None] + np.array([0, 100])
    windows = hankel(series, 3, stride=2)
    assert windows.shape == (6, 3, 2)
    assert windows.base is not None  # a view
    np.testing.assert_array_equal(windows[1, :, 1], [101, 103, 105])
    library = Delays(3, (0,))
    np.testing.assert_array_equal(library.transform(windows.copy())[0], [0, 2, 4])
    assert library.names(("x", "y")) == ("x(t-2)", "x(t-1)", "x(t)")
    before, after = delay_pairs(series, 2)
    np.testing.assert_array_equal(before[:, 1], after[:, 0])
    with pytest.raises(DataError, match="reach over"):
        hankel(series, 11)
    with pytest.raises(DataError, match="no two windows"):
        delay_pairs(series, 10)


def test_any_encoder_is_a_library():
    library = Encoded(lambda x: x[..., :1] * math.pi, 1)
    assert library.names(("a", "b")) == ("z0",)
    np.testing.assert_allclose(library.transform(np.ones((4, 2))), math.pi)
    with pytest.raises(DataError, match="width"):
        Encoded(lambda x: x, 3).transform(np.ones((4, 2)))
