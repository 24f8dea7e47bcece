"""Parquet files of one schema, a new one begun when the last is large enough."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from retrodict.errors import DataError
from retrodict.trajectories.stores.lerobot.layout import place


class RollingFiles:
    """Tables one after the other in `chunk-*/file-*` files of about `mb` megabytes; a table is never cut."""

    def __init__(self, out: Path, pattern: str, mb: float, **fixed: str) -> None:
        self.out, self.pattern, self.limit, self.fixed = out, pattern, mb * 2**20, fixed
        self._writer: pq.ParquetWriter | None = None
        self._schema: pa.Schema | None = None
        self._number, self._bytes = -1, 0

    def next_file(self, size: int) -> int:
        """Running number of the file into which a table of `size` bytes will go."""
        return self._number + (self._writer is None or self._bytes + size > self.limit)

    def write(self, table: pa.Table) -> int:
        """Add a table; returns the number of its file."""
        self._schema = self._schema or table.schema
        try:
            table = table.cast(self._schema)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
            raise DataError(f"episodes differ in the type of a column ({str(error).splitlines()[0]}).") from None
        if (number := self.next_file(table.nbytes)) != self._number:
            self.close()
            path = self.out / self.pattern.format(**self.fixed, **place(number))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer, self._number, self._bytes = pq.ParquetWriter(path, self._schema), number, 0
        assert self._writer is not None
        self._writer.write_table(table)
        self._bytes += table.nbytes
        return number

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
