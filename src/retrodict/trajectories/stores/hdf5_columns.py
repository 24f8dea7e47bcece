"""Columns over HDF5 files that leave the values on disk.

An array that lies in one piece is memory-mapped. Of one in chunks, a whole chunk would be unpacked for every row that is asked
for; so it is unpacked once, a block at a time, into the cache that also holds decoded frames.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import h5py
import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.cache import entry_name, frame_cache
from retrodict.trajectories.columns import ArrayColumn, Column
from retrodict.trajectories.frames import FrameColumn
from retrodict.trajectories.stores.views import Layout, as_frames
from retrodict.trajectories.video import resize

BLOCK_BYTES = 1 << 26
FRAMES_AT_ONCE = 64


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An HDF5 file for reading; damage found while it is open becomes one sentence that names it."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path} is damaged, cut off or no HDF5 file ({' '.join(str(error).split())}).") from None


@dataclass(frozen=True)
class Place:
    """A dataset of a file, to be found again in any process; `changed` is the time of the file's last change, in nanoseconds."""

    path: str
    changed: int
    name: str

    @classmethod
    def of(cls, dataset: Any) -> Place:
        path = str(Path(dataset.file.filename).resolve())
        return cls(path, os.stat(path).st_mtime_ns, dataset.name)

    def read(self, rows: Any) -> Any:
        """The values at rows.

        Raises DataError when the file was changed or is damaged.
        """
        try:
            return _dataset(self, os.getpid())[rows]
        except OSError as error:
            raise DataError(f"{self}: it is damaged ({' '.join(str(error).split())}).") from None

    def __str__(self) -> str:
        return f"{self.path}, {self.name.strip('/')!r}"


@dataclass(frozen=True)
class HDF5Column:
    """Rows of a dataset of numbers in chunks, unpacked in blocks when first asked for; `take` gives (n, *row)."""

    place: Place
    length: int
    row: tuple[int, ...]
    dtype: str

    def __len__(self) -> int:
        return self.length

    @property
    def block(self) -> int:
        """Rows that are unpacked at once."""
        return max(1, BLOCK_BYTES // (int(np.prod(self.row)) * np.dtype(self.dtype).itemsize))

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        rows = np.asarray(rows, np.int64)
        if len(rows) and not (rows.min() >= 0 and rows.max() < self.length):
            raise DataError(f"{self.place}: rows {rows.min()} to {rows.max()} were asked for, it has {self.length}.")
        if out is None:
            out = np.empty((len(rows), *self.row), self.dtype)
        blocks = rows // self.block
        for block in np.unique(blocks).tolist():
            mine = blocks == block
            values = _unpacked(self, block)
            if mine.all():
                return np.take(values, rows - block * self.block, axis=0, out=out, mode="clip")
            out[mine] = values[rows[mine] - block * self.block]
        return out


class HDF5Frames(FrameColumn):
    """`length` camera frames in a dataset in chunks, from `first` on and however they lie; `take` gives uint8 (n, H, W, C)."""

    def __init__(
        self,
        place: Place,
        length: int,
        row: tuple[int, ...],
        lies: Layout,
        size: tuple[int, int] | None = None,
        first: int = 0,
    ) -> None:
        self.place, self.length, self.row, self.lies, self.first = place, length, row, lies, first
        height, width, channels = as_frames(np.empty(row, np.bool_), lies).shape
        at_once = max(1, BLOCK_BYTES // (height * width * channels))
        super().__init__([min(at_once, length - i) for i in range(0, length, at_once)], height, width, channels, size)

    def sized(self, size: tuple[int, int]) -> HDF5Frames:
        return HDF5Frames(self.place, self.length, self.row, self.lies, size, self.first)

    def part(self, start: int, count: int) -> HDF5Frames:
        return HDF5Frames(self.place, count, self.row, self.lies, self.size, self.first + start)

    def content(self, start: int, length: int) -> Iterator[bytes]:
        # Changed in place, such a file can keep its size: its time of change is all that tells without unpacking it.
        yield f"{self.place.changed} {self.place.name} {self.first + start} {length} {self.lies} {self.size}".encode()

    def _rows(self, block: int) -> tuple[int, int]:
        return self.first + int(self._starts[block]), self.first + int(self._starts[block + 1])

    def _identity(self, block: int) -> tuple[object, ...]:
        return (self.place, *self._rows(block))

    def _decode(self, block: int) -> Iterator[np.ndarray]:
        begin, end = self._rows(block)
        for start in range(begin, end, FRAMES_AT_ONCE):
            frames = self.place.read(slice(start, min(start + FRAMES_AT_ONCE, end)))
            yield from np.ascontiguousarray(resize(as_frames(frames, self.lies), self.size))

    def __str__(self) -> str:
        return str(self.place)


@dataclass(frozen=True)
class HDF5Images(Sequence[bytes]):
    """Encoded images, one a row of a dataset of bytes, read when asked for."""

    place: Place
    length: int

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, row: int) -> bytes: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[bytes]: ...
    def __getitem__(self, row: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(self.length))]
        return bytes(np.asarray(self.place.read(row), np.uint8))


