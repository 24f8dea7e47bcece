"""Compiled gradient descent of a linear network against autograd."""

from functools import reduce

import numpy as np
import pytest
import torch

from retrodict.dynamics.linear_descent import descend
from retrodict.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 6))
Y = X @ RNG.normal(size=(6, 3)) + 0.1 * RNG.normal(size=(50, 3))
MOMENTS = (Y.T @ X / 50, X.T @ X / 50, (Y**2).sum(1).mean())
LAYERS = [0.3 * RNG.normal(size=shape) for shape in [(5, 6), (8, 5), (3, 8)]]


def test_it_is_gradient_descent_on_the_mean_squared_error():
    done = descend(LAYERS, *MOMENTS, 0.05, 20, every=10)
    weights = [torch.tensor(w, requires_grad=True) for w in LAYERS]
    for step in range(21):
        loss = ((torch.from_numpy(Y).T - reduce(lambda a, w: w @ a, weights, torch.from_numpy(X).T)) ** 2).sum(0).mean() / 2
        assert float(loss.detach()) == pytest.approx(done.losses[step], rel=1e-12)
        if step % 10 == 0:
            for kept, weight in zip(done.weights, weights, strict=True):
                assert kept[step // 10] == pytest.approx(weight.detach().numpy(), abs=1e-12)
        loss.backward()
        with torch.no_grad():
            for weight in weights:
                weight -= 0.05 * weight.grad
                weight.grad = None
    assert done.steps.tolist() == [0, 10, 20]


def test_it_stops_at_a_loss_and_where_it_diverges():
    full = descend(LAYERS, *MOMENTS, 0.05, 200)
    level = full.losses[57]
    assert len(descend(LAYERS, *MOMENTS, 0.05, 200, stop=level).losses) == 58
    wild = descend(LAYERS, *MOMENTS, 50.0, 500)
    assert len(wild.losses) < 501
    assert not np.isfinite(wild.losses[-1])


def test_what_forms_no_chain_is_refused():
    with pytest.raises(DataError, match="do not form a chain"):
        descend([LAYERS[0], LAYERS[2]], *MOMENTS, 0.1, 1)
    with pytest.raises(DataError, match="do not lead from 6 inputs to 3 outputs"):
        descend(LAYERS[:2], *MOMENTS, 0.1, 1)
