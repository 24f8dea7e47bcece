"""Single images that stand in Parquet, read as they are encoded, one row group at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.stores.lerobot import layout


class ParquetImages(Sequence[bytes | Path]):
    """The encoded images (bytes, or the path of a file) of a column over several Parquet files.

    Only the row group read last is held, so that memory does not grow with the dataset.
    """

    def __init__(self, folder: Path, name: str, files: Sequence[Path]) -> None:
        self.folder, self.name = folder, name
        self._groups: list[tuple[Path, int]] = []
        rows = []
        for path in files:
            footer = layout.open_parquet(path).metadata
            for group in range(footer.num_row_groups):
                self._groups.append((path, group))
                rows.append(footer.row_group(group).num_rows)
        self._ends = np.cumsum(rows)
        self._held: tuple[int, list[dict[str, bytes | str | None]]] = (-1, [])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @overload
    def __getitem__(self, item: int) -> bytes | Path: ...
    @overload
    def __getitem__(self, item: slice) -> list[bytes | Path]: ...
    def __getitem__(self, item: int | slice) -> bytes | Path | list[bytes | Path]:
        if isinstance(item, slice):
            return [self[i] for i in range(*item.indices(len(self)))]
        if not 0 <= item < len(self):
            raise IndexError(item)
        group = int(np.searchsorted(self._ends, item, side="right"))
        held = self._held
        if held[0] != group:
            path, number = self._groups[group]
            with layout.readable(path), layout.open_parquet(path) as file:
                held = self._held = (group, file.read_row_group(number, columns=[self.name])[self.name].to_pylist())
        image = held[1][item - int(self._ends[group])]  # counted from the end of its group
        if image and image.get("bytes"):
            return image["bytes"]  # type: ignore[return-value]
        if image and image.get("path"):
            return self.folder / str(image["path"])
        raise DataError(f"{self._groups[group][0]}: row {item} has no image in {self.name!r}.")
