"""A neural controlled differential equation, driven by the natural cubic spline through a window.

Its steps are small and many. On a CPU, in single precision, loops compiled by numba run forward and, with gradients derived by
hand, backward (`neural_cde_kernels`); elsewhere, and as the reference that tests hold them against, it is integrated in torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from retrodict.dynamics.ode import driven, odeint
from retrodict.dynamics.splines import CubicPath


class NeuralCDE(nn.Module):
    """dh = f(h) dX, h(0) a linear map of X(0): windows (B, T, C) to states (B, T, hidden).  (Kidger et al., 2020)

    By the classical Runge-Kutta method, one step between two times. f is a network of rectified layers, with the hyperbolic
    tangent at its end.

    Args:
        channels: C.
        hidden: numbers of h, and units of a layer of f.
        layers: hidden layers of f, at least one.
    """

    def __init__(self, channels: int, hidden: int, layers: int = 3) -> None:
        super().__init__()
        self.start = nn.Linear(channels, hidden)
        self.inner = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))
        self.last = nn.Linear(hidden, hidden * channels)

    def forward(self, values: Tensor) -> Tensor:
        times = torch.arange(values.shape[1], dtype=values.dtype, device=values.device)
        path, start = CubicPath(times, values), self.start(values[:, 0])
        if values.device.type != "cpu" or values.dtype != torch.float32:
            states: Tensor = odeint(driven(self.change, path), start, times, "rk4")
            return states.movedim(0, 1)
        shares = torch.tensor([0.0, 0.5, 1.0])
        rises = (path.slopes(shares) * path.gaps[:, None, None]).permute(1, 2, 3, 0)
        inner, biases = (torch.stack([layer.get_parameter(name) for layer in self.inner]) for name in ("weight", "bias"))
        states = _Compiled.apply(start.T, rises, inner, biases, self.last.weight, self.last.bias)  # type: ignore[no-untyped-call]
        return states.permute(2, 0, 1)

    def change(self, h: Tensor) -> Tensor:
        """f(h), (B, hidden, C)."""
        moved = h
        for layer in self.inner:
            moved = torch.relu(layer(moved))
        return torch.tanh(self.last(moved)).reshape(*h.shape, -1)


class _Compiled(torch.autograd.Function):
    """States (T, H, B) on a CPU; not twice differentiable."""

    @staticmethod
    def forward(
        ctx: Any, start: Tensor, rises: Tensor, inner: Tensor, inner_bias: Tensor, last: Tensor, last_bias: Tensor
    ) -> Tensor:
        from retrodict.systems.generators import neural_cde_kernels

        gaps, hidden, size = len(rises), *start.shape
        states = start.new_empty(gaps + 1, hidden, size)
        states[0] = start
        units, matrices = start.new_empty(gaps, 4, len(inner) + 1, hidden, size), start.new_empty(gaps, 4, len(last), size)
        rises = rises.contiguous()
        arrays = (rises, inner, inner_bias, last, last_bias, states, units, matrices)
        neural_cde_kernels.controlled(*(x.contiguous().numpy() for x in arrays))
        ctx.save_for_backward(rises, inner, last, units, matrices)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_states: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        from retrodict.systems.generators import neural_cde_kernels

        rises, inner, last, units, matrices = ctx.saved_tensors
        given = (by_states, rises, inner.mT, last.T, units, matrices)
        by_start = torch.empty(by_states.shape[1:])
        others = (torch.zeros(x) for x in (rises.shape, inner.shape, inner.shape[:2], last.shape, last.shape[:1]))
        filled = (by_start, *others)
        neural_cde_kernels.controlled_backward(*(x.contiguous().numpy() for x in (*given, *filled)))
        return filled
