"""Residual networks (He et al., 2015) of any width, with torchvision's names, so that weights from a user's folder load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrodict.errors import DataError
from retrodict.networks.layers import channels_last

Norm = Literal["batch", "frozen", "sync", "group"]

#: Blocks of the four stages, and whether a block is a bottleneck.
DEPTHS: dict[int, tuple[tuple[int, int, int, int], bool]] = {
    10: ((1, 1, 1, 1), False),
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
}


class FrozenBatchNorm(nn.BatchNorm2d):
    """Batch norm by the statistics that it was loaded with; neither they nor scale and shift change."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> FrozenBatchNorm:
        super().train(False)
        return self


NORMS: dict[Norm, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "frozen": FrozenBatchNorm,
    "sync": nn.SyncBatchNorm,
    "group": lambda channels: nn.GroupNorm(max(channels // 16, 1), channels),
}


class Block(nn.Module):
    """Two 3 x 3 convolutions, or 1 x 1, 3 x 3, 1 x 1 with a bottleneck, around which the input goes unchanged."""

    def __init__(self, inputs: int, channels: int, stride: int, norm: Callable[[int], nn.Module], bottleneck: bool) -> None:
        super().__init__()
        outputs = channels * 4 if bottleneck else channels
        if bottleneck:
            self.conv1, self.bn1 = _conv(inputs, channels, 1), norm(channels)
            self.conv2, self.bn2 = _conv(channels, channels, 3, stride), norm(channels)
            self.conv3, self.bn3 = _conv(channels, outputs, 1), norm(outputs)
        else:
            self.conv1, self.bn1 = _conv(inputs, channels, 3, stride), norm(channels)
            self.conv2, self.bn2 = _conv(channels, channels, 3), norm(channels)
        self.bottleneck = bottleneck
        around = stride != 1 or inputs != outputs
        self.downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), norm(outputs)) if around else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            out = self.bn3(self.conv3(F.relu(out)))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Frames (..., C, H, W), floats -> (..., width), or the last map (..., c, h, w); leading dimensions are folded.

    Args:
        depth: 10, 18, 34 or 50.
        width: channels of the first stage (64 in the paper); each further stage has twice as many.
        channels: of the input.
        stem: `large` (7 x 7, stride 2, then a max pool, for frames of 100 px and more) or `small` (3 x 3, no pool).
        norm: `batch`; `frozen` and `sync` batch norm; `group` (groups of 16 channels).
        output: `pooled` over the map, or the `map`.

    Raises DataError for a depth that there is none of.
    """

    def __init__(
        self,
        depth: int = 18,
        width: int = 64,
        channels: int = 3,
        *,
        stem: Literal["large", "small"] = "large",
        norm: Norm = "batch",
        output: Literal["pooled", "map"] = "pooled",
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise DataError(f"residual networks here have {', '.join(map(str, DEPTHS))} layers; got {depth}.")
        counts, bottleneck = DEPTHS[depth]
        make = NORMS[norm]
        self.conv1 = _conv(channels, width, 7, 2) if stem == "large" else _conv(channels, width, 3)
        self.bn1, self.stem, self.output = make(width), stem, output
        inputs = width
        for stage, count in enumerate(counts):
            blocks = []
            for i in range(count):
                blocks.append(Block(inputs, width * 2**stage, 2 if stage and not i else 1, make, bottleneck))
                inputs = width * 2**stage * (4 if bottleneck else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.width = inputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[:-3]
        x = F.relu(self.bn1(self.conv1(channels_last(x.reshape(-1, *x.shape[-3:])))))
        if self.stem == "large":
            x = F.max_pool2d(x, 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        out = x.mean((-2, -1)) if self.output == "pooled" else x
        return out.reshape(*lead, *out.shape[1:])

    def load(self, weights: dict[str, Tensor]) -> tuple[str, ...]:
        """Take torchvision's weights, whose classifier (`fc.*`) is left aside; gives the names that were not used.

        Raises DataError naming what is missing or of another shape.
        """
        mine = self.state_dict()
        wrong = [name for name, value in mine.items() if name not in weights or weights[name].shape != value.shape]
        if wrong:
            raise DataError(f"these weights do not fit this network: {wrong[0]!r} is missing or has another shape.")
        self.load_state_dict({name: torch.as_tensor(weights[name]) for name in mine})
        return tuple(name for name in weights if name not in mine)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
