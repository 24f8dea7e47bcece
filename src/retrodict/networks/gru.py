"""Gated recurrent units, several side by side: both directions of one layer, or networks that share nothing but their shape.

Small GRUs on short windows spend their time on bookkeeping, not on arithmetic. On a CPU, in single precision, loops compiled by
numba run forward and, with gradients derived by hand, backward (`gru_kernels`); elsewhere, and as the reference that tests hold
them against, the same recursion is written step by step in torch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def recurrence(gates: Tensor, around: Tensor, bias: Tensor) -> Tensor:
    """States (T, M, H, B) of M GRUs that start from zeros.

    Args:
        gates: (M, 3 H, T, B), what the inputs give to reset, update and new, in this order.
        around, bias: recurrent weights (M, 3 H, H) and bias (M, 3 H, 1).
    """
    if gates.device.type == "cpu" and gates.dtype == torch.float32:
        states: Tensor = _Compiled.apply(gates, around, bias)  # type: ignore[no-untyped-call]
        return states
    return recurrence_in_torch(gates, around, bias)


def recurrence_in_torch(gates: Tensor, around: Tensor, bias: Tensor) -> Tensor:
    """See `recurrence`."""
    hidden = around.shape[2]
    state, states = gates.new_zeros(len(gates), hidden, gates.shape[3]), []
    for given in gates.unbind(2):
        recurrent = torch.baddbmm(bias, around, state)
        reset, update = torch.sigmoid(given[:, : 2 * hidden] + recurrent[:, : 2 * hidden]).chunk(2, 1)
        new = torch.tanh(torch.addcmul(given[:, 2 * hidden :], reset, recurrent[:, 2 * hidden :]))
        state = torch.lerp(new, state, update)
        states.append(state)
    return torch.stack(states)


class _Compiled(torch.autograd.Function):
    """`recurrence` on a CPU; not twice differentiable."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, around: Tensor, bias: Tensor) -> Tensor:
        from retrodict.networks import gru_kernels

        members, _, steps, size = gates.shape
        hidden = around.shape[2]
        states, kept = gates.new_zeros(steps + 1, members, hidden, size), gates.new_empty(steps, members, 4 * hidden, size)
        gru_kernels.recurrence(*(x.contiguous().numpy() for x in (gates, around, bias, states, kept)))
        ctx.save_for_backward(around, states, kept)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        from retrodict.networks import gru_kernels

        around, states, kept = ctx.saved_tensors
        steps, members, hidden, size = gradient.shape
        by_gates = gradient.new_empty(members, 3 * hidden, steps, size)
        by_around, by_bias = torch.zeros(around.shape), gradient.new_zeros(members, 3 * hidden)
        arrays = (gradient, around.mT, states, kept, by_gates, by_around, by_bias)
        gru_kernels.recurrence_backward(*(x.contiguous().numpy() for x in arrays))
        return by_gates, by_around, by_bias[..., None]


class ParallelGRU(nn.Module):
    """GRUs of one layer, each with weights of its own, drawn as torch draws them.

    Args:
        members: how many.
        inputs, hidden: sizes of each.
    """

    def __init__(self, members: int, inputs: int, hidden: int) -> None:
        super().__init__()
        reach = 1 / math.sqrt(hidden)

        def drawn(width: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(members, 3 * hidden, width).uniform_(-reach, reach))

        self.inwards, self.inwards_bias = drawn(inputs), drawn(1)
        self.around, self.around_bias = drawn(hidden), drawn(1)

    def forward(self, x: Tensor) -> Tensor:
        """(M, B, T, inputs) to states (M, B, T, hidden)."""
        members, size, steps, inputs = x.shape
        columns = x.permute(0, 3, 2, 1).reshape(members, inputs, steps * size)
        gates = torch.baddbmm(self.inwards_bias, self.inwards, columns).view(members, -1, steps, size)
        return recurrence(gates, self.around, self.around_bias).permute(1, 3, 0, 2)


class BidirectionalGRU(nn.Module):
    """Layers of GRUs that read a window forwards and backwards: (B, T, inputs) to (B, T, 2 hidden)."""

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ParallelGRU(2, inputs if i == 0 else 2 * hidden, hidden) for i in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            forwards, backwards = layer(torch.stack([x, x.flip(1)]))
            x = torch.cat([forwards, backwards.flip(1)], -1)
        return x
