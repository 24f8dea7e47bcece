"""Columns that stay Arrow: text, and whatever else NumPy has no type for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.trajectories.stores.lerobot import layout


class ArrowColumn:
    """Rows of an Arrow array, memory-mapped; `take` gives Python values in an object array (n,)."""

    def __init__(self, values: pa.ChunkedArray) -> None:
        self.values = values
        self._starts = np.cumsum([0, *(len(chunk) for chunk in values.chunks)])

    @classmethod
    def open(cls, path: Path) -> ArrowColumn:
        with layout.readable(path):
            return cls(pa.ipc.open_file(pa.memory_map(str(path))).read_all().column(0))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        found = np.empty(len(rows), object) if out is None else out
        chunks = np.searchsorted(self._starts, rows, side="right") - 1
        for chunk in np.unique(chunks):  # by chunk: Arrow would first join all chunks into one
            where = np.flatnonzero(chunks == chunk)
            values: list[Any] = self.values.chunk(chunk).take(pa.array(rows[where] - self._starts[chunk])).to_pylist()
            for i, value in zip(where, values, strict=True):
                found[i] = value
        return found
