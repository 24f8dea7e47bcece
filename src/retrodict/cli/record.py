"""`retrodict record`: episodes of a game or simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import tyro

from retrodict.cli import show
from retrodict.cli.arguments import Number, Out, Settings, parse, settings


def run(argv: Sequence[str]) -> None:
    parse(record, argv, "record")


def record(
    world: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WORLD", help_behavior_hint="")],
    /,
    out: Out,
    set: Settings = (),
    episodes: Number = 10,
    player: Literal["expert", "random"] = "expert",
    noise: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.1,
    seed: Number = 0,
    max_steps: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: the world's own end)")] = None,
    workers: Number = 1,
    no_truth: bool = False,
    overwrite: bool = False,
) -> None:
    """Record episodes, with video and actions, as a LeRobotDataset v3.0.

    Every episode is written as it ends; a run that was stopped carries on with the same command. Episode i depends on the seed
    and on i alone, however many workers there are.

    Example: retrodict record vizdoom/health-gathering --out play --episodes 40 --workers 2

    Args:
        world: name of the world; a name that does not exist lists them.
        out: folder to write.
        set: settings of the world, such as size=(96,96); what a world can be set to stands where its class is documented.
        episodes: how many.
        player: the world's scripted player (expert), or one who plays at random.
        noise: share of the expert's decisions that are random; in the control suite and Meta-World the deviation of what is added
            to its actions.
        seed: of the world and the player.
        max_steps: cut episodes off after so many decisions.
        workers: processes that play side by side.
        no_truth: leave out what only the simulator knows (privileged.*), which no system can learn from but scorers can.
        overwrite: replace a dataset that is at FOLDER.
    """
    from retrodict import worlds

    worlds.record(
        world,
        out,
        episodes,
        seed=seed,
        noise=noise,
        player=player,
        max_steps=max_steps,
        workers=workers,
        keep_privileged=not no_truth,
        overwrite=overwrite,
        **settings(set, record, worlds.record, worlds.make),
    )
    show.say(f"{show.count(episodes, 'episode')} of {world} in {out}; `retrodict info {out}` says what is in them.")
