"""Buffers: memory for large batches that is used again once nobody holds what was in it."""

from __future__ import annotations

import math
import mmap
import weakref
from collections import deque

import numpy as np
import numpy.typing as npt


class Buffers:
    """Hands out uninitialised arrays. Fresh pages cost the system more than the frames that are read into them.

    Args:
        keep: pieces of memory that are kept for later; more than that are given back to the system.
    """

    def __init__(self, keep: int = 4) -> None:
        self._free: deque[mmap.mmap] = deque(maxlen=keep)

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
        """An array whose memory comes back here when it, and every view of it, is gone."""
        size = max(math.prod(shape) * np.dtype(dtype).itemsize, 1)
        memory = self._fitting(size)
        # The memory is no array itself, so that views of the array keep the array alive and not only the memory.
        made: np.ndarray = np.ndarray(shape, dtype, buffer=memory)
        weakref.finalize(made, self._free.append, memory).atexit = False
        return made

    def _fitting(self, size: int) -> mmap.mmap:
        while self._free:
            try:
                memory = self._free.pop()
            except IndexError:  # another thread was faster
                break
            if len(memory) >= size:
                return memory
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        return memory