def column_of(dataset: Any, lies: Layout | None = None) -> Column:
    """A column over a dataset or an array of numbers, or of frames where it is said how they lie."""
    array = _mapped_array(dataset)
    if array is not None:
        return ArrayColumn(as_frames(array, lies) if lies else array)
    if lies:
        return HDF5Frames(Place.of(dataset), dataset.shape[0], dataset.shape[1:], lies)
    return HDF5Column(Place.of(dataset), dataset.shape[0], dataset.shape[1:], dataset.dtype.str)


def leaves_of(file: Any) -> dict[str, Any]:
    """Every dataset of a file, by its path."""
    found: dict[str, Any] = {}

    def add(path: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            found[path] = node

    file.visititems(add)
    return found


def texts_of(dataset: Any) -> np.ndarray:
    """A dataset of texts as objects (T,)."""
    return np.array([text.decode() if isinstance(text, bytes) else str(text) for text in dataset[()]], dtype=object)


def _mapped_array(dataset: Any) -> np.ndarray | None:
    """The values of a dataset that lies in one piece, as NumPy would have them; those of an array are its own."""
    if isinstance(dataset, np.ndarray):
        return dataset
    offset = dataset.id.get_offset()
    if offset is None or not dataset.dtype.isnative or dataset.dtype.kind not in "iuf" or dataset.file.userblock_size:
        return None
    place = Place.of(dataset)
    raw = _mapped_file(place.path, place.changed)[offset : offset + dataset.size * dataset.dtype.itemsize]
    return np.asarray(raw.view(dataset.dtype).reshape(dataset.shape))


@lru_cache(maxsize=64)
def _mapped_file(path: str, changed: int) -> np.ndarray:
    # The whole file once: a mapping for each dataset would run into the system's limit on mappings.
    return np.asarray(np.memmap(path, np.uint8, mode="r"))


@lru_cache(maxsize=256)
def _unpacked(column: HDF5Column, block: int) -> np.ndarray:
    start, stop = block * column.block, min((block + 1) * column.block, column.length)
    size = (stop - start) * int(np.prod(column.row)) * np.dtype(column.dtype).itemsize
    name = entry_name(column.place, start, stop)
    file = frame_cache().file(name, size, lambda: [np.ascontiguousarray(column.place.read(slice(start, stop)))])
    return np.asarray(np.memmap(file, column.dtype, mode="r", shape=(stop - start, *column.row)))


@lru_cache(maxsize=64)
def _file(path: str, changed: int, process: int) -> Any:
    # By process: a handle that is carried through a fork reads wrong bytes.
    if os.stat(path).st_mtime_ns != changed:
        raise DataError(f"{path} was changed since it was opened; open it again.")
    return h5py.File(path, "r")


@lru_cache(maxsize=1024)
def _dataset(place: Place, process: int) -> Any:
    return _file(place.path, place.changed, process)[place.name]
