"""`retrodict convert`: from one kind of recordings to another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from retrodict.cli import show
from retrodict.cli.arguments import UNSAID, ReadingOptions, Recorded, parse


def run(argv: Sequence[str]) -> None:
    parse(convert, argv, "convert")


def convert(
    source: Recorded,
    destination: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")],
    /,
    format: Literal["lerobot", "minari"] = "lerobot",
    reading: ReadingOptions = UNSAID,
    overwrite: bool = False,
    dry_run: bool = False,
) -> None:
    """Write recordings of any kind as a LeRobotDataset v3.0, or as a Minari dataset.

    What had to be guessed (which column is the clock, which make up the action, ...) is said before anything is written; the
    options say it instead. The folder appears whole or not at all, and the origin of the recordings goes along.

    Example: retrodict convert robot_videos dataset --time seconds --action-columns left right

    Args:
        source: file or folder; `retrodict info` says what can be opened.
        destination: folder to write.
        format: lerobot or minari.
        reading: how the source is read.
        overwrite: replace a dataset of that format that is at FOLDER.
        dry_run: say what is guessed and write nothing.
    """
    from retrodict.trajectories import stores

    if dry_run:
        guessed = stores.open(source, **reading.options).meta["guessed"]
        for sentence in guessed or ["nothing has to be guessed."]:
            show.say(f"guessed: {sentence}" if guessed else sentence)
        return
    stores.convert(
        source,
        destination,
        format,
        overwrite=overwrite,
        show=lambda sentence: show.say(f"guessed: {sentence}"),
        **reading.options,
    )
    show.say(f"{source} stands in {destination} as a {'LeRobotDataset v3.0' if format == 'lerobot' else 'Minari dataset'}.")
