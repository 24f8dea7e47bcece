"""Players: those that know nothing, and the noise in a scripted player's hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories import ActionSpace, Box, Discrete, MultiBinary
from retrodict.worlds.world import Observation, Player


def sample(actions: ActionSpace, rng: np.random.Generator, n: int) -> np.ndarray:
    """Random flat actions (n, width): fair buttons and choices, uniform values within bounds (standard normal without bounds)."""
    pieces: list[np.ndarray] = []
    for part in actions.parts.values():
        match part:
            case MultiBinary():
                pieces.append(rng.integers(0, 2, (n, part.width)))
            case Discrete():
                pieces.append(rng.integers(0, part.n, (n, 1)))
            case Box(low=(float() | int()) as low, high=(float() | int()) as high):
                pieces.append(rng.uniform(low, high, (n, part.width)))
            case Box():
                pieces.append(rng.standard_normal((n, part.width)))
    return np.asarray(np.concatenate(pieces, 1), np.float32)


class RandomPlayer(Player):
    """Plays random actions."""

    def __init__(self, actions: ActionSpace, seed: int = 0) -> None:
        self.actions, self.seed = actions, seed
        self.reset()

    def act(self, observation: Observation, info: Mapping[str, Any]) -> np.ndarray:
        return np.asarray(sample(self.actions, self.rng, 1)[0])

    def reset(self) -> None:
        self.rng = np.random.default_rng(self.seed)


class Noisy(Player):
    """Another player, who does something random at a share `noise` of the decisions."""

    def __init__(self, player: Player, actions: ActionSpace, noise: float, seed: int) -> None:
        if not 0 <= noise <= 1:
            raise DataError(f"noise is the share of random decisions, between 0 and 1; got {noise}.")
        self.player, self.actions, self.noise, self.seed = player, actions, noise, seed
        self.reset()

    def act(self, observation: Observation, info: Mapping[str, Any]) -> np.ndarray:
        meant = self.player.act(observation, info)  # asked even when not followed, so that it keeps seeing the game
        return sample(self.actions, self.rng, 1)[0] if self.rng.random() < self.noise else meant

    def reset(self) -> None:
        self.player.reset()
        self.rng = np.random.default_rng((self.seed, 1))


class Shaky(Player):
    """Another player with an unsteady hand: Gaussian noise on the numbers of a continuous action, kept within -1 and 1.

    Args:
        player: who means what.
        noise: standard deviation.
        steady: how many of the last numbers no noise is added to (a gripper).
        seed: of the noise.
    """

    def __init__(self, player: Player, noise: float, seed: int, steady: int = 0) -> None:
        self.player, self.noise, self.seed, self.steady = player, noise, seed, steady
        self.reset()

    def act(self, observation: Observation, info: Mapping[str, Any]) -> np.ndarray:
        action = np.array(self.player.act(observation, info), np.float32)
        moved = len(action) - self.steady
        action[:moved] += self.noise * self.rng.standard_normal(moved)
        return np.clip(action, -1, 1)

    def reset(self) -> None:
        self.player.reset()
        self.rng = np.random.default_rng((self.seed, 1))
