"""Recording: a player plays a world and every episode is written as it ends, straight into a LeRobotDataset."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import track

from retrodict.errors import DataError
from retrodict.trajectories import ActionSpace, Feature
from retrodict.trajectories.features import ACTION, FINAL, PRIVILEGED
from retrodict.trajectories.stores import finals, lerobot
from retrodict.worlds.catalogue import make
from retrodict.worlds.players import RandomPlayer
from retrodict.worlds.remote import Local, Remote
from retrodict.worlds.world import Player, Unplayable, World

OUTCOME = {
    "next.reward": Feature("float32", (1,)),
    "next.terminated": Feature("bool", (1,)),
    "next.truncated": Feature("bool", (1,)),
    "next.done": Feature("bool", (1,)),
}


@dataclass(frozen=True)
class Played:
    """One episode as it was played.

    Attributes:
        values: feature -> array (T, *shape): what was seen, the action that followed, and `next.*` that came of it.
        task: what was to be done.
        meta: the world's seed and measures at the end, flat names -> numbers; and under `final` the numbers that were seen last,
            where the last action led (see `stores.finals`).
    """

    values: dict[str, np.ndarray]
    task: str
    meta: dict[str, Any]


def play(world: World, player: Player, seed: int, max_steps: int | None = None) -> Played:
    """Play one episode to its end, or for `max_steps`, where it counts as truncated."""
    observation, info = world.reset(seed=seed)
    player.reset()
    rows: list[dict[str, Any]] = []
    done = False
    while not done:
        action = world.checked(player.act(observation, info))
        row = {**observation, **info["privileged"], ACTION: action}
        observation, reward, terminated, truncated, info = world.step(action)
        truncated = truncated or (not terminated and len(rows) + 1 == max_steps)
        done = terminated or truncated
        outcome = (np.float32(reward), terminated, truncated, done)
        rows.append(row | dict(zip(OUTCOME, outcome, strict=True)))
    meta: dict[str, Any] = {"seed": seed, **{f"measures/{name}": value for name, value in info["measures"].items()}}
    if "success" in info:
        meta["success"] = bool(info["success"])
    if last := {name: finals.keep(observation[name]) for name, feature in world.features.items() if not feature.is_visual}:
        meta[FINAL] = last
    return Played({name: np.stack([row[name] for row in rows]) for name in rows[0]}, world.task, meta)


@dataclass(frozen=True)
class About:
    """What a worker says of the world that it plays."""

    features: Mapping[str, Feature]
    actions: ActionSpace
    fps: float


class Studio:
    """A world in a worker process, and who plays it there."""

    def __init__(self, id: str, options: Mapping[str, Any], who: str, seed: int, noise: float, max_steps: int | None) -> None:
        self.world = make(id, **options)
        self.who, self.seed, self.noise, self.max_steps = who, seed, noise, max_steps

    def about(self) -> About:
        world = self.world
        action = Feature("float32", (world.actions.width,), list(world.actions.names))
        return About({**world.features, ACTION: action, **OUTCOME, **world.privileged}, world.actions, world.fps)

    def play(self, episode: int) -> Played:
        """The episode of a number: a function of the seed and the number alone."""
        of_world, of_player = (int(s) for s in np.random.SeedSequence((self.seed, episode)).generate_state(2) >> 1)
        if self.who == "expert":
            player = self.world.expert(of_player, self.noise)
        else:
            player = RandomPlayer(self.world.actions, of_player)
        return play(self.world, player, of_world, self.max_steps)

    def close(self) -> None:
        self.world.close()


def record(
    world: str,
    out: str | Path,
    episodes: int,
    *,
    seed: int = 0,
    noise: float = 0.1,
    player: Literal["expert", "random"] = "expert",
    max_steps: int | None = None,
    workers: int = 1,
    keep_privileged: bool = True,
    progress: bool = True,
    overwrite: bool = False,
    codec: str = "libx264",
    **options: Any,
) -> Path:
    """Record episodes of a world as a LeRobotDataset v3.0 with video. Killed at any moment, the same call carries on.

    Episode i is a function of the seed and i, however many workers there are and however often it was interrupted. An episode
    that the player gives up is left out with a warning, so that there can be fewer than were asked for.

    Args:
        world: its name, as `make` takes it; `options` are the world's.
        out: folder of the dataset; must not exist, unless `overwrite`.
        episodes: how many.
        seed: of the worlds and the player.
        noise: share of the player's decisions that are random; in the control suite and Meta-World the deviation of what is
            added to its actions, which lie between -1 and 1. A random player has none.
        player: the world's scripted player, or one who plays at random.
        max_steps: cut episodes off after so many steps.
        workers: processes that play while this one encodes the video; 0 plays in this one, which starts sooner but leaves the
            engine of a game behind where it is killed.
        keep_privileged: write the hidden truth as `privileged.*`, for scorers.
        progress: show a bar where there is a terminal.
        codec: encoder of the videos.

    Raises DataError when an argument makes no sense, when the folder is taken, or when every episode was given up.
    """
    if episodes < 1 or workers < 0 or (max_steps is not None and max_steps < 1):
        raise DataError(f"episodes and max_steps start at 1, workers at 0; got {episodes}, {max_steps}, {workers}.")
    if player not in ("expert", "random"):
        raise DataError(f"the players are expert and random; got {player!r}.")
    if not 0 <= noise <= 1:
        raise DataError(f"noise is the share of random decisions, between 0 and 1; got {noise}.")
    how = {"world": world, "options": options, "seed": seed, "noise": noise, "player": player, "max_steps": max_steps}
    with ExitStack() as stack:
        arguments = (world, options, player, seed, noise, max_steps)
        studios: list[Remote | Local] = []
        for _ in range(min(workers or 1, episodes)):
            studios.append((Remote if workers else Local)(f"{__name__}:Studio", *arguments))
            stack.callback(studios[-1].close)
        studios[0].ask("about")
        about: About = studios[0].answer()
        features = {name: f for name, f in about.features.items() if keep_privileged or not name.startswith(PRIVILEGED)}
        writer = lerobot.Writer(
            out,
            features,
            about.fps,
            actions=about.actions,
            meta={"recorded": how},
            overwrite=overwrite,
            codec=codec,
            resume_as=json.dumps(how, default=str),
        )
        stack.enter_context(writer)
        bar = Console(stderr=True)
        shown = track(
            _played(studios, range(writer.done, episodes)),
            "recording",
            total=episodes,
            completed=writer.done,
            console=bar,
            disable=not (progress and bar.is_terminal),
        )
        for number, played in shown:
            if isinstance(played, Unplayable):
                warnings.warn(f"episode {number} is left out: {played}", stacklevel=2)
                writer.add_pieces([])
                continue
            values = {name: array for name, array in played.values.items() if name in features}
            writer.add(values, tasks=(played.task,), domain=world, meta=played.meta)
    return Path(out)


def _played(studios: Sequence[Remote | Local], numbers: range) -> Iterator[tuple[int, Played | Unplayable]]:
    """Episodes in order; each worker is one episode ahead at most, so that memory does not grow where writing is slower."""
    for number, studio in zip(numbers, studios, strict=False):
        studio.ask("play", number)
    for number in numbers:
        studio = studios[(number - numbers.start) % len(studios)]
        try:
            played: Played | Unplayable = studio.answer()
        except Unplayable as gave_up:
            played = gave_up
        if number + len(studios) < numbers.stop:
            studio.ask("play", number + len(studios))
        yield number, played
