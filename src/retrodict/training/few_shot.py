"""Few-shot evaluation: a frozen encoder, a handful of demonstrations, a small head, and roll-outs in the world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from retrodict.errors import DataError
from retrodict.roles import Policy
from retrodict.trajectories import Recordings
from retrodict.worlds import Rollouts, rollout
from retrodict.worlds.batched import BatchedWorld
from retrodict.worlds.world import World


class Learner(Protocol):
    """A policy that can be fitted: any system that plays the role `Policy`."""

    def fit(self, recordings: Recordings) -> Any: ...


def demonstrations(recordings: Recordings, shots: int, seed: int = 0) -> Recordings:
    """`shots` episodes of each task, drawn; the same for whoever asks with the same seed.

    Raises DataError naming a task that has fewer.
    """
    of_task: dict[str, list[int]] = {}
    for position, episode in enumerate(recordings):
        of_task.setdefault(episode.tasks[0] if episode.tasks else "", []).append(position)
    rng, chosen = np.random.default_rng(seed), []
    for task, positions in of_task.items():
        if len(positions) < shots:
            raise DataError(f"{shots} demonstrations are asked for and {task or 'the one task'!r} has {len(positions)}.")
        chosen += rng.choice(positions, shots, replace=False).tolist()
    return recordings.select(sorted(chosen))


def few_shot(
    policy: Learner,
    recordings: Recordings,
    shots: int,
    world: str | World | BatchedWorld,
    seeds: Sequence[int],
    *,
    seed: int = 0,
    max_steps: int | None = None,
    **options: Any,
) -> Rollouts:
    """Fit a policy to a few demonstrations and play it; every policy asked with the same arguments meets the same of both.

    Args:
        policy: what is fitted: behaviour cloning with a frozen encoder, nearest neighbours among its codes, ...
        recordings: demonstrations, from which `shots` of each task are drawn by `seed`.
        world, seeds, max_steps, options: see `worlds.rollout`.
    """
    policy.fit(demonstrations(recordings, shots, seed))
    if not isinstance(policy, Policy):
        raise DataError(f"{type(policy).__name__} plays no role of Policy; what is tried in a world must act.")
    return rollout(policy, world, seeds, max_steps, **options)
