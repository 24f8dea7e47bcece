"""A convolutional image encoder put together from a list of layers, read out as a map, as tokens or as a vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrodict.networks.layers import Activation, GroupNorm, activation, channels_last, initialise


@dataclass(frozen=True)
class ConvLayer:
    """One layer: convolution, norm, activation, pooling.

    Attributes:
        channels: channels given out.
        kernel, stride, dilation: of the convolution.
        padding: `same` keeps the size at stride 1, `valid` adds none.
        pool: `max` or `average` over blocks of `pool_size`, None for none.
    """

    channels: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    padding: Literal["same", "valid"] = "same"
    pool: Literal["max", "average"] | None = None
    pool_size: int = 2


class SpatialSoftmax(nn.Module):
    """The expected place of each map: (N, C, H, W) -> (N, 2 C), all x and then all y, from -1 (left, top) to 1 (right, bottom).

    Args:
        temperature: divides the map before the softmax; small values tend to the place of the maximum.
    """

    def __init__(self, temperature: float):
        super().__init__()
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        weight = (x.flatten(2) / self.temperature).softmax(-1).view(n, c, h, w)
        across = torch.linspace(-1, 1, w, device=x.device, dtype=x.dtype)
        down = torch.linspace(-1, 1, h, device=x.device, dtype=x.dtype)
        return torch.cat([(weight.sum(2) * across).sum(-1), (weight.sum(3) * down).sum(-1)], -1)


class ConvEncoder(nn.Module):
    """Frames (..., C, H, W) -> what `readout` says; leading dimensions are folded.

    Args:
        layers: the convolutions in order.
        channels: channels C of the input (1, 3, stacked frames, pairs with their difference, RGB-D, ...).
        size: (H, W) of the input; needed for the `linear` readout only.
        readout: `map` (..., c, h, w); `tokens` (..., h w, c); `linear` (..., width), flattened then one linear layer; `mean`
            (..., c), the mean of the map made non-negative; `keypoints` (..., 2 c), see `SpatialSoftmax`.
        width: width of the `linear` readout.
        norm: `batch`, `group` (one group) or None.
        activation: name or maker, see `layers.activation`.
        init: see `layers.initialise`.
        temperature: of the `keypoints` readout.
    """

    def __init__(
        self,
        layers: Sequence[ConvLayer],
        channels: int,
        size: tuple[int, int] | None = None,
        *,
        readout: Literal["map", "tokens", "linear", "mean", "keypoints"] = "map",
        width: int | None = None,
        norm: Literal["batch", "group"] | None = None,
        activation: Activation = "relu",
        init: str = "default",
        temperature: float = 1.0,
    ):
        super().__init__()
        self.readout = readout
        self.layers = nn.Sequential()
        for layer in layers:
            self.layers.append(_block(layer, channels, norm, activation, init))
            channels = layer.channels
        self.channels = channels
        if readout == "linear":
            if size is None or width is None:
                raise ValueError("the linear readout needs size= and width=")
            with torch.no_grad():
                h, w = self.layers.eval()(torch.zeros(1, self.in_channels, *size)).shape[-2:]
            self.layers.train()
            self.head: nn.Module = nn.Linear(channels * h * w, width)
        elif readout == "keypoints":
            self.head = SpatialSoftmax(temperature)

    @property
    def in_channels(self) -> int:
        first = next(m for m in self.layers.modules() if isinstance(m, nn.Conv2d))
        return first.in_channels

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[:-3]
        maps: Tensor = self.layers(channels_last(x.flatten(0, -4) if lead else x[None]))
        if self.readout == "linear":
            out: Tensor = self.head(maps.flatten(1))
        elif self.readout == "keypoints":
            out = self.head(maps)
        elif self.readout == "mean":
            out = F.relu(maps).mean((-2, -1))
        elif self.readout == "tokens":
            out = maps.flatten(2).transpose(1, 2)
        else:
            out = maps
        return out.reshape(*lead, *out.shape[1:])


def _block(layer: ConvLayer, channels: int, norm: str | None, kind: Activation, init: str) -> nn.Sequential:
    padding = layer.dilation * (layer.kernel - 1) // 2 if layer.padding == "same" else 0
    conv = nn.Conv2d(channels, layer.channels, layer.kernel, layer.stride, padding, layer.dilation, bias=norm is None)
    initialise(conv.weight, init)
    parts: list[nn.Module] = [conv]
    if norm == "batch":
        parts.append(nn.BatchNorm2d(layer.channels))
    elif norm == "group":
        parts.append(GroupNorm(1, layer.channels))
    parts.append(activation(kind))
    if layer.pool:
        parts.append((nn.MaxPool2d if layer.pool == "max" else nn.AvgPool2d)(layer.pool_size))
    return nn.Sequential(*parts)
