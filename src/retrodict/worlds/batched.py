"""Many worlds played side by side, in tensors: what roll-outs and learners that act are written against."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from retrodict.trajectories import ActionSpace, Feature


@dataclass(frozen=True)
class Step:
    """What happened in B worlds in one step.

    Attributes:
        observation: feature name -> (B, *shape), camera frames uint8 (B, C, H, W); where an episode ended, its last observation.
        reward: (B, n) for n named rewards.
        terminated: (B,) bool, the episode came to its end.
        truncated: (B,) bool, the episode was cut off, and would have gone on.
        info: for each world what its `step` said beside (`measures`, `success`, ...); empty mappings where it says nothing.
    """

    observation: dict[str, Tensor]
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    info: Sequence[Mapping[str, Any]]


@dataclass
class BatchedWorld(ABC):
    """B worlds of one kind. An episode that ended stays as it is, with reward 0, until `reset` starts another in its place.

    Attributes:
        size: number of worlds B.
        features: what an observation holds, shapes of one world as in a recording.
        actions: what the numbers of a flat action mean.
        fps: decisions per second.
        rewards: names of the n rewards.
    """

    size: int
    features: Mapping[str, Feature]
    actions: ActionSpace
    fps: float
    rewards: tuple[str, ...] = field(default=("reward",), kw_only=True)

    @property
    def tasks(self) -> tuple[str, ...]:
        """What is to be done in each of them, in words; may change with `reset`. Empty where the worlds do not say."""
        return ()

    @abstractmethod
    def reset(self, seeds: Sequence[int], worlds: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Start the episodes of `seeds` in `worlds` (positions, one per seed; all by default); gives what all B worlds show."""

    @abstractmethod
    def step(self, action: Tensor) -> Step:
        """Play one flat action (B, width) in each world."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the worlds hold."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
