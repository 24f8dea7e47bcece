"""Gymnasium worlds side by side, each in a thread that is its own for life.

Engines compute outside of Python, so threads are enough, start at once and share what they see. A world that is Python throughout
(MiniGrid) gains nothing by them and loses nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrodict.errors import DataError
from retrodict.trajectories import Feature
from retrodict.worlds.batched import BatchedWorld, Step
from retrodict.worlds.world import Observation, World


class Vector(BatchedWorld):
    """Worlds made by `makers`, stepped at once.

    Args:
        makers: make one world each, all of the same features and actions; a world is made, stepped and closed in one thread.
        threads: how many of them step at the same time; by default as many as there are cores.

    Raises DataError when there are none, or when they differ in what they show or take.
    """

    def __init__(self, makers: Sequence[Callable[[], World]], threads: int | None = None) -> None:
        if not makers:
            raise DataError("no worlds given to play; at least one is needed.")
        self._pools = [ThreadPoolExecutor(1) for _ in range(min(threads or os.cpu_count() or 1, len(makers)))]
        self._worlds: dict[int, World] = {}
        try:
            self._in_threads(lambda i: self._worlds.__setitem__(i, makers[i]()), range(len(makers)))
            first = self._worlds[0]
            if any((w.features, w.actions) != (first.features, first.actions) for w in self._worlds.values()):
                raise DataError("worlds that are played side by side must show the same features and take the same actions.")
        except BaseException:
            self.close()
            raise
        super().__init__(len(makers), first.features, first.actions, first.fps)
        self._shown: list[Observation] = [{} for _ in makers]
        self._info: list[dict[str, Any]] = [{} for _ in makers]
        self._ended = np.ones((2, len(makers)), bool)  # terminated, truncated; nothing has begun

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self._worlds[i].task for i in range(self.size))

    def reset(self, seeds: Sequence[int], worlds: Sequence[int] | None = None) -> dict[str, Tensor]:
        chosen = list(range(self.size) if worlds is None else worlds)
        if len(chosen) != len(seeds):
            raise DataError(f"{len(seeds)} seeds were given for {len(chosen)} worlds.")
        seed_of = dict(zip(chosen, seeds, strict=True))

        def begin(i: int) -> None:
            self._shown[i], self._info[i] = self._worlds[i].reset(seed=seed_of[i])
            self._ended[:, i] = False

        self._in_threads(begin, chosen)
        if not all(self._shown):
            raise DataError("the first reset must start an episode in every world.")
        return self._observation()

    def step(self, action: Tensor) -> Step:
        flat = action.detach().cpu().numpy()
        if len(flat) != self.size:
            raise DataError(f"{self.size} worlds are played, {len(flat)} actions were given.")
        reward = np.zeros((self.size, 1), np.float32)

        def go_on(i: int) -> None:
            shown, reward[i, 0], terminated, truncated, self._info[i] = self._worlds[i].step(flat[i])
            self._shown[i], self._ended[:, i] = shown, (terminated, truncated)

        self._in_threads(go_on, [i for i in range(self.size) if not self._ended[:, i].any()])
        terminated, truncated = torch.from_numpy(self._ended.copy())
        return Step(self._observation(), torch.from_numpy(reward), terminated, truncated, tuple(self._info))

    def close(self) -> None:
        self._in_threads(lambda i: self._worlds[i].close(), list(self._worlds))
        self._worlds.clear()
        for pool in self._pools:
            pool.shutdown()

    def _in_threads(self, do: Callable[[int], Any], worlds: Sequence[int]) -> None:
        """Do something with worlds, each in its own thread; the first error is raised when all are done."""

        def mine(thread: int) -> None:
            for i in worlds:
                if i % len(self._pools) == thread:
                    do(i)

        tasks = [pool.submit(mine, thread) for thread, pool in enumerate(self._pools)]
        wait(tasks)
        for task in tasks:
            task.result()

    def _observation(self) -> dict[str, Tensor]:
        return {name: _tensor([shown[name] for shown in self._shown], feature) for name, feature in self.features.items()}


def _tensor(values: Sequence[np.ndarray], feature: Feature) -> Tensor:
    stacked = torch.from_numpy(np.stack(values))
    return stacked.movedim(-1, 1).contiguous() if feature.is_visual else stacked
