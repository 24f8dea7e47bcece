"""Behaviour cloning end to end from single frames: a policy from scratch, and an encoder pretrained by cloning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from retrodict.networks.chunks import ChunkExecutor, Mode
from retrodict.networks.code_head import CodeHead
from retrodict.roles import Batch, Policy
from retrodict.systems.contract import Card, Spec
from retrodict.systems.frames import FrameSystem
from retrodict.trajectories import Recordings, Span, Window
from retrodict.trajectories.features import ACTION


@dataclass
class ClonedEncoder(FrameSystem, Policy):
    """Encoder and head of `FewShotCloning`, trained together on mean |pi(phi(o)) - a|^2.

    Attributes:
        hidden, dropout, chunk, mode: of the head, see `FewShotCloning`.
    """

    card: ClassVar[Card] = Card(
        slug="cloned-encoder",
        title="ALVINN: An Autonomous Land Vehicle in a Neural Network",
        authors="Pomerleau",
        year=1988,
        reads="camera frames and actions",
        returns="the action to take; a code for each frame",
        claim="what is seen says what is done",
        baseline=True,
    )

    hidden: tuple[int, ...] = (128, 128)
    dropout: float = 0.1
    chunk: int = 1
    mode: Mode = "first"

    def features(self, recordings: Recordings) -> tuple[str, ...]:
        return (*super().features(recordings), ACTION)

    def window(self, spec: Spec) -> Window:
        seen = self.looked_at(spec)
        spans = dict.fromkeys(self.seen(spec), Span()) | {ACTION: Span(0, self.chunk - 1)}
        return Window(0, 0, spans, image_size=seen.image_size)

    def build(self, spec: Spec) -> nn.ModuleDict:
        encoder = self.encoder(spec)
        assert spec.actions is not None
        width = encoder.width * len(self.seen(spec))
        return nn.ModuleDict({"encoder": encoder, "policy": CodeHead(width, spec.actions, self.hidden, self.dropout, self.chunk)})

    def prepare(self, recordings: Recordings) -> None:
        self.net_["policy"].head.fit_scale(np.concatenate([episode[ACTION] for episode in recordings]))

    def loss(self, net: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        codes = self.codes(net, self.views(batch)).flatten(2)[:, 0]
        losses: dict[str, Tensor] = net["policy"](codes).losses(batch[ACTION].float(), batch.get(f"mask.{ACTION}"))
        return losses

    def act(self, observation: Batch) -> Tensor:
        chunks = self._played
        said = None
        if chunks.needs:
            codes = self.encode({name: observation[name][:, None] for name in self.seen(self.spec_)})
            with torch.no_grad():
                said = self.net_["policy"].act(codes)[:, 0]
        return chunks.push(said)

    def reset(self, mask: Tensor | None = None) -> None:
        if mask is None:
            self._played = ChunkExecutor(self.chunk, self.mode)
        self._played.reset(mask)
