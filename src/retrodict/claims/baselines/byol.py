"""BYOL: two pictures of one frame must say the same of it, one of them through a network that follows slowly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from retrodict.networks.mlp import MLP
from retrodict.objectives.latent import latent_prediction
from retrodict.systems.contract import Card, Spec
from retrodict.systems.frames import FrameSystem
from retrodict.training.augment import Augment, Shift
from retrodict.training.ema import EMA
from retrodict.training.stage import Stage
from retrodict.trajectories import Window


@dataclass
class BYOL(FrameSystem):
    """Bootstrap your own latent (Grill et al., 2020) on single frames, which are shifted at random.

    Attributes:
        shift: pixels by which a picture is shifted at most, either way.
        projection: width of projector and predictor.
        momentum: of the network that follows, at the beginning; it climbs to 1 by a cosine.
    """

    card: ClassVar[Card] = Card(
        slug="byol",
        title="Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning",
        authors="Grill et al.",
        year=2020,
        url="https://arxiv.org/abs/2006.07733",
        reads="camera frames",
        returns="a code for each frame",
        claim="two views of one image teach a representation without negatives",
        baseline=True,
    )

    shift: int = 4
    projection: int = 128
    momentum: float = 0.99

    def window(self, spec: Spec) -> Window:
        return self.looked_at(spec)

    def build(self, spec: Spec) -> nn.ModuleDict:
        encoder = self.encoder(spec)
        sizes = (2 * self.projection, self.projection)
        online = nn.Sequential(encoder, MLP((encoder.width, *sizes), norm="batch"))
        parts = {"encoder": encoder, "online": online, "predictor": MLP((self.projection, *sizes), norm="batch")}
        return nn.ModuleDict({**parts, "teacher": EMA(online, self._momentum, training=True)})

    def _momentum(self, step: int) -> float:
        return 1 - 0.5 * (1 + math.cos(math.pi * step / self.steps)) * (1 - self.momentum)

    def augment(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        twice = Augment((Shift(self.shift),), share="view")
        views = {name: twice(batch[name].expand(-1, 2, -1, -1, -1), generator) for name in self.seen(self.spec_)}
        return {**batch, **views}

    def stages(self, net: Any) -> tuple[Stage, ...]:
        follow: Any = net["teacher"]
        return tuple(replace(stage, after=lambda _, step: follow.update(step)) for stage in super().stages(net))

    def loss(self, net: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        frames = self.views(batch)
        if frames.shape[1] == 1:  # held-out frames, which are not augmented
            frames = frames.expand(-1, 2, -1, -1, -1, -1)
        said = net["predictor"](net["online"](frames))
        with torch.no_grad():
            target = net["teacher"](frames).flip(1)
        return {"views": latent_prediction(said, target, "cosine")}
