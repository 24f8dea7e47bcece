"""Worlds small enough to know every answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from retrodict.trajectories import ActionSpace, Box, Feature
from retrodict.worlds import Player, World
from retrodict.worlds.players import RandomPlayer

ACTIONS = ActionSpace({"push": Box(("push",), -1.0, 1.0)}, leads=True, null=(0.0,))


class Corridor(World):
    """The state starts at the seed and moves by the action; above 10 the task is solved; the camera shows the seed."""

    def __init__(self, length: int = 5) -> None:
        features = {
            "observation.state": Feature("float32", (1,)),
            "observation.images.eye": Feature("video", (4, 6, 3)),
        }
        super().__init__("toys/corridor", features=features, actions=ACTIONS, fps=10, task="go", privileged={})
        self.length, self.closed = length, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        assert seed is not None
        self.start, self.x, self.steps = seed, float(seed), 0
        return self._see(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.steps < self.length
        assert self.x <= 10
        push = float(self.checked(action)[0])
        self.x += push
        self.steps += 1
        return self._see(), push, self.x > 10, self.steps >= self.length, self._info()

    def expert(self, seed: int = 0, noise: float = 0.0) -> Player:
        return RandomPlayer(ACTIONS, seed)

    def close(self) -> None:
        self.closed = True

    def _see(self) -> dict[str, np.ndarray]:
        eye = np.full((4, 6, 3), self.start, np.uint8)
        eye[..., 0] = self.steps
        return {"observation.state": np.array([self.x], np.float32), "observation.images.eye": eye}

    def _info(self) -> dict[str, Any]:
        return {"measures": {"way": self.x - self.start}, "success": self.x > 10, "privileged": {}}
