"""`retrodict evaluate`: how well does a policy play?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import tyro

from retrodict.cli import show
from retrodict.cli.arguments import Number, Settings, at_least, parse, settings

if TYPE_CHECKING:
    from retrodict.roles import Policy


def run(argv: Sequence[str]) -> None:
    parse(evaluate, argv, "evaluate")


def evaluate(
    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL", help_behavior_hint="")],
    world: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WORLD", help_behavior_hint="")],
    /,
    set: Settings = (),
    episodes: Number = 20,
    first_seed: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: 1000000)")] = None,
    max_steps: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: the world's own end)")] = None,
    task: Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="(default: what the world says)")] = None,
    clip: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None,
    json: bool = False,
) -> None:
    """Play a policy in its world and say how well it does, each mean with a 95 % interval.

    The episodes are those of given seeds, so that every policy meets the same ones and two can be compared pair by pair.

    Example: retrodict evaluate policy vizdoom/health-gathering --episodes 50 --clip play.gif

    Args:
        model: folder of a fitted policy.
        world: name of the world; a name that does not exist lists them.
        set: settings of the world, such as tics=1000; those that it was recorded with, where a policy is to meet the same world.
        episodes: how many to play.
        first_seed: seed of the first episode; the others follow it.
        max_steps: cut episodes off after so many decisions.
        task: what to tell a policy that learned several tasks, in the words of its recordings.
        clip: write the first episode as the policy saw it to this .mp4, .gif or .webp file.
        json: print JSON.
    """
    from retrodict.reports import evaluation
    from retrodict.systems import System
    from retrodict.worlds import make

    at_least(1, episodes=episodes, max_steps=max_steps)
    policy = cast("Policy", System.load(model))
    chosen: dict[str, Any] = {} if first_seed is None else {"first_seed": first_seed}
    found = evaluation.evaluate(
        policy, world, episodes, max_steps=max_steps, task=task, clip=clip, **chosen, **settings(set, evaluate, make)
    )
    if json:
        show.as_json({"model": str(model), **found.to_json()})
        return
    show.say(f"{model} in {world}: {show.count(episodes, 'episode')} in {show.duration(found.episodes.seconds)}\n")
    rows = ((name, f"{e.value:.4g}", f"[{e.low:.4g}, {e.high:.4g}]") for name, e in found.estimates.items())
    show.table(("", "mean", "95 % interval"), rows, right=("mean",))
    if clip is not None:
        show.say(f"\nThe first episode is in {clip}.")
