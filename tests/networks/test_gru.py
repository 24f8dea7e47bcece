"""The parallel GRU against torch's, and its written-out backward."""

import torch
from torch import nn

from retrodict.networks.gru import BidirectionalGRU, ParallelGRU, Recurrence


def load(theirs: nn.GRU, ours: ParallelGRU, member: int, layer: int, suffix: str = ""):
    """Torch's weights into ours; torch keeps reset, update, new in the same order."""
    with torch.no_grad():
        for mine, name in (("inwards", "weight_ih"), ("around", "weight_hh")):
            getattr(ours, mine)[member] = getattr(theirs, f"{name}_l{layer}{suffix}").T
            getattr(ours, f"{mine}_bias")[member] = getattr(theirs, f"{name.replace('weight', 'bias')}_l{layer}{suffix}")


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


def test_the_backward_is_the_derivative():
    torch.manual_seed(0)
    gates, around, bias = (
        torch.randn(*shape, dtype=torch.float64).requires_grad_() for shape in ((4, 2, 3, 6), (2, 2, 6), (2, 1, 6))
    )
    assert torch.autograd.gradcheck(Recurrence.apply, (gates, around, bias))


def test_members_share_nothing():
    torch.manual_seed(0)
    net = ParallelGRU(3, 2, 4)
    x = torch.randn(3, 5, 6, 2)
    net(x)[1].sum().backward()
    assert net.around.grad[1].abs().max() > 0
    assert net.around.grad[[0, 2]].abs().max() == 0
