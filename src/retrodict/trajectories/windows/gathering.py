"""Gathering: the values of one feature for a batch of windows, by index, over however many columns they lie in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.columns import ArrayColumn, Column
from retrodict.trajectories.episodes import Episode
from retrodict.trajectories.features import Feature
from retrodict.trajectories.windows.buffers import Buffers

#: Arrays in memory, one for each episode, are joined up to this size, so that a batch is one gather and not one for each episode.
JOINED_BYTES = 256_000_000
#: From this size on a batch is read into memory that is used again.
LARGE_BYTES = 1_000_000


class Reader:
    """Reads one feature of many episodes.

    Attributes:
        shape: shape of one step as it is read.
        ragged: True where the first dimension of a step differs between episodes (points that come and go): what is read is
            padded with zeros to the longest, the first entry of `shape`.
    """

    def __init__(
        self, name: str, episodes: Sequence[Episode], feature: Feature | None = None, size: tuple[int, int] | None = None
    ) -> None:
        self.name = name
        self.number = np.full(len(episodes), -1)  # which column an episode's rows lie in; -1: it lacks the feature
        self.starts = np.zeros(len(episodes), np.int64)
        columns: dict[int, Column] = {}
        numbers: dict[int, int] = {}
        for i, episode in enumerate(episodes):
            if name in episode:
                where = episode.slices[name]
                self.number[i] = numbers.setdefault(id(where.column), len(numbers))
                self.starts[i] = where.start
                columns[int(self.number[i])] = where.column
        self.columns = self._joined(list(columns.values()))
        visual = feature is not None and feature.is_visual
        if visual and size is not None:
            self.columns = [_sized(name, column, size) for column in self.columns]
        rows = [_row(column, int(self.starts[self.number.tolist().index(i)])) for i, column in enumerate(self.columns)]
        self.stored, self.dtype = [shape for shape, _ in rows], rows[0][1]
        declared = feature.shape if feature is not None and not visual else self.stored[0]
        self.ragged = declared[:1] == (-1,)
        if self.ragged:
            self.shape = (max(shape[0] for shape in self.stored), *self.stored[0][1:])
            alike = all(shape[1:] == self.shape[1:] for shape in self.stored)
        else:  # one number per step may be stored as `()` where `(1,)` is declared
            same_size = -1 not in declared and np.prod(declared) == np.prod(self.stored[0])
            self.shape = tuple(declared) if same_size else self.stored[0]
            alike = all(
                np.prod(shape) == np.prod(self.shape) and (shape == self.shape or len(shape) < 2) for shape in self.stored
            )
        if not alike or any(dtype != self.dtype for _, dtype in rows):
            seen = " and ".join(sorted({f"{dtype}{list(shape)}" for shape, dtype in rows}))
            mend = "give the window an image_size" if visual else "mend or drop those episodes"
            raise DataError(f"{name!r} is {seen} in different episodes where one shape and dtype is expected; {mend}.")
        self._buffers = Buffers()
        self.everywhere = len(self.columns) == 1 and not self.ragged and bool((self.number >= 0).all())

    def prepare(self, lengths: np.ndarray) -> None:
        """Make ready all rows of the episodes, which have `lengths` steps; 0 for those that will not be read."""
        for number, column in enumerate(self.columns):
            mine = (self.number == number) & (lengths > 0)
            if mine.any() and hasattr(column, "prepare"):
                column.prepare(self.starts[mine], lengths[mine])

    def read(self, positions: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Values (B, T, *shape) at `steps` (B, T) of the episodes at `positions` (B,); zeros where they lack the feature."""
        rows = self.starts[positions][:, None] + steps
        if self.everywhere:
            out = self._empty((*rows.shape, *self.shape))
            self._fill(out, 0, rows)
            return out
        out = np.zeros((*rows.shape, *self.shape), self.dtype)
        numbers = self.number[positions]
        # Windows of one column that stand behind each other in the batch are read at once, straight to their place.
        begins = np.flatnonzero(np.diff(numbers, prepend=-2)).tolist()
        for begin, end in zip(begins, [*begins[1:], len(numbers)], strict=True):
            if numbers[begin] >= 0:
                self._fill(out[begin:end], int(numbers[begin]), rows[begin:end])
        return out

    def present(self, positions: np.ndarray, steps: int) -> np.ndarray:
        """True (B, T), or (B, T, N) where ragged, for what an episode has."""
        numbers = self.number[positions]
        has = np.broadcast_to((numbers >= 0)[:, None], (len(numbers), steps))
        if not self.ragged:
            return has
        counts = np.array([*(shape[0] for shape in self.stored), 0])[numbers]  # the last, at -1, for episodes that lack it
        return np.asarray(has[:, :, None] & (np.arange(self.shape[0]) < counts[:, None, None]))

    def _empty(self, shape: tuple[int, ...]) -> np.ndarray:
        if math.prod(shape) * self.dtype.itemsize < LARGE_BYTES or self.dtype == object:
            return np.empty(shape, self.dtype)
        return self._buffers.array(shape, self.dtype)

    def _fill(self, out: np.ndarray, number: int, rows: np.ndarray) -> None:
        column, stored, flat = self.columns[number], self.stored[number], rows.reshape(-1)
        if self.ragged:
            out[:, :, : stored[0]] = column.take(flat).reshape(*rows.shape, *stored)
        elif self.dtype == object:
            out[:] = column.take(flat).reshape(out.shape)
        else:
            column.take(flat, out=out.reshape(len(flat), *stored))

    def _joined(self, columns: list[Column]) -> list[Column]:
        """The columns, small arrays in memory laid behind each other in one."""
        arrays = [column.values for column in columns if isinstance(column, ArrayColumn)]
        alike = len({(array.shape[1:], array.dtype) for array in arrays}) == 1
        if len(arrays) < max(len(columns), 2) or not alike or any(isinstance(array, np.memmap) for array in arrays):
            return columns
        if sum(array.nbytes for array in arrays) > JOINED_BYTES:
            return columns
        lengths = np.array([len(array) for array in arrays])
        present = self.number >= 0
        self.starts[present] += (np.cumsum(lengths) - lengths)[self.number[present]]
        self.number[present] = 0
        return [ArrayColumn(np.concatenate(arrays))]


def _row(column: Column, row: int) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of a row; of camera frames without decoding one."""
    if isinstance(column, ArrayColumn):
        shape, dtype = column.values.shape[1:], column.values.dtype
    elif hasattr(column, "shape"):
        shape, dtype = column.shape, np.dtype(np.uint8)
    else:
        first = column.take(np.array([row]))
        shape, dtype = first.shape[1:], first.dtype
    return tuple(shape), np.dtype(object) if dtype.kind in "UTS" else dtype


def _sized(name: str, column: Column, size: tuple[int, int]) -> Column:
    if not hasattr(column, "sized"):
        raise DataError(f"{name!r} cannot be resized: it lies in a {type(column).__name__}.")
    resized: Column = column.sized(size)
    return resized
