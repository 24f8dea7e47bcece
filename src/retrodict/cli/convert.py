"""`retrodict convert`: from one kind of recordings to another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from retrodict.cli import show
from retrodict.cli.arguments import Recorded, parse

Column = Annotated[str | None, tyro.conf.arg(metavar="COLUMN")]


def run(argv: Sequence[str]) -> None:
    parse(convert, argv, "convert")


def convert(
    source: Recorded,
    destination: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")],
    /,
    format: Literal["lerobot", "minari"] = "lerobot",
    time: Column = None,
    episode: Column = None,
    actions: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN ...")] = (),
    fps: Annotated[float | None, tyro.conf.arg(metavar="RATE")] = None,
    nan_is_missing: bool = False,
    dry_run: bool = False,
) -> None:
    """Write recordings of any kind as a LeRobotDataset v3.0, or as a Minari dataset.

    What had to be guessed (which column is the clock, which make up the action, ...) is said before anything is written; the
    options say it instead. The folder appears whole or not at all, and the origin of the recordings goes along.

    Example: retrodict convert robot_videos dataset --time seconds --actions left right

    Args:
        source: file or folder; `retrodict info` says what can be opened.
        destination: folder to write.
        format: lerobot or minari.
        time: column of a table or log that is its clock; `none` where there is none.
        episode: column of a table that numbers or names the episodes.
        actions: columns of a table or log that make up the action.
        fps: steps per second, for files that do not say.
        nan_is_missing: take empty cells and NaN for missing values, instead of refusing them.
        dry_run: say what is guessed and write nothing.
    """
    given = {"time": time, "episode": episode, "actions": actions or None, "fps": fps, "nan_is_missing": nan_is_missing or None}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    from retrodict.trajectories import stores

    if dry_run:
        guessed = stores.open(source, **options).meta["guessed"]
        for sentence in guessed or ["nothing has to be guessed."]:
            show.say(f"guessed: {sentence}" if guessed else sentence)
        return
    stores.convert(source, destination, format, show=lambda sentence: show.say(f"guessed: {sentence}"), **options)
    show.say(f"{source} stands in {destination} as a {'LeRobotDataset v3.0' if format == 'lerobot' else 'Minari dataset'}.")
