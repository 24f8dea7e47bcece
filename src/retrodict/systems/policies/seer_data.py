"""What Seer learns from: windows that know their task, and a look at recordings before anything is learned."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from retrodict.errors import DataError
from retrodict.training.stage import Batch
from retrodict.trajectories import Recordings, Window
from retrodict.trajectories.features import TASK


class ToldWindows:
    """Windows of recordings with the number of the task of each, `task` (B,); 0 for one that cannot be told."""

    def __init__(self, recordings: Recordings, window: Window, batch: int, seed: int, tasks: tuple[str, ...]) -> None:
        self.windows = recordings.windows(window, batch, seed=seed)
        numbers = {text: 1 + i for i, text in enumerate(tasks)}
        self.tasks = torch.tensor([numbers.get(episode.tasks[0], 0) if episode.tasks else 0 for episode in recordings])

    def __len__(self) -> int:
        return len(self.windows)

    def stream(self, start: int, stop: int | None = None) -> Iterator[Batch]:
        """The batches of the steps from `start` on, up to `stop`."""
        for batch in self.windows.stream(start, stop):
            yield {**batch, TASK: self.tasks[torch.as_tensor(batch["episode"])]}

    def once(self) -> Iterator[Batch]:
        """The batches of one epoch: every window once."""
        return self.stream(0, len(self))


def check_sizes(slots: int, patch: int, depth: int, *, history: int, ahead: int, chunk: int, goal: int) -> None:
    """Raise DataError for sizes that do not go together; see `Seer` for them."""
    root = math.isqrt(max(slots, 0))
    if root**2 != slots or not root:
        nearest = max(1, min(root, root + 1, key=lambda r: abs(r**2 - slots))) ** 2
        raise DataError(f"seer lays foresight tokens out in a square: slots={slots} is none, the nearest is {nearest}.")
    if patch < 2 or patch & (patch - 1):
        raise DataError(f"seer halves frames down to patches: patch is a power of two from 2 on, got {patch}.")
    if depth < 2:
        raise DataError(f"seer's actions see the forecast only from the second block on: depth is at least 2, got {depth}.")
    if not 0 <= goal < history or min(ahead, chunk) < 1:
        raise DataError(
            f"seer looks at 1 step or more, and at a goal within them; got history={history}, ahead={ahead}, chunk={chunk}, "
            f"goal={goal}."
        )


def refuse_uncut(height: int, width: int, patch: int) -> None:
    """Raise DataError where frames cannot be cut into patches."""
    if height % patch or width % patch:
        nearest = tuple(max(1, round(side / patch)) * patch for side in (height, width))
        raise DataError(
            f"seer cuts frames into patches of {patch} pixels and these have {height} x {width}: set image_size to multiples of "
            f"it, such as {nearest}, or another patch."
        )


def refuse_short(recordings: Recordings, needed: int) -> None:
    """Raise DataError naming the episodes that are too short."""
    short = [str(episode) for episode in recordings if len(episode) < needed]
    if short:
        raise DataError(
            f"seer needs episodes of {needed} steps, its history and what lies ahead; {len(short)} are shorter: "
            f"{', '.join(short[:5])}{', ...' if len(short) > 5 else ''}."
        )


def gripper_zero(values: np.ndarray, name: str, known: float) -> float:
    """What an open gripper is called in recorded values (n,), 0 or -1, or as was `known` where none is open.

    Raises DataError where there are others than two values.
    """
    met = np.unique(values)
    if not (set(met) <= {0.0, 1.0} or set(met) <= {-1.0, 1.0}):
        raise DataError(
            f"seer: the gripper {name!r} is 0 or 1, or -1 or 1, and here it goes from {met[0]:g} to {met[-1]:g} in {len(met)} "
            "values; leave gripper='' to treat it as one more number of the arm."
        )
    return known if met[0] > 0 else float(met[0])


def refuse_beyond(arm: np.ndarray, names: list[str]) -> None:
    """Raise DataError, with quantiles, where numbers (n, a) of an arm lie outside [-1, 1]."""
    beyond = np.flatnonzero((np.abs(arm) > 1 + 1e-6).any(0))
    if len(beyond):
        low, high = np.quantile(arm[:, beyond], (0.01, 0.99), axis=0)
        shown = [f"{names[k]!r} {a:.3g} to {b:.3g}" for k, a, b in zip(beyond, low, high, strict=True)]
        raise DataError(
            f"seer says numbers between -1 and 1 and {len(beyond)} of the recorded ones lie beyond (1 % and 99 % quantiles: "
            f"{'; '.join(shown[:3])}); set scale_actions=True to fit a normaliser."
        )
