"""The true state as an encoder: the ceiling of every representation, and a test of the protocol itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from retrodict.roles import Batch, Encoder
from retrodict.systems.contract import Card, Spec, System
from retrodict.training.run import Run
from retrodict.trajectories import Recordings, Window
from retrodict.trajectories.features import STATE


@dataclass
class TrueState(System, Encoder):
    """Some numbers of `observation.state` as they are.

    Attributes:
        numbers: which of them.
    """

    card: ClassVar[Card] = Card(
        slug="true-state",
        title="The state itself",
        authors="retrodict",
        year=2026,
        reads="observation.state",
        returns="some of its numbers",
        claim="no encoder does better",
        baseline=True,
    )

    numbers: tuple[int, ...] = (0, 1)

    def inputs(self, recordings: Recordings) -> tuple[str, ...]:
        return (STATE,)

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        self.spec_ = Spec.of(recordings, (STATE,))

    @property
    def reads(self) -> Window:
        return Window(features=(STATE,))

    def encode(self, window: Batch) -> Tensor:
        return window[STATE][..., list(self.numbers)]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {}, {"spec": self.spec_.to_json()}

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        self.spec_ = Spec.from_json(about["spec"])
