"""Moment restrictions against the plain double loop, and what they can and cannot see."""

import numpy as np
import pytest
import torch

from retrodict.objectives.moments import (
    FourierFeatures,
    linear_residual,
    median_distance,
    moment_restriction,
    shape_moments,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_statistic_is_the_mean_over_pairs():
    residual, features = torch.randn(7, 2, generator=generator()), torch.randn(7, 5, generator=generator(1))
    pairs = [float((features[i] @ features[j]) * (residual[i] @ residual[j])) for i in range(7) for j in range(7) if i != j]
    assert float(moment_restriction(residual, features)) == pytest.approx(np.mean(pairs), rel=1e-5)


def test_waves_are_the_gaussian_kernel():
    x = torch.randn(50, 3, generator=generator())
    waves = FourierFeatures(3, (0.7, 1.5), 20_000, generator(1))(x)
    apart = torch.cdist(x, x).square()
    kernel = torch.exp(-apart / (2 * 0.7**2)) + torch.exp(-apart / (2 * 1.5**2))
    assert (waves @ waves.T).numpy() == pytest.approx(kernel.numpy(), abs=0.06)


def test_it_is_zero_on_average_where_the_mean_is_linear_and_not_where_it_bends():
    action = torch.rand(4000, 2, generator=generator()) * 2 - 1
    noise = torch.randn(4000, 2, generator=generator(1))
    waves = FourierFeatures(2, (0.7,), 200, generator(2))(action)
    straight = moment_restriction(linear_residual(action @ torch.randn(2, 2, generator=generator(3)) + noise, action), waves)
    bent = moment_restriction(linear_residual(action**2 + noise, action), waves)
    assert abs(float(straight)) < 1e-3
    assert float(bent) > 4e-3


def test_a_residual_holds_nothing_linear_and_lets_the_gradient_through():
    action = torch.rand(30, 2, generator=generator(), dtype=torch.float64)
    values = torch.randn(30, 3, generator=generator(1), dtype=torch.float64, requires_grad=True)
    rest = linear_residual(values, action)
    design = torch.cat([torch.ones(30, 1, dtype=torch.float64), action], 1)
    assert (design.T @ rest).detach().abs().max() < 1e-10
    assert torch.autograd.gradcheck(lambda v: linear_residual(v, action), (values,))


def test_shape_moments_see_a_spread_that_grows_with_the_action():
    action = torch.rand(4000, 1, generator=generator()) * 2 - 1
    noise = torch.randn(4000, 2, generator=generator(1))
    waves = FourierFeatures(1, (0.7,), 200, generator(2))(action)
    even, uneven = shape_moments(noise, 2), shape_moments(noise * (1 + 0.5 * action), 2)
    assert even.shape == (4000, 3)
    assert shape_moments(noise, 3).shape == (4000, 7)
    assert abs(float(moment_restriction(even, waves))) < 5e-3
    assert float(moment_restriction(uneven, waves)) > 0.1


def test_the_median_distance_is_that_of_scipy():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    assert median_distance(x) == pytest.approx(np.median([5.0, 1.0, 18**0.5]), rel=1e-6)
