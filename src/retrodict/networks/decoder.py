"""A convolutional decoder put together from a list of layers: from a vector or a map to an image or a field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from retrodict.networks.layers import Activation, GroupNorm, activation, channels_last


class ConvDecoder(nn.Module):
    """Vectors (..., d), or maps (..., c, h, w) where `inputs` is None -> images (..., C, H, W); leading dimensions are folded.

    Every layer doubles the size. There is no activation at the end: whoever reads the image says what its numbers mean.

    Args:
        inputs: width d of the vector that is decoded.
        start: (c, h, w) of the map with which it begins.
        layers: channels after each doubling; the last ones are the image's.
        upsample: `transposed` convolution (4 x 4, stride 2), or `nearest` / `bilinear` enlargement and a 3 x 3 convolution.
        norm: `batch`, `group` (one group) or None, after each layer but the last.
        activation: after each layer but the last.
        condition: width of a further vector (an action, an embedding of k), added to the first map after a linear layer.
        refine: one more 3 x 3 convolution at full size.
    """

    def __init__(
        self,
        inputs: int | None,
        start: tuple[int, int, int],
        layers: Sequence[int],
        *,
        upsample: Literal["transposed", "nearest", "bilinear"] = "transposed",
        norm: Literal["batch", "group"] | None = None,
        activation: Activation = "relu",
        condition: int = 0,
        refine: bool = False,
    ) -> None:
        super().__init__()
        self.start = start
        size = start[0] * start[1] * start[2]
        self.first = nn.Linear(inputs, size) if inputs is not None else None
        self.condition = nn.Linear(condition, size) if condition else None
        self.layers = nn.Sequential()
        channels = start[0]
        for i, width in enumerate(layers):
            last = i + 1 == len(layers)
            bias = norm is None or last
            if upsample == "transposed":
                self.layers.append(nn.ConvTranspose2d(channels, width, 4, 2, 1, bias=bias))
            else:
                corners = None if upsample == "nearest" else False
                self.layers.append(nn.Upsample(scale_factor=2, mode=upsample, align_corners=corners))
                self.layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=bias))
            if not last or refine:
                self.layers.extend(_after(norm, width, activation))
            channels = width
        if refine:
            self.layers.append(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        lead = x.shape[:-1] if self.first is not None else x.shape[:-3]
        x = (x if self.first is None else self.first(x)).reshape(-1, *self.start)
        if self.condition is not None:
            if condition is None:
                raise ValueError("this decoder was made with a condition; pass it")
            x = x + self.condition(condition).reshape(-1, *self.start)
        out: Tensor = self.layers(channels_last(torch.relu(x)))
        return out.reshape(*lead, *out.shape[1:])


def _after(norm: str | None, width: int, kind: Activation) -> list[nn.Module]:
    norms: list[nn.Module] = [nn.BatchNorm2d(width)] if norm == "batch" else [GroupNorm(1, width)] if norm == "group" else []
    return [*norms, activation(kind)]
