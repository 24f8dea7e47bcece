"""ViZDoom: a real first-person game. Its package ships engine, maps and free textures, so nothing else is needed.

Health gathering: the floor of a maze burns, medikits (+20 health) and poisons (-30) keep appearing at random places. The map is
`health_gathering_supreme` of ViZDoom (Kempka et al., 2016); it is played with three buttons and the mouse.
"""

from __future__ import annotations

import tempfile
import weakref
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from retrodict.errors import DataError, require
from retrodict.trajectories import ActionSpace, Box, Feature, MuLaw, MultiBinary
from retrodict.worlds.catalogue import unknown
from retrodict.worlds.players import Noisy
from retrodict.worlds.vizdoom_player import FASTEST, MEDIKIT, OBJECTS, POISON, Gatherer
from retrodict.worlds.vizdoom_scenario import Supply, scenario
from retrodict.worlds.world import Observation, Player, World

NAMES = ("health-gathering", "health-gathering-hard")

#: What the original map gives, and a map in which medikits are few and poison is many: survival does not saturate there.
SUPPLY = {
    "health-gathering": Supply(medikits=30, poisons=2, interval=25),
    "health-gathering-hard": Supply(medikits=30, poisons=10, interval=40),
}
TICS_PER_SECOND = 35
KINDS = {"CustomMedikit": MEDIKIT, "Poison": POISON}

ACTIONS = ActionSpace(
    {
        "buttons": MultiBinary(("forward", "left", "right")),
        "mouse": Box(("turn",), -FASTEST, FASTEST, unit="degrees per tic, clockwise", quantiser=MuLaw(FASTEST, bins=11)),
    },
    mode="delta",
    frame="camera",
    leads=True,
    null=(0.0, 0.0, 0.0, 0.0),
)

# The engine puts a folder into the working directory unless its settings already say where these files are.
SETTINGS = "".join(f"[{game}.AutoExec]\nPath=none.cfg\n" for game in ("Doom", "Heretic", "Hexen", "Strife", "Chex"))


def make(name: str, **options: Any) -> World:
    """A health-gathering world; see `HealthGathering` for the options."""
    if name not in NAMES:
        raise unknown(f"vizdoom/{name}", (f"vizdoom/{known}" for known in NAMES))
    return HealthGathering(name, **options)


