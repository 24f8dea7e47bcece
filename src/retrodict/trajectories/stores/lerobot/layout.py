"""Where things lie in a LeRobotDataset folder, and reading its files so that bad ones are named in one sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from retrodict.errors import DataError

INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

#: Ours: what LeRobot has no place for (see `extension.py`), and the features that only some episodes have (see `writer.py`).
EXTENSION = "meta/retrodict.json"
PARTIAL = "partial/{feature}/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"

#: Own clock of an episode with irregular timestamps; LeRobot finds video frames by `timestamp`, which must therefore be regular.
CLOCK = "clock.timestamp"

LEGACY_EPISODES = "meta/episodes.jsonl"
LEGACY_EPISODE_STATS = "meta/episodes_stats.jsonl"
LEGACY_TASKS = "meta/tasks.jsonl"

FILES_PER_CHUNK = 1000
VERSIONS = ("v2.0", "v2.1", "v3.0")


def place(number: int) -> dict[str, int]:
    """Chunk and file index of the file with this running number."""
    chunk, file = divmod(number, FILES_PER_CHUNK)
    return {"chunk_index": chunk, "file_index": file}


@dataclass(frozen=True)
class Entry:
    """What the metadata of a dataset say of one episode.

    Attributes:
        index: its `episode_index`.
        length: number of steps.
        data: Parquet file that holds its steps.
        row: number of its first row in that file.
        videos: camera -> (video file, number of the episode's first frame in it).
        tasks: task texts.
        domain: name of the environment, where the dataset knows it.
        lacks: features that other episodes have and this one has not.
        meta: whatever else was said of it.
    """

    index: int
    length: int
    data: Path
    row: int
    videos: Mapping[str, tuple[Path, int]] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    domain: str | None = None
    lacks: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what the libraries say of a missing or damaged file into one sentence that names it."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path} is missing; the metadata of the dataset say that it is there.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no valid JSON ({error}); it may be damaged or cut off.") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{path} cannot be read ({reason}); it may be damaged or cut off.") from None


def read_json(path: Path) -> dict[str, Any]:
    with readable(path):
        content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a JSON {type(content).__name__}, an object is expected.")
    return content


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    with readable(path):
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def open_parquet(path: Path) -> pq.ParquetFile:
    with readable(path):
        return pq.ParquetFile(path, memory_map=True)


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    with readable(path):
        return pq.read_table(path, columns=columns, partitioning=None)


def read_info(folder: Path) -> dict[str, Any]:
    """`meta/info.json` of a dataset.

    Raises DataError when it is missing, no JSON, of an unknown version, or lacks what no dataset can be read without.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; a LeRobotDataset is a folder with {INFO}.")
    path = folder / INFO
    if not path.exists():
        raise DataError(f"{path} is missing; a LeRobotDataset is a folder that holds it.")
    info = read_json(path)
    version = info.get("codebase_version")
    if version not in VERSIONS:
        raise DataError(f"{path}: codebase_version is {version!r}; {', '.join(VERSIONS)} can be read.")
    lacking = [key for key in ("features", "fps", "data_path", "total_episodes") if key not in info]
    if lacking:
        raise DataError(f"{path} lacks {', '.join(map(repr, lacking))}; it may be damaged.")
    for name, entry in info["features"].items():
        if not isinstance(entry, dict) or not {"dtype", "shape"} <= entry.keys():
            raise DataError(f"{path}: feature {name!r} lacks a dtype or a shape.")
    return info


def numbered(folder: Path, pattern: str, **fixed: str) -> list[Path]:
    """The files of a `chunk-*/file-*` pattern that are there, in order."""
    glob = re.sub(r"\{(?:chunk|file)_index:03d\}", "*", pattern).format(**fixed)
    return sorted(folder.glob(glob), key=lambda path: [int(number) for number in re.findall(r"\d+", "/".join(path.parts[-2:]))])
