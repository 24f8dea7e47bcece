"""Time-contrastive learning from one camera: frames close in time look alike to it, others do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from retrodict.objectives.contrastive import contrastive
from retrodict.systems.contract import Card, Spec
from retrodict.systems.frames import FrameSystem
from retrodict.trajectories import Window


@dataclass
class TimeContrastive(FrameSystem):
    """Single-view time-contrastive networks (Sermanet et al., 2017), as InfoNCE over the windows of a batch.

    Attributes:
        near: a positive lies at most so many steps after its anchor.
        temperature: of the cosine similarities.
    """

    card: ClassVar[Card] = Card(
        slug="time-contrastive",
        title="Time-Contrastive Networks: Self-Supervised Learning from Video",
        authors="Sermanet et al.",
        year=2017,
        url="https://arxiv.org/abs/1704.06888",
        reads="camera frames",
        returns="a code for each frame",
        claim="closeness in time teaches a representation of video",
        baseline=True,
    )

    near: int = 2
    temperature: float = 0.1

    def window(self, spec: Spec) -> Window:
        return self.looked_at(spec, after=self.near)

    def build(self, spec: Spec) -> nn.ModuleDict:
        return nn.ModuleDict({"encoder": self.encoder(spec)})

    def loss(self, net: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        frames = self.views(batch)
        rows = torch.arange(len(frames), device=frames.device)
        after = torch.randint(1, self.near + 1, (len(frames),), device=frames.device)
        codes = net["encoder"](torch.stack([frames[:, 0], frames[rows, after]])).flatten(2)
        return {"time": contrastive(codes[0], codes[1], temperature=self.temperature, symmetric=True)}
