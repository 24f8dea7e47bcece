"""The compiled controlled equation against the one that is integrated in torch, forward and by hand backward."""

import pytest
import torch

from retrodict.dynamics.ode import driven, odeint
from retrodict.dynamics.splines import CubicPath
from retrodict.systems.generators.neural_cde import NeuralCDE


def in_torch(net: NeuralCDE, values: torch.Tensor) -> torch.Tensor:
    times = torch.arange(values.shape[1], dtype=values.dtype)
    return odeint(driven(net.change, CubicPath(times, values)), net.start(values[:, 0]), times, "rk4").movedim(0, 1)


@pytest.mark.parametrize(
    ("channels", "hidden", "layers", "steps", "size"), [(1, 1, 1, 2, 1), (5, 20, 3, 24, 64), (2, 7, 2, 9, 33)]
)
def test_compiled_loops_agree_with_torch_forward_and_backward(channels, hidden, layers, steps, size):
    torch.manual_seed(0)
    net = NeuralCDE(channels, hidden, layers)
    values = torch.randn(size, steps, channels, requires_grad=True)
    weights = torch.randn(size, steps, hidden)
    compiled, reference = net(values), in_torch(net, values)
    torch.testing.assert_close(compiled, reference, atol=1e-5, rtol=1e-4)
    given = (values, *net.parameters())
    mine, others = (torch.autograd.grad((states * weights).sum(), given) for states in (compiled, reference))
    for one, other in zip(mine, others, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * float(1 + other.abs().max()), rtol=1e-4)


def test_double_precision_is_integrated_in_torch():
    torch.manual_seed(0)
    net = NeuralCDE(2, 4)
    values = torch.randn(3, 6, 2)
    torch.testing.assert_close(net(values).double(), net.double()(values.double()), atol=1e-5, rtol=1e-4)


def test_what_is_not_a_number_stays_none_and_keeps_to_its_window():
    torch.manual_seed(0)
    net = NeuralCDE(2, 4)
    values = torch.randn(3, 6, 2)
    values[1, 2, 0] = torch.nan
    states = net(values)
    assert states[1, 1:].isnan().all()
    assert states[[0, 2]].isfinite().all()
