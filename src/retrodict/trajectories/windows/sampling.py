"""Sampling: which anchors make a batch. The batch at a step is a pure function of the seed and the step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np

from retrodict.errors import DataError

BLOCK = 64
"""Steps whose draws come from one generator: making one costs more than drawing a small batch."""


class Order(Protocol):
    """Indices of anchors, batch by batch."""

    def __len__(self) -> int:
        """Batches in one epoch."""
        ...

    def at(self, step: int) -> np.ndarray:
        """Indices of the anchors of the batch at a step, counted through all epochs."""
        ...


class InOrder:
    """Every anchor once per epoch, in order."""

    def __init__(self, anchors: int, batch: int) -> None:
        self.anchors, self.batch = anchors, batch

    def __len__(self) -> int:
        return -(-self.anchors // self.batch)

    def at(self, step: int) -> np.ndarray:
        begin = step % len(self) * self.batch
        return np.arange(begin, min(begin + self.batch, self.anchors))


class Listed(ABC):
    """An epoch is a list drawn at its beginning, cut into batches."""

    def __init__(self, batch: int, seed: int) -> None:
        self.batch, self.seed = batch, seed
        self._epoch: tuple[int, np.ndarray] | None = None

    @abstractmethod
    def listed(self) -> int:
        """Entries of an epoch's list."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The list of an epoch."""

    def __len__(self) -> int:
        return -(-self.listed() // self.batch)

    def at(self, step: int) -> np.ndarray:
        epoch, place = divmod(step, len(self))
        drawn = self._epoch
        if drawn is None or drawn[0] != epoch:
            drawn = self._epoch = (epoch, self.draw(np.random.default_rng((self.seed, epoch))))
        return drawn[1][place * self.batch : (place + 1) * self.batch]


class Shuffle(Listed):
    """Every anchor once per epoch, in a new random order each time."""

    def __init__(self, anchors: int, batch: int, seed: int) -> None:
        super().__init__(batch, seed)
        self.anchors = anchors

    def listed(self) -> int:
        return self.anchors

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(self.anchors)


class PerEpisode(Listed):
    """An epoch visits every episode once, in random order, and draws `clips` anchors from each, one behind the other.

    For sources that are dear to open: what is opened is read `clips` times. Within an episode anchors are drawn in proportion to
    weights, where there are some.
    """

    def __init__(self, episodes: np.ndarray, clips: int, batch: int, seed: int, weights: np.ndarray | None = None) -> None:
        super().__init__(batch, seed)
        _, self.begins, self.counts = np.unique(episodes, return_index=True, return_counts=True)
        self.clips = clips
        self.sums = None if weights is None else np.concatenate([[0.0], np.cumsum(weights)])

    def listed(self) -> int:
        return len(self.begins) * self.clips

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        order = rng.permutation(len(self.begins))
        if self.sums is not None:
            low, high = self.sums[self.begins[order]], self.sums[(self.begins + self.counts)[order]]
            wanted = low[:, None] + rng.random((len(order), self.clips)) * (high - low)[:, None]
            wanted = np.minimum(wanted, np.nextafter(high, 0)[:, None])  # rounding must not lead into the next episode
            return np.asarray(np.searchsorted(self.sums, wanted, "right") - 1).reshape(-1)
        drawn = rng.integers(self.counts[order][:, None], size=(len(order), self.clips))
        return (self.begins[order][:, None] + drawn).reshape(-1)


class Draws:
    """Anchors drawn with replacement, in proportion to weights, with an equal share for each group.

    The groups take turns through the places of the batches, so that shares are equal in every batch, not only on average.
    """

    def __init__(self, anchors: int, batch: int, seed: int, weights: np.ndarray | None, groups: np.ndarray | None) -> None:
        self.anchors, self.batch, self.seed = anchors, batch, seed
        self.simple = weights is None and groups is None
        self._block: tuple[int, np.ndarray] | None = None
        if self.simple:
            return
        weights = np.ones(anchors) if weights is None else weights
        groups = np.zeros(anchors, np.int64) if groups is None else groups
        self.sorted = np.argsort(groups, kind="stable")
        self.sums = np.cumsum(weights[self.sorted])
        sizes = np.bincount(groups)
        ends = np.cumsum(sizes[sizes > 0])
        high = self.sums[ends - 1]
        low = np.concatenate([[0.0], high[:-1]])
        usable = high > low
        self.low, self.high = low[usable], high[usable]

    def __len__(self) -> int:
        return -(-self.anchors // self.batch)

    def at(self, step: int) -> np.ndarray:
        if self.simple:
            block, place = divmod(step, BLOCK)
            if self._block is None or self._block[0] != block:
                rng = np.random.default_rng((self.seed, block))
                self._block = block, rng.integers(self.anchors, size=(BLOCK, self.batch))
            return np.asarray(self._block[1][place])
        rng = np.random.default_rng((self.seed, step))
        group = np.arange(step * self.batch, (step + 1) * self.batch) % len(self.low)
        # The right side passes over anchors of weight 0; rounding at the very top of a group must not leave it.
        wanted = self.low[group] + rng.random(self.batch) * (self.high - self.low)[group]
        wanted = np.minimum(wanted, np.nextafter(self.high[group], 0))
        return np.asarray(self.sorted[np.searchsorted(self.sums, wanted, "right")])


def checked_weights(weights: np.ndarray, name: str) -> np.ndarray:
    """Weights as float64; raises DataError where one is negative or not finite, or none is above 0."""
    weights = np.asarray(weights, np.float64)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and (weights > 0).any()):
        raise DataError(f"{name}: weights must be finite and at least 0, and one of them above 0.")
    return weights
