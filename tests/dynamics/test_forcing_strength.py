"""The strength of forcing, against Jacobians taken one by one; and that it bounds gradients."""

import numpy as np
import pytest
import torch

from retrodict.dynamics.forcing_strength import forcing_strength
from retrodict.dynamics.plrnn import AlmostLinear, Shallow, jacobian
from retrodict.dynamics.scan import Mixed, scan
from retrodict.errors import DataError

GENERATOR = torch.Generator().manual_seed(3)


def random(*shape, scale=1.0):
    return scale * torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


LAW = Shallow(random(3), random(3, 8), random(8, 3), random(3), random(8))
SIGNAL = random(6, 4, 3)


def test_estimates_are_what_they_are_called():
    each = jacobian(LAW, SIGNAL)  # (T, B, M, M)
    norms = torch.linalg.matrix_norm(each, 2)
    sizes = {
        "batch_maximum": norms.max(),
        "product_bound": norms.log().mean(0).exp().max(),
        "arithmetic_mean": torch.linalg.matrix_norm(each.mean(0), 2).max(),
        "geometric_mean": torch.linalg.matrix_norm(each.abs().log().mean(0).exp(), 2).max(),
    }
    for estimate, size in sizes.items():
        assert forcing_strength(LAW, SIGNAL, estimate) == pytest.approx(max(0, 1 - 1 / float(size)), abs=1e-12)
    bound = forcing_strength(LAW, SIGNAL, "upper_bound")
    assert bound >= max(forcing_strength(LAW, SIGNAL, estimate) for estimate in sizes)


def test_a_contracting_map_asks_for_no_forcing():
    law = Shallow(0.1 * torch.ones(3), torch.zeros(3, 2), torch.zeros(2, 3), torch.zeros(3), torch.ones(2))
    assert forcing_strength(law, SIGNAL.float(), "product_bound") == 0


def test_an_almost_linear_map_has_no_upper_bound():
    law = AlmostLinear(random(3), random(3, 3), random(3), 1)
    with pytest.raises(DataError, match="upper bound"):
        forcing_strength(law, SIGNAL, "upper_bound")


def test_with_the_strength_that_the_jacobian_asks_for_gradients_stay_bounded():
    law = Shallow(random(3), random(3, 8), random(8, 3), random(3), random(8))
    sizes = []
    for steps in (10, 100, 1000):
        signal = random(steps, 1, 3)
        z0 = random(1, 3).requires_grad_()
        alpha = forcing_strength(law, signal, "upper_bound")
        states = scan(law, z0, steps, Mixed(signal, alpha))
        (grad,) = torch.autograd.grad(states[-1].sum(), z0)
        sizes.append(float(grad.norm()))
    assert np.max(sizes) < 100 * float(torch.linalg.matrix_norm(law.w1, 2))
