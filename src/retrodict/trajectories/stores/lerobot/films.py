"""The videos of a camera: those encoded for each episode joined into larger files, those of others linked as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retrodict.trajectories.stores.lerobot import layout
from retrodict.trajectories.stores.lerobot.staging import Film, Staging, link
from retrodict.trajectories.video import concatenate


def lay_out(staging: Staging, films: Sequence[Film | None], camera: str, out: Path, mb: float) -> list[tuple[int, int] | None]:
    """Put the video files of a camera into `out`; returns for each episode the number of its file and its first frame there."""
    places: list[tuple[int, int] | None] = []
    linked: dict[str, int] = {}
    joining: list[Path] = []
    joined, frames, size, files = -1, 0, 0, 0

    def target(number: int) -> Path:
        return out / layout.VIDEO.format(video_key=camera, **layout.place(number))

    def join() -> None:
        if len(joining) == 1:
            link(joining[0], target(joined))
        elif joining:
            concatenate(joining, target(joined))
        joining.clear()

    for film in films:
        if film is None:
            places.append(None)
        elif film.linked:
            if film.path not in linked:
                linked[film.path], files = files, files + 1
                link(Path(film.path), target(linked[film.path]))
            places.append((linked[film.path], film.start))
        else:
            path = staging.path / film.path
            bytes_ = path.stat().st_size
            if not joining or size + bytes_ > mb * 2**20:
                join()
                joined, frames, size, files = files, 0, 0, files + 1
            joining.append(path)
            places.append((joined, frames))
            frames, size = frames + film.frames, size + bytes_
    join()
    return places
