"""Many pieces of open files read into one array by one call: no Python between the pieces, and other threads run meanwhile.

Imported where frames are first read, as compiled code takes a moment to load.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

_ADDRESS = types.uintp
_pread: Any = types.ExternalFunction("pread", types.intp(types.int32, _ADDRESS, types.uintp, types.int64))
_numbers = types.int64[::1]


def read_pieces(files: np.ndarray, offsets: np.ndarray, starts: np.ndarray, sizes: np.ndarray, out: np.ndarray) -> int:
    """Read `sizes[i]` bytes from `offsets[i]` on of the open file `files[i]` to `starts[i]` of the contiguous bytes `out`.

    All are int64 (n,) and must lie within `out`. Returns the first i that could not be read in full, -1 where all could.
    """
    return int(_read(files, offsets, starts, sizes, out.ctypes.data))


@njit(types.int64(_numbers, _numbers, _numbers, _numbers, _ADDRESS), cache=True, nogil=True)
def _read(files, offsets, starts, sizes, begin):  # type: ignore[no-untyped-def]
    for i in range(len(files)):
        done = 0
        while done < sizes[i]:
            at = begin + np.uint64(starts[i] + done)
            got = _pread(np.int32(files[i]), at, np.uint64(sizes[i] - done), offsets[i] + done)
            if got <= 0:
                return i
            done += got
    return -1
