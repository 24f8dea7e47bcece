"""A small image codec: frames as a few numbers for each block of pixels, in which diffusion is cheap, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from retrodict.networks.conv import ConvEncoder, ConvLayer
from retrodict.networks.decoder import ConvDecoder


class ImageCodec(nn.Module):
    """Frames uint8 (..., C, H, W) <-> codes (..., latent, H / shrink, W / shrink) between -1 and 1.

    It stands where large models have a frozen image VAE (Rombach et al., 2022). Instead of a divergence from a normal
    distribution, tanh bounds the codes and noise is added to them in training: they spread out between the bounds, and the
    decoder bears the small errors of a sampler.

    Args:
        shape: (C, H, W), both sides multiples of shrink = 2 ** len(channels).
        latent: numbers of a block.
        channels: of the convolutions, each of which halves the frame.
        noise: standard deviation of what is added to codes in training.
    """

    def __init__(self, shape: tuple[int, int, int], latent: int, channels: Sequence[int], noise: float = 0.1) -> None:
        super().__init__()
        shrink, last = 2 ** len(channels), channels[-1]
        self.shape, self.noise = (latent, shape[1] // shrink, shape[2] // shrink), noise
        self.encoder = ConvEncoder([ConvLayer(c, stride=2) for c in channels], shape[0])
        self.into, self.out = nn.Conv2d(last, latent, 1), nn.Conv2d(latent, last, 3, padding=1)
        self.decoder = ConvDecoder(None, (last, *self.shape[1:]), (*channels[-2::-1], shape[0]))

    def encode(self, frames: Tensor) -> Tensor:
        """Codes of frames."""
        codes: Tensor = self.into(self.encoder(_signed(frames.flatten(0, -4)))).tanh()
        return codes.view(*frames.shape[:-3], *self.shape)

    def decode(self, codes: Tensor) -> Tensor:
        """Frames, uint8, of codes."""
        drawn = self._drawn(codes.flatten(0, -4))
        frames = drawn.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
        return frames.view(*codes.shape[:-3], *frames.shape[1:])

    def forward(self, frames: Tensor) -> Tensor:
        """Mean squared error of frames drawn again from noisy codes, pixels being between -1 and 1."""
        codes = self.encode(frames).flatten(0, -4)
        return (self._drawn(codes + self.noise * torch.randn_like(codes)) - _signed(frames.flatten(0, -4))).square().mean()

    def _drawn(self, codes: Tensor) -> Tensor:
        drawn: Tensor = self.decoder(self.out(codes))
        return drawn


def _signed(frames: Tensor) -> Tensor:
    return frames.to(torch.float32).mul(1 / 127.5).sub(1)
