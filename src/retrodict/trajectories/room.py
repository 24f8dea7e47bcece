"""Room on disk: the one bound that everything in the cache folder shares, kept by evicting what was not opened for longest."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from retrodict.errors import DataError

FOLDER = "RETRODICT_CACHE"
LIMIT = "RETRODICT_CACHE_GB"
DEFAULT_GB = 20.0
PARTIAL = ".partial"
"""End of the name of an entry that is being made. One that is a day old was left by a process that died."""
A_DAY = 86_400e9


class Room:
    """At most `limit` bytes of entries under a folder; one entry is always allowed, however large.

    An entry is a file or a folder that a pattern finds, was opened when it was last changed (see `opened`), and is evicted whole.
    Processes may share the folder; one that reads an entry reads on when it is evicted (POSIX keeps open and mapped files).

    Attributes:
        evicted: told of each entry that goes.
    """

    def __init__(self, folder: Path, patterns: tuple[str, ...], limit: int) -> None:
        self.folder, self.patterns, self.limit = folder, patterns, limit
        self.evicted: list[Callable[[Path], object]] = []
        self._guard = threading.Lock()
        self._bytes: int | None = None  # last known size of all entries; None: not counted yet

    def make(self, size: int) -> None:
        """Evict until `size` more bytes fit; a tenth is freed beyond that, so that it is rare."""
        with self._guard:
            if self._bytes is None or self._bytes + size > self.limit:
                entries = sorted(self._entries())
                self._bytes = sum(held for _, held, _ in entries)
                if self._bytes + size > self.limit:
                    for _, held, path in entries:
                        if self._bytes + size <= 0.9 * self.limit:
                            break
                        self._evict(path)
                        self._bytes -= held
            self._bytes += size

    def _evict(self, path: Path) -> None:
        for told in self.evicted:
            told(path)
        if path.is_dir():
            gone = path if path.name.endswith(PARTIAL) else path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
            try:
                path.rename(gone)  # at once, so that nobody opens half of it
            except FileNotFoundError:
                return
            shutil.rmtree(gone, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def _entries(self) -> Iterator[tuple[int, int, Path]]:
        """Time last opened, size and path of every entry."""
        for pattern in self.patterns:
            for path in self.folder.glob(pattern):
                try:
                    opened = path.stat().st_mtime_ns
                    if not path.name.endswith(PARTIAL) or time.time_ns() - opened > A_DAY:
                        yield opened, bytes_of(path), path
                except FileNotFoundError:
                    continue


def opened(path: Path) -> None:
    """Note that an entry was opened now."""
    os.utime(path)


def bytes_of(path: Path) -> int:
    """Size of a file, or of the files in a folder."""
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size


def cache_room() -> Room:
    """That of this machine, in the folder `RETRODICT_CACHE` (`~/.cache/retrodict`): decoded frames and converted columns.

    Its bound is `RETRODICT_CACHE_GB`; by default 20, or half of the free disk where that is less when it is first made.
    Raises DataError when the bound given is no positive number.
    """
    return _room_of(os.environ.get(FOLDER), os.environ.get(LIMIT))


@cache
def _room_of(folder: str | None, limit: str | None) -> Room:
    place = Path(folder or Path.home() / ".cache" / "retrodict")
    return Room(place, ("frames/*/*.u8", "columns/*"), _default_limit(place) if limit is None else _limit(limit))


def _default_limit(folder: Path) -> int:
    standing = next(parent for parent in (folder / "here").absolute().parents if parent.exists())
    return int(min(DEFAULT_GB * 1e9, shutil.disk_usage(standing).free / 2))


def _limit(given: str) -> int:
    try:
        limit = int(float(given) * 1e9)
    except (ValueError, OverflowError):
        limit = 0
    if limit <= 0:
        raise DataError(f"{LIMIT} is {given!r}; a number of gigabytes above 0 is expected.")
    return limit
