"""The DeepMind control suite: bodies that are pushed and turned by motors (Tassa et al., 2018), in pictures or in numbers."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from retrodict.errors import DataError, require
from retrodict.trajectories import ActionSpace, Box, Feature
from retrodict.trajectories.features import STATE
from retrodict.worlds.catalogue import unknown
from retrodict.worlds.players import Shaky
from retrodict.worlds.rendering import Renderer, View, offscreen, visual_features
from retrodict.worlds.world import Observation, Player, World

#: The ones that are listed; every task of the suite can be made, as `domain-task`.
NAMES = ("acrobot-swingup", "cartpole-swingup", "humanoid-stand", "point_mass-easy", "reacher-easy", "reacher-hard")


def make(name: str, **options: Any) -> World:
    """A task of the suite; see `Suite` for the options, and `point_mass.PointMass` for those of the point mass."""
    if name == "point_mass-easy":
        from retrodict.worlds.point_mass import PointMass  # which is a `Suite`

        return PointMass(name, **options)
    return Reacher(name, **options) if name.startswith("reacher-") else Suite(name, **options)


class Suite(World):
    """One task of the suite.

    What the suite calls its observation is hidden truth here, `privileged.<entry>`, as a picture shows it; where there is no
    camera it is what is seen, `observation.state`.

    Args:
        name: domain and task, such as `cartpole-swingup`.
        camera: a camera of the task's model; None plays in numbers only, without drawing anything.
        size: (height, width) of the pictures.
        repeat: steps of the task for each action.
        depth: give `observation.depth.<camera>` in metres as well.
        hide: what is not drawn, see `Renderer`.
        scale: name of an array of the MuJoCo model (`body_mass`, `dof_damping`, `actuator_gear`, ...) -> factor on all of it.
        steps: length of an episode in actions; None leaves it to the task's own time limit.
        privileged: give the suite's observation as `privileged.*` beside the pictures.

    Raises DataError where the suite has no such task.
    """

    def __init__(
        self,
        name: str,
        *,
        camera: str | None = "fixed",
        size: tuple[int, int] = (64, 64),
        repeat: int = 1,
        depth: bool = False,
        hide: tuple[str, ...] = (),
        scale: Mapping[str, float] | None = None,
        steps: int | None = None,
        privileged: bool = True,
    ) -> None:
        if repeat < 1 or (steps is not None and steps < 1):
            raise DataError(f"repeat and steps are at least 1; got {repeat} and {steps}.")
        offscreen()  # before anything imports mujoco
        self.env = self.load(name, require("dm_control.suite", extra="robots"))
        self.physics, self.repeat, self.steps, self.size, self.depth = self.env.physics, repeat, steps, size, depth
        for array, factor in (scale or {}).items():
            if not isinstance(getattr(self.physics.model.ptr, array, None), np.ndarray):
                raise DataError(f"dm-control/{name}: the model has no array {array!r} to scale.")
            getattr(self.physics.model.ptr, array)[:] *= factor
        self.camera, self.hide = camera, hide
        self._renderer: Renderer | None = None
        first = self.env.reset().observation
        spec = self.env.action_spec()
        self.said = first
        features = self.state_features() if camera is None else visual_features((camera,), size, depth)
        truth = {f"privileged.{entry}": Feature("float32", (max(np.size(v), 1),)) for entry, v in first.items()}
        super().__init__(
            f"dm-control/{name}",
            features=features,
            actions=self.space(spec.shape[0]),
            fps=1 / (self.env.control_timestep() * repeat),
            task=name.replace("_", " ").replace("-", ", "),
            privileged={**truth, **self.more_truth()} if privileged else {},
        )
        if camera is not None:
            self.renderer  # noqa: B018 -- drawn in the thread that makes it; what is wrong with the camera is said now

    # ---- what a task of its own may say ------------------------------------------------------------------------------

    def load(self, name: str, suite: ModuleType) -> Any:
        """The suite's environment; raises DataError where it has none of this name."""
        domain, _, task = name.rpartition("-")
        if (domain, task) not in suite.ALL_TASKS:
            raise unknown(f"dm-control/{name}", (f"dm-control/{known}-{task}" for known, task in suite.ALL_TASKS))
        return suite.load(domain, task, task_kwargs={"random": 0})

    def space(self, motors: int) -> ActionSpace:
        """What the numbers of an action mean."""
        names = tuple(f"motor_{i}" for i in range(motors))
        return ActionSpace({"motors": Box(names, -1.0, 1.0, unit="share of the motor's range")}, leads=True, null=(0.0,) * motors)

    def more_truth(self) -> dict[str, Feature]:
        """Features of `truth` beside the suite's observation."""
        return {}

    def truth(self) -> dict[str, np.ndarray]:
        """Hidden truth beside the suite's observation."""
        return {}

    def state_features(self) -> dict[str, Feature]:
        """What is seen without a camera."""
        return {STATE: Feature("float32", (len(self.felt()),))}

    def felt(self) -> np.ndarray:
        """What is seen without a camera, (n,): the suite's observation."""
        return np.concatenate([np.ravel(value) for value in self.said.values()])

    def solved(self) -> bool | None:
        """Whether the task is solved as things stand; None where the suite has no such notion."""
        return None

    def control(self, action: np.ndarray) -> np.ndarray:
        """What all motors do for an action (width,)."""
        return action

    # ---- playing ------------------------------------------------------------------------------------------------------

    @property
    def renderer(self) -> Renderer:
        """Draws the scene; made when it is first asked for."""
        if self._renderer is None:
            assert self.camera is not None
            cameras = {self.camera: View(self.camera)}
            self._renderer = Renderer(self.physics.model.ptr, self.size, cameras, self.hide)
        return self._renderer

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self.env.task.random.seed(int(self.np_random.integers(2**31)))
        self.taken, self.gained = 0, 0.0
        self.begin()
        self.said = self.env.reset().observation
        return self._observation(), self._info()

    def begin(self) -> None:
        """Set what a new episode draws by itself, from `np_random`."""

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        low, high = self.env.action_spec().minimum, self.env.action_spec().maximum
        control = self.control(np.clip(self.checked(action), -1, 1))
        reward = 0.0
        for _ in range(self.repeat):
            step = self.env.step(low + (control + 1) / 2 * (high - low))
            reward += float(step.reward or 0.0)
            if step.last():
                break
        self.said, self.taken, self.gained = step.observation, self.taken + 1, self.gained + reward
        terminated = bool(step.last() and step.discount == 0)
        truncated = not terminated and bool(step.last() or self.taken == self.steps)
        return self._observation(), reward, terminated, truncated, self._info()

    def expert(self, seed: int = 0, noise: float = 0.0) -> Player:
        """Raises DataError: the point mass and the reacher have a scripted player, the rest of the suite has none."""
        raise DataError(f"{self.id} has no scripted player; dm-control/point_mass-easy and dm-control/reacher-* have one.")

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
        self.env.close()

    def _observation(self) -> Observation:
        if self.camera is None:
            return {STATE: self.felt().astype(np.float32)}
        return self.renderer.observe(self.physics.data.ptr, self.depth)

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = {"measures": {"reward": self.gained}, "privileged": {}}
        if (solved := self.solved()) is not None:
            info["success"] = solved
        if self.privileged:
            said = {f"privileged.{entry}": np.atleast_1d(np.asarray(v, np.float32)) for entry, v in self.said.items()}
            info["privileged"] = said | self.truth()
        return info


