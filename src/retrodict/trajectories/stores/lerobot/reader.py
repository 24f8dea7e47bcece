"""A LeRobotDataset folder (v3.0, or v2.0 and v2.1 in place) as recordings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retrodict.errors import DataError
from retrodict.files import write_text
from retrodict.trajectories.actions import ActionSpace
from retrodict.trajectories.columns import ArrayColumn, Column, Slice
from retrodict.trajectories.episodes import Episode
from retrodict.trajectories.features import ACTION, BOOKKEEPING, LATENT_ACTION, Feature
from retrodict.trajectories.frames import Clip, EncodedImageColumn, VideoColumn
from retrodict.trajectories.recordings import Recordings
from retrodict.trajectories.room import opened
from retrodict.trajectories.stores.gaps import with_gaps_marked
from retrodict.trajectories.stores.lerobot import layout
from retrodict.trajectories.stores.lerobot.extension import Extension
from retrodict.trajectories.stores.lerobot.images import ParquetImages
from retrodict.trajectories.stores.lerobot.index import entries as read_entries
from retrodict.trajectories.stores.lerobot.layout import CLOCK, Entry
from retrodict.trajectories.stores.lerobot.tables import File, Ragged, Stored, cache_folder, check_type, open_columns
from retrodict.trajectories.stores.stating import Stated, stated_space
from retrodict.trajectories.video import probe

KIND = "a LeRobotDataset folder (v3.0, v2.1 or v2.0)"

#: Keys of `info.json` that say how the dataset is laid out; whatever else stands there is `Recordings.meta`.
LAYOUT_KEYS = (
    "codebase_version", "total_episodes", "total_frames", "total_tasks", "total_chunks", "total_videos", "chunks_size", "fps",
    "data_files_size_in_mb", "video_files_size_in_mb", "splits", "data_path", "video_path", "features",
)  # fmt: skip


def recognises(path: Path) -> bool:
    """True for a folder with `meta/info.json`."""
    return (path / layout.INFO).is_file()


def read(path: str | Path, *, actions: Stated | None = None, nan_is_missing: bool = False) -> Recordings:
    """Recordings of a LeRobotDataset folder. No frame is decoded; numbers come memory-mapped from the cache folder.

    Numeric features of shape (1,) are scalars (T,) unless their entries have names or they are `action`, `latent.action` or
    `observation.*`, which are vectors (T, 1). Every episode has `timestamp` (T,) in seconds; one with several tasks has
    `task_index` (T,), counted in `episode.tasks`. Statistics of camera frames stand in `episode.meta` as `stats/<camera>/<name>`.

    Args:
        path: the folder.
        actions: what an action means, see `opening.open`, in place of what the dataset says.
        nan_is_missing: mark NaN and null numbers in `valid.<feature>` instead of refusing null ones and actions that are NaN;
            what is so throughout an episode is absent.

    Raises DataError when a file is missing or damaged, a column is not as `info.json` says, a video is too short, an action is
    NaN or null, or there are no episodes.
    """
    folder = Path(path)
    info = layout.read_info(folder)
    extension = Extension.read(folder)
    ours = extension or Extension()
    declared = {name: Feature.from_json(entry) for name, entry in info["features"].items()} | dict(ours.partial)
    cameras = [name for name, feature in declared.items() if feature.dtype == "video"]
    episodes, tasks = read_entries(folder, info, cameras)
    files = [File.open(data) for data in dict.fromkeys(entry.data for entry in episodes)]
    _check_rows(files, episodes)
    on_disk = {name: feature for name, feature in declared.items() if name not in ours.partial and feature.dtype != "video"}
    on_disk |= _undeclared(files, on_disk)
    sources = _from_parquet(folder, files, episodes, on_disk, ours, nan_is_missing)
    partial = (name for name in ours.partial if name not in cameras)
    sources |= {name: _from_partial(folder, name, ours, episodes, nan_is_missing) for name in partial}
    sources |= {name: _from_videos(name, declared[name], episodes) for name in cameras}

    features = {name: _seen_from_outside(name, feature, ours) for name, feature in (on_disk | declared).items()}
    scalars = ours.scalars if extension else tuple(name for name, feature in features.items() if _is_scalar(name, feature))
    sources |= {name: _squeezed(places) for name, places in sources.items() if name in scalars or name in BOOKKEEPING}
    made = tuple(
        _episode(entry, {name: places[i] for name, places in sources.items() if i in places}, tasks, folder)
        for i, entry in enumerate(episodes)
    )
    present = {name for episode in made for name in episode.slices}
    space = ours.actions or (ActionSpace.unknown(features[ACTION]) if ACTION in present else None)
    recordings = Recordings(
        {name: feature for name, feature in features.items() if name in present and name not in BOOKKEEPING},
        made,
        fps=ours.fps if extension else info["fps"],
        actions=space and stated_space(actions, space),
        independent=ours.independent,
        structures=ours.structures,
        meta={**{key: value for key, value in info.items() if key not in LAYOUT_KEYS and value is not None}, **ours.meta},
    )
    return with_gaps_marked(recordings) if nan_is_missing else recordings


def _episode(entry: Entry, slices: dict[str, Slice], tasks: list[str], folder: Path) -> Episode:
    if CLOCK in slices:
        slices["timestamp"] = slices.pop(CLOCK)
    if (own := slices.pop("episode_index", None)) is not None:
        ends = own.column.take(np.array([own.start, own.start + entry.length - 1]))
        if (ends != entry.index).any():
            last = entry.row + entry.length - 1
            raise DataError(f"{entry.data}: rows {entry.row} to {last} say episodes {ends.tolist()}, {entry.index} is expected.")
    index = slices.pop("task_index", None)
    if index is not None and len(entry.tasks) > 1:
        if unknown := set(entry.tasks) - set(tasks):
            raise DataError(f"{folder}: episode {entry.index} has the task {unknown.pop()!r}, which the list of tasks lacks.")
        place = np.full(len(tasks), -1)
        place[[tasks.index(text) for text in entry.tasks]] = np.arange(len(entry.tasks))
        slices["task_index"] = Slice(_Renumbered(index.column, place), index.start)
    return Episode(entry.index, entry.length, slices, entry.tasks, entry.domain, str(folder), entry.meta)


@dataclass(frozen=True)
class _Renumbered:
    """A column of numbers n, each replaced by `becomes[n]`."""

    column: Column
    becomes: np.ndarray

    def __len__(self) -> int:
        return len(self.column)

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        return np.take(self.becomes, self.column.take(rows), out=out)


def _from_parquet(
    folder: Path,
    files: Sequence[File],
    episodes: Sequence[Entry],
    features: Mapping[str, Feature],
    ours: Extension,
    nan_is_missing: bool,
) -> dict[str, dict[int, Slice]]:
    """Places (position of an episode -> where its rows lie) of every feature in files that hold the rows of whole episodes."""
    images = {name: feature for name, feature in features.items() if feature.dtype == "image"}
    numbers = {name: feature for name, feature in features.items() if name not in images}
    stored = open_columns(files, numbers, nan_is_missing=nan_is_missing)
    for name, feature in images.items():
        having = [file for file in files if name in file.schema.names]
        for file in having:
            check_type(file, name, feature)
        if having:
            starts = np.cumsum([0, *(file.rows for file in having)])
            height, width, channels = _channels_last(feature).shape
            column = EncodedImageColumn(ParquetImages(folder, name, [f.path for f in having]), height, width, channels)
            stored[name] = Stored(column, {file.path: int(start) for file, start in zip(having, starts[:-1], strict=True)})
    return {
        name: {i: _slice(some, name, entry, ours) for i, entry in enumerate(episodes) if entry.data in some.starts}
        for name, some in stored.items()
    }


def _slice(stored: Stored, name: str, entry: Entry, ours: Extension) -> Slice:
    start = stored.starts[entry.data] + entry.row
    if isinstance(stored.column, Ragged):
        return Slice(stored.column.rows(start, entry.length, ours.ragged.get(name, (-1,))))
    return Slice(stored.column, start)


def _from_partial(folder: Path, name: str, ours: Extension, episodes: Sequence[Entry], nan_is_missing: bool) -> dict[int, Slice]:
    """Places of a feature that only some episodes have: files of its own hold the rows of those, in order."""
    having = {i: entry for i, entry in enumerate(episodes) if name not in entry.lacks}
    files = [File.open(path) for path in layout.numbered(folder, layout.PARTIAL, feature=name)]
    ends = np.cumsum([file.rows for file in files])
    starts = np.cumsum([0, *(entry.length for entry in having.values())])
    if not files or ends[-1] != starts[-1]:
        raise DataError(
            f"{folder}: the files of {name!r} under partial/ have {ends[-1] if files else 0} rows, its episodes {starts[-1]}."
        )
    moved = []
    for entry, start in zip(having.values(), starts[:-1], strict=True):
        file = int(np.searchsorted(ends, start, side="right"))
        moved.append(replace(entry, data=files[file].path, row=int(start - ends[file]) + files[file].rows))
    feature = ours.partial[name]
    on_disk = replace(feature, shape=(-1,)) if name in ours.ragged else feature
    places = _from_parquet(folder, files, moved, {name: on_disk}, ours, nan_is_missing)[name]
    return dict(zip(having, places.values(), strict=True))


def _from_videos(camera: str, feature: Feature, episodes: Sequence[Entry]) -> dict[int, Slice]:
    """Places of a camera's frames, after checking that each video is long enough and of the declared size."""
    having = {i: entry for i, entry in enumerate(episodes) if camera in entry.videos}
    height, width, channels = _channels_last(feature).shape
    counts = _frame_counts(sorted({entry.videos[camera][0] for entry in having.values()}))
    clips, places, row = [], {}, 0
    for i, entry in having.items():
        path, start = entry.videos[camera]
        frames, *size = counts[str(path)]
        if start + entry.length > frames:
            raise DataError(f"{path} has {frames} frames, episode {entry.index} needs {start + entry.length} of them.")
        if size != [height, width]:
            raise DataError(f"{path} has frames of {size[0]}x{size[1]}, the metadata say {height}x{width} (height x width).")
        clips.append(Clip(path, start, entry.length))
        places[i] = row
        row += entry.length
    column = VideoColumn(clips, height, width, channels)
    return {i: Slice(column, start) for i, start in places.items()}


