"""Small pieces that every network here is made of: activations by name, initialisers by name, and the fan-in normalised layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = str | Callable[[], nn.Module]
"""A name out of `ACTIVATIONS`, or anything that makes a module (`partial(nn.LeakyReLU, 0.2)`)."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": partial(nn.LeakyReLU, 0.2),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
}


def activation(kind: Activation | None) -> nn.Module:
    """A fresh activation module; the identity for None."""
    if kind is None:
        return nn.Identity()
    return ACTIVATIONS[kind]() if isinstance(kind, str) else kind()


@torch.no_grad()
def initialise(weight: Tensor, kind: str) -> None:
    """Fill a weight in place; its last two dimensions, or (out, in, *kernel) of a convolution, are what is initialised.

    Args:
        weight: a parameter with at least two dimensions.
        kind: `default` (left as torch made it), `xavier`, `orthogonal`, `kaiming` (for ReLU), `normal` or `truncated` (both with
            standard deviation 0.02), `zero`, or `fan_in` (every output's weights have Euclidean norm 1).
    """
    if kind == "xavier":
        nn.init.xavier_uniform_(weight)
    elif kind == "orthogonal":
        nn.init.orthogonal_(weight)
    elif kind == "kaiming":
        nn.init.kaiming_uniform_(weight, nonlinearity="relu")
    elif kind == "normal":
        nn.init.normal_(weight, std=0.02)
    elif kind == "truncated":
        nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04)
    elif kind == "zero":
        nn.init.zeros_(weight)
    elif kind == "fan_in":
        weight /= weight.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.dim() - 1))
    elif kind != "default":
        raise ValueError(f"no initialiser is called {kind!r}")


def channels_last(x: Tensor) -> Tensor:
    """Frames or maps (N, C, H, W) with the channels of a pixel side by side in memory, as convolutions are fastest on a CPU."""
    return x.contiguous(memory_format=torch.channels_last)


class GroupNorm(nn.GroupNorm):
    """Group norm that is safe on frames.

    torch (seen in 2.13, CPU) crashes in its backward when a channels-last input wants no gradient itself: here it always does.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not x.requires_grad:
            x = x.detach().requires_grad_()
        return super().forward(x)


class FanIn(nn.Module):
    """norm -> layer -> ReLU, with every output's weights scaled to one norm, so that signals keep their size through depth.

    VPT builds everything but its attention of this layer. The layer has a bias only where no norm comes before it.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d | nn.Conv3d, norm: nn.Module | None, scale: float = 1.0, relu: bool = True):
        super().__init__()
        self.norm = norm
        self.layer = layer
        self.relu = relu
        initialise(layer.weight, "fan_in")
        with torch.no_grad():
            layer.weight *= scale
            if layer.bias is not None:
                layer.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if self.norm is not None:
            x = self.norm(x)
        x = self.layer(x)
        return F.relu_(x) if self.relu else x


def fan_in_linear(inputs: int, outputs: int, *, norm: bool, scale: float = 1.0, relu: bool = True) -> FanIn:
    """LayerNorm (where `norm`) -> Linear -> ReLU."""
    return FanIn(nn.Linear(inputs, outputs, bias=not norm), nn.LayerNorm(inputs) if norm else None, scale, relu)


def fan_in_conv(inputs: int, outputs: int, *, norm: bool, scale: float = 1.0) -> FanIn:
    """GroupNorm of one group (where `norm`) -> 3x3 convolution that keeps the size -> ReLU."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=not norm)
    return FanIn(conv, GroupNorm(1, inputs) if norm else None, scale)


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Run every BatchNorm of a module on its running statistics for a while, whatever mode the module is in."""
    switched = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for m in switched:
        m.eval()
    try:
        yield
    finally:
        for m in switched:
            m.train()
