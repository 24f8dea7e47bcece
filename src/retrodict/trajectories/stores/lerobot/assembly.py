"""Staged episodes put together as a LeRobotDataset v3.0, laid out as lerobot 0.4 lays it out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrodict.files import write_text
from retrodict.trajectories.actions import ActionSpace
from retrodict.trajectories.features import ACTION, Feature
from retrodict.trajectories.stores.lerobot import layout, stats
from retrodict.trajectories.stores.lerobot.extension import Extension, plain
from retrodict.trajectories.stores.lerobot.films import lay_out
from retrodict.trajectories.stores.lerobot.layout import CLOCK
from retrodict.trajectories.stores.lerobot.rolling import RollingFiles
from retrodict.trajectories.stores.lerobot.staging import Record, Staging
from retrodict.trajectories.video import probe

BOOKKEEPING: dict[str, Feature] = {
    "timestamp": Feature("float32", (1,)),
    **{name: Feature("int64", (1,)) for name in ("frame_index", "episode_index", "index", "task_index")},
}
EPISODES_AT_ONCE = 200
CODEBASE_VERSION = "v3.0"


@dataclass(frozen=True)
class Plan:
    """What stands where in a dataset that is being put together."""

    records: Sequence[Record]
    declared: Mapping[str, Feature]
    partial: Mapping[str, Feature]
    tasks: Sequence[str]
    fps: float

    @classmethod
    def of(cls, staging: Staging, features: Mapping[str, Feature], fps: float) -> Plan:
        records = [replace(record, stats={}) for record in staging.records()]
        known = {**features, CLOCK: Feature("float64", (1,))}
        having = [{*record.features, *record.films} for record in records]
        everywhere, somewhere = set.intersection(*having), set.union(*having)
        fit = {name for name, feature in known.items() if feature.is_numeric or feature.is_visual or feature.is_text}
        tasks = dict.fromkeys(task for record in records for task in record.tasks or ("",))
        return cls(
            records,
            declared={name: feature for name, feature in known.items() if name in everywhere & fit},
            partial={name: feature for name, feature in known.items() if name in somewhere - (everywhere & fit)},
            tasks=list(tasks),
            fps=fps,
        )

    def lacks(self, record: Record) -> list[str]:
        return [name for name in self.partial if name not in record.features and name not in record.films]

    def bookkeeping(self, number: int, first: int, task_index: np.ndarray) -> dict[str, np.ndarray]:
        """LeRobot's own columns for an episode whose first row is `first`."""
        record = self.records[number]
        place = {task: i for i, task in enumerate(self.tasks)}
        frames = np.arange(record.length)
        return {
            "timestamp": (frames / self.fps).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full(record.length, number),
            "index": first + frames,
            "task_index": np.array([place[task] for task in record.tasks or ("",)])[task_index],
        }


def assemble(
    staging: Staging,
    out: Path,
    features: Mapping[str, Feature],
    fps: float,
    extension: Extension,
    data_mb: float,
    video_mb: float,
) -> None:
    """Write the dataset of all staged episodes, of which there is at least one, into `out`."""
    plan = Plan.of(staging, features, fps)
    known = {**plan.declared, **plan.partial}
    films = {
        camera: lay_out(staging, [record.films.get(camera) for record in plan.records], camera, out, video_mb)
        for camera, feature in known.items()
        if feature.dtype == "video"
    }
    summary = _write_rows(plan, staging, out, films, data_mb)
    _write_tasks(out, plan.tasks)
    write_text(out / layout.STATS, json.dumps(summary, indent=4))
    scalars = sorted({name for record in plan.records for name in record.scalars})
    ragged = {name: feature.shape for name, feature in known.items() if -1 in feature.shape and feature.is_numeric}
    replace(extension, scalars=tuple(scalars), ragged=ragged, partial=plan.partial).write(out)
    actions = extension.actions
    plain_action = plan.declared.get(ACTION)
    if plain_action is not None and plain_action.names is None and actions not in (None, ActionSpace.unknown(plain_action)):
        plan = replace(plan, declared={**plan.declared, ACTION: replace(plain_action, names=list(actions.names))})
    _write_info(plan, out, extension, data_mb, video_mb)


def _write_rows(
    plan: Plan, staging: Staging, out: Path, films: Mapping[str, list[tuple[int, int] | None]], data_mb: float
) -> dict[str, stats.Stats]:
    """Data, partial and episode files; returns the statistics of the whole."""
    in_data = [name for name, feature in plan.declared.items() if feature.dtype != "video"]
    in_partial = [name for name, feature in plan.partial.items() if feature.dtype != "video"]
    extras = _extras(plan)
    data = RollingFiles(out, layout.DATA, data_mb)
    partial = {name: RollingFiles(out, layout.PARTIAL, data_mb, feature=name) for name in in_partial}
    episodes = RollingFiles(out, layout.EPISODES, data_mb)
    first = 0
    whole: dict[str, stats.Stats] = {}
    rows: list[dict[str, Any]] = []
    counted: list[dict[str, stats.Stats]] = []
    for number, record in enumerate(staging.records()):
        table = staging.table(record)
        own = plan.bookkeeping(number, first, table["task_index"].to_numpy())
        file = data.write(pa.table({**{name: table[name] for name in in_data}, **own}))
        for name in in_partial:
            if name in record.features:
                partial[name].write(
                    pa.table({"episode_index": own["episode_index"], "frame_index": own["frame_index"], name: table[name]})
                )
        mine = {name: record.stats[name] for name in plan.declared if name in record.stats}
        counted.append(mine | {name: stats.of_numbers(values) for name, values in own.items()})
        rows.append(
            {
                "episode_index": number,
                "tasks": list(record.tasks or ("",)),
                "length": record.length,
                **{f"data/{key}": value for key, value in layout.place(file).items()},
                "dataset_from_index": first,
                "dataset_to_index": first + record.length,
                **_film_columns(films, number, record, plan.fps),
                "domain": record.domain,
                "lacks": plan.lacks(record),
            }
        )
        first += record.length
        if len(rows) == EPISODES_AT_ONCE or number + 1 == len(plan.records):
            _write_episodes(episodes, rows, counted, extras.slice(number + 1 - len(rows), len(rows)), plan)
            whole = stats.over_episodes([whole, *counted] if whole else counted)
            rows, counted = [], []
    for files in (data, *partial.values(), episodes):
        files.close()
    return whole