class HealthGathering(World):
    """Stay alive on a burning floor by finding medikits.

    `observation.images.screen` (64, 64, 3) is what a player sees; `observation.state` is the health that a status bar would show.
    An episode ends in death (terminated) or after `tics` (truncated). The engine is a process of its own, which ends with `close`
    or when this process ends, though not when this process is killed.

    Args:
        name: which supply of medikits and poison, of `NAMES`.
        size: (height, width) of the screen, scaled down from 120 x 160.
        skip: tics per decision, 35 tics being a second; a turn of d degrees per tic turns by `skip * d` in one decision.
        reward: `survival` counts the tics lived through, `medikits` gives 1 whenever health went up.
        tics: length of an episode at most.
        privileged: give position, heading and the objects in sight as `privileged.*`; halves the speed.
    """

    def __init__(
        self,
        name: str = "health-gathering",
        *,
        size: tuple[int, int] = (64, 64),
        skip: int = 4,
        reward: Literal["survival", "medikits"] = "survival",
        tics: int = 2100,
        privileged: bool = True,
    ) -> None:
        if reward not in ("survival", "medikits"):
            raise DataError(f"the rewards of this world are survival and medikits; got {reward!r}.")
        hidden = {
            "privileged.position": Feature("float32", (3,), ["x", "y", "heading"]),
            "privileged.objects": Feature("float32", (OBJECTS, 4), {"columns": ["kind", "offset", "width", "height"]}),
        }
        super().__init__(
            f"vizdoom/{name}",
            features={
                "observation.images.screen": Feature("video", (*size, 3), ["height", "width", "channels"]),
                "observation.state": Feature("float32", (1,), ["health"]),
            },
            actions=ACTIONS,
            fps=TICS_PER_SECOND / skip,
            task="stay alive: collect medikits, avoid poison",
            privileged=hidden if privileged else {},
        )
        self.size, self.skip, self.rewards, self.tics = size, skip, reward, tics
        self._folder = tempfile.TemporaryDirectory(prefix="retrodict-vizdoom-")
        self._game = self._start(scenario(SUPPLY[name], Path(self._folder.name)))
        self._close = weakref.finalize(self, self._game.close)  # before the folder goes, into which the engine writes at its end

    def _start(self, wad: Path) -> Any:
        vzd = require("vizdoom", extra="games")
        settings = Path(self._folder.name) / "engine.ini"
        settings.write_text(SETTINGS)
        game = vzd.DoomGame()
        game.set_doom_scenario_path(str(wad))
        game.set_doom_map("map01")
        game.set_doom_config_path(str(settings))
        game.set_mode(vzd.Mode.PLAYER)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_screen_resolution(vzd.ScreenResolution.RES_160X120)
        game.set_screen_format(vzd.ScreenFormat.RGB24)
        game.set_render_hud(False)
        game.set_render_screen_flashes(False)
        game.set_labels_buffer_enabled(bool(self.privileged))
        game.set_episode_timeout(0)  # counted here: the engine shows no frame after its own last tic
        button, variable = vzd.Button, vzd.GameVariable
        game.set_available_buttons([button.MOVE_FORWARD, button.MOVE_LEFT, button.MOVE_RIGHT, button.TURN_LEFT_RIGHT_DELTA])
        game.set_available_game_variables([variable.HEALTH, variable.POSITION_X, variable.POSITION_Y, variable.ANGLE])
        try:
            game.init()
        except (vzd.ViZDoomErrorException, vzd.ViZDoomUnexpectedExitException, vzd.FileDoesNotExistException) as error:
            raise DataError(f"the ViZDoom engine did not start: {error}") from error
        return game

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self._game.set_seed(int(self.np_random.integers(2**31)))
        self._game.new_episode()
        self._decisions = self._medikits = self._survived = 0
        self._look()
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        flat = self.checked(action)
        pressed = [float(button > 0.5) for button in flat[:3]]
        health = self._health
        skip = min(self.skip, self.tics - self._survived)
        self._game.make_action([*pressed, float(np.clip(flat[3], -FASTEST, FASTEST))], skip)
        terminated = bool(self._game.is_player_dead() or self._game.is_episode_finished())
        if not terminated:  # a dead man sees nothing: the last frame stands
            self._look()
        gained = not terminated and self._health > health
        self._decisions += 1
        self._medikits += gained
        self._survived += skip
        truncated = not terminated and self._survived >= self.tics
        reward = float(gained) if self.rewards == "medikits" else float(skip)
        return self._observation(), reward, terminated, truncated, self._info()

    def expert(self, seed: int = 0, noise: float = 0.1) -> Player:
        """The scripted player; it needs the world's hidden truth."""
        if not self.privileged:
            raise DataError(f"the player of {self.id} looks at hidden truth: make the world with privileged=True.")
        return Noisy(Gatherer(self.skip, seed), self.actions, noise, seed)

    def render(self) -> Any:
        """The screen at the engine's own size, (120, 160, 3)."""
        return self._screen

    def close(self) -> None:
        self._close()
        self._folder.cleanup()

    def _look(self) -> None:
        state = self._game.get_state()
        self._screen = state.screen_buffer
        self._health = float(state.game_variables[0])
        self._position = np.asarray(state.game_variables[1:], np.float32)
        self._labels = state.labels if self.privileged else ()

    def _observation(self) -> Observation:
        height, width = self.size
        small = Image.fromarray(self._screen).resize((width, height), Image.Resampling.BILINEAR)
        return {"observation.images.screen": np.asarray(small), "observation.state": np.array([self._health], np.float32)}

    def _info(self) -> dict[str, Any]:
        measures = {
            "tics": float(self._survived),
            "medikits": float(self._medikits),
            "medikits per 100 decisions": 100 * self._medikits / max(self._decisions, 1),
        }
        info: dict[str, Any] = {"measures": measures, "privileged": {}}
        if self.privileged:
            info["privileged"] = {"privileged.position": self._position, "privileged.objects": self._objects()}
        return info

    def _objects(self) -> np.ndarray:
        """Objects in sight, the widest first: kind, offset of the centre from the screen's (-1..1), width and height (shares)."""
        high, wide = self._screen.shape[:2]
        seen = [
            (KINDS[label.object_name], (2 * label.x + label.width) / wide - 1, label.width / wide, label.height / high)
            for label in self._labels
            if label.object_name in KINDS
        ]
        rows = np.zeros((OBJECTS, 4), np.float32)
        for row, values in zip(rows, sorted(seen, key=lambda entry: -entry[2]), strict=False):
            row[:] = values
        return rows
