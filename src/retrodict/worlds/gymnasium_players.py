"""Who plays Gymnasium's worlds: a linear policy for runners, waypoints for mazes, a hand that goes where it should for arms.

All read `observation.state` as the world shows it, and their hands tremble: Gaussian noise is added to what they mean to do.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories import ActionSpace, Box
from retrodict.trajectories.features import STATE
from retrodict.worlds.random_search import LinearPolicy
from retrodict.worlds.world import Observation, Player


class Trembling(Player):
    """Base: means an action, and does it with Gaussian noise of deviation `tremble` times half the range, within the range."""

    def __init__(self, actions: ActionSpace, tremble: float, seed: int) -> None:
        if not 0 <= tremble <= 1:
            raise DataError(f"tremble is a share of half the range of the actions, between 0 and 1; got {tremble}.")
        part = next(iter(actions.parts.values()))
        assert isinstance(part, Box) and part.low is not None and part.high is not None  # noqa: PT018
        self.low, self.high, self.width, self.tremble, self.seed = part.low, part.high, part.width, tremble, seed
        Trembling.reset(self)

    @abstractmethod
    def meant(self, state: np.ndarray) -> np.ndarray:
        """The action without noise (width,)."""

    def act(self, observation: Observation, info: Mapping[str, Any]) -> np.ndarray:
        off = self.rng.standard_normal(self.width) * self.tremble * (self.high - self.low) / 2
        return np.asarray(np.clip(self.meant(observation[STATE]) + off, self.low, self.high), np.float32)

    def reset(self) -> None:
        self.rng = np.random.default_rng(self.seed)


class Linear(Trembling):
    """Plays a linear policy."""

    def __init__(self, policy: LinearPolicy, actions: ActionSpace, tremble: float = 0.0, seed: int = 0) -> None:
        super().__init__(actions, tremble, seed)
        self.policy = policy

    def meant(self, state: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip(self.policy(state), self.low, self.high))


class Waypoints(Trembling):
    """Rolls a ball through a maze from cell to cell of the shortest way, by a proportional-derivative controller.

    Its gains shrink with the quality: at 0 it hardly moves.

    Args:
        maze: Gymnasium-Robotics' maze; the state is position, velocity and goal, (x, y, vx, vy, gx, gy).
    """

    STIFFNESS, DAMPING = 10.0, 1.0

    def __init__(self, maze: Any, actions: ActionSpace, quality: float = 1.0, tremble: float = 0.0, seed: int = 0) -> None:
        super().__init__(actions, tremble, seed)
        self.maze, self.quality = maze, quality
        self.free = {(i, j) for i, row in enumerate(maze.maze_map) for j, cell in enumerate(row) if cell != 1}
        self.goal: tuple[int, int] | None = None

    def meant(self, state: np.ndarray) -> np.ndarray:
        position, velocity, goal = state[:2], state[2:4], state[4:6]
        here, there = self._cell(position), self._cell(goal)
        if there != self.goal:
            self.goal, self.next = there, self._onward(there)
        on_the_way = here != there and here in self.next
        waypoint: np.ndarray = self.maze.cell_rowcol_to_xy(np.array(self.next[here])) if on_the_way else goal
        return np.asarray(self.quality * (self.STIFFNESS * (waypoint - position) - self.DAMPING * velocity))

    def _cell(self, position: np.ndarray) -> tuple[int, int]:
        row, column = self.maze.cell_xy_to_rowcol(position)
        return int(row), int(column)

    def _onward(self, goal: tuple[int, int]) -> dict[tuple[int, int], tuple[int, int]]:
        """For every cell from which the goal can be reached, the next cell on the shortest way (breadth first)."""
        onward, edge = {goal: goal}, deque([goal])
        while edge:
            i, j = edge.popleft()
            for cell in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if cell in self.free and cell not in onward:
                    onward[cell] = (i, j)
                    edge.append(cell)
        return onward


class Reacher(Trembling):
    """Moves the hand of a Fetch arm straight to the goal; slower with less quality."""

    GAIN = 10.0

    def __init__(self, actions: ActionSpace, quality: float = 1.0, tremble: float = 0.0, seed: int = 0) -> None:
        super().__init__(actions, tremble, seed)
        self.quality = quality

    def meant(self, state: np.ndarray) -> np.ndarray:
        return self.towards(state[:3], state[-3:])

    def towards(self, hand: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Velocity of the hand towards a place, fingers closed."""
        return np.append(self.quality * self.GAIN * (place - hand), 0.0)


class Pusher(Reacher):
    """Goes behind the block, seen from the goal, lowers the hand, and pushes."""

    ABOVE, BEHIND, CLOSE = 0.08, 0.07, 0.02  # metres

    def meant(self, state: np.ndarray) -> np.ndarray:
        hand, block, goal = state[:3], state[3:6], state[-3:]
        way = (goal - block)[:2]
        left = float(np.hypot(*way))
        if left < self.CLOSE:
            return self.towards(hand, hand)
        along = np.append(way / left, 0.0)
        start = block - self.BEHIND * along
        aside = hand - start
        behind = float(np.hypot(*aside[:2])) < self.CLOSE
        pushing = float((hand - block) @ along) < 0 and float(np.hypot(*(aside - (aside @ along) * along)[:2])) < self.CLOSE
        if pushing and hand[2] < block[2] + self.CLOSE:
            return self.towards(hand, block + (0.3 * left) * along)
        return self.towards(hand, start if behind else start + np.array([0, 0, self.ABOVE]))