class Reacher(Suite):
    """A two-link arm in the plane, seen from above, that is to bring its finger to a target (solved: it touches it)."""

    def solved(self) -> bool:
        near = self.physics.named.model.geom_size[["target", "finger"], 0].sum()
        return bool(self.physics.finger_to_target_dist() <= near)

    def expert(self, seed: int = 0, noise: float = 0.0) -> Player:
        """Turns both joints to where the arm reaches the target, as springs with dampers would."""
        return Shaky(Springs(self), noise, seed)


class Springs(Player):
    """Inverse kinematics of the two links, then motors as springs and dampers; it plays in this world alone."""

    LINKS = (0.12, 0.12)  # metres
    STIFF, DAMPED = 4.0, 0.8

    def __init__(self, world: Reacher) -> None:
        self.world = world

    def reset(self) -> None:
        """It looks at the world itself."""

    def act(self, observation: Observation, info: Mapping[str, Any]) -> np.ndarray:
        physics = self.world.physics
        angles, speeds = np.array(physics.data.qpos), np.array(physics.data.qvel)
        x, y = physics.named.data.geom_xpos["target", :2]
        first, second = self.LINKS
        bend = np.arccos(np.clip((x**2 + y**2 - first**2 - second**2) / (2 * first * second), -1, 1))
        ways = []
        for wrist in (bend, -bend):
            shoulder = np.arctan2(y, x) - np.arctan2(second * np.sin(wrist), first + second * np.cos(wrist))
            off = np.array([shoulder, wrist]) - angles
            off[0] = (off[0] + np.pi) % (2 * np.pi) - np.pi
            ways.append(off)
        off = min(ways, key=lambda way: float(np.abs(way).sum()))
        return np.asarray(np.clip(self.STIFF * off - self.DAMPED * speeds, -1, 1), np.float32)


def domain(name: str) -> ModuleType:
    """A domain of the suite, such as `point_mass`, as a module."""
    require("dm_control.suite", extra="robots")
    return importlib.import_module(f"dm_control.suite.{name}")
