"""An encoder that learned nothing: the network as it was drawn. What training must beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from retrodict.systems.contract import Card, Spec
from retrodict.systems.frames import FrameSystem
from retrodict.training.randomness import isolated
from retrodict.training.run import Run
from retrodict.trajectories import Recordings, Window


@dataclass
class RandomEncoder(FrameSystem):
    """A frame encoder as it was drawn by `seed`; see `FrameSystem` for its fields."""

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

    def window(self, spec: Spec) -> Window:
        return self.looked_at(spec)

    def build(self, spec: Spec) -> nn.ModuleDict:
        return nn.ModuleDict({"encoder": self.encoder(spec)})

    def loss(self, net: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raise NotImplementedError("a random encoder is not trained")

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        self.spec_ = Spec.of(recordings, self.seen(Spec(recordings.features)))
        with isolated(self.seed):
            self.net_ = self.build(self.spec_).to(self.torch_device).eval()
        self.trained_ = None
