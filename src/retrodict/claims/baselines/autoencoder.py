"""A plain autoencoder of single frames: the code from which the frame can be drawn again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from retrodict.networks.decoder import ConvDecoder
from retrodict.systems.contract import Card, Spec
from retrodict.systems.frames import FrameSystem
from retrodict.trajectories import Window


@dataclass
class Autoencoder(FrameSystem):
    """Frames are encoded, decoded by transposed convolutions, and compared pixel by pixel.

    Attributes:
        decoder: channels of the decoder's maps, each twice as large as the one before.
    """

    card: ClassVar[Card] = Card(
        slug="autoencoder",
        title="Reducing the Dimensionality of Data with Neural Networks",
        authors="Hinton, Salakhutdinov",
        year=2006,
        reads="camera frames",
        returns="a code for each frame",
        claim="what draws a frame again says what is in it",
        baseline=True,
    )

    decoder: tuple[int, ...] = (128, 64, 32, 16)

    def window(self, spec: Spec) -> Window:
        return self.looked_at(spec)

    def build(self, spec: Spec) -> nn.ModuleDict:
        encoder = self.encoder(spec)
        channels, height, width = self.shape(spec.features[self.seen(spec)[0]])
        factor = 2 ** len(self.decoder)
        start = (self.decoder[0], -(-height // factor), -(-width // factor))
        return nn.ModuleDict({"encoder": encoder, "decoder": ConvDecoder(encoder.width, start, (*self.decoder[1:], channels))})

    def loss(self, net: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        frames = self.views(batch)
        drawn = net["decoder"](net["encoder"](frames))[..., : frames.shape[-2], : frames.shape[-1]]
        return {"pixels": F.mse_loss(drawn, frames.float() / 255)}
