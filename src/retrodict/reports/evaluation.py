"""How well a policy does in its world: means with intervals over episodes that are the same for every policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from retrodict.errors import DataError
from retrodict.metrics import Estimate, interval
from retrodict.reports.clips import write_clip
from retrodict.roles import Policy
from retrodict.systems import System, roles_of
from retrodict.worlds import Rollouts, Vector, make, rollout

FIRST_SEED = 1_000_000
"""Of the episodes that policies are tried on; far from the seeds that anybody records with."""

CLIP_WIDTH = 256

PARALLEL = 8
"""Worlds side by side."""


@dataclass(frozen=True)
class Evaluation:
    """What became of a policy's episodes.

    Attributes:
        world: its name.
        episodes: what happened in each.
        returns: mean sum of rewards, with a 95 % interval.
        lengths: mean number of decisions.
        measures: the world's own numbers (tics survived, ...).
        success: share of episodes in which the task was solved, None in worlds that do not say.
    """

    world: str
    episodes: Rollouts
    returns: Estimate
    lengths: Estimate
    measures: Mapping[str, Estimate]
    success: Estimate | None

    @classmethod
    def of(cls, world: str, episodes: Rollouts) -> Evaluation:
        solved = [episode.success for episode in episodes]
        return cls(
            world=world,
            episodes=episodes,
            returns=interval(episodes.returns),
            lengths=interval(episodes.lengths),
            measures={name: interval(episodes.measure(name)) for name in episodes[0].measures},
            success=None if None in solved else interval(np.array(solved, float), "wilson"),
        )

    @property
    def estimates(self) -> dict[str, Estimate]:
        """Everything that was estimated, by what it is."""
        found = {"success": self.success, "return": self.returns, "decisions": self.lengths, **self.measures}
        return {name: estimate for name, estimate in found.items() if estimate is not None}

    def to_json(self) -> dict[str, Any]:
        return {
            "world": self.world,
            "seeds": self.episodes.seeds.tolist(),
            "seconds": self.episodes.seconds,
            "estimates": {name: {"value": e.value, "interval": [e.low, e.high], "n": e.n} for name, e in self.estimates.items()},
            "returns": self.episodes.returns.tolist(),
            "measures": {name: self.episodes.measure(name).tolist() for name in self.measures},
        }

    def __str__(self) -> str:
        lines = [f"{len(self.episodes)} episodes of {self.world} in {self.episodes.seconds:.0f} s; means with 95 % intervals:"]
        return "\n".join([*lines, *(f"  {name}: {estimate}" for name, estimate in self.estimates.items())])


def evaluate(
    policy: Policy,
    world: str,
    episodes: int = 20,
    *,
    first_seed: int = FIRST_SEED,
    max_steps: int | None = None,
    task: str | None = None,
    clip: str | Path | None = None,
    **options: Any,
) -> Evaluation:
    """Play a policy in a world and say how well it does.

    Args:
        policy: a fitted policy.
        world: name of the world, such as `vizdoom/health-gathering`; `options` are the world's.
        episodes: how many; those of the seeds from `first_seed` on, so that every policy meets the same.
        max_steps: cut episodes off after so many decisions.
        task: what the policy is told to do; by default what the world says.
        clip: write what the first camera shows in the first episode to this `.mp4`, `.gif` or `.webp`.

    Raises DataError where the system is no policy, was fitted on other features than the world shows, or `episodes` is below 1.
    """
    if not isinstance(policy, Policy):
        played = ", ".join(roles_of(type(policy))) if isinstance(policy, System) else type(policy).__name__
        raise DataError(f"only a policy can be tried in a world; this is {played}.")
    if episodes < 1:
        raise DataError(f"at least one episode is needed, {episodes} were asked for.")
    seeds = range(first_seed, first_seed + episodes)
    maker = partial(make, world, **{"privileged": False, **options})
    with Vector([maker] * min(PARALLEL, episodes)) as worlds:
        played_out = rollout(policy, worlds, seeds, max_steps, task=task, record_frames=0 if clip is None else 1)
        if clip is not None and played_out[0].frames is not None:
            write_clip(played_out[0].frames, clip, worlds.fps, width=CLIP_WIDTH)
    return Evaluation.of(world, played_out)