def _frame_counts(paths: Sequence[Path]) -> dict[str, list[int]]:
    """Video -> frames, height and width from its header; kept in the cache, since opening ten thousand files takes a minute."""
    try:
        versions = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing; the metadata of the dataset say that it is there.") from None
    key = hashlib.blake2b(json.dumps(versions).encode(), digest_size=16).hexdigest()
    known = cache_folder() / f"videos-{key}.json"
    if known.exists():
        opened(known)
        return layout.read_json(known)
    counts = {str(path): [info.frames, info.height, info.width] for path, info in zip(paths, map(probe, paths), strict=True)}
    write_text(known, json.dumps(counts))
    return counts


def _check_rows(files: Sequence[File], episodes: Sequence[Entry]) -> None:
    expected: dict[Path, int] = {}
    for entry in episodes:
        expected[entry.data] = expected.get(entry.data, 0) + entry.length
    for file in files:
        if file.rows != expected[file.path]:
            raise DataError(f"{file.path} has {file.rows} rows, the metadata of its episodes say {expected[file.path]}.")


def _undeclared(files: Sequence[File], known: Mapping[str, Feature]) -> dict[str, Feature]:
    """Columns of which `info.json` says nothing, kept as they are; their dtype is Arrow's name."""
    return {
        field.name: Feature("string" if str(field.type) in ("string", "large_string") else f"arrow:{field.type}", (1,))
        for file in files
        for field in file.schema
        if field.name not in known
    }


