"""MiniGrid: small rooms seen from above, with tasks in words (Chevalier-Boisvert et al., 2023) and the bot that solves BabyAI's.

An action without a visible effect (walking into a wall, picking up nothing) cannot be told from its frames: score inverse models
on the steps whose effect is seen, which `privileged.changed` says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import gymnasium
import numpy as np

from retrodict.errors import DataError, require
from retrodict.trajectories import ActionSpace, Discrete, Feature
from retrodict.worlds.catalogue import unknown
from retrodict.worlds.players import Noisy
from retrodict.worlds.world import Observation, Player, Unplayable, World

#: The ones that are listed; every environment that MiniGrid registers can be made.
NAMES = (
    "BabyAI-GoToLocal-v0",
    "BabyAI-GoToObjMaze-v0",
    "BabyAI-KeyCorridorS3R3-v0",
    "BabyAI-OpenDoor-v0",
    "BabyAI-PickupLoc-v0",
    "BabyAI-PutNextLocal-v0",
    "BabyAI-Synth-v0",
    "BabyAI-UnlockPickup-v0",
    "MiniGrid-DoorKey-8x8-v0",
    "MiniGrid-FourRooms-v0",
)
ACTIONS = ActionSpace(
    {"move": Discrete(("left", "right", "forward", "pickup", "drop", "toggle", "done"))}, mode="delta", leads=True, null=(6.0,)
)
PLANS = 10_000  # in one decision; a bot that finds its way makes some tens


def make(name: str, **options: Any) -> World:
    """A MiniGrid or BabyAI environment; see `Grid` for the options."""
    return Grid(name, **options)


class Grid(World):
    """One environment of MiniGrid, seen in pixels.

    Args:
        name: MiniGrid's own name for it, such as `BabyAI-GoToLocal-v0`.
        view: `partial` shows the 7 x 7 fields before the player, `full` the whole map.
        tile: pixels of a field's side, so that the partial view is 56 x 56.
        privileged: give position, direction and whether the last action changed the view as `privileged.*`.

    Raises DataError when MiniGrid has no such environment.
    """

    def __init__(
        self, name: str, *, view: Literal["partial", "full"] = "partial", tile: int = 8, privileged: bool = True
    ) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        require("minigrid", extra="games")
        wrappers = require("minigrid.wrappers", extra="games")
        # It tells on standard output of every layout that it draws anew, where other commands' JSON goes.
        require("minigrid.envs.babyai.core.roomgrid_level", extra="games").print = lambda *_: None  # type: ignore[attr-defined]
        registered = [entry for entry in gymnasium.registry if entry.startswith(("MiniGrid-", "BabyAI-"))]
        if name not in registered:
            raise unknown(f"minigrid/{name}", (f"minigrid/{entry}" for entry in registered))
        if view not in ("partial", "full"):
            raise DataError(f"the views of a grid are partial and full; got {view!r}.")
        wrapper = wrappers.RGBImgPartialObsWrapper if view == "partial" else wrappers.RGBImgObsWrapper
        self.grid = wrapper(gymnasium.make(name, disable_env_checker=True), tile_size=tile)
        hidden = {
            "privileged.position": Feature("float32", (3,), ["x", "y", "direction"]),
            "privileged.changed": Feature("bool", (1,)),
        }
        shape = self.grid.observation_space["image"].shape
        super().__init__(
            f"minigrid/{name}",
            features={"observation.images.screen": Feature("video", shape, ["height", "width", "channels"])},
            actions=ACTIONS,
            fps=10,
            task=name,
            privileged=hidden if privileged else {},
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        raw, _ = self.grid.reset(seed=int(self.np_random.integers(2**31)))
        self.screen, self.steps, self.task = raw["image"], 0, raw["mission"]
        self.taken: int | None = None
        return {"observation.images.screen": self.screen}, self._info(changed=False, success=False)

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        chosen = int(ACTIONS.decode(self.checked(action))["move"])
        if not 0 <= chosen < 7:
            raise DataError(f"{self.id}: the moves are numbered 0 to 6 ({', '.join(ACTIONS.parts['move'].names)}); got {chosen}.")
        self.taken = chosen
        before = self.screen
        raw, reward, terminated, truncated, _ = self.grid.step(chosen)
        self.screen, self.steps = raw["image"], self.steps + 1
        info = self._info(changed=not np.array_equal(before, self.screen), success=float(reward) > 0)
        return {"observation.images.screen": self.screen}, float(reward), terminated, truncated, info

    def expert(self, seed: int = 0, noise: float = 0.0) -> Player:
        """The bot, which plays in this world alone: it plans on the grid itself.

        Raises DataError in an environment whose task BabyAI's bot does not know.
        """
        return Noisy(Bot(self), self.actions, noise, seed)

    def close(self) -> None:
        self.grid.close()

    def _info(self, changed: bool, success: bool) -> dict[str, Any]:
        info: dict[str, Any] = {"measures": {"steps": float(self.steps)}, "success": success, "privileged": {}}
        if self.privileged:
            inner = self.grid.unwrapped
            info["privileged"] = {
                "privileged.position": np.array([*inner.agent_pos, inner.agent_dir], np.float32),
                "privileged.changed": np.array([changed]),
            }
        return info


class Bot(Player):
    """BabyAI's bot in the world that it is asked about; another's action in between is taken into its plan."""

    def __init__(self, world: Grid) -> None:
        self.kind = require("minigrid.utils.baby_ai_bot", extra="games").BabyAIBot
        if not world.id.startswith("minigrid/BabyAI-"):
            raise DataError(f"{world.id} has no scripted player; those called BabyAI-... have one.")
        self.world = world
        self.bot: Any = None

    def reset(self) -> None:
        self.bot = None

    def act(self, observation: Observation, info: Mapping[str, Any]) -> np.ndarray:
        if self.bot is None:
            self.bot = self.kind(self.world.grid.unwrapped)
            self.bot.stack = Plan(self.bot.stack)
        self.bot.stack.plans = 0
        try:
            return np.array([self.bot.replan(self.world.taken)], np.float32)
        except Unplayable:
            raise
        except Exception as error:  # opened boxes, lost paths: it gives up in many ways
            raise Unplayable(f"the bot of {self.world.id} gave up ({type(error).__name__}: {error}).") from error


class Plan(list[Any]):
    """The bot's stack of intentions, which counts: on some maps the bot plans in circles for ever."""

    plans = 0

    def append(self, intention: Any) -> None:
        self.plans += 1
        if self.plans > PLANS:
            raise Unplayable(f"the bot made {PLANS} plans in one decision and found none that leads on.")
        super().append(intention)
