"""From one kind of file to another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from retrodict.errors import DataError
from retrodict.trajectories.stores import opening

FORMATS = ("lerobot", "minari")


def convert(
    source: str | Path,
    destination: str | Path,
    format: Literal["lerobot", "minari"] = "lerobot",
    *,
    overwrite: bool = False,
    show: Callable[[str], None] | None = None,
    **options: Any,
) -> list[str]:
    """Open recordings, show what was guessed, and write them in another format; returns the guesses.

    The origin (path, format, guesses) goes along in `meta["origin"]`. Nothing is written or overwritten where the source is bad.

    Args:
        source: what `retrodict.open` opens.
        destination: the folder to write; it appears whole or not at all.
        format: `lerobot` (LeRobotDataset v3.0) or `minari`.
        overwrite: replace a dataset of that format that is at the destination.
        show: called with each sentence before anything is written; raising in it stops the conversion.
        options: for the reader of the source.

    Raises DataError where the source cannot be read, the destination is the source, or the format is not known.
    """
    if format not in FORMATS:
        raise DataError(f"no format is called {format!r}; recordings are written as {' or '.join(FORMATS)}.")
    if Path(source).resolve() == Path(destination).resolve():
        raise DataError(f"{destination} is the source itself; name another folder to write into.")
    recordings = opening.open(source, **options)
    taken = Path(destination).is_dir() and any(Path(destination).iterdir())
    if format == "minari" and taken and not overwrite:
        raise DataError(
            f"{destination} exists already; name another folder, or say overwrite=True, on the command line --overwrite."
        )
    sentences = list(recordings.meta[opening.GUESSED])
    if format == "minari":
        from retrodict.trajectories.stores import minari_writing  # slow to import, and `open` alone does not need it

        sentences += minari_writing.fills(recordings)
    for sentence in sentences:
        if show is not None:
            show(sentence)
    # What was guessed stands with the origin; the new dataset will be read without guessing.
    recordings = replace(recordings, meta={key: value for key, value in recordings.meta.items() if key != opening.GUESSED})
    if format == "minari":
        minari_writing.write(recordings, destination)
    else:
        recordings.save(destination, overwrite=overwrite)
    return sentences
