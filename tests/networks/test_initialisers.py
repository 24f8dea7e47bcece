"""Starts of whole stacks: singular values, balance, and what passes through depth."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from retrodict.errors import DataError
from retrodict.networks import initialisers


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (4, 9), (9, 4)])
def test_an_orthogonal_matrix_has_one_singular_value(rows, columns):
    drawn = initialisers.orthogonal(rows, columns, 1.7, generator())
    assert drawn.shape == (rows, columns)
    assert torch.linalg.svdvals(drawn).numpy() == pytest.approx(1.7, abs=1e-12)


def test_it_is_drawn_evenly():
    # By Haar measure the trace of a 2x2 rotation or reflection is 2 cos(angle) with an even angle, or 0: without the fix of signs
    # every entry on the diagonal would be negative.
    draws = torch.stack([initialisers.orthogonal(2, 2, 1.0, generator(seed)) for seed in range(400)])
    angles = torch.atan2(draws[:, 1, 0], draws[:, 0, 0]).numpy()
    assert stats.kstest(angles, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 0.01
    assert 0.4 < float((torch.linalg.det(draws) > 0).double().mean()) < 0.6


def test_a_hundred_orthogonal_layers_change_no_norm_and_gaussian_ones_do():
    x = torch.zeros(40, dtype=torch.float64)
    straight = initialisers.propagation(initialisers.orthogonal_layers([40] * 101, 1.0, generator()), x)
    assert straight.numpy() == pytest.approx(1.0, abs=1e-12)
    spread = [
        initialisers.propagation(initialisers.gaussian_layers([40] * (depth + 1), 1.0, generator()), x).log() for depth in (4, 16)
    ]
    assert spread[1].std() > 2.5 * spread[0].std()


def test_a_nonlinearity_is_taken_into_the_derivative():
    layers = initialisers.gaussian_layers([7, 5, 6], 1.0, generator())
    x = torch.randn(7, dtype=torch.float64, generator=generator(1))
    whole = torch.func.jacrev(lambda v: torch.tanh(layers[1] @ torch.tanh(layers[0] @ v)))(x)
    found = initialisers.propagation(layers, x, torch.tanh)
    assert found[:5].numpy() == pytest.approx(torch.linalg.svdvals(whole)[:5].numpy(), abs=1e-12)


def test_balanced_layers_multiply_to_the_modes_and_conserve_nothing_but_zero():
    left, right = initialisers.orthogonal(4, 3, 1.0, generator(1)), initialisers.orthogonal(6, 3, 1.0, generator(2))
    starts = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    layers = initialisers.balanced_layers(left, right, [6, 5, 7, 4], starts, generator())
    product = layers[2] @ layers[1] @ layers[0]
    assert product.numpy() == pytest.approx(((left * starts) @ right.T).numpy(), abs=1e-12)
    for below, above in pairwise(layers):
        assert (above.T @ above).numpy() == pytest.approx((below @ below.T).numpy(), abs=1e-12)
    with pytest.raises(DataError, match="width 2 cannot carry 3 modes"):
        initialisers.balanced_layers(left, right, [6, 2, 4], starts)


def test_pretrained_layers_are_what_a_trained_autoencoder_finds():
    scales = torch.tensor([3.0, 2.5, 2.0, 0.6, 0.4, 0.2], dtype=torch.float64)
    turn = initialisers.orthogonal(6, 6, 1.0, generator(3))
    covariance = turn @ torch.diag(scales**2) @ turn.T
    (layer,) = initialisers.pretrained_layers([6, 3], covariance, generator())
    weight = (0.1 * torch.randn(3, 6, dtype=torch.float64, generator=generator(4))).requires_grad_()
    optimiser = torch.optim.LBFGS([weight], max_iter=500, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        rest = torch.eye(6, dtype=torch.float64) - weight.T @ weight
        error = torch.trace(rest @ covariance @ rest.T)
        error.backward()
        return error

    optimiser.step(loss)
    assert (weight.T @ weight).detach().numpy() == pytest.approx((layer.T @ layer).numpy(), abs=1e-4)
