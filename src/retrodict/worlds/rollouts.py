"""Roll-outs: a policy tried in a world, on given seeds, so that every policy meets the same episodes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, overload

import numpy as np
import torch

from retrodict.errors import DataError
from retrodict.roles import Policy
from retrodict.trajectories.features import REWARD, TASK, cameras
from retrodict.worlds.batched import BatchedWorld, Step
from retrodict.worlds.catalogue import make
from retrodict.worlds.vector import Vector
from retrodict.worlds.world import World


@dataclass(frozen=True)
class Rollout:
    """One episode of a policy.

    Attributes:
        seed: which episode of the world it was.
        rewards: sums over the episode, by the names of the world's rewards.
        length: decisions taken.
        terminated: whether it came to its end; otherwise it was cut off.
        success: whether the task was solved, None in worlds that do not say.
        measures: the world's named numbers at the end (tics survived, ...).
        info: whatever else the world said at the end.
        frames: what its first camera showed, uint8 (T, H, W, C), where frames were kept.
    """

    seed: int
    rewards: Mapping[str, float]
    length: int
    terminated: bool
    success: bool | None
    measures: Mapping[str, float]
    info: Mapping[str, Any] = field(repr=False)
    frames: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Rollouts(Sequence[Rollout]):
    """Episodes of one policy, in the order of their seeds; `seconds` they took."""

    episodes: tuple[Rollout, ...]
    seconds: float

    @overload
    def __getitem__(self, index: int) -> Rollout: ...
    @overload
    def __getitem__(self, index: slice) -> Rollouts: ...
    def __getitem__(self, index: int | slice) -> Rollout | Rollouts:
        return Rollouts(self.episodes[index], self.seconds) if isinstance(index, slice) else self.episodes[index]

    def __len__(self) -> int:
        return len(self.episodes)

    def __iter__(self) -> Iterator[Rollout]:
        return iter(self.episodes)

    @property
    def seeds(self) -> np.ndarray:
        return np.array([episode.seed for episode in self])

    @property
    def returns(self) -> np.ndarray:
        """Sum of all rewards of each episode, (E,)."""
        return np.array([sum(episode.rewards.values()) for episode in self])

    @property
    def lengths(self) -> np.ndarray:
        """Decisions of each episode, (E,)."""
        return np.array([episode.length for episode in self])

    def measure(self, name: str) -> np.ndarray:
        """A named measure of each episode, (E,); raises DataError naming those that the world has."""
        if any(name not in episode.measures for episode in self):
            raise DataError(f"this world has no measure {name!r}; it has {', '.join(self[0].measures) or 'none'}.")
        return np.array([episode.measures[name] for episode in self])


def success(rollouts: Rollouts, predicate: Callable[[Rollout], bool] | None = None) -> np.ndarray:
    """Which episodes succeeded, bool (E,): those for which `predicate` holds, or by default those that the world calls solved.

    Raises DataError where the world does not say and no predicate is given.
    """
    if predicate is not None:
        return np.array([predicate(episode) for episode in rollouts], bool)
    if any(episode.success is None for episode in rollouts):
        raise DataError("this world does not say when its task is solved; give success a predicate.")
    return np.array([episode.success for episode in rollouts], bool)


def rollout(
    policy: Policy,
    world: str | World | BatchedWorld,
    seeds: Sequence[int],
    max_steps: int | None = None,
    *,
    task: str | None = None,
    parallel: int = 8,
    record_frames: int = 0,
    **options: Any,
) -> Rollouts:
    """Play a policy on the episodes of `seeds`, several at once, each decision of all of them being one call of `act`.

    A seed is the same episode for every policy, so that two policies are compared pair by pair.

    Args:
        policy: what decides; it is told of every episode's start by `reset`.
        world: its name (made without hidden truth, with `options`, and closed again), or worlds that stand already.
        seeds: one per episode.
        max_steps: cut episodes off after so many decisions, 1 or more.
        task: what the policy is told to do, `task` of its observation; by default what each world says.
        parallel: worlds side by side, where `world` is a name.
        record_frames: keep what the first camera showed in the first so many episodes.

    Raises DataError when there is no seed or step, or frames are wanted of a world without a camera.
    """
    if not len(seeds):
        raise DataError("no seeds given to roll out; one per episode is needed.")
    if max_steps is not None and max_steps < 1:
        raise DataError(f"max_steps is 1 decision or more, got {max_steps}.")
    with ExitStack() as stack:
        if isinstance(world, str):
            maker = partial(make, world, **{"privileged": False, **options})
            world = stack.enter_context(Vector([maker] * min(parallel, len(seeds))))
        elif options:
            raise DataError(f"{', '.join(options)}: options are for worlds given by name; this one stands already.")
        elif isinstance(world, World):
            standing = world
            world = Vector([lambda: standing], threads=1)
        camera = next(iter(cameras(world.features)), None)
        if record_frames and camera is None:
            raise DataError("frames were asked for and this world has no camera.")
        started = time.perf_counter()
        episodes = _Rolling(policy, world, seeds, max_steps, task, camera, record_frames).run()
        return Rollouts(episodes, time.perf_counter() - started)


class _Rolling:
    """The seeds wait in line for B places."""

    def __init__(
        self,
        policy: Policy,
        world: BatchedWorld,
        seeds: Sequence[int],
        max_steps: int | None,
        task: str | None,
        camera: str | None,
        record_frames: int,
    ) -> None:
        self.policy, self.world, self.seeds, self.max_steps = policy, world, [int(seed) for seed in seeds], max_steps
        self.task, self.camera, self.record_frames = task, camera, record_frames
        self.waiting = deque(range(len(seeds)))
        self.playing: list[int | None] = [None] * world.size  # episode in each place
        self.finished: dict[int, Rollout] = {}
        self.rewards = np.zeros((world.size, len(world.rewards)))
        self.lengths = np.zeros(world.size, int)
        self.frames: list[list[np.ndarray]] = [[] for _ in range(world.size)]

    @torch.no_grad()
    def run(self) -> tuple[Rollout, ...]:
        self.policy.reset()
        observation = self._begin(range(self.world.size))
        earned = torch.zeros(self.world.size, len(self.world.rewards))
        while len(self.finished) < len(self.seeds):
            self._film(observation)
            step = self.world.step(self.policy.act({**observation, **self._told(), REWARD: earned}))
            observation, earned = step.observation, step.reward
            self.rewards += step.reward.numpy(force=True)
            self.lengths += 1
            over = [place for place, episode in enumerate(self.playing) if episode is not None and self._is_over(step, place)]
            for place in over:
                self._finish(step, place)
            if again := over[: len(self.waiting)]:
                observation = self._begin(again)
                begun = torch.tensor([place in again for place in range(self.world.size)])
                earned = torch.where(begun[:, None], 0.0, earned.cpu())
                self.policy.reset(begun)
        return tuple(self.finished[i] for i in range(len(self.seeds)))

    def _begin(self, places: Sequence[int]) -> dict[str, torch.Tensor]:
        """The next episodes in these places; where there are more places than seeds, the last seed again, which nobody counts."""
        for place in places:
            self.playing[place] = self.waiting.popleft() if self.waiting else None
            self.rewards[place], self.lengths[place], self.frames[place] = 0, 0, []
        seeds = [self.seeds[-1 if self.playing[place] is None else self.playing[place]] for place in places]  # type: ignore[index]
        return self.world.reset(seeds, list(places))

    def _told(self) -> dict[str, Any]:
        """What is to be done in each place."""
        tasks = self.world.tasks if self.task is None else (self.task,) * self.world.size
        return {TASK: list(tasks)} if tasks else {}

    def _film(self, observation: Mapping[str, torch.Tensor]) -> None:
        for place, episode in enumerate(self.playing):
            if self.camera is not None and episode is not None and episode < self.record_frames:
                self.frames[place].append(observation[self.camera][place].movedim(0, -1).numpy(force=True).copy())

    def _is_over(self, step: Step, place: int) -> bool:
        return bool(step.terminated[place] or step.truncated[place] or self.lengths[place] == self.max_steps)

    def _finish(self, step: Step, place: int) -> None:
        episode = self.playing[place]
        assert episode is not None
        info = dict(step.info[place])
        self.finished[episode] = Rollout(
            seed=self.seeds[episode],
            rewards=dict(zip(self.world.rewards, map(float, self.rewards[place]), strict=True)),
            length=int(self.lengths[place]),
            terminated=bool(step.terminated[place]),
            success=bool(info["success"]) if "success" in info else None,
            measures=dict(info.get("measures", {})),
            info=info,
            frames=np.stack(self.frames[place]) if self.frames[place] else None,
        )
        self.playing[place] = None
