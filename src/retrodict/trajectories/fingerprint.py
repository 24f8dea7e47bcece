"""What tells recordings apart by their content: for work that is carried on, and must be carried on with the same data.

An episode is known again after conversions and cuts by its `identity`; this is stricter, and changes with any value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from retrodict.trajectories.columns import Slice
from retrodict.trajectories.recordings import Recordings

BYTES_AT_ONCE = 1 << 24


def fingerprint(recordings: Recordings, names: Iterable[str] | None = None) -> str:
    """Sixteen letters that change when other episodes are given, in another order, or anything in them is changed.

    Every number and text is read; of videos and image files it reads what tells a file from another version of it. The same data
    in another place have the same letters.

    Args:
        recordings: what will be worked on.
        names: the features that count; all that the episodes have where None.
    """
    wanted = None if names is None else set(names)
    sha = hashlib.blake2b(digest_size=8)
    for episode in recordings:
        present = sorted(name for name in episode if wanted is None or name in wanted)
        sha.update(repr((episode.index, episode.length, episode.tasks, episode.domain, present)).encode())
        for name in present:
            for piece in _content(episode.slices[name], episode.length):
                sha.update(piece)
    return sha.hexdigest()


def _content(where: Slice, length: int) -> Iterator[bytes | memoryview]:
    column, start = where.column, where.start
    if hasattr(column, "content"):
        yield from column.content(start, length)
        return
    row = column.take(np.arange(start, start + 1))
    at_once = max(1, BYTES_AT_ONCE // max(row.nbytes, 1))
    yield f"{row.dtype}{row.shape[1:]}".encode()
    for begin in range(start, start + length, at_once):
        rows = column.take(np.arange(begin, min(begin + at_once, start + length)))
        yield repr(rows.tolist()).encode() if rows.dtype == object else np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
