"""Demonstrations in which there are two ways."""

from __future__ import annotations

import numpy as np

from retrodict.trajectories import Recordings, from_arrays
from retrodict.trajectories.features import STATE


def two_ways(episodes: int = 30, steps: int = 12) -> Recordings:
    """Episodes in which one turns left or right, for good and at random: on average, straight on."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(episodes):
        state = rng.uniform(-1, 1, (steps, 2)).astype(np.float32)
        way = np.full((steps, 1), rng.choice([-1.0, 1.0]), np.float32)
        made.append({STATE: state, "action": np.concatenate([way, state[:, :1]], 1)})
    return from_arrays(made, fps=10)
