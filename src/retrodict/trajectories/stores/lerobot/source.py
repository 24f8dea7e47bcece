"""What there is to write of an episode, in the cheapest form: videos as clips to link, images as encoded, text as Arrow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.trajectories.columns import Column, Slice
from retrodict.trajectories.episodes import Episode
from retrodict.trajectories.frames import Clip, EncodedImageColumn, VideoColumn
from retrodict.trajectories.recordings import Recordings
from retrodict.trajectories.stores.lerobot.text import ArrowColumn
from retrodict.trajectories.video import probe

FRAMES_AT_ONCE = 64
SAME_RATE = 5e-4  # LeRobot finds frames by time, so a video can be linked only if its frame rate is the recordings'


@dataclass(frozen=True)
class Frames:
    """Camera frames of a column, read some at a time."""

    column: Column
    start: int
    frames: int

    def __iter__(self) -> Iterator[np.ndarray]:
        for begin in range(self.start, self.start + self.frames, FRAMES_AT_ONCE):
            yield from self.column.take(np.arange(begin, min(begin + FRAMES_AT_ONCE, self.start + self.frames)))


def values_of(episode: Episode, recordings: Recordings) -> dict[str, Any]:
    """Feature -> what the episode has of it, as `Writer.add` takes it; `timestamp` and `task_index` among them."""
    values: dict[str, Any] = {}
    for name, where in episode.slices.items():
        feature, column = recordings.features.get(name), where.column
        if feature is not None and feature.is_visual:
            values[name] = _frames(where, episode.length, recordings.fps)
        elif isinstance(column, ArrowColumn):
            values[name] = column.values.slice(where.start, episode.length)
        else:
            values[name] = episode[name]
    return values


def cut(values: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    """The same values of the steps from `start` to `stop` (not included) only."""
    return {name: _cut(value, start, stop) for name, value in values.items()}


def _cut(value: Any, start: int, stop: int) -> Any:
    if isinstance(value, Clip):
        return Clip(value.path, value.start + start, stop - start)
    if isinstance(value, Frames):
        return Frames(value.column, value.start + start, stop - start)
    if isinstance(value, pa.ChunkedArray):
        return value.slice(start, stop - start)
    return value[start:stop]


def _frames(where: Slice, length: int, fps: float | None) -> Any:
    column = where.column
    if isinstance(column, EncodedImageColumn) and column.size == column.native:
        items = [column.items[row] for row in range(where.start, where.start + length)]
        return [Path(item) if isinstance(item, str) else item for item in items]
    if isinstance(column, VideoColumn) and column.size == column.native:
        starts = _clip_starts(column)
        number = int(np.searchsorted(starts, where.start, side="right")) - 1
        clip, skipped = column.clips[number], where.start - int(starts[number])
        if skipped + length <= clip.frames and Path(clip.path).suffix == ".mp4" and fps:
            rate = probe(clip.path).fps
            if abs(rate - fps) <= SAME_RATE * fps:
                return Clip(clip.path, clip.start + skipped, length)
    return Frames(column, where.start, length)


@lru_cache(maxsize=16)
def _clip_starts(column: VideoColumn) -> np.ndarray:
    return np.cumsum([0, *(clip.frames for clip in column.clips)])
