"""Columns: where the values of a feature lie, read by row number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from retrodict.trajectories.video import resize


@runtime_checkable
class Column(Protocol):
    """Rows of one feature, over many episodes.

    `take` is the hot path of reading: it gathers any rows, in any order and with repeats, as (n, *shape). A column of camera
    frames also has `sized(size)`, the same frames at another (height, width), and may have `prepare(starts, lengths)`, which
    makes ready the rows `start : start + length` that will be read soon. One whose rows are dear to read has
    `content(start, length)`: bytes that are others when those rows are.
    """

    def __len__(self) -> int: ...

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Values at `rows` (n,), as (n, *shape), written into `out` where it is given."""
        ...


@dataclass(frozen=True)
class ArrayColumn:
    """A column over an array (T, *shape), in memory or memory-mapped; text is an object array."""

    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        if out is None or self.values.dtype == object:
            return np.asarray(self.values[rows])
        return np.take(self.values, rows, axis=0, out=out, mode="clip")  # `clip` alone writes straight into `out`

    def sized(self, size: tuple[int, int]) -> Column:
        """Camera frames (T, H, W, C), uint8, at another size."""
        return self if self.values.shape[1:3] == tuple(size) else ResizedColumn(self, (int(size[0]), int(size[1])))


@dataclass(frozen=True)
class ResizedColumn:
    """Camera frames of another column, resized as they are read."""

    column: ArrayColumn
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.column)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one row."""
        return (*self.size, int(self.column.values.shape[3]))

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        distinct, places = np.unique(rows, return_inverse=True)
        return np.take(resize(self.column.take(distinct), self.size), places, axis=0, out=out, mode="clip")

    def sized(self, size: tuple[int, int]) -> Column:
        return self.column.sized(size)


@dataclass(frozen=True)
class ChosenRows:
    """Some rows of another column, in an order of their own."""

    column: Column
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        return self.column.take(self.rows[rows], out)


@dataclass(frozen=True)
class Slice:
    """The rows `start : start + length` of a column that belong to one episode (its length is the episode's)."""

    column: Column
    start: int = 0
