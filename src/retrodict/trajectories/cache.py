"""Frame cache: what was decoded once is kept on disk as raw rows, bounded in bytes, shared by runs and processes.

An entry is a file of uint8 rows, made under a temporary name and renamed, so that it is whole or not there. Builders of a shelf
(a folder of entries) take its lock, which the system gives back when a process dies. `Room` bounds and evicts.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from io import FileIO
from pathlib import Path

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.room import FOLDER, LIMIT, PARTIAL, Room, cache_room

OPEN_FILES = 512
WRITE_BYTES = 1 << 22  # written in large pieces, a file lies in large pieces in the system's memory and is read faster
SUFFIX = ".u8"


class Entry(FileIO):
    """An open file of rows, closed when the last reader lets go of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)

    def __del__(self) -> None:
        self.close()


class FrameCache:
    """Entries of raw uint8 rows in a room.

    Threads and processes may use one folder at the same time.

    Attributes:
        held: entries that are open, by name, for those who read one again and again.
    """

    def __init__(self, room: Room) -> None:
        self.room, self.folder = room, room.folder / "frames"
        self.held: dict[str, Entry] = {}
        self._guard = threading.Lock()
        room.evicted.append(lambda path: self.held.pop(path.stem, None))

    def file(self, name: str, size: int, build: Callable[[], Iterable[np.ndarray]]) -> Entry:
        """The open entry `name` (see `entry_name`) of `size` bytes; made of the rows of `build` where it is not there.

        Hold on to what is returned while reading.
        """
        entry = self.held.get(name)
        if entry is not None:
            return entry
        path = self.folder / name[:2] / (name + SUFFIX)
        entry = self._open(path, size)
        while entry is None:  # again if it was evicted between making and opening
            with self._shelf(path.parent):
                entry = self._open(path, size)
                if entry is None:
                    self._make(path, size, build)
                    entry = self._open(path, size)
        with self._guard:
            self.held[name] = entry
            if len(self.held) > OPEN_FILES:
                del self.held[next(iter(self.held))]
        return entry

    def holds(self, name: str) -> bool:
        """True where the entry is there already."""
        return name in self.held or (self.folder / name[:2] / (name + SUFFIX)).exists()

    def _open(self, path: Path, size: int) -> Entry | None:
        try:
            entry = Entry(path)
        except FileNotFoundError:
            return None
        if os.fstat(entry.fileno()).st_size != size:  # cut off by a full or failing disk
            return None
        os.utime(entry.fileno())
        return entry

    @contextmanager
    def _shelf(self, shelf: Path) -> Iterator[None]:
        """Sole right to make entries on a shelf; what a killed builder left there is cleared away."""
        shelf.mkdir(parents=True, exist_ok=True)
        with open(shelf / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in shelf.glob(f"*{PARTIAL}"):
                left.unlink()
            yield

    def _make(self, path: Path, size: int, build: Callable[[], Iterable[np.ndarray]]) -> None:
        self.room.make(size)
        partial = path.with_suffix(PARTIAL)
        try:
            with open(partial, "wb", buffering=WRITE_BYTES) as out:
                for row in build():
                    out.write(row.data)
                if out.tell() != size:
                    raise DataError(f"a source gave {out.tell()} bytes of frames where {size} were expected.")
            partial.replace(path)
        except OSError as error:
            raise DataError(
                f"the frame cache {self.folder} cannot be written ({error.strerror}); "
                f"name another folder in {FOLDER} or a smaller bound in {LIMIT}."
            ) from None
        finally:
            partial.unlink(missing_ok=True)


def entry_name(*identity: object) -> str:
    """Name of the entry for a source: its path, size, time of change, frames and frame size, or whatever else tells it apart."""
    return hashlib.blake2b(repr(identity).encode(), digest_size=16).hexdigest()


def frame_cache() -> FrameCache:
    """The cache of this machine; raises DataError as `cache_room` does."""
    return _cache_of(cache_room())


@cache
def _cache_of(room: Room) -> FrameCache:
    return FrameCache(room)
