"""What we write opens in the real Minari with equal values; what Minari writes, in each of its formats, opens here.

Usage: python interop/minari_check.py        prints a line for each check; exit status 1 where one fails
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import retrodict
from retrodict.trajectories.stores import minari as store

EPISODES = 5


def main() -> int:
    """Run every check in a fresh folder of datasets."""
    warnings.filterwarnings("ignore", module="minari")
    failed = 0
    with tempfile.TemporaryDirectory() as root:
        os.environ["MINARI_DATASETS_PATH"] = root
        import minari  # reads the variable when it looks for a dataset; the extra `interop` brings it

        print(f"minari {minari.__version__}, retrodict {retrodict.__version__}")
        for name, check in checks(Path(root), minari):
            try:
                check()
            except Exception as error:  # a check that breaks is one that fails, and the others still run
                failed += 1
                print(f"FAILED  {name}: {type(error).__name__}: {error}")
            else:
                print(f"holds   {name}")
    return int(failed > 0)


def checks(root: Path, minari: Any) -> Iterator[tuple[str, Callable[[], None]]]:
    """Names of the checks, and what to call."""
    for id_ in ("CartPole-v1", "Pendulum-v1", "FrozenLake-v1"):
        for data_format in ("hdf5", "arrow", "parquet"):
            yield (
                f"{id_} recorded by Minari ({data_format}) -> here -> Minari",
                lambda i=id_, f=data_format: played(root, minari, i, f),
            )
    yield "frames, several action parts and labels written here -> Minari -> here", lambda: written(root, minari)


def played(root: Path, minari: Any, id_: str, data_format: str) -> None:
    """Play at random, have Minari write it, read it, write it, and have Minari read that and make the environment again."""
    env = gymnasium.make(id_, max_episode_steps=30)
    source, copy = (f"{id_.split('-')[0].lower()}-{data_format}-{what}-v0" for what in ("played", "copied"))
    buffers = [play(env, minari, seed) for seed in range(EPISODES)]
    minari.create_dataset_from_buffers(source, buffers, env=env, data_format=data_format)
    recordings = retrodict.open(root / source)
    for episode, buffer in zip(recordings, buffers, strict=True):
        seen = episode["observation.state"]
        np.testing.assert_array_equal(seen.reshape(len(seen), -1), np.asarray(buffer.observations[:-1]).reshape(len(seen), -1))
        np.testing.assert_array_equal(episode["next.terminated"], buffer.terminations)
    store.write(recordings, root / copy)
    before, after = minari.load_dataset(source), minari.load_dataset(copy)
    assert (after.observation_space, after.action_space) == (before.observation_space, before.action_space)
    for a, b in zip(before.iterate_episodes(), after.iterate_episodes(), strict=True):
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert after.recover_environment().spec.id == id_
    assert len(after.sample_episodes(2)) == 2


def play(env: gymnasium.Env[Any, Any], minari: Any, seed: int) -> Any:
    """One episode of random actions as Minari's buffer."""
    observations, actions, rewards, terminations, truncations = [env.reset(seed=seed)[0]], [], [], [], []
    env.action_space.seed(seed)
    while not (terminations and (terminations[-1] or truncations[-1])):
        actions.append(env.action_space.sample())
        observation, reward, terminated, truncated, _ = env.step(actions[-1])
        observations.append(observation)
        rewards.append(float(reward))
        terminations.append(terminated)
        truncations.append(truncated)
    return minari.data_collector.EpisodeBuffer(
        observations=np.array(observations),
        actions=np.array(actions),
        rewards=rewards,
        terminations=terminations,
        truncations=truncations,
        infos={},
    )


def written(root: Path, minari: Any) -> None:
    """Write frames, composite actions and labels, and compare what Minari reads with what was written."""
    rng = np.random.default_rng(0)
    actions = retrodict.ActionSpace({"mouse": retrodict.Box(("dx", "dy"), -1.0, 1.0), "keys": retrodict.MultiBinary(("w", "a"))})
    episodes = [
        {
            "observation.images.screen": rng.integers(0, 255, (n, 64, 48, 3), dtype=np.uint8),
            "observation.state": rng.standard_normal((n, 3)).astype(np.float32),
            "action": np.concatenate([rng.uniform(-1, 1, (n, 2)), rng.integers(0, 2, (n, 2))], 1).astype(np.float32),
            "next.reward": rng.standard_normal(n),
            "label.phase": rng.integers(0, 3, n),
        }
        for n in (6, 9)
    ]
    recordings = retrodict.from_arrays(episodes, actions=actions, tasks=["one", "two"], fps=30)
    store.write(recordings, root / "written-v0")
    for true, seen in zip(episodes, minari.load_dataset("written-v0").iterate_episodes(), strict=True):
        np.testing.assert_array_equal(seen.observations["images.screen"][:-1], true["observation.images.screen"])
        np.testing.assert_array_equal(seen.observations["state"][:-1], true["observation.state"])
        np.testing.assert_array_equal(np.concatenate([seen.actions["mouse"], seen.actions["keys"]], 1), true["action"])
        np.testing.assert_array_equal(seen.rewards, true["next.reward"])
    again = retrodict.open(root / "written-v0")
    assert (again.features, again.actions, again.fps, again.tasks) == (recordings.features, actions, 30, ("one", "two"))
    for true, episode in zip(episodes, again, strict=True):
        for name, values in true.items():
            np.testing.assert_array_equal(episode[name], values)


if __name__ == "__main__":
    sys.exit(main())
