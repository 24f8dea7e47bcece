"""VPT: label bare video with a model that sees the future, because "what happened" is easier than "what will he do"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from retrodict.errors import DataError
from retrodict.networks.heads import ActionDistribution, ActionHead
from retrodict.roles import Batch, Inferred, InverseModel
from retrodict.systems.clips import ClipNet, ClipSystem
from retrodict.systems.contract import Card, Spec
from retrodict.training.run import Run
from retrodict.trajectories import Recordings, Window

CALIBRATION, ENOUGH = 0.3, 10
"""Where nobody says how many labelled episodes to leave untouched: this share of them, and none of fewer."""


@dataclass
class VPT(ClipSystem, InverseModel):
    """Video PreTraining's inverse dynamics model.  (Baker et al., 2022)

    Reads clips of camera frames `observation.images.<camera>`, of numbers `observation.state`, or of both; learns from `action`.
    Frames go through a convolution over time and an IMPALA network, then a transformer looks at the whole clip, past and future
    at once, and a factored head answers at every step: buttons and choices by softmax, quantised values by softmax over bins,
    other continuous values by a Gaussian. All steps of a clip are supervised; when a recording is labelled, clips slide and only
    their middle half is kept.

    The defaults are about a sixteenth of the paper's network in width and learn on a CPU. The paper trains 20 epochs of batches
    of 128 clips with a rate of 3e-3 that falls linearly and a weight decay of 0.01. Official weights load by
    `vpt_weights.load_official`.

    Attributes:
        temporal: odd number of frames that the convolution over time sees (VPT: 5); 1 leaves it out.
        stem: channels of that convolution (VPT: 128).
        calibration: share of the labelled episodes that `fit` does not touch, so that `retrodict.label` can find out on them how
            far labels can be trusted; by default three in ten where there are at least ten labelled episodes, else none.
    """

    card: ClassVar[Card] = Card(
        slug="vpt",
        title="Video PreTraining (VPT): Learning to Act by Watching Unlabeled Online Videos",
        authors="Baker, Akkaya, Zhokhov, Huizinga, Tang, Ecoffet, Houghton, Sampedro, Clune",
        year=2022,
        url="https://arxiv.org/abs/2206.11795",
        reads="clips of camera frames, numbers, or both; actions on some episodes",
        returns="the action at every step of a clip, with confidences for each part",
        claim="a little labelled play and a model that sees the future suffice to label bare video for behaviour cloning",
    )

    temporal: int = 5
    stem: int = 16
    batch: int = field(default=16, kw_only=True)
    weight_decay: float = field(default=0.01, kw_only=True)
    warmup: int = field(default=50, kw_only=True)
    decay: Literal["constant", "linear", "cosine"] = field(default="linear", kw_only=True)
    clip: float | None = field(default=5.0, kw_only=True)
    calibration: float | None = field(default=None, kw_only=True)

    # ---- what is read -------------------------------------------------------------------------------------------------

    @property
    def reads(self) -> Window:
        self.check_fitted()
        return self._clip(self.spec_, learning=False)

    @property
    def keeps(self) -> slice:
        kept = max(self.frames // 2, 1)
        first = (self.frames - kept) // 2
        return slice(first, first + kept)

    def window(self, spec: Spec) -> Window:
        if self.temporal % 2 == 0 or self.frames < self.temporal:
            raise DataError(
                f"vpt reads clips of {self.frames} frames through a convolution over {self.temporal}; "
                "the clip must be at least as long, and the convolution odd."
            )
        return self._clip(spec, learning=True)

    def _clip(self, spec: Spec, *, learning: bool) -> Window:
        before = self.frames // 2
        return self.looked_at(spec, before, self.frames - 1 - before, learning=learning)

    # ---- how it is built ----------------------------------------------------------------------------------------------

    def build(self, spec: Spec) -> ClipNet:
        observations = self.observations(spec, temporal=self.temporal, stem=self.stem)
        return ClipNet(observations, self.trunk(), ActionHead(self.space(spec), self.width))

    def loss(self, net: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.named(self._happened(net, batch), batch)

    def _happened(self, net: ClipNet, batch: Mapping[str, Tensor]) -> ActionDistribution:
        """The action at every step, looking at all steps of the clip that exist."""
        batch = self.through(batch)
        return net.read_out(net.trunk(net.observations(batch), valid=batch.get("mask")))

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        share = self.calibration
        if share is None:
            share = CALIBRATION if len(recordings) >= ENOUGH else 0.0
        taught = recordings.split(share, seed=self.seed)[0] if share else recordings
        super().learn(taught, world, validation, run)

    # ---- how it answers -----------------------------------------------------------------------------------------------

    def infer(self, window: Batch) -> Inferred:
        """Actions at every step of a clip (B, T, ...), T at least `temporal`; `mask` (B, T) leaves out steps that do not exist.

        Raises NotFittedError before `fit`; DataError when the clip is too short, or a feature is missing or of the wrong form.
        """
        seen = self.look(window)
        steps = seen[self.seen(self.spec_)[0]].shape[1]
        if steps < self.temporal:
            raise DataError(f"vpt was given clips of {steps} steps; its convolution over time needs at least {self.temporal}.")
        with torch.no_grad():
            dist = self._happened(self.net_, seen)
            parts = {f"confidence.{name}": value for name, value in dist.confidences().items()}
            return Inferred(dist.mode(), dist.confidence(), parts)
