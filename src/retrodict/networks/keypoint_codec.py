"""A small codec of frames: where a few learned keypoints are, and the frame drawn again from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrodict.networks.conv import ConvEncoder, ConvLayer
from retrodict.networks.decoder import ConvDecoder


class KeypointCodec(nn.Module):
    """Frames uint8 (..., C, H, W) <-> places of keypoints (..., 2 keypoints), all x and then all y, between -1 and 1.

    A deep spatial autoencoder (Finn et al., 2016), whose points are drawn as bumps from which convolutions make a frame (as in
    Jakab et al., 2018). What always looks the same is no business of the points: it is a mean frame and learned maps. Places are
    a code that generative models take to easily: bounded, smooth, and a small error moves things by a little; codes of blocks
    of pixels tell a small thing's place by which numbers are switched on. A camera that moves would be lost on it.

    Args:
        shape: (C, H, W), both sides multiples of 4 and at least 8.
        keypoints: how many.
        channels: of three convolutions, of which two halve the frame.
        noise: standard deviation of what is added to places in training.
    """

    mean: Tensor
    places: Tensor

    def __init__(
        self, shape: tuple[int, int, int], keypoints: int, channels: Sequence[int] = (16, 32, 32), noise: float = 0.02
    ) -> None:
        super().__init__()
        colours, height, width = shape
        map_shape = (height // 4, width // 4)
        self.size, self.noise = 2 * keypoints, noise
        layers = [ConvLayer(c, stride=stride, padding="valid") for c, stride in zip(channels, (2, 2, 1), strict=True)]
        self.encoder = nn.Sequential(
            ConvEncoder(layers, colours, activation="gelu"),
            ConvEncoder([ConvLayer(keypoints, kernel=1)], channels[-1], activation=nn.Identity, readout="keypoints"),
        )
        self.still = nn.Parameter(torch.zeros(8, *map_shape))
        self.decoder = ConvDecoder(None, (keypoints + 8, *map_shape), (channels[-1], colours), refine=True)
        self.register_buffer("mean", torch.zeros(shape))
        across, down = (torch.linspace(-1, 1, n) for n in map_shape[::-1])
        cell = 2 / (min(map_shape) - 1)  # a narrower bump would fall between cells
        self.log_widths = nn.Parameter(torch.full((keypoints, 1, 1), math.log(cell)))
        self.register_buffer("places", torch.stack(torch.meshgrid(across, down, indexing="xy")))  # (2, h, w)

    @torch.no_grad()
    def fit_mean(self, frames: Tensor) -> None:
        """Take the mean of frames (N, C, H, W) for what does not move."""
        self.mean.copy_(_signed(frames).mean(0))

    def encode(self, frames: Tensor) -> Tensor:
        """Places of the keypoints in frames."""
        # Zeros around would light up the border, where all points would gather. The map is as large as the decoder's first.
        framed = F.pad(_signed(frames.flatten(0, -4)), (6, 7, 6, 7), mode="replicate")
        places: Tensor = self.encoder(framed)
        return places.view(*frames.shape[:-3], self.size)

    def decode(self, places: Tensor) -> Tensor:
        """Frames, uint8, with keypoints at these places."""
        drawn = self._drawn(places.flatten(0, -2))
        frames = drawn.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
        return frames.view(*places.shape[:-1], *frames.shape[1:])

    def forward(self, frames: Tensor) -> Tensor:
        """Mean squared error of frames (N, C, H, W) drawn again from their keypoints, pixels being between -1 and 1."""
        places = self.encode(frames)
        return (self._drawn(places + self.noise * torch.randn_like(places)) - _signed(frames)).square().mean()

    def _drawn(self, places: Tensor) -> Tensor:
        points = places.view(len(places), 2, -1).movedim(-1, 1)[..., None, None]  # (N, keypoints, 2, 1, 1)
        off = (points - self.places).square().sum(2)
        bumps = (-off / (2 * (2 * self.log_widths).exp())).exp()
        drawn: Tensor = self.decoder(torch.cat([bumps, self.still.expand(len(bumps), -1, -1, -1)], 1))
        return drawn + self.mean


def _signed(frames: Tensor) -> Tensor:
    return frames.to(torch.float32).mul(1 / 127.5).sub(1)
