"""The IMPALA image network as VPT has it, and the convolution over time that stands before it in an inverse model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrodict.networks.layers import FanIn, GroupNorm, channels_last, fan_in_conv, fan_in_linear


class TemporalStem(nn.Module):
    """A convolution over time alone (kernel k x 1 x 1): each pixel sees its own past and future. No norm on its input.

    (B, T, C, H, W) -> (B, T, width, H, W), zero-padded in time.

    Args:
        channels: channels C of a frame.
        width: channels given out.
        kernel: odd number of frames seen.
    """

    def __init__(self, channels: int, width: int, kernel: int):
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"the temporal kernel must be odd, got {kernel}")
        self.conv = FanIn(nn.Conv3d(channels, width, (kernel, 1, 1), padding=(kernel // 2, 0, 0)), None)

    def forward(self, x: Tensor) -> Tensor:
        # In this memory format the frames that come out are already channels-last for the image network: no further copy.
        frames: Tensor = self.conv(x.transpose(1, 2).contiguous(memory_format=torch.channels_last_3d))
        return frames.transpose(1, 2)


class Residual(nn.Module):
    """x + conv(conv(x))."""

    def __init__(self, channels: int, scale: float):
        super().__init__()
        self.conv0 = fan_in_conv(channels, channels, norm=True, scale=scale)
        self.conv1 = fan_in_conv(channels, channels, norm=True, scale=scale)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.conv1(self.conv0(x))
        return x + changed


class Stack(nn.Module):
    """Convolution, max pooling that halves the size, norm, residual blocks."""

    def __init__(self, inputs: int, outputs: int, blocks: int, scale: float, norm_first: bool):
        super().__init__()
        self.first = fan_in_conv(inputs, outputs, norm=norm_first)
        self.norm = GroupNorm(1, outputs)
        self.blocks = nn.Sequential(*[Residual(outputs, scale) for _ in range(blocks)])

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.first(x), 3, stride=2, padding=1)
        out: Tensor = self.blocks(self.norm(x))
        return out


class ImpalaCNN(nn.Module):
    """Frames -> vectors: (..., C, H, W) float -> (..., width); leading dimensions are folded.

    Sizes in the paper's inverse model: channels (256, 512, 512), dense 256, width 4096, frames 128 x 128.
    (Espeholt et al., 2018; norms and initialisation of Baker et al., 2022)

    Args:
        channels: channels C of the input.
        size: (H, W) of the input.
        stacks: channels of each stack; each halves the size (rounding up).
        dense: width of the dense layer after the last stack.
        width: width given out.
        blocks: residual blocks per stack.
        norm_input: normalise before the very first convolution; off where raw pixels come in.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        stacks: Sequence[int],
        dense: int,
        width: int,
        blocks: int = 2,
        norm_input: bool = False,
    ):
        super().__init__()
        scale = math.sqrt(math.sqrt(len(stacks)) / math.sqrt(blocks))
        made, (h, w) = [], size
        for i, outputs in enumerate(stacks):
            made.append(Stack(channels, outputs, blocks, scale, norm_first=norm_input or i > 0))
            channels, h, w = outputs, (h + 1) // 2, (w + 1) // 2
        self.stacks = nn.Sequential(*made)
        self.dense = fan_in_linear(channels * h * w, dense, norm=True, scale=1.4)
        self.linear = fan_in_linear(dense, width, norm=True)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[:-3]
        x = channels_last(x.flatten(0, -4))
        out: Tensor = self.linear(self.dense(self.stacks(x).flatten(1)))
        return out.view(*lead, -1)
