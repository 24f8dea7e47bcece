"""One episode on its way to disk: checked, turned into Arrow and video files, and counted into statistics."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from retrodict.errors import DataError
from retrodict.trajectories.features import ACTION, BOOKKEEPING, Feature
from retrodict.trajectories.frames import Clip
from retrodict.trajectories.stores.checks import check_finite
from retrodict.trajectories.stores.lerobot import arrow, stats
from retrodict.trajectories.stores.lerobot.layout import CLOCK
from retrodict.trajectories.stores.lerobot.staging import Film, Record, Staging
from retrodict.trajectories.video import decode, encode, probe

SAMPLED = 8  # encoded frames from which statistics are made where the source has none

Values = Mapping[str, Any]
"""Feature -> what an episode has of it: an array (T, *shape); for text a sequence or an Arrow array; for camera frames an
iterable of uint8 (H, W, C), for `video` also a `Clip` (linked, not encoded anew), for `image` also encoded bytes or paths."""


@dataclass(frozen=True)
class Piece:
    """An episode as it is handed to the writer; see `Writer.add`."""

    values: Values
    tasks: tuple[str, ...] = ()
    domain: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """Brings episodes of the given features into a staging folder."""

    features: Mapping[str, Feature]
    fps: float
    codec: str

    def __call__(self, piece: Piece, number: int, staging: Staging) -> Record:
        """Write the files of an episode; the addition becomes valid with `staging.finish`."""
        columns: dict[str, pa.Array] = {}
        films: dict[str, Film] = {}
        counted: dict[str, stats.Stats] = {}
        scalars = []
        where = f"episode {staging.done}"
        for name, given in piece.values.items():
            if name in BOOKKEEPING:
                continue
            feature = self.features.get(name)
            if feature is None:
                raise DataError(f"{where}: feature {name!r} was not announced; the writer knows {', '.join(self.features)}.")
            if feature.dtype == "video":
                target = staging.path / f"{staging.name(number, '')}-{name}.mp4"
                known = {key.rpartition("/")[2]: v for key, v in piece.meta.items() if key.startswith(f"stats/{name}/")}
                films[name], counted[name] = self._film(name, feature, given, target, known)
            elif feature.dtype == "image":
                watched = _Watched(given, feature, name)
                columns[name] = arrow.images(list(watched))
                counted[name] = watched.stats.result()
            elif feature.is_numeric:
                values = np.asarray(given)
                if name == ACTION:
                    check_finite(values, f"{where}: 'action'")
                columns[name] = arrow.numbers(values, feature, name)
                if -1 not in feature.shape:
                    counted[name] = stats.of_numbers(values)
                if values.ndim == 1:
                    scalars.append(name)
            else:
                columns[name] = arrow.texts(given, name)
        lengths = {name: len(column) for name, column in columns.items()} | {name: film.frames for name, film in films.items()}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise DataError(f"{where}: features need one common length above 0, got {lengths}.")
        length = next(iter(lengths.values()))
        columns["task_index"] = _task_index(piece, length, where)
        if (clock := self._own_clock(piece, length, where)) is not None:
            columns[CLOCK], counted[CLOCK] = pa.array(clock), stats.of_numbers(clock)
            scalars.append(CLOCK)
        table = staging.keep_table(pa.table(columns), number)
        return Record(
            table,
            length,
            features=tuple(name for name in columns if name not in BOOKKEEPING),
            scalars=tuple(scalars),
            tasks=piece.tasks,
            domain=piece.domain,
            meta={key: value for key, value in piece.meta.items() if not key.startswith("stats/")},
            films=films,
            stats=counted,
        )

    def _film(self, name: str, feature: Feature, given: Any, target: Path, known: stats.Stats) -> tuple[Film, stats.Stats]:
        if not isinstance(given, Clip):
            watched = _Watched(given, feature, name)
            frames = encode(watched, target, self.fps, self.codec).frames
            return Film(target.name, 0, frames, linked=False), watched.stats.result()
        info = probe(given.path)
        if given.start + given.frames > info.frames or (info.height, info.width) != feature.shape[:2]:
            raise DataError(
                f"{given.path} has {info.frames} frames of {info.height}x{info.width}; {given.frames} from {given.start} on, of "
                f"{feature.shape[0]}x{feature.shape[1]}, are wanted for {name!r}."
            )
        if known:
            counted = {**known, "count": [given.frames]}
        else:
            sample = stats.FrameStats(feature.shape[2])
            for frame in _spread(given.start, given.frames):
                sample.add(next(decode(given.path, frame, frame + 1, channels=feature.shape[2])))
            counted = sample.result()
        return Film(str(Path(given.path).resolve()), given.start, given.frames, linked=True), counted

    def _own_clock(self, piece: Piece, length: int, where: str) -> np.ndarray | None:
        """The episode's timestamps where they are not simply frame number / fps."""
        if "timestamp" not in piece.values:
            return None
        clock = np.asarray(piece.values["timestamp"], np.float64).reshape(-1)
        if len(clock) != length:
            raise DataError(f"{where}: 'timestamp' has {len(clock)} steps, the other features {length}.")
        check_finite(clock, f"{where}: 'timestamp'")
        return None if np.allclose(clock, np.arange(length) / self.fps, rtol=1e-6, atol=1e-6) else clock


class _Watched:
    """Frames or encoded images that pass by: their size is checked, their values are counted."""

    def __init__(self, items: Iterable[Any], feature: Feature, name: str) -> None:
        self.items = list(items) if isinstance(items, Iterator) and feature.dtype == "image" else items
        self.feature, self.name = feature, name
        self.stats = stats.FrameStats(feature.shape[-1])

    def __iter__(self) -> Iterator[Any]:
        sampled = set(_spread(0, len(self.items))) if isinstance(self.items, (list, tuple)) else set()
        for number, item in enumerate(self.items):
            if isinstance(item, np.ndarray):
                if item.dtype != np.uint8 or item.shape != self.feature.shape:
                    raise DataError(
                        f"frame {number} of {self.name!r} is {item.dtype} of shape {list(item.shape)}, "
                        f"uint8 of {list(self.feature.shape)} is expected."
                    )
                self.stats.add(item)
            elif number in sampled:
                with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item) as image:
                    pixels = np.array(image.convert("RGB" if self.feature.shape[-1] == 3 else "L"))
                self.stats.add(pixels.reshape(*pixels.shape[:2], -1))
            yield item


def _spread(start: int, frames: int) -> list[int]:
    return sorted({start + round(i * (frames - 1) / max(SAMPLED - 1, 1)) for i in range(SAMPLED)})


def _task_index(piece: Piece, length: int, where: str) -> pa.Array:
    """Position of each step's task in `piece.tasks`, int64 (T,)."""
    given = np.asarray(piece.values.get("task_index", np.zeros(length)), np.int64).reshape(-1)
    if len(given) != length or given.min() < 0 or given.max() >= max(len(piece.tasks), 1):
        raise DataError(f"{where}: 'task_index' needs {length} positions in its {len(piece.tasks)} task(s).")
    return pa.array(given)
