"""World: a place where recordings come from and policies are tried, on Gymnasium's interface with our names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from retrodict.errors import DataError, RetrodictError
from retrodict.trajectories import ActionSpace, Feature

Observation = dict[str, np.ndarray]
"""Feature name -> array of that feature's shape; camera frames uint8 (H, W, C)."""


class Unplayable(RetrodictError):
    """A player gave up an episode. Recording goes on with the next one and says so."""


class Player(ABC):
    """Plays a world, and may look at its hidden truth: a stand-in for the person whose play is recorded.

    What it does is a function of the seed it was made with and of what it saw since `reset`.
    """

    @abstractmethod
    def act(self, observation: Observation, info: Mapping[str, Any]) -> np.ndarray:
        """A flat action (width,); `info` is what the world's `reset` or `step` gave with the observation."""

    @abstractmethod
    def reset(self) -> None:
        """Forget the episode; called before each."""


class World(gymnasium.Env[Observation, np.ndarray], ABC):
    """A Gymnasium environment that speaks in features and flat float32 actions.

    `action[t]` leads from `observation[t]` to `observation[t+1]`. An episode is a function of its seed and its actions, whatever
    was played before. `info` of `reset` and `step` carries

    - `privileged`: hidden truth, name -> array as `privileged` (the attribute) describes it; empty where it was not asked for;
    - `measures`: named numbers of the episode so far (tics survived, ...), by which policies are compared;
    - `success`: whether the task is solved by now, in worlds that have a task which can be.

    Attributes:
        id: the name by which `make` makes it.
        features: what an observation holds.
        actions: what the numbers of a flat action mean.
        fps: decisions per second of the world's own time.
        task: what is to be done, in words; may change with `reset`.
        privileged: features of the hidden truth; the names begin with `privileged.`.
    """

    def __init__(
        self,
        id: str,
        *,
        features: Mapping[str, Feature],
        actions: ActionSpace,
        fps: float,
        task: str,
        privileged: Mapping[str, Feature],
    ) -> None:
        self.id, self.features, self.actions, self.fps, self.task = id, dict(features), actions, fps, task
        self.privileged = dict(privileged)
        spaces: dict[str, gymnasium.Space[Any]] = {name: _space(feature) for name, feature in features.items()}
        self.observation_space: gymnasium.Space[Any] = gymnasium.spaces.Dict(spaces)
        self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (actions.width,), np.float32)

    @abstractmethod
    def expert(self, seed: int = 0, noise: float = 0.0) -> Player:
        """A player who knows how, and who does something random at a share `noise` of its decisions.

        Where actions are continuous, from -1 to 1, `noise` is instead the standard deviation of what is added to them.
        """

    def checked(self, action: Any) -> np.ndarray:
        """The action as an array (width,) of float32.

        Raises DataError when it has another shape or is not finite.
        """
        flat = np.asarray(action, np.float32)
        if flat.shape != (self.actions.width,) or not np.isfinite(flat).all():
            raise DataError(
                f"{self.id} takes {self.actions.width} finite numbers ({', '.join(self.actions.names)}), got {action}."
            )
        return flat


def _space(feature: Feature) -> gymnasium.spaces.Box:
    if feature.is_visual:
        return gymnasium.spaces.Box(0, 255, feature.shape, np.uint8)
    return gymnasium.spaces.Box(-np.inf, np.inf, feature.shape, np.dtype(feature.dtype).type)
