"""The multilayer perceptron, with every option that some system asks for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from retrodict.networks.layers import Activation, activation, initialise


class Dense(nn.Module):
    """A linear layer with own weights for each of `members`: (..., members, in) -> (..., members, out)."""

    def __init__(self, members: int, inputs: int, outputs: int, bias: bool):
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(members, outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, outputs).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        out = torch.einsum("...mi,moi->...mo", x, self.weight)
        return out if self.bias is None else out + self.bias


class FoldedBatchNorm(nn.BatchNorm1d):
    """Batch norm over all leading dimensions of (..., features), or (..., members, features)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(-1, self.num_features)).reshape(x.shape)


class MLP(nn.Module):
    """(..., sizes[0]) -> (..., sizes[-1]).

    Args:
        sizes: widths, input and output included.
        activation: name or maker, see `layers.activation`.
        norm: after each hidden linear layer: `batch`, `layer` or None.
        dropout: after each hidden activation.
        output_dropout: before the last linear layer only.
        bias: False leaves biases out everywhere, so that zero maps to zero where the activation does.
        init: see `layers.initialise`; biases start at zero unless it is `default`.
        last_scale: factor on the last layer's initial weights and bias; 0 starts it at zero.
        last_activation: after the last layer, None for none.
        members: own weights per joint or ensemble member: (..., members, in) -> (..., members, out).
        residual: the first input is added to the output: h + MLP([h, s, ...]), called with h, s, ... as arguments.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: Activation = "relu",
        norm: Literal["batch", "layer"] | None = None,
        dropout: float = 0.0,
        output_dropout: float = 0.0,
        bias: bool = True,
        init: str = "default",
        last_scale: float = 1.0,
        last_activation: Activation | None = None,
        members: int | None = None,
        residual: bool = False,
    ):
        super().__init__()
        self.residual = residual
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes[:-1]):
            layers += [_linear(inputs, outputs, bias, init, members), _norm(norm, outputs, members), _make(activation)]
            layers.append(nn.Dropout(dropout) if dropout else nn.Identity())
        last = _linear(sizes[-2], sizes[-1], bias, init, members)
        with torch.no_grad():
            for parameter in last.parameters():
                parameter.mul_(last_scale)
        layers += [nn.Dropout(output_dropout) if output_dropout else nn.Identity(), last, _make(last_activation)]
        self.layers = nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Identity)))

    def forward(self, *inputs: Tensor) -> Tensor:
        out: Tensor = self.layers(torch.cat(inputs, -1) if len(inputs) > 1 else inputs[0])
        return inputs[0] + out if self.residual else out


def _make(kind: Activation | None) -> nn.Module:
    return activation(kind)


def _norm(kind: str | None, width: int, members: int | None) -> nn.Module:
    if kind == "batch":
        return FoldedBatchNorm(width * (members or 1))
    return nn.LayerNorm(width) if kind == "layer" else nn.Identity()


def _linear(inputs: int, outputs: int, bias: bool, init: str, members: int | None) -> nn.Module:
    layer = nn.Linear(inputs, outputs, bias) if members is None else Dense(members, inputs, outputs, bias)
    if init != "default":
        for weight in [layer.weight] if members is None else layer.weight:
            initialise(weight, init)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return layer
