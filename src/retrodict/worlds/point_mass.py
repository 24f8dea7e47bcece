"""The point mass: a ball that is pushed about in a square, towards a goal that nobody sees, perhaps among others with their own.

The setting of inverse dynamics pretraining (Brandfonbrener et al., 2023): the goal is the hidden context of an episode.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories import ActionSpace, Box, Feature
from retrodict.trajectories.features import STATE
from retrodict.worlds.dm_control import Suite, domain
from retrodict.worlds.players import Shaky
from retrodict.worlds.world import Observation, Player

REACH = 0.29  # metres from the middle to which the ball can go, either way
NEAR = 0.05  # metres from the goal that count as there


class PointMass(Suite):
    """The suite's `point_mass-easy` with a goal of each episode's own, drawn from the whole square.

    Hidden truth is `privileged.position`, `.velocity` and `.goal` (2,), and the places of the others, `privileged.others` (n, 2).
    Without a camera, `observation.state` is place and speed of the ball, (4,).

    Args:
        name: `point_mass-easy`.
        goal: (x, y) in metres, the same in every episode; None draws one for each.
        target: show the goal as a ball.
        radius: of the balls, in metres; the suite's 0.01 is a dot of two pixels.
        others: balls of the same size, each of a new colour in every episode, that go to hidden goals of their own.
        noise: standard deviation of the noise on the others' pushes.
        steps, repeat, hide, options: those of `Suite`.
    """

    def __init__(
        self,
        name: str = "point_mass-easy",
        *,
        goal: tuple[float, float] | None = None,
        target: bool = False,
        radius: float = 0.04,
        others: int = 0,
        noise: float = 0.5,
        steps: int | None = 25,
        repeat: int = 10,
        hide: tuple[str, ...] = (),
        **options: Any,
    ) -> None:
        self.aim(goal)
        self.count, self.radius, self.noise = others, radius, noise
        self.goals = np.zeros((1 + others, 2))
        hide = hide if target else (*hide, "geom:target")
        super().__init__(name, steps=steps, repeat=repeat, hide=hide, **options)

    def load(self, name: str, suite: ModuleType) -> Any:
        point_mass = domain("point_mass")
        from dm_control.rl import control  # there, as its suite is

        xml, assets = point_mass.get_model_and_assets()
        physics = point_mass.Physics.from_xml_string(_with_others(xml, self.count, self.radius), assets)
        physics.named.model.geom_size["pointmass", 0] = self.radius
        task = point_mass.PointMass(randomize_gains=False, random=0)
        return control.Environment(physics, task, time_limit=float("inf"))

    def space(self, motors: int) -> ActionSpace:
        return ActionSpace({"push": Box(("x", "y"), -1.0, 1.0, unit="share of the motor's range")}, leads=True, null=(0.0, 0.0))

    def more_truth(self) -> dict[str, Feature]:
        others = {"privileged.others": Feature("float32", (self.count, 2))} if self.count else {}
        position = {f"privileged.{name}": Feature("float32", (2,), ["x", "y"]) for name in ("position", "velocity", "goal")}
        return {**position, **others}

    def truth(self) -> dict[str, np.ndarray]:
        places, speeds = self.places, np.array(self.physics.data.qvel).reshape(-1, 2)
        own = {"position": places[0], "velocity": speeds[0], "goal": self.goals[0]}
        named = {f"privileged.{name}": np.asarray(value, np.float32) for name, value in own.items()}
        return named | ({"privileged.others": places[1:].astype(np.float32)} if self.count else {})

    @property
    def places(self) -> np.ndarray:
        """Where the balls are, (1 + others, 2)."""
        return np.array(self.physics.data.qpos).reshape(-1, 2)

    def solved(self) -> bool:
        return bool(np.linalg.norm(self.places[0] - self.goals[0]) < NEAR)

    def aim(self, goal: tuple[float, float] | None) -> None:
        """Give the episodes to come this goal; None draws one for each."""
        if goal is not None and not all(abs(place) <= REACH for place in goal):
            raise DataError(f"the goal of a point mass lies within {REACH} of the middle, either way; got {goal}.")
        self.given = goal

    def begin(self) -> None:
        self.goals = self.np_random.uniform(-REACH, REACH, (1 + self.count, 2))
        if self.given is not None:
            self.goals[0] = self.given
        model = self.physics.named.model
        model.geom_pos["target", :2] = self.goals[0]
        for i in range(self.count):
            model.geom_rgba[f"other_{i}", :3] = self.np_random.uniform(0, 1, 3)

    def control(self, action: np.ndarray) -> np.ndarray:
        speeds = np.array(self.physics.data.qvel).reshape(-1, 2)
        pushes = pushed(self.goals, self.places, speeds)
        pushes = np.clip(pushes + self.noise * self.np_random.standard_normal(pushes.shape), -1, 1)
        pushes[0] = action
        return pushes.reshape(-1)

    def state_features(self) -> dict[str, Feature]:
        return {STATE: Feature("float32", (4,), ["x", "y", "vx", "vy"])}

    def felt(self) -> np.ndarray:
        return np.concatenate([self.places[0], np.array(self.physics.data.qvel[:2])])

    def _info(self) -> dict[str, Any]:
        info = super()._info()
        info["measures"]["distance"] = float(np.linalg.norm(self.places[0] - self.goals[0]))
        return info

    def expert(self, seed: int = 0, noise: float = 0.0) -> Player:
        """Pushes towards the goal and against its speed."""
        return Shaky(Pusher(self), noise, seed)


class Pusher(Player):
    """A proportional and derivative law; it knows the goal, and plays in this world alone."""

    def __init__(self, world: PointMass) -> None:
        self.world = world

    def reset(self) -> None:
        """It looks at the world itself."""

    def act(self, observation: Observation, info: Mapping[str, Any]) -> np.ndarray:
        world = self.world
        return pushed(world.goals[0], world.places[0], np.array(world.physics.data.qvel[:2])).astype(np.float32)


def pushed(goals: np.ndarray, places: np.ndarray, speeds: np.ndarray) -> np.ndarray:
    """The push of each ball towards its goal: clip(10 (goal - place) - speed) to [-1, 1]."""
    return np.asarray(np.clip(10 * (goals - places) - speeds, -1, 1))


def _with_others(xml: str | bytes, count: int, radius: float) -> str:
    """The suite's model with more balls of the same kind, each with joints, tendons and motors of its own."""
    root = ET.fromstring(xml)
    world, tendons, motors = (root.find(tag) for tag in ("worldbody", "tendon", "actuator"))
    assert world is not None
    assert tendons is not None
    assert motors is not None
    for i in range(count):
        body = ET.SubElement(world, "body", name=f"other_{i}", pos="0 0 .01")
        for axis, along in (("x", "1 0 0"), ("y", "0 1 0")):
            ET.SubElement(body, "joint", name=f"other_{i}_{axis}", type="slide", axis=along)
            fixed = ET.SubElement(tendons, "fixed", name=f"other_{i}_{axis}")
            ET.SubElement(fixed, "joint", joint=f"other_{i}_{axis}", coef="1")
            ET.SubElement(motors, "motor", name=f"other_{i}_{axis}", tendon=f"other_{i}_{axis}")
        ET.SubElement(body, "geom", name=f"other_{i}", type="sphere", size=str(radius), mass=".3")
    return ET.tostring(root, encoding="unicode")
