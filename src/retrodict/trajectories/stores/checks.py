"""Checks that every store makes before it hands out recordings."""

from __future__ import annotations

from typing import Any

import numpy as np

from retrodict.errors import DataError

ROWS_AT_ONCE = 4096


def check_finite(values: Any, where: str, first: int = 0) -> None:
    """Raise DataError naming the first row (counted from `first`) of values (n, *shape) that holds NaN or infinity.

    Values are an array or what is sliced like one (an HDF5 dataset), and are read a piece at a time.
    """
    if values.dtype.kind != "f":
        return
    for start in range(0, len(values), ROWS_AT_ONCE):
        bad = ~np.isfinite(values[start : start + ROWS_AT_ONCE])
        if bad.any():
            row, *entry = np.argwhere(bad)[0]
            at = f" at entry {', '.join(map(str, entry))}" if entry else ""
            raise DataError(f"{where} is NaN or infinite in row {first + start + int(row)}{at}; finite numbers are expected.")
