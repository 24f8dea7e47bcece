"""Gymnasium's environments of bodies and numbers: MuJoCo's runners, and the mazes and arms of Gymnasium-Robotics.

The player of a world is of graded quality (`quality` from 0, knows little, to 1, the best there is): for the runners a linear
policy that a random search passed on its way (Mania et al., 2018), for mazes and arms a controller whose gains are weaker.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from retrodict.errors import DataError, require
from retrodict.trajectories import ActionSpace, Box, Feature
from retrodict.trajectories.features import STATE
from retrodict.worlds.catalogue import unknown
from retrodict.worlds.gymnasium_players import Linear, Pusher, Reacher, Waypoints
from retrodict.worlds.players import Noisy
from retrodict.worlds.random_search import Snapshots, search
from retrodict.worlds.rendering import offscreen
from retrodict.worlds.world import Observation, Player, World

#: The ones that are listed; every registered environment of continuous actions and vectors of numbers can be made.
NAMES = (
    "FetchPush-v4",
    "FetchReach-v4",
    "HalfCheetah-v5",
    "Hopper-v5",
    "PointMaze_UMaze-v3",
    "Swimmer-v5",
)

#: Steps of the random search by which the player of a runner is found, where none is given.
SEARCHED = 2_400_000


def make(name: str, **options: Any) -> World:
    """An environment that Gymnasium knows; see `Agent` for the options."""
    return Agent(name, **options)


def known(name: str) -> bool:
    """Whether Gymnasium has this environment; Gymnasium-Robotics is asked only where it alone could."""
    if name not in gymnasium.registry and importlib.util.find_spec("gymnasium_robotics") is not None:
        gymnasium.register_envs(importlib.import_module("gymnasium_robotics"))
    return name in gymnasium.registry


class Agent(World):
    """One environment of Gymnasium, seen as numbers.

    `observation.state` is what the environment shows; where it shows a goal beside it, the wanted goal follows the observation.
    Actions beyond their range are clipped, as the motors do. `terminated` and `truncated` are the environment's own.

    Args:
        name: Gymnasium's own name for it, such as `HalfCheetah-v5`.
        quality: of the player that `expert` gives, from 0 to 1.
        tremble: deviation of the Gaussian noise in the player's actions, as a share of half their range.
        snapshots: policies that `random_search.search` found (or its file), for the player of a runner; where not given, they
            are searched when first asked for, which takes some minutes, and kept in the cache folder.
        privileged: give positions and velocities of MuJoCo's bodies as `privileged.*`, which hold more than is shown.
        options: the environment's own (`xml_file` for another body, `healthy_reward`, `maze_map`, ...).

    Raises DataError when Gymnasium has no such environment, or one of another kind; MissingExtraError without MuJoCo.
    """

    def __init__(
        self,
        name: str,
        *,
        quality: float = 1.0,
        tremble: float = 0.0,
        snapshots: Snapshots | str | Path | None = None,
        privileged: bool = True,
        **options: Any,
    ) -> None:
        if not known(name):
            if name in NAMES:
                require("gymnasium_robotics", extra="robots")
            close = difflib.get_close_matches(name, gymnasium.registry, n=1)
            raise unknown(f"gymnasium/{name}", (f"gymnasium/{entry}" for entry in dict.fromkeys((*NAMES, *close))))
        if not 0 <= quality <= 1:
            raise DataError(f"the quality of a player lies between 0 and 1; got {quality}.")
        if _is_runner(name) or name.startswith(("PointMaze", "Fetch")):
            offscreen()
        self.name, self.quality, self.tremble, self.snapshots, self.options = name, quality, tremble, snapshots, options
        self.env = gymnasium.make(name, disable_env_checker=True, **options)
        shown, self.limits = self.env.observation_space, self.env.action_space
        self.goal = isinstance(shown, gymnasium.spaces.Dict) and {"observation", "desired_goal"} <= set(shown.spaces)
        parts: list[Any] = [shown["observation"], shown["desired_goal"]] if self.goal else [shown]  # type: ignore[index]
        if not all(isinstance(part, gymnasium.spaces.Box) and len(part.shape) == 1 for part in parts):
            raise DataError(f"gymnasium/{name} shows {shown}; vectors of numbers are read here.")
        if not isinstance(self.limits, gymnasium.spaces.Box) or len(self.limits.shape) != 1:
            raise DataError(f"gymnasium/{name} takes {self.limits}; continuous actions are played here.")
        inner: Any = self.env.unwrapped
        self.physics: Any = getattr(inner, "data", None) or getattr(getattr(inner, "point_env", None), "data", None)
        hidden = {}
        if privileged and self.physics is not None:
            for which in ("qpos", "qvel"):
                hidden[f"privileged.{which}"] = Feature("float64", getattr(self.physics, which).shape)
        step = getattr(inner, "dt", None)
        super().__init__(
            f"gymnasium/{name}",
            features={STATE: Feature("float32", (sum(part.shape[0] for part in parts),))},  # type: ignore[index]
            actions=ActionSpace({"motors": _motors(self.limits, getattr(inner, "model", None))}, mode="absolute", leads=True),
            fps=float(1 / step if step else self.env.metadata.get("render_fps", 30)),
            task=name,
            privileged=hidden,
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        shown, info = self.env.reset(seed=int(self.np_random.integers(2**31)))
        self.steps, self.start = 0, info.get("x_position")
        return self._observation(shown), self._info(info)

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        flat = np.clip(self.checked(action), self.limits.low, self.limits.high)  # type: ignore[attr-defined]
        shown, reward, terminated, truncated, info = self.env.step(flat)
        self.steps += 1
        return self._observation(shown), float(reward), bool(terminated), bool(truncated), self._info(info)

    def expert(self, seed: int = 0, noise: float = 0.0) -> Player:
        """The player of this world's quality.

        Raises DataError in an environment that nobody here knows how to play.
        """
        return Noisy(self._player(seed), self.actions, noise, seed)

    def render(self) -> Any:
        return self.env.render()

    def close(self) -> None:
        self.env.close()

    def _player(self, seed: int) -> Player:
        inner: Any = self.env.unwrapped
        if self.name.startswith("PointMaze"):
            return Waypoints(inner.maze, self.actions, self.quality, self.tremble, seed)
        if self.name.startswith(("FetchReach", "FetchPush")):
            kind = Reacher if self.name.startswith("FetchReach") else Pusher
            return kind(self.actions, self.quality, self.tremble, seed)
        if not _is_runner(self.name):
            raise DataError(f"{self.id} has no player; there are ones for mazes, FetchReach, FetchPush and MuJoCo's runners.")
        return Linear(self._found().at(self.quality), self.actions, self.tremble, seed)

    def _found(self) -> Snapshots:
        if isinstance(self.snapshots, Snapshots):
            return self.snapshots
        if self.snapshots is not None:
            return Snapshots.load(Path(self.snapshots))
        home = Path(os.environ.get("RETRODICT_CACHE") or Path.home() / ".cache" / "retrodict")
        described = repr(sorted(self.options.items()))  # another body, or another reward, has another player
        which = f"-{hashlib.sha256(described.encode()).hexdigest()[:12]}" if self.options else ""
        return search(self.name, home / "players" / f"{self.name}{which}.npz", steps=SEARCHED, **self.options)

    def _observation(self, shown: Any) -> Observation:
        state = np.concatenate([shown["observation"], shown["desired_goal"]]) if self.goal else shown
        return {STATE: np.asarray(state, np.float32)}

    def _info(self, info: Mapping[str, Any]) -> dict[str, Any]:
        measures = {"steps": float(self.steps)}
        if self.start is not None:
            measures["distance"] = float(info["x_position"] - self.start)
        made: dict[str, Any] = {"measures": measures, "privileged": {}}
        for name in self.privileged:
            made["privileged"][name] = getattr(self.physics, name.removeprefix("privileged.")).copy()
        if "success" in info or "is_success" in info:
            made["success"] = bool(info.get("success", info.get("is_success")))
        return made


def _is_runner(name: str) -> bool:
    return "mujoco" in str(gymnasium.spec(name).entry_point)


def _motors(limits: gymnasium.spaces.Box, model: Any) -> Box:
    """The motors of a body: their names, and the range that they share.

    Raises DataError where they have none in common.
    """
    low, high = float(limits.low.min()), float(limits.high.max())
    if not (np.isfinite([low, high]).all() and (limits.low == low).all() and (limits.high == high).all()):
        raise DataError(f"actions from {limits.low.tolist()} to {limits.high.tolist()} have no one finite range.")
    return Box(_names(model, limits.shape[0]), low, high)


def _names(model: Any, width: int) -> tuple[str, ...]:
    """Names of the motors, or of the joints that they turn; numbers where the model has neither."""
    if model is None or model.nu != width:
        return tuple(f"motor_{i}" for i in range(width))
    joints = [model.joint(int(model.actuator_trnid[i, 0])).name for i in range(width)]
    return tuple(model.actuator(i).name or joints[i] or f"motor_{i}" for i in range(width))
