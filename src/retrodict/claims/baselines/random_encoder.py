"""An encoder that learned nothing: the network as it was drawn. What training must beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from retrodict.systems.contract import Card, Spec
from retrodict.systems.frames import FrameSystem
from retrodict.training.randomness import isolated
from retrodict.training.run import Run
from retrodict.trajectories import Recordings, Window

SEEN = 2048  # frames from which batch norms take their statistics


@dataclass
class RandomEncoder(FrameSystem):
    """A frame encoder as it was drawn by `seed`; see `FrameSystem` for its other fields.

    Attributes:
        calibrate: batch norms take the statistics of the recordings, as those of every trained network have: as they are drawn,
            codes hardly differ, and whatever weighs distances sees none.
    """

    card: ClassVar[Card] = Card(
        slug="random-encoder",
        title="A network as it was drawn",
        authors="retrodict",
        year=2026,
        reads="camera frames",
        returns="a code for each frame",
        claim="what training must beat",
        baseline=True,
    )

    calibrate: bool = False

    def window(self, spec: Spec) -> Window:
        return self.looked_at(spec)

    def build(self, spec: Spec) -> nn.ModuleDict:
        return nn.ModuleDict({"encoder": self.encoder(spec)})

    def loss(self, net: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raise NotImplementedError("a random encoder is not trained")

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        self.spec_ = Spec.of(recordings, self.seen(Spec(recordings.features)))
        with isolated(self.seed):
            self.net_ = self.build(self.spec_).to(self.torch_device)
        if self.calibrate:
            rows = recordings.windows(self.window(self.spec_), min(SEEN, recordings.steps), seed=self.seed, prefetch=0).at(0)
            for norm in (part for part in self.net_.modules() if isinstance(part, _BatchNorm)):
                norm.momentum = 1.0
            with torch.no_grad():
                self.net_["encoder"](self.views(rows).to(self.torch_device))
        self.net_.eval()
        self.trained_ = None
