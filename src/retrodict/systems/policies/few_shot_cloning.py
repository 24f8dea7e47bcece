"""Few-shot cloning: a small head on a frozen encoder, from a handful of demonstrations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from retrodict.networks.chunks import ChunkExecutor, Mode
from retrodict.networks.code_head import CodeHead
from retrodict.roles import Batch, Policy
from retrodict.systems.contract import Card, Spec, System
from retrodict.systems.gradient import GradientSystem
from retrodict.systems.looking import CODE, code_of, codes_of, require_encoder, single, width_of, with_codes
from retrodict.training.stage import Batches
from retrodict.trajectories import Recordings, Span, Window
from retrodict.trajectories.features import ACTION


@dataclass
class FewShotCloning(GradientSystem, Policy):
    """Behaviour cloning on the codes of a frozen encoder, which are computed once.

    Reads what its encoder reads, and learns from `action`. Codes are standardised on the demonstrations, and a perceptron says
    the next `chunk` actions, continuous ones by mean squared error.

    Attributes:
        encoder: a fitted `Encoder` of single frames; it is not trained.
        hidden: widths of the perceptron.
        dropout: in it.
        chunk: actions said ahead; those past the end of a demonstration do not count.
        mode: which of them are played, see `ChunkExecutor`.
    """

    card: ClassVar[Card] = Card(
        slug="few-shot-cloning",
        title="Inverse Dynamics Pretraining Learns Good Representations for Multitask Imitation",
        authors="Brandfonbrener, Nachum, Bruna",
        year=2023,
        url="https://arxiv.org/abs/2305.16985",
        reads="what its encoder reads; actions",
        returns="the action to take, or a chunk of them",
        claim="a good representation makes a few demonstrations enough",
        baseline=True,
    )
    gaps: ClassVar[tuple[str, ...]] = (ACTION,)

    encoder: System | None = None
    hidden: tuple[int, ...] = (256, 256)
    dropout: float = 0.1
    chunk: int = 1
    mode: Mode = "first"
    steps: int = field(default=500, kw_only=True)
    batch: int = field(default=64, kw_only=True)
    decay: Literal["constant", "linear", "cosine"] = field(default="constant", kw_only=True)

    _chunks: ChunkExecutor | None = field(default=None, init=False, repr=False, compare=False)

    def features(self, recordings: Recordings) -> tuple[str, ...]:
        require_encoder(self.encoder, self.card.slug)
        return (*self.encoder.inputs(recordings), ACTION)  # type: ignore[union-attr]

    def window(self, spec: Spec) -> Window:
        seen = single(require_encoder(self.encoder, self.card.slug))
        return Window(0, 0, {**seen.spans, ACTION: Span(0, self.chunk - 1)}, image_size=seen.image_size)

    def build(self, spec: Spec) -> CodeHead:
        encoder = require_encoder(self.encoder, self.card.slug)
        assert spec.actions is not None
        return CodeHead(width_of(encoder, spec), spec.actions, self.hidden, self.dropout, self.chunk)

    def prepare(self, recordings: Recordings) -> None:
        self._chunks = None
        codes, actions = codes_of(require_encoder(self.encoder, self.card.slug), recordings, ACTION)
        self.net_.fit_scale(codes, actions.numpy())

    def reader(self, recordings: Recordings) -> Batches:
        window = Window(0, 0, {CODE: Span(), ACTION: Span(0, self.chunk - 1)})
        coded = with_codes(require_encoder(self.encoder, self.card.slug), recordings, ACTION)
        return coded.windows(window, self.batch, seed=self.seed, order="replacement")

    def loss(self, net: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        valid = batch.get(f"mask.{ACTION}")
        losses: dict[str, Tensor] = net(batch[CODE][:, 0]).losses(batch[ACTION].float(), valid)
        return losses

    def act(self, observation: Batch) -> Tensor:
        """Flat actions (B, width).

        Raises NotFittedError before `fit`; DataError where a feature is missing or of the wrong form; RetrodictError where
        `reset` was not called first.
        """
        self.check_fitted()
        chunks = self._chunks = self._chunks or ChunkExecutor(self.chunk, self.mode)
        said = None
        if chunks.needs:
            code = code_of(require_encoder(self.encoder, self.card.slug), observation).to(self.torch_device)
            with torch.no_grad():
                said = self.net_.act(code)
        return chunks.push(said)

    def reset(self, mask: Tensor | None = None) -> None:
        self._chunks = self._chunks or ChunkExecutor(self.chunk, self.mode)
        self._chunks.reset(mask)
