"""Policies that know nothing: what any other is held against."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from retrodict.errors import DataError
from retrodict.roles import Batch, Policy
from retrodict.trajectories import ActionSpace
from retrodict.worlds.players import sample


class RandomPolicy(Policy):
    """Random actions as a policy: the floor of every comparison."""

    def __init__(self, actions: ActionSpace, seed: int = 0) -> None:
        self.actions, self.rng = actions, np.random.default_rng(seed)

    def act(self, observation: Batch) -> Tensor:
        return torch.from_numpy(sample(self.actions, self.rng, len(next(iter(observation.values())))))

    def reset(self, mask: Tensor | None = None) -> None:
        """Nothing is remembered."""


class NullPolicy(Policy):
    """Does nothing, in a world where there is an action for that; raises DataError where there is none."""

    def __init__(self, actions: ActionSpace) -> None:
        if actions.null is None:
            raise DataError(f"this action space has no null action ({actions}).")
        self.null = torch.tensor(actions.null)

    def act(self, observation: Batch) -> Tensor:
        return self.null.expand(len(next(iter(observation.values()))), -1)

    def reset(self, mask: Tensor | None = None) -> None:
        """Nothing is remembered."""
