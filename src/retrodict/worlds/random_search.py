"""Augmented random search: linear policies found by trying directions (Mania, Guy, Recht, 2018, version V2-t).

It is here for what it passes on its way: a snapshot every few updates makes behaviour of every quality, from the first steps to
the best run, which is what recordings of learning agents look like.

Products are einsum's own, not a BLAS's, whose last digit depends on the processor: a search amplifies it, and the same seed would
find other policies on another machine.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import gymnasium
import numpy as np

from retrodict.errors import DataError


@dataclass(frozen=True)
class LinearPolicy:
    """action = weights (state - mean) / std, clipped by whoever plays it.

    Attributes:
        weights: (actions, states).
        mean, std: of the states that the search had met by then, (states,).
    """

    weights: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    def __call__(self, state: np.ndarray) -> np.ndarray:
        """The action (actions,) at a state (states,)."""
        return np.asarray(np.einsum("as,s->a", self.weights, (state - self.mean) / self.std))


@dataclass(frozen=True)
class Snapshots:
    """Policies in the order in which a search passed them.

    Attributes:
        weights: (S, actions, states); mean, std: (S, states).
        updates: the update after which each was taken, (S,).
        returns: mean return of each in its trials, (S,).
        steps: environment steps that the search had taken by then, (S,).
    """

    weights: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    updates: np.ndarray
    returns: np.ndarray
    steps: np.ndarray

    def __len__(self) -> int:
        return len(self.updates)

    def __getitem__(self, index: int) -> LinearPolicy:
        return LinearPolicy(self.weights[index], self.mean[index], self.std[index])

    def at(self, quality: float) -> LinearPolicy:
        """The policy whose return is nearest to this share (0 to 1) of the way from the worst to the best."""
        low, high = self.returns.min(), self.returns.max()
        return self[int(np.abs(self.returns - (low + quality * (high - low))).argmin())]

    @classmethod
    def load(cls, path: Path) -> Self:
        """What `search` wrote; raises DataError where the file is missing or holds something else."""
        try:
            with np.load(path) as file:
                return cls(**{field.name: file[field.name] for field in fields(cls)})
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{path} holds no policies of a random search ({error}).") from error


def search(
    name: str,
    path: Path,
    *,
    steps: int,
    every: int = 5,
    seed: int = 0,
    directions: int = 8,
    top: int = 4,
    step_size: float = 0.02,
    noise: float = 0.03,
    trials: int = 2,
    tremble: float = 0.0,
    **options: Any,
) -> Snapshots:
    """Search a linear policy of a Gymnasium environment; what was found by then is written at every snapshot, and gone on from.

    Args:
        name: of the environment; `options` are its own. Where it pays for going forward and for staying upright, the latter is
            left out of what is searched for, or standing still would be the best policy for long; the returns told have both.
        path: file of the snapshots.
        steps: of the environment, after which the search ends; the paper needs some hundred thousand to some million.
        every: updates between snapshots.
        directions, top, step_size, noise: directions tried per update, those that are followed, the length of a step, and how far
            the tries lie from the policy.
        trials: episodes by which the return of a snapshot is estimated.
        tremble: deviation of the noise on every action, as a share of half its range, in tries and trials alike: what is found
            so stands as much noise when it is recorded, where the best of still hands may fall over.

    Raises DataError when the file holds policies for another body.
    """
    env: Any = gymnasium.make(name, disable_env_checker=True, **options)
    limit, inner = env.spec.max_episode_steps, env.unwrapped
    shape = (*env.action_space.shape, *env.observation_space.shape)
    found = Snapshots.load(path) if path.exists() else _nothing(shape)
    if found.weights.shape[1:] != shape:
        raise DataError(f"{path} holds policies of shape {list(found.weights.shape[1:])}, {name} needs {list(shape)}.")
    weights, taken = np.zeros(shape), 0
    moments = np.stack([np.zeros(shape[1]), np.ones(shape[1])])  # mean and variance of the states met
    if len(found):
        weights, taken = found.weights[-1], int(found.steps[-1])
        moments = np.stack([found.mean[-1], found.std[-1] ** 2])
    update = int(found.updates[-1]) + 1 if len(found) else 0
    while taken < steps:
        rng = np.random.default_rng((seed, update))
        tries = rng.standard_normal((directions, *shape))
        starts = rng.integers(2**31, size=directions)
        std = np.where(moments[1] > 1e-14, moments[1] ** 0.5, np.inf)  # what never changes says nothing
        returns, states = np.empty((directions, 2)), []
        for i, (direction, start) in enumerate(zip(tries, starts.tolist(), strict=True)):
            for j, sign in enumerate((1, -1)):
                policy = LinearPolicy(weights + sign * noise * direction, moments[0], std)
                gained, upright, seen = _play(inner, policy, start, limit, tremble)
                returns[i, j] = gained - upright
                states.append(seen)
        best = np.argsort(returns.max(1))[::-1][:top]
        spread = returns[best].std() or 1.0
        better = np.einsum("i,ias->as", returns[best, 0] - returns[best, 1], tries[best])
        weights = weights + step_size / (top * spread) * better
        met = np.concatenate(states)
        moments, taken = _merged(moments, taken, met), taken + len(met)
        if (update + 1) % every == 0 or taken >= steps:
            std = np.where(moments[1] > 1e-14, moments[1] ** 0.5, np.inf)
            policy = LinearPolicy(weights, moments[0], std)
            value = np.mean([_play(inner, policy, s, limit, tremble)[0] for s in rng.integers(2**31, size=trials).tolist()])
            new = (weights, moments[0], std, update, value, taken)
            found = Snapshots(*(np.append(old, [row], 0) for old, row in zip(asdict(found).values(), new, strict=True)))
            _write(path, found)
        update += 1
    env.close()
    return found


def _play(env: Any, policy: LinearPolicy, seed: int, limit: int, tremble: float) -> tuple[float, float, np.ndarray]:
    """Return of an episode, the part of it that was paid for staying upright, and the states met (T, d)."""
    state, _ = env.reset(seed=seed)
    low, high = env.action_space.low, env.action_space.high
    noise = tremble * (high - low) / 2 * np.random.default_rng((seed, 1)).standard_normal((limit, len(low)))
    gained = upright = 0.0
    seen = []
    for shaken in noise:
        seen.append(state)
        state, reward, terminated, _, info = env.step(np.clip(np.clip(policy(state), low, high) + shaken, low, high))
        gained += float(reward)
        upright += float(info["reward_survive"]) if {"reward_survive", "reward_forward"} <= info.keys() else 0.0
        if terminated:
            break
    return gained, upright, np.array(seen)


def _merged(moments: np.ndarray, count: int, values: np.ndarray) -> np.ndarray:
    """Mean and variance (2, d) of `count` states and of further ones (n, d) together."""
    mean, variance, n = values.mean(0), values.var(0), len(values)
    together = count + n
    apart = mean - moments[0]
    merged = (moments[1] * count + variance * n + apart**2 * count * n / together) / together
    return np.stack([moments[0] + apart * n / together, merged])


def _nothing(shape: tuple[int, ...]) -> Snapshots:
    none = np.empty((0, shape[1]))
    return Snapshots(np.empty((0, *shape)), none, none, np.empty(0, int), np.empty(0), np.empty(0, int))


def _write(path: Path, snapshots: Snapshots) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.npz")
    np.savez(partial, **asdict(snapshots))
    partial.replace(path)