def _seen_from_outside(name: str, feature: Feature, ours: Extension) -> Feature:
    if name in ours.ragged:
        return replace(feature, shape=ours.ragged[name])
    return _channels_last(feature) if feature.is_visual else feature


def _channels_last(feature: Feature) -> Feature:
    """Camera frames as they are read, (H, W, C), whichever order the metadata name."""
    names = feature.names
    if len(feature.shape) == 3 and isinstance(names, (list, tuple)) and str(names[0]).startswith("channel"):
        return replace(feature, shape=(*feature.shape[1:], feature.shape[0]), names=[*names[1:], names[0]])
    return feature


def _is_scalar(name: str, feature: Feature) -> bool:
    vector = name in (ACTION, LATENT_ACTION) or name.startswith("observation.")
    return feature.shape == (1,) and feature.is_numeric and not feature.names and not vector


def _squeezed(places: dict[int, Slice]) -> dict[int, Slice]:
    """The same places in columns (N,) instead of (N, 1)."""
    squeezed: dict[int, ArrayColumn] = {}
    for where in places.values():
        if isinstance(where.column, ArrayColumn) and where.column.values.ndim == 2:
            squeezed.setdefault(id(where.column), ArrayColumn(where.column.values[:, 0]))
    return {i: Slice(squeezed.get(id(where.column), where.column), where.start) for i, where in places.items()}