def _film_columns(films: Mapping[str, list[tuple[int, int] | None]], number: int, record: Record, fps: float) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for camera, places in films.items():
        key, at = f"videos/{camera}/", places[number]
        file, start = at or (None, 0)
        where = {"chunk_index": None, "file_index": None} if file is None else layout.place(file)
        columns |= {key + name: value for name, value in where.items()}
        columns[key + "from_timestamp"] = None if at is None else start / fps
        columns[key + "to_timestamp"] = None if at is None else (start + record.length) / fps
    return columns


def _write_episodes(
    episodes: RollingFiles,
    rows: list[dict[str, Any]],
    counted: list[dict[str, stats.Stats]],
    extras: pa.Table,
    plan: Plan,
) -> None:
    columns: dict[str, pa.Array] = {}
    for name in rows[0]:
        kind = {"tasks": pa.list_(pa.string()), "lacks": pa.list_(pa.string()), "domain": pa.string()}.get(name)
        if kind is None:
            kind = pa.float64() if name.endswith("timestamp") else pa.int64()
        columns[name] = pa.array([row[name] for row in rows], kind)
    known = {**plan.declared, **BOOKKEEPING}
    for name, feature in known.items():
        for kind in counted[0].get(name, {}):
            values = [mine.get(name, {}).get(kind) for mine in counted]
            columns[f"stats/{name}/{kind}"] = pa.array(values, _stat_type(feature, kind))
    for name in extras.column_names:
        columns[name] = extras[name]
    file = layout.place(episodes.next_file(pa.table(columns).nbytes))
    for key, value in file.items():
        columns[f"meta/episodes/{key}"] = pa.array([value] * len(rows), pa.int64())
    episodes.write(pa.table(columns))


def _stat_type(feature: Feature, kind: str) -> pa.DataType:
    if kind == "count":
        return pa.list_(pa.int64())
    if feature.is_visual:
        return pa.list_(pa.list_(pa.list_(pa.float64())))
    whole = np.dtype(feature.dtype).kind in "iub" and kind in ("min", "max")
    return pa.list_(pa.int64() if whole else pa.float64())


def _extras(plan: Plan) -> pa.Table:
    """What recordings say of their episodes, a column for each key; as JSON text where the values have no common type."""
    columns = {"_": pa.nulls(len(plan.records))}
    for key in dict.fromkeys(key for record in plan.records for key in record.meta):
        values = [record.meta.get(key) for record in plan.records]
        try:
            columns[key] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns[key] = pa.array([None if value is None else json.dumps(value, default=plain) for value in values])
    return pa.table(columns).drop_columns(["_"])


def _write_tasks(out: Path, tasks: Sequence[str]) -> None:
    """Texts are the index of a pandas table; its description is written by hand, since pandas is not needed for more."""
    index = "__index_level_0__"
    described = [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64", "metadata": None},
        {"name": None, "field_name": index, "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
    ]
    pandas = {"index_columns": [index], "column_indexes": [], "columns": described, "pandas_version": "2.2.0"}
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), index: pa.array(tasks, pa.string())})
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), out / layout.TASKS)


def _write_info(plan: Plan, out: Path, extension: Extension, data_mb: float, video_mb: float) -> None:
    features = {name: _declaration(name, feature, out) for name, feature in {**plan.declared, **BOOKKEEPING}.items()}
    info = {
        "codebase_version": CODEBASE_VERSION,
        "robot_type": extension.meta.get("robot_type"),
        "total_episodes": len(plan.records),
        "total_frames": sum(record.length for record in plan.records),
        "total_tasks": len(plan.tasks),
        "chunks_size": layout.FILES_PER_CHUNK,
        "data_files_size_in_mb": data_mb,
        "video_files_size_in_mb": video_mb,
        "fps": int(plan.fps) if plan.fps == int(plan.fps) else plan.fps,
        "splits": {"train": f"0:{len(plan.records)}"},
        "data_path": layout.DATA,
        "video_path": layout.VIDEO if any(feature.dtype == "video" for feature in plan.declared.values()) else None,
        "features": features,
    }
    write_text(out / layout.INFO, json.dumps(info, indent=4, ensure_ascii=False, default=plain))


def _declaration(name: str, feature: Feature, out: Path) -> dict[str, Any]:
    """The entry of a feature in `info.json`."""
    if feature.is_visual and feature.names is None:
        feature = replace(feature, names=["height", "width", "channels"])
    if feature.dtype == "video":
        seen = probe(out / layout.VIDEO.format(video_key=name, **layout.place(0)))
        about = {
            "video.height": seen.height,
            "video.width": seen.width,
            "video.codec": seen.codec,
            "video.pix_fmt": seen.pix_fmt,
            "video.is_depth_map": False,
            "video.fps": round(seen.fps) if abs(seen.fps - round(seen.fps)) < 1e-3 else seen.fps,
            "video.channels": feature.shape[-1],
            "has_audio": False,
        }
        feature = replace(feature, info={**feature.info, "info": about})
    if -1 in feature.shape and not feature.is_visual:
        feature = replace(feature, shape=(-1,))
    return feature.to_json()
