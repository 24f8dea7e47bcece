"""The parallel GRU against torch's, and its written-out backward."""

import pytest
import torch
from torch import nn

from retrodict.networks.gru import BidirectionalGRU, ParallelGRU, recurrence, recurrence_in_torch


def load(theirs: nn.GRU, ours: ParallelGRU, member: int, layer: int, suffix: str = ""):
    """Torch's weights into ours; torch keeps reset, update, new in the same order."""
    with torch.no_grad():
        for mine, name in (("inwards", "weight_ih"), ("around", "weight_hh")):
            getattr(ours, mine)[member] = getattr(theirs, f"{name}_l{layer}{suffix}")
            getattr(ours, f"{mine}_bias")[member, :, 0] = getattr(theirs, f"{name.replace('weight', 'bias')}_l{layer}{suffix}")


def test_both_directions_and_layers_agree_with_torch():
    torch.manual_seed(0)
    theirs = nn.GRU(3, 5, 2, batch_first=True, bidirectional=True).double()
    ours = BidirectionalGRU(3, 5, 2).double()
    for layer in (0, 1):
        load(theirs, ours.layers[layer], 0, layer)
        load(theirs, ours.layers[layer], 1, layer, "_reverse")
    x = torch.randn(4, 7, 3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(x), theirs(x)[0])
    weights = torch.randn(4, 7, 10, dtype=torch.float64)
    mine, others = (torch.autograd.grad((net * weights).sum(), x)[0] for net in (ours(x), theirs(x)[0]))
    torch.testing.assert_close(mine, others)


@pytest.mark.parametrize(("members", "hidden", "steps", "size"), [(1, 1, 1, 1), (2, 20, 24, 64), (5, 2, 7, 33)])
def test_compiled_loops_agree_with_torch_forward_and_backward(members, hidden, steps, size):
    torch.manual_seed(0)
    shapes = (members, 3 * hidden, steps, size), (members, 3 * hidden, hidden), (members, 3 * hidden, 1)
    given = [(torch.randn(shape) / shape[-1] ** 0.5).requires_grad_() for shape in shapes]
    weights = torch.randn(steps, members, hidden, size)
    compiled, reference = recurrence(*given), recurrence_in_torch(*given)
    torch.testing.assert_close(compiled, reference, atol=1e-6, rtol=1e-5)
    mine, others = (torch.autograd.grad((states * weights).sum(), given) for states in (compiled, reference))
    for one, other in zip(mine, others, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6 * float(1 + other.abs().max()), rtol=1e-5)


def test_compiled_loops_bear_what_saturates_and_repeat_to_the_bit():
    gates = torch.tensor([-1e30, -100.0, -20.0, 0.0, 20.0, 100.0, 1e30]).repeat(1, 3, 4, 1)
    around, bias = torch.ones(1, 3, 1), torch.zeros(1, 3, 1)
    states = recurrence(gates, around, bias)
    torch.testing.assert_close(states, recurrence_in_torch(gates, around, bias), atol=1e-6, rtol=0)
    assert torch.equal(states, recurrence(gates, around, bias))
    gates[0, 0, 1, 3] = torch.nan
    assert recurrence(gates, around, bias).isnan()[1:, 0, 0, 3].all()


def test_members_share_nothing():
    torch.manual_seed(0)
    net = ParallelGRU(3, 2, 4)
    x = torch.randn(3, 5, 6, 2)
    net(x)[1].sum().backward()
    assert net.around.grad[1].abs().max() > 0
    assert net.around.grad[[0, 2]].abs().max() == 0
