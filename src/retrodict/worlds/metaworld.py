"""Meta-World: a robot arm at a table, fifty tasks and a scripted player for each (Yu et al., 2019; version 3).

The hand is moved by offsets of its place, the gripper opened or closed. The arm is hidden from pictures, as drawing it takes most
of the time and shows nothing that the hand does not; so is the marker of the goal, which a camera on a table would not see.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from retrodict.errors import DataError, require
from retrodict.trajectories import ActionSpace, Box, Feature
from retrodict.trajectories.features import STATE
from retrodict.worlds.catalogue import unknown
from retrodict.worlds.players import Shaky
from retrodict.worlds.rendering import Renderer, View, offscreen, visual_features
from retrodict.worlds.world import Observation, Player, World

#: The ones that are listed; every task of Meta-World can be made.
NAMES = (
    *("reach", "push", "pick-place", "peg-insert-side", "button-press-topdown"),
    *("door-open", "drawer-open", "drawer-close"),
)


ACTIONS = ActionSpace(
    {
        "hand": Box(("dx", "dy", "dz"), -1.0, 1.0, unit="centimetres per step of 1/80 s"),
        "gripper": Box(("close",), -1.0, 1.0, unit="from open to closed"),
    },
    mode="delta",
    frame="base",
    leads=True,
)
RATE = 80  # steps of the simulator per second

#: The view across the table; at the model's own place an object is two or three pixels wide.
VIEWS = {"corner2": View("corner2", position=(0.75, 0.075, 0.7), turned=True)}

#: All of the arm but the hand: 51,000 of 67,000 faces.
ARM = (
    *("base", "pedestal*", "torso", "controller_box", "head", "screen", "head_camera", "right_arm_base_link"),
    *(f"right_l{i}*" for i in range(6)),
    "right_wrist",
)

TRUTH = {
    "privileged.hand": Feature("float32", (3,), ["x", "y", "z"]),
    "privileged.gripper": Feature("float32", (1,), ["opening"]),
    "privileged.object": Feature("float32", (3,), ["x", "y", "z"]),
    "privileged.goal": Feature("float32", (3,), ["x", "y", "z"]),
}


def make(name: str, **options: Any) -> World:
    """A task of Meta-World by its name there without the version, such as `door-open`; see `MetaWorld` for the options."""
    return MetaWorld(name, **options)


class MetaWorld(World):
    """One task of Meta-World, solved or cut off after `steps` of the simulator.

    Pictures go with `observation.state`, what the robot feels of itself: place of the hand (metres) and opening of the gripper
    (0 to 1). Places of the object and the goal are hidden truth. Without cameras `observation.state` is Meta-World's own of 39
    numbers, the goal included, and nothing is drawn.

    Args:
        name: the task.
        cameras: cameras of the model; none plays in numbers only.
        size: (height, width) of the pictures.
        repeat: steps of the simulator, 80 to a second, for each action.
        steps: steps of the simulator after which an episode is cut off, at most 500.
        depth: give `observation.depth.<camera>` in metres as well.
        arm, goal: show the arm, and the marker of the goal.
        hand: how far the hand starts from its usual place at most, in metres along each axis.
        wobble: how far cameras stand from their usual places at most, in metres along each axis, new for every episode.
        privileged: give the hidden truth.

    Raises DataError where Meta-World has no such task.
    """

    def __init__(
        self,
        name: str,
        *,
        cameras: Sequence[str] = ("corner2",),
        size: tuple[int, int] = (64, 64),
        repeat: int = 1,
        steps: int = 250,
        depth: bool = False,
        arm: bool = False,
        goal: bool = False,
        hand: float = 0.0,
        wobble: float = 0.0,
        privileged: bool = True,
    ) -> None:
        if repeat < 1 or not 1 <= steps <= 500:
            raise DataError(f"repeat is at least 1 and steps lie between 1 and 500; got {repeat} and {steps}.")
        offscreen()  # before anything imports mujoco
        known = require("metaworld.env_dict", extra="robots").ALL_V3_ENVIRONMENTS
        if f"{name}-v3" not in known:
            raise unknown(f"metaworld/{name}", (f"metaworld/{task.removesuffix('-v3')}" for task in known))
        self.env = _observable(known[f"{name}-v3"], f"{name}-v3")
        self.name, self.repeat, self.limit, self.depth, self.hand, self.wobble = name, repeat, steps, depth, hand, wobble
        self.rest = np.array(self.env.hand_init_pos)
        self.renderer: Renderer | None = None
        self.views = {camera: VIEWS.get(camera, View(camera)) for camera in cameras}
        if cameras:
            hidden = [*(f"body:{part}" for part in ARM if not arm), *(f"site:{site}" for site in self._markers() if not goal)]
            self.renderer = Renderer(self.env.model, size, self.views, hidden)
        felt = Feature("float32", (4,), ["x", "y", "z", "opening"]) if cameras else Feature("float32", (39,))
        super().__init__(
            f"metaworld/{name}",
            features={**visual_features(tuple(cameras), size, depth), STATE: felt},
            actions=ACTIONS,
            fps=RATE / repeat,
            task=name.replace("-", " "),
            privileged=TRUTH if privileged else {},
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self.env.seed(int(self.np_random.integers(2**31)))
        start = self.rest + self.np_random.uniform(-self.hand, self.hand, 3)
        self.env.hand_init_pos = np.clip(start, self.env.hand_low, self.env.hand_high)
        if self.renderer is not None and self.wobble:
            self.renderer.views = {camera: self._moved(view) for camera, view in self.views.items()}
        self.state, _ = self.env.reset()
        self.taken, self.solved = 0, False
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        flat = np.clip(self.checked(action), -1, 1)
        reward = 0.0
        for _ in range(min(self.repeat, self.limit - self.taken)):
            self.state, gained, _, _, said = self.env.step(flat)
            self.taken, reward, self.solved = self.taken + 1, reward + float(gained), bool(said["success"])
            if self.solved:
                break
        truncated = not self.solved and self.taken >= self.limit
        return self._observation(), reward, self.solved, truncated, self._info()

    def expert(self, seed: int = 0, noise: float = 0.0) -> Player:
        """Meta-World's scripted player; `noise` is added to the motion of the hand, not to the gripper."""
        return Shaky(Scripted(self), noise, seed, steady=1)

    def close(self) -> None:
        if self.renderer is not None:
            self.renderer.close()
        self.env.close()

    def _markers(self) -> list[str]:
        names = [self.env.model.site(i).name for i in range(self.env.model.nsite)]
        return [name for name in names if "goal" in name.lower()]

    def _moved(self, view: View) -> View:
        place = np.array(view.position if view.position is not None else self.env.model.camera(view.camera).pos)
        moved = place + self.np_random.uniform(-self.wobble, self.wobble, 3)
        return replace(view, position=(float(moved[0]), float(moved[1]), float(moved[2])))

    def _observation(self) -> Observation:
        if self.renderer is None:
            return {STATE: self.state.astype(np.float32)}
        return {**self.renderer.observe(self.env.data, self.depth), STATE: self.state[:4].astype(np.float32)}

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = {"measures": {"steps": float(self.taken)}, "success": self.solved, "privileged": {}}
        if self.privileged:
            parts = (self.state[:3], self.state[3:4], self.state[4:7], self.state[36:39])
            info["privileged"] = {name: part.astype(np.float32) for name, part in zip(TRUTH, parts, strict=True)}
        return info


class Scripted(Player):
    """The player that Meta-World ships for a task; it plays in this world alone, whose state it sees."""

    def __init__(self, world: MetaWorld) -> None:
        self.world = world
        warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high")  # it clips by itself, as is meant
        policies = require("metaworld.policies", extra="robots").ENV_POLICY_MAP
        self.policy = policies[f"{world.name}-v3"]()

    def reset(self) -> None:
        """It looks at the world itself."""

    def act(self, observation: Observation, info: Mapping[str, Any]) -> np.ndarray:
        return np.asarray(np.clip(self.policy.get_action(self.world.state), -1, 1), np.float32)


def _observable(kind: Any, name: str) -> Any:
    """The simulator of a task with the goal in its state, set up anew from its own generator at every reset."""
    env = kind()
    task = require("metaworld.types", extra="robots").Task
    env.set_task(task(name, pickle.dumps({"env_cls": kind, "rand_vec": None, "partially_observable": False})))
    env._freeze_rand_vec, env.seeded_rand_vec = False, True
    return env
