"""Pairs of a state and its successor, read from recordings without ever crossing the end of one."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.stats import kstest
from torch import Tensor

from retrodict.dynamics.delays import delay_pairs, hankel
from retrodict.errors import DataError
from retrodict.trajectories import Episode, Recordings
from retrodict.trajectories.features import STATE, VALID, WEIGHT

NEXT = "next.observation.state"
"""Successors of loose samples, (d,); or (2, d): two that are independent given the state, where the motion is noisy."""

WANTED_BLOCKS = 200
"""Blocks of neighbouring rows into which few long episodes are cut; dependence between blocks is then small."""


@dataclass(frozen=True)
class Pairs:
    """Windows of states and the same windows one step later, in double precision.

    Attributes:
        before: (M, delays, d).
        after: (M, delays, d), or (2, M, 1, d) with two independent successors.
        weights: quadrature weights (M,); None for the sampling measure.
        blocks: rows of different blocks are taken to be independent, (M,).
    """

    before: Tensor
    after: Tensor
    weights: Tensor | None
    blocks: Tensor

    @classmethod
    def read(cls, recordings: Recordings, delays: int) -> Self:
        """Every pair of every episode.

        Raises DataError where a pair would cross from one trajectory into the next, and where weights are no quadrature weights.
        """
        parts = [_pairs(episode, delays, recordings.independent) for episode in recordings]
        if any(episode[name].dtype != np.float64 for episode in recordings for name in (STATE, NEXT) if name in episode):
            warnings.warn("states in single precision are cast to double; residuals below 1e-6 would be rounding.", stacklevel=4)
        lengths = [len(before) for before, _, _ in parts]
        weights = None
        if any(weight is not None for _, _, weight in parts):
            weights = torch.cat([torch.ones(n) if w is None else w for n, (_, _, w) in zip(lengths, parts, strict=True)])
            if (weights < 0).any():
                raise DataError(f"quadrature weights are not negative; sample.weight is {float(weights.min()):.3g} somewhere.")
        axis = parts[0][1].ndim - 3
        return cls(
            torch.cat([before for before, _, _ in parts]),
            torch.cat([after for _, after, _ in parts], axis),
            weights,
            _blocks(lengths, recordings.independent),
        )

    def __len__(self) -> int:
        return len(self.before)

    def drawn(self, count: int, seed: int) -> Self:
        """`count` of the pairs, drawn without replacement, or all where there are no more."""
        rows = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:count].sort()[0]
        weights = None if self.weights is None else self.weights[rows]
        return type(self)(self.before[rows], self.after[rows], weights, self.blocks[rows])

    def scaled(self, whole: Self) -> Self:
        """The same, a part of others, with weights that sum to what those of the others do."""
        assert self.weights is not None
        assert whole.weights is not None
        return replace(self, weights=self.weights * (whole.weights.sum() / self.weights.sum()))

    @property
    def repeated(self) -> bool:
        """Whether every state has two independent successors."""
        return self.after.ndim == 4


def _pairs(episode: Episode, delays: int, independent: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    states = np.asarray(episode[STATE], np.float64)
    weight = np.asarray(episode[WEIGHT], np.float64).reshape(-1) if WEIGHT in episode else None
    if NEXT in episode:
        if delays > 1:
            raise DataError(f"loose pairs ({NEXT}) hold no past: {delays} delays need trajectories.")
        after = np.asarray(episode[NEXT], np.float64)
        if after.shape[-1:] != states.shape[-1:] or after.ndim not in (2, 3) or (after.ndim == 3 and after.shape[1] != 2):
            raise DataError(
                f"{episode}: {NEXT!r} is (d,) or, for two independent successors, (2, d), with the d = {states.shape[-1]} of "
                f"{STATE!r}; got {list(after.shape[1:])}."
            )
        successors = torch.from_numpy(after)[:, None] if after.ndim == 2 else torch.from_numpy(after).movedim(1, 0)[:, :, None]
        return torch.from_numpy(states)[:, None], successors, None if weight is None else torch.from_numpy(weight)
    if independent:
        raise DataError(f"independent samples need their successors in {NEXT!r}; these recordings have {', '.join(episode)}.")
    _refuse_boundaries(episode)
    before, after = delay_pairs(states, delays)
    sound = np.ones(len(before), bool)
    if VALID + STATE in episode:
        valid = np.asarray(episode[VALID + STATE], bool).reshape(episode.length, -1)
        sound = np.asarray(hankel(valid, delays + 1).all(axis=(1, 2)))
    kept = torch.from_numpy(np.flatnonzero(sound))
    weights = None if weight is None else torch.from_numpy(weight[delays - 1 : -1][sound])
    return torch.from_numpy(before.copy())[kept], torch.from_numpy(after.copy())[kept], weights


def _refuse_boundaries(episode: Episode) -> None:
    """A clock that jumps or a frame count that starts again says that several trajectories were put end to end."""
    for name in ("timestamp", "frame_index"):
        if name in episode:
            steps = np.diff(np.asarray(episode[name], np.float64).reshape(-1))
            usual = np.median(steps) if len(steps) else 1.0
            off = np.abs(steps - usual) > 1e-3 * abs(usual) + 1e-9
            if usual <= 0 or off.any():
                row = int(off.argmax())
                raise DataError(
                    f"{episode}: trajectory boundary at row {row}: pair crosses episodes ({name} goes on by {steps[row]:.6g}, "
                    f"not by {usual:.6g}); give each trajectory as an episode of its own, equally spaced in time."
                )


def _blocks(lengths: list[int], independent: bool) -> Tensor:
    """Episodes as blocks where there are many; pieces of few long ones; loose samples in any groups."""
    total = sum(lengths)
    if not independent and len(lengths) >= WANTED_BLOCKS // 2:
        return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    piece = max(total // (10 * WANTED_BLOCKS if independent else WANTED_BLOCKS), 1)
    numbers, first = [], 0
    for length in lengths:
        numbers.append(first + torch.arange(length) // piece)
        first = int(numbers[-1][-1]) + 1
    return torch.cat(numbers)


def halves(recordings: Recordings, share: float, seed: int) -> tuple[Recordings, Recordings]:
    """What to fit on and what to certify with: whole episodes apart, or the end of the only one."""
    if len(recordings) > 1 or recordings.independent:
        return recordings.split(share, seed)
    episode = recordings[0]
    _refuse_boundaries(episode)
    cut = round(episode.length * (1 - share))
    if min(cut, episode.length - cut) < 3:
        raise DataError(f"{episode} has {episode.length} steps, too few to hold some out; give more, or certificate='exact'.")
    return recordings.of([episode.at(np.arange(cut))]), recordings.of([episode.at(np.arange(cut, episode.length))])


def fingerprints(recordings: Recordings) -> tuple[str, ...]:
    """What tells the states of one episode from those of any other."""
    return tuple(hashlib.sha1(np.ascontiguousarray(episode[STATE]).tobytes()).hexdigest() for episode in recordings)


def check_weights(pairs: Pairs, domain: tuple[tuple[float, float], ...]) -> None:
    """Raise DataError unless weights sum to one or to the size of the domain; warn where equal ones are not uniform in it."""
    size = float(np.prod([high - low for low, high in domain])) if domain else 1.0
    if pairs.weights is not None:
        total = float(pairs.weights.sum())
        if min(abs(total - 1), abs(total - size) / size) > 1e-3:
            wanted = "1" if size == 1 else f"1 or to the size {size:.6g} of the domain"
            raise DataError(f"quadrature weights (sample.weight) sum to {total:.6g}; they should sum to {wanted}: rescale them.")
    elif domain:
        for i, (low, high) in enumerate(domain):
            if kstest(pairs.before[:, -1, i].numpy(), "uniform", (low, high - low)).pvalue < 1e-4:
                warnings.warn(
                    f"coordinate {i} is not sampled uniformly over [{low:g}, {high:g}] and no weights were given: the residual "
                    "is in L²(sampling measure).",
                    stacklevel=4,
                )
                return


def fill_distance(states: Tensor, domain: tuple[tuple[float, float], ...]) -> float:
    """A bound on how far any point of the domain is from the nearest of states (M, d), from a fine set of probes."""
    low, high = np.array(domain).T
    d = len(low)
    per_axis = max(round(min(4.0 * len(states), 2e6) ** (1 / d)), 2)
    axes = [np.linspace(a, b, per_axis) for a, b in domain]
    probes = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, d)
    slack = float(np.linalg.norm((high - low) / (per_axis - 1) / 2))
    return float(cKDTree(states.numpy()).query(probes)[0].max()) + slack
