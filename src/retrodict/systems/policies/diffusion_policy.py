"""Diffusion policy: the next actions are drawn out of noise, so that where there are several ways, one of them is taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from retrodict.roles import Batch
from retrodict.systems.contract import Card, Spec, System
from retrodict.systems.joint_diffusion import JointDiffusion
from retrodict.systems.looking import CODE, code_of, codes_of, require_encoder, single, width_of, with_codes
from retrodict.training.stage import Batches
from retrodict.trajectories import Recordings, Span, Window
from retrodict.trajectories.features import ACTION
from retrodict.trajectories.normalise import Normaliser


@dataclass
class DiffusionPolicy(JointDiffusion):
    """A policy that draws its next `chunk` actions out of noise, given the last `observed` frames.  (Chi et al., 2023)

    Reads camera frames `observation.images.<camera>` through a network of its own that is trained with it, or whatever a frozen
    `encoder` reads, whose codes are computed once and standardised; learns from `action`. Actions beyond the end of an episode
    do not count. It is a unified world model without video.

    The paper's: chunks of 16 of which 8 are played, a width of 256 and a depth of 8, 100 levels and 100 steps of sampling, in
    batches of 64 and AdamW at 1e-4, with averaged weights (`ema`).

    Attributes:
        encoder: a fitted `Encoder` of single frames, which is not trained; None trains one from scratch.
    """

    card: ClassVar[Card] = Card(
        slug="diffusion-policy",
        title="Diffusion Policy: Visuomotor Policy Learning via Action Diffusion",
        authors="Chi, Feng, Du, Xu, Cousineau, Burchfiel, Song",
        year=2023,
        url="https://arxiv.org/abs/2303.04137",
        reads="camera frames, or what its encoder reads; actions",
        returns="the next actions, one of the ways there are",
        claim="drawing chunks of actions by diffusion imitates better than regressing them, most where demonstrations differ",
        baseline=True,
    )
    gaps: ClassVar[tuple[str, ...]] = (ACTION,)

    encoder: System | None = None
    steps: int = field(default=2000, kw_only=True)

    # ---- what is read -------------------------------------------------------------------------------------------------

    def inputs(self, recordings: Recordings) -> tuple[str, ...]:
        if self.encoder is None:
            return super().inputs(recordings)
        require_encoder(self.encoder, self.card.slug)
        return (*self.encoder.inputs(recordings), ACTION)

    def features(self, recordings: Recordings) -> tuple[str, ...]:
        return super().features(recordings) if self.encoder is None else self.inputs(recordings)

    def window(self, spec: Spec) -> Window:
        looked = self.looked_at(spec) if self.encoder is None else single(require_encoder(self.encoder, self.card.slug))
        seen = dict.fromkeys(looked.spans, Span(self.observed - 1))
        return Window(0, self.chunk - 1, {**seen, ACTION: Span(0, self.chunk - 1)}, image_size=looked.image_size)

    def reader(self, recordings: Recordings) -> Batches:
        if self.encoder is None:
            return super().reader(recordings)
        coded = with_codes(require_encoder(self.encoder, self.card.slug), recordings, ACTION)
        window = Window(0, self.chunk - 1, {CODE: Span(self.observed - 1), ACTION: Span(0, self.chunk - 1)})
        return coded.windows(window, self.batch, seed=self.seed)

    # ---- how it learns and answers ------------------------------------------------------------------------------------

    def build(self, spec: Spec) -> nn.ModuleDict:
        if self.encoder is None:
            return super().build(spec)
        width = width_of(require_encoder(self.encoder, self.card.slug), spec)
        scale = Normaliser((width,), name=f"{self.card.slug}: code")
        return nn.ModuleDict({"codes": scale, **self.drawing(spec, width * self.observed)})

    def prepare(self, recordings: Recordings) -> None:
        super().prepare(recordings)
        if self.encoder is not None:
            codes, _ = codes_of(require_encoder(self.encoder, self.card.slug), recordings, ACTION)
            self.net_["codes"].fit(codes)

    def taught(self, net: Any, batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {ACTION: net["scale"](batch[ACTION].float())}, {ACTION: batch.get(f"mask.{ACTION}", batch["mask"])}

    def recent(self, batch: Mapping[str, Tensor]) -> Tensor:
        return super().recent(batch) if self.encoder is None else batch[CODE]

    def glimpse(self, observation: Batch) -> Tensor:
        if self.encoder is None:
            return super().glimpse(observation)
        self.check_fitted()
        return code_of(require_encoder(self.encoder, self.card.slug), observation).to(self.torch_device)

    def conditions(self, net: Any, recent: Tensor) -> Tensor:
        if self.encoder is None:
            return super().conditions(net, recent)
        codes: Tensor = net["codes"](recent)
        return codes.flatten(1)
