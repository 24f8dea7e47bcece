"""The episodes of a dataset, from its metadata, whatever the version: where each one's rows and frames lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrodict.errors import DataError
from retrodict.trajectories.stores.lerobot import layout
from retrodict.trajectories.stores.lerobot.layout import Entry

OURS = ("episode_index", "length", "tasks", "dataset_from_index", "dataset_to_index", "domain", "lacks")
"""Columns of `meta/episodes` that are understood; whatever else stands there is the episode's `meta`."""


class Row(Mapping[str, Any]):
    """One row of an Arrow table, read when asked; absent where null. Ten thousand episodes would be slow as dictionaries."""

    def __init__(self, table: pa.Table, row: int) -> None:
        self._table, self._row = table, row

    def __getitem__(self, name: str) -> Any:
        if name in self._table.column_names and (value := self._table[name][self._row].as_py()) is not None:
            return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._table.column_names if self._table[name][self._row].is_valid)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))


def entries(folder: Path, info: Mapping[str, Any], cameras: Sequence[str]) -> tuple[list[Entry], list[str]]:
    """Episodes in order, and the task texts by `task_index`.

    Raises DataError when metadata are missing, damaged, or disagree with `info.json`.
    """
    found, tasks = (_v3 if info["codebase_version"] == "v3.0" else _v2)(folder, info, cameras)
    if not found:
        raise DataError(f"{folder} holds no episodes.")
    if len(found) != info["total_episodes"]:
        raise DataError(
            f"{folder}: {layout.INFO} promises {info['total_episodes']} episodes, the episode metadata list {len(found)}."
        )
    return found, tasks


def _v3(folder: Path, info: Mapping[str, Any], cameras: Sequence[str]) -> tuple[list[Entry], list[str]]:
    paths = layout.numbered(folder, layout.EPISODES)
    if not paths:
        raise DataError(f"{folder}/meta/episodes holds no Parquet file; a LeRobotDataset v3.0 lists its episodes there.")
    kept = tuple(f"stats/{camera}/" for camera in cameras)  # statistics of numbers are quickly computed anew, of frames not
    tables = []
    for path in paths:
        with layout.readable(path):
            names = layout.open_parquet(path).schema_arrow.names
        tables.append(layout.read_parquet(path, [n for n in names if not n.startswith("stats/") or n.startswith(kept)]))
    table = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    wanted = {"episode_index", "length", "data/chunk_index", "data/file_index"}
    if lacking := wanted - set(table.column_names):
        raise DataError(f"{paths[0]} lacks the column {sorted(lacking)[0]!r}.")
    places = {
        name: table[name].to_pylist() for name in table.column_names if name.startswith(("data/", "videos/")) or name in OURS
    }
    others = [name for name in table.column_names if name not in places and not name.startswith("meta/")]
    rest = table.select(others)

    used: dict[Path, int] = {}
    order = sorted(range(len(rest)), key=lambda i: places.get("dataset_from_index", places["episode_index"])[i])
    made: list[Entry | None] = [None] * len(order)
    for i in order:
        at = {key: column[i] for key, column in places.items()}
        data = folder / info["data_path"].format(chunk_index=at["data/chunk_index"], file_index=at["data/file_index"])
        made[i] = Entry(
            index=at["episode_index"],
            length=at["length"],
            data=data,
            row=used.get(data, 0),
            videos=_videos_v3(folder, info, cameras, at),
            tasks=tuple(text for text in at.get("tasks") or () if text),
            domain=at.get("domain"),
            lacks=tuple(at.get("lacks") or ()),
            meta=Row(rest, i),
        )
        used[data] = used.get(data, 0) + at["length"]
    return [entry for entry in made if entry is not None], _tasks_v3(folder)


def _videos_v3(
    folder: Path, info: Mapping[str, Any], cameras: Sequence[str], at: Mapping[str, Any]
) -> dict[str, tuple[Path, int]]:
    videos = {}
    for camera in cameras:
        key = f"videos/{camera}/"
        if at.get(key + "file_index") is None:
            if camera in info["features"]:
                raise DataError(f"{folder}: the metadata of episode {at['episode_index']} name no video of {camera!r}.")
            continue
        path = (info.get("video_path") or layout.VIDEO).format(
            video_key=camera, chunk_index=int(at[key + "chunk_index"]), file_index=int(at[key + "file_index"])
        )
        videos[camera] = (folder / path, round(at[key + "from_timestamp"] * info["fps"]))
    return videos


def _tasks_v3(folder: Path) -> list[str]:
    path = folder / layout.TASKS
    table = layout.read_parquet(path)
    texts = [name for name in table.column_names if name != "task_index"]  # LeRobot keeps the text as the table's index
    if len(texts) != 1 or "task_index" not in table.column_names:
        raise DataError(f"{path}: one column of texts and `task_index` are expected, it has {table.column_names}.")
    return _by_index(dict(zip(table["task_index"].to_pylist(), table[texts[0]].to_pylist(), strict=True)))


def _v2(folder: Path, info: Mapping[str, Any], cameras: Sequence[str]) -> tuple[list[Entry], list[str]]:
    chunk = info.get("chunks_size", layout.FILES_PER_CHUNK)
    made = []
    for line in layout.read_lines(folder / layout.LEGACY_EPISODES):
        if not {"episode_index", "length"} <= line.keys():
            raise DataError(f"{folder / layout.LEGACY_EPISODES}: a line lacks `episode_index` or `length`: {line}.")
        index = line["episode_index"]
        at = {"episode_chunk": index // chunk, "episode_index": index}
        made.append(
            Entry(
                index=index,
                length=line["length"],
                data=folder / info["data_path"].format(**at),
                row=0,
                videos={camera: (folder / info["video_path"].format(video_key=camera, **at), 0) for camera in cameras},
                tasks=tuple(text for text in line.get("tasks", ()) if text),
                meta={key: value for key, value in line.items() if key not in OURS},
            )
        )
    made.sort(key=lambda entry: entry.index)
    lines = layout.read_lines(folder / layout.LEGACY_TASKS)
    return _with_statistics(folder, made, cameras), _by_index({line["task_index"]: line["task"] for line in lines})


def _with_statistics(folder: Path, made: list[Entry], cameras: Sequence[str]) -> list[Entry]:
    """Statistics of the frames as v3.0 spells them: by episode (v2.1), or those of the whole dataset for each (v2.0)."""
    each: dict[int, Mapping[str, Any]] = {}
    if cameras and (folder / layout.LEGACY_EPISODE_STATS).exists():
        each = {line["episode_index"]: line["stats"] for line in layout.read_lines(folder / layout.LEGACY_EPISODE_STATS)}
    elif cameras and (folder / layout.STATS).exists():
        each = dict.fromkeys((entry.index for entry in made), layout.read_json(folder / layout.STATS))
    return [
        replace(entry, meta={**entry.meta, **flattened({c: each[entry.index].get(c, {}) for c in cameras})})
        if entry.index in each
        else entry
        for entry in made
    ]


def flattened(stats: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Statistics as columns of `meta/episodes`: `stats/<feature>/<statistic>`."""
    return {f"stats/{feature}/{name}": value for feature, values in stats.items() for name, value in values.items()}


def _by_index(tasks: Mapping[int, str]) -> list[str]:
    return [tasks.get(i, "") for i in range(max(tasks, default=-1) + 1)]
