"""Checks that every store makes before it hands out recordings."""

from __future__ import annotations

from typing import Any

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.stores.gaps import MARKING

ROWS_AT_ONCE = 4096


def check_finite(values: Any, where: str, first: int = 0, *, nan_is_missing: bool | None = None) -> bool:
    """Raise DataError naming the first row (counted from `first`) of values (n, *shape) that holds NaN or infinity.

    Values are an array or what is sliced like one (an HDF5 dataset), and are read a piece at a time. Returns whether there is
    NaN, which `nan_is_missing` lets pass; it is None where the reader has no such option.
    """
    if values.dtype.kind != "f":
        return False
    gaps = False
    for start in range(0, len(values), ROWS_AT_ONCE):
        piece = values[start : start + ROWS_AT_ONCE]
        bad = np.isinf(piece) if nan_is_missing else ~np.isfinite(piece)
        if bad.any():
            row, *entry = np.argwhere(bad)[0]
            at = f" at entry {', '.join(map(str, entry))}" if entry else ""
            mend = f"; mend it, or {MARKING}" if nan_is_missing is False and np.isnan(piece[bad]).any() else ""
            raise DataError(
                f"{where} is NaN or infinite in row {first + start + int(row)}{at}; finite numbers are expected{mend}."
            )
        gaps |= bool(nan_is_missing and np.isnan(piece).any())
    return gaps
