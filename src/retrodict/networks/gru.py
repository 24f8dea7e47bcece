"""Gated recurrent units, several side by side: both directions of one layer, or networks that share nothing but their shape.

Small GRUs on short windows spend their time on the bookkeeping of autograd, not on arithmetic: here the recurrence is a function
with its backward written out, so that a step costs a handful of batched operations.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Recurrence(torch.autograd.Function):
    """States of GRUs from the inputs of their gates, from a state of zeros; not twice differentiable."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, around: Tensor, bias: Tensor) -> Tensor:
        """From gates (T, M, B, 3 H), recurrent weights (M, H, 3 H) and bias (M, 1, 3 H) to states (T, M, B, H)."""
        steps, members, size, _ = gates.shape
        hidden = around.shape[1]
        states = gates.new_zeros(steps + 1, members, size, hidden)
        open_, new, inner = (
            gates.new_empty(steps, members, size, 2 * hidden),
            torch.empty_like(states[1:]),
            torch.empty_like(states[1:]),
        )
        for t in range(steps):
            recurrent = torch.baddbmm(bias, states[t], around)
            torch.sigmoid(gates[t, ..., : 2 * hidden] + recurrent[..., : 2 * hidden], out=open_[t])
            inner[t] = recurrent[..., 2 * hidden :]
            torch.tanh(torch.addcmul(gates[t, ..., 2 * hidden :], open_[t, ..., :hidden], inner[t]), out=new[t])
            torch.lerp(new[t], states[t], open_[t, ..., hidden:], out=states[t + 1])
        ctx.save_for_backward(states, open_, new, inner, around)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        states, open_, new, inner, around = ctx.saved_tensors
        hidden = around.shape[1]
        reset, update = open_[..., :hidden], open_[..., hidden:]
        to_new = (1 - update) * (1 - new**2)
        to_reset = inner * reset * (1 - reset)
        to_update = (states[:-1] - new) * update * (1 - update)
        recurrent = torch.empty_like(torch.cat([open_, new], -1))  # gradient of what the state gave to the gates
        given = torch.empty_like(new)
        back, carried = around.mT, torch.zeros_like(new[0])
        for t in range(len(new) - 1, -1, -1):
            at = gradient[t] + carried
            torch.mul(at, to_new[t], out=given[t])
            torch.mul(given[t], to_reset[t], out=recurrent[t, ..., :hidden])
            torch.mul(at, to_update[t], out=recurrent[t, ..., hidden : 2 * hidden])
            torch.mul(given[t], reset[t], out=recurrent[t, ..., 2 * hidden :])
            carried = torch.baddbmm(at * update[t], recurrent[t], back)
        before = states[:-1].movedim(0, 1).flatten(1, 2)
        flat = recurrent.movedim(0, 1).flatten(1, 2)
        return torch.cat([recurrent[..., : 2 * hidden], given], -1), before.mT @ flat, flat.sum(1, keepdim=True)


class ParallelGRU(nn.Module):
    """GRUs of one layer, each with weights of its own, drawn as torch draws them.

    Args:
        members: how many.
        inputs, hidden: sizes of each.
    """

    def __init__(self, members: int, inputs: int, hidden: int) -> None:
        super().__init__()
        reach = 1 / math.sqrt(hidden)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(members, *shape).uniform_(-reach, reach))

        self.inwards, self.inwards_bias = drawn(inputs, 3 * hidden), drawn(1, 3 * hidden)
        self.around, self.around_bias = drawn(hidden, 3 * hidden), drawn(1, 3 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(M, B, T, inputs) to states (M, B, T, hidden)."""
        members, size, steps, _ = x.shape
        gates = torch.baddbmm(self.inwards_bias, x.flatten(1, 2), self.inwards).reshape(members, size, steps, -1)
        states: Tensor = Recurrence.apply(gates.permute(2, 0, 1, 3).contiguous(), self.around, self.around_bias)  # type: ignore[no-untyped-call]
        return states.permute(1, 2, 0, 3)


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
