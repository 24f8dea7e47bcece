"""The folder beside a dataset in which it grows, so that a killed writer carries on at its first unfinished episode.

Each addition is a set of files whose record (JSON) is renamed into place last: what has a record is whole. The folder is taken by
one process at a time, by a lock which the system gives back when the process dies.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from retrodict.errors import DataError
from retrodict.files import write_text
from retrodict.trajectories.stores.lerobot.extension import plain
from retrodict.trajectories.stores.lerobot.layout import read_parquet


class WrittenWhole(ABC):
    """A context that puts what was written into its place when it ends well, and else leaves it to the next call to carry on."""

    @abstractmethod
    def close(self) -> Path:
        """Put what was written into its place."""

    @abstractmethod
    def release(self) -> None:
        """Let go of what was written so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.release()


@dataclass(frozen=True)
class Film:
    """Where the frames of a staged episode are: `frames` frames of a video file from frame `start` on.

    `linked`: the file is somebody else's and serves as it is; else it was encoded here, for this episode alone.
    """

    path: str
    start: int
    frames: int
    linked: bool


@dataclass(frozen=True)
class Record:
    """What is known of a staged episode beside its table.

    Attributes:
        table: name of its Parquet file in the staging folder.
        features: names of the features it has, without those in `films`.
        scalars: those of its features whose steps are numbers, not vectors of one.
        films: camera -> where its frames are.
        stats: statistics of its features.
    """

    table: str
    length: int
    features: tuple[str, ...]
    scalars: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    domain: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    films: Mapping[str, Film] = field(default_factory=dict)
    stats: Mapping[str, Any] = field(default_factory=dict)


class Staging:
    """The staging folder of a dataset at `folder`; `settings` must be those of the run that began it.

    Raises DataError when another process is writing there, or when what lies there was begun with other settings.
    """

    def __init__(self, folder: Path, settings: str) -> None:
        self.path = folder.with_name(f".{folder.name}.unfinished")
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path / "lock", "w")  # noqa: SIM115  held as long as the writer lives
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise DataError(f"another process is writing {folder}; wait for it, or name another folder.") from None
        begun = self.path / "settings"
        self.done = sum(1 for _ in self.path.glob("??????.json"))
        if self.done and begun.read_text() != settings:
            self.release()
            raise DataError(
                f"{self.path} holds what was finished of other recordings or settings; run those again to carry on, "
                "or remove the folder to begin anew."
            )
        write_text(begun, settings)

    def name(self, piece: int, suffix: str) -> str:
        """Name of a file of the addition that is under way."""
        return f"{self.done:06d}-{piece:03d}{suffix}"

    def keep_table(self, table: pa.Table, piece: int) -> str:
        name = self.name(piece, ".parquet")
        pq.write_table(table, self.path / name)
        return name

    def finish(self, records: list[Record]) -> None:
        """The addition is whole."""
        content = json.dumps([asdict(record) for record in records], default=plain)
        write_text(self.path / f"{self.done:06d}.json", content)
        self.done += 1

    def records(self) -> Iterator[Record]:
        """All staged episodes, in order."""
        for number in range(self.done):
            for entry in json.loads((self.path / f"{number:06d}.json").read_text()):
                films = {camera: Film(**film) for camera, film in entry.pop("films").items()}
                entry |= {key: tuple(entry[key]) for key in ("features", "scalars", "tasks")}
                yield Record(**entry, films=films)

    def table(self, record: Record, columns: list[str] | None = None) -> pa.Table:
        return read_parquet(self.path / record.table, columns)

    def release(self) -> None:
        """Let others have the folder; what is finished stays."""
        if not self.done:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()


def link(source: Path, target: Path) -> None:
    """The same file under another name: a hard link, else a symbolic link, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()
    for way in (os.link, os.symlink, shutil.copyfile):
        try:
            way(source, target)
            return
        except OSError:
            continue
    raise DataError(f"{source} can neither be linked nor copied to {target}.")
