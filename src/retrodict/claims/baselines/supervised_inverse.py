"""A supervised inverse model of chunks: what a world model's inference of actions is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from retrodict.networks.code_head import CodeHead
from retrodict.roles import Batch, Inferred, InverseModel
from retrodict.systems.contract import Card, Spec
from retrodict.systems.frames import FrameSystem
from retrodict.trajectories import Recordings, Span, Window
from retrodict.trajectories.features import ACTION


@dataclass
class SupervisedInverse(FrameSystem, InverseModel):
    """The actions of a chunk by mean squared error from the codes of frames before and after its steps.

    Attributes:
        observed: frames up to the first action.
        chunk: actions.
        foreseen: frames after it, spread evenly over the chunk.
        hidden, dropout: of the perceptron.
    """

    card: ClassVar[Card] = Card(
        slug="supervised-inverse",
        title="Learning to Poke by Poking: Experiential Learning of Intuitive Physics",
        authors="Agrawal, Nair, Abbeel, Malik, Levine",
        year=2016,
        reads="camera frames and actions",
        returns="the actions between frames",
        claim="what was done can be told from what it changed",
        baseline=True,
    )

    observed: int = 2
    chunk: int = 8
    foreseen: int = 4
    hidden: tuple[int, ...] = (256, 256)
    dropout: float = 0.0
    warmup: int = field(default=100, kw_only=True)

    def features(self, recordings: Recordings) -> tuple[str, ...]:
        return (*super().features(recordings), ACTION)

    def window(self, spec: Spec) -> Window:
        every = self.chunk // self.foreseen
        seen = (Span(self.observed - 1), Span(0, self.foreseen - 1, stride=every, offset=every))
        spans: dict[str, Any] = {**dict.fromkeys(self.seen(spec), seen), ACTION: Span(0, self.chunk - 1)}
        return Window(0, self.chunk - 1, spans, edge="drop", image_size=self.looked_at(spec).image_size)

    @property
    def reads(self) -> Window:
        self.check_fitted()
        return self.window(self.spec_)

    def build(self, spec: Spec) -> nn.ModuleDict:
        encoder = self.encoder(spec)
        assert spec.actions is not None
        width = encoder.width * len(self.seen(spec)) * (self.observed + self.foreseen)
        inverse = CodeHead(width, spec.actions, self.hidden, self.dropout, self.chunk)
        return nn.ModuleDict({"encoder": encoder, "inverse": inverse})

    def prepare(self, recordings: Recordings) -> None:
        self.net_["inverse"].head.fit_scale(np.concatenate([episode[ACTION] for episode in recordings]))

    def loss(self, net: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        codes = self.codes(net, self.views(batch)).flatten(1)
        losses: dict[str, Tensor] = net["inverse"](codes).losses(batch[ACTION].float(), batch["mask"])
        return losses

    def infer(self, window: Batch) -> Inferred:
        frames = self.look(window)
        with torch.no_grad():
            action = self.net_["inverse"].act(self.codes(self.net_, frames).flatten(1))
        return Inferred(action, torch.full(action.shape[:2], 0.5, device=action.device))
