"""Columns: where the values of a feature lie, read by row number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Column(Protocol):
    """Rows of one feature, over many episodes.

    `take` is the hot path of reading: it gathers any rows, in any order and with repeats, as (n, *shape).
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
        return np.take(self.values, rows, axis=0, out=out, mode="clip")


@dataclass(frozen=True)
class Slice:
    """The rows `start : start + length` of a column that belong to one episode (its length is the episode's)."""

    column: Column
    start: int = 0
