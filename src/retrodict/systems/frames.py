"""What encoders of single camera frames have in common: which cameras they look at, at what size, through which network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrodict.errors import DataError
from retrodict.networks.conv import ConvEncoder, ConvLayer
from retrodict.networks.mlp import FoldedBatchNorm
from retrodict.networks.resnet import ResNet
from retrodict.roles import Batch, Encoder
from retrodict.systems.cameras import CameraSystem
from retrodict.systems.contract import Spec
from retrodict.trajectories import Window

Backbone = Literal["conv", "keypoints", "resnet10", "resnet18", "resnet50"]


@dataclass
class FrameSystem(CameraSystem, Encoder):
    """Base of systems that give a code to every camera frame by itself; the codes of several cameras stand side by side.

    Attributes:
        backbone: `conv` (a few convolutions, then a linear layer, batch norm after each), `keypoints` (a few convolutions, then
            the places of `keypoints` maps by spatial softmax, a linear layer, LayerNorm and tanh), or a residual network:
            `resnet10`, narrow (its first stage has `channels[0]` channels) and for small frames, `resnet18` and `resnet50` as
            published.
        channels, strides: of the convolutions.
        keypoints: maps whose places are read.
        width: of the code of one frame of one camera; a published residual network has its own.
    """

    backbone: Backbone = "conv"
    channels: tuple[int, ...] = (32, 64, 128, 128)
    strides: tuple[int, ...] = (2, 2, 2, 2)
    keypoints: int = 32
    width: int = 128
    batch: int = field(default=64, kw_only=True)

    # ---- what is read -------------------------------------------------------------------------------------------------

    @property
    def reads(self) -> Window:
        self.check_fitted()
        return self.looked_at(self.spec_)

    # ---- how it is built ----------------------------------------------------------------------------------------------

    def encoder(self, spec: Spec) -> FrameNet:
        """The network from frames (..., C, H, W) to codes (..., width)."""
        shape = self.shape(spec.features[self.seen(spec)[0]])
        return FrameNet(shape, self.backbone, self.channels, self.strides, self.keypoints, self.width)

    # ---- how it answers -----------------------------------------------------------------------------------------------

    def encode(self, window: Batch) -> Tensor:
        """A code for each frame, (B, T, V width) for V cameras.

        Raises NotFittedError before `fit`; DataError when a camera is missing or its frames are of the wrong form.
        """
        frames = self.look(window)
        with torch.no_grad():
            return self.codes(self.net_, frames).flatten(2)

    def codes(self, net: Any, frames: Tensor) -> Tensor:
        """Codes (B, T, V, width) of frames (B, T, V, C, H, W)."""
        codes: Tensor = net["encoder"](frames)
        return codes


class CodeNorm(FoldedBatchNorm):
    """Batch norm of codes (..., width), so that what all frames have in common does not drown what tells them apart.

    A single code is normalised by the running statistics, as it has none of its own.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[-1]:
            return F.batch_norm(x.view(1, -1), self.running_mean, self.running_var, self.weight, self.bias).view(x.shape)
        return super().forward(x)


class FrameNet(nn.Module):
    """Frames, uint8 (..., C, H, W) -> codes (..., width); see `FrameSystem` for the arguments.

    Raises DataError for as many strides as there are not channels, and for frames too small for the convolutions.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        backbone: Backbone,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        keypoints: int,
        width: int,
    ) -> None:
        super().__init__()
        if len(channels) != len(strides):
            raise DataError(f"every convolution has channels and a stride; got {channels} and {strides}.")
        colour = shape[0] == 3  # ImageNet's means, and a grey one's
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406] if colour else [0.449] * shape[0])[:, None, None])
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225] if colour else [0.226] * shape[0])[:, None, None])
        self.body: nn.Module
        self.out: nn.Module
        if backbone == "resnet10":
            self.body = ResNet(10, channels[0], shape[0], stem="small" if min(shape[1:]) < 96 else "large")
            self.out = nn.Linear(self.body.width, width)
        elif backbone.startswith("resnet"):
            self.body, self.out = ResNet(int(backbone[6:]), 64, shape[0]), nn.Identity()
            width = self.body.width
        elif backbone == "conv":
            layers = [ConvLayer(c, stride=s) for c, s in zip(channels, strides, strict=True)]
            self.body = ConvEncoder(layers, shape[0], shape[1:], readout="linear", width=width, norm="batch")
            self.out = CodeNorm(width)
        else:
            layers = [ConvLayer(c, stride=s, padding="valid") for c, s in zip(channels, strides, strict=True)]
            self.body = nn.Sequential(
                ConvEncoder(layers, shape[0], activation="gelu"),
                ConvEncoder([ConvLayer(keypoints, kernel=1)], channels[-1], activation=nn.Identity, readout="keypoints"),
            )
            self.out = nn.Sequential(nn.Linear(2 * keypoints, width), nn.LayerNorm(width), nn.Tanh())
        self.width = width
        self._try(shape)

    def _try(self, shape: tuple[int, int, int]) -> None:
        try:
            with torch.no_grad():
                self.eval()(torch.zeros(1, *shape, dtype=torch.uint8))
        except RuntimeError as error:
            raise DataError(
                f"frames of {shape[1]} x {shape[2]} are too small for these convolutions; use fewer or smaller strides."
            ) from error
        self.train()

    def forward(self, frames: Tensor) -> Tensor:
        x = (frames.reshape(-1, *frames.shape[-3:]).to(torch.float32).mul_(1 / 255) - self.mean) / self.std
        codes: Tensor = self.out(self.body(x))
        return codes.reshape(*frames.shape[:-3], -1)
