"""A point mass whose goal is hidden and new in each episode: what is recorded, and how policies fitted to a few demonstrations
of one goal are tried.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrodict.claims.experiment import Measured
from retrodict.trajectories import Recordings
from retrodict.trajectories.stores import open as open_recordings
from retrodict.worlds import Vector, make, record, rollout
from retrodict.worlds.point_mass import PointMass

WORLD = "dm-control/point_mass-easy"
NEAR = 0.05
PROBED, JUDGED = 30, 20  # episodes that a probe learns from and is judged on, with action noise 0.5


@dataclass(frozen=True)
class Tasks:
    """New goals, which no episode of the corpus had, roll-outs towards each, and the most demonstrations of each."""

    goals: int = 10
    starts: int = 8
    shots: int = 5


def record_all(folder: Path, seed: int, episodes: int, tasks: Tasks, options: Mapping[str, Any]) -> Measured:
    """A corpus to pretrain on, episodes to probe with, and demonstrations of each new goal, into folders of a folder."""
    how: dict[str, Any] = {"workers": min(4, os.cpu_count() or 1), "progress": False, "overwrite": True, **options}
    record(WORLD, folder / "corpus", episodes, seed=1000 + seed, noise=0.0, **how)
    record(WORLD, folder / "probe", PROBED + JUDGED, seed=2000 + seed, noise=0.5, **how)
    for number, goal in enumerate(goals(seed, tasks)):
        few = {**how, "workers": 1, "goal": goal}
        record(WORLD, folder / f"goal-{number}", tasks.shots, seed=3000 + seed, noise=0.0, **few)
    corpus = open_recordings(folder / "corpus")
    return {"episodes": len(corpus), "frames": corpus.steps}


def goals(seed: int, tasks: Tasks) -> list[tuple[float, float]]:
    """Places of the new goals."""
    drawn = np.random.default_rng((seed, 77)).uniform(-0.26, 0.26, (tasks.goals, 2))
    return [(float(x), float(y)) for x, y in drawn]


def starts(seed: int, tasks: Tasks) -> list[int]:
    """Episodes that are played towards each goal, the same for every policy."""
    return [5_000_000 + 1000 * seed + i for i in range(tasks.starts)]


@contextmanager
def _worlds(tasks: Tasks, options: Mapping[str, Any]) -> Iterator[tuple[Vector, Callable[[tuple[float, float]], None]]]:
    """Worlds side by side, and a way to give all of them a goal."""
    made: list[PointMass] = []

    def one() -> PointMass:
        world = make(WORLD, privileged=False, **options)
        assert isinstance(world, PointMass)
        made.append(world)
        return world

    with Vector([one] * tasks.starts, threads=1) as vector:

        def aim(goal: tuple[float, float]) -> None:
            for world in made:
                world.aim(goal)

        yield vector, aim


def tried(
    policies: Callable[[Recordings], Any],
    folder: Path,
    seed: int,
    tasks: Tasks,
    options: Mapping[str, Any],
    shots: Sequence[int],
) -> Measured:
    """Success of each goal by number of demonstrations, of policies fitted to them; `folder` and `options` as in `record_all`."""
    success: dict[str, list[float]] = {str(n): [] for n in shots}
    distance: dict[str, list[float]] = {str(n): [] for n in shots}
    with _worlds(tasks, options) as (vector, aim):
        for number, goal in enumerate(goals(seed, tasks)):
            demonstrated = open_recordings(folder / f"goal-{number}")
            aim(goal)
            for n in shots:
                policy = policies(demonstrated[:n])
                ends = rollout(policy, vector, starts(seed, tasks)).measure("distance")
                success[str(n)].append(float((ends < NEAR).mean()))
                distance[str(n)].append(float(ends.mean()))
    means = {f"success, {n}": float(np.mean(values)) for n, values in success.items()}
    return {"success": success, "distance": distance, **means}
