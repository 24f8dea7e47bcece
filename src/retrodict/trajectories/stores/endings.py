"""Where the episodes end that lie end to end in one array, by columns that say so or by observations that do not go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrodict.trajectories.features import TERMINATED, TRUNCATED
from retrodict.trajectories.stores.checks import ROWS_AT_ONCE
from retrodict.trajectories.stores.views import Layout

DONE = "next.done"
ENDINGS = (TERMINATED, TRUNCATED, DONE)
"""Features that say of a step that its episode ended there."""


@dataclass(frozen=True)
class Following:
    """Next observations of a feature, beside the observations that they should repeat one row later."""

    name: str
    observed: Any
    following: Any
    lies: Layout | None

    def continues(self) -> np.ndarray:
        """Whether the next observation of each row but the last is the observation of the following row, (T - 1,)."""
        same = np.empty(len(self.observed) - 1, bool)
        for start in range(0, len(same), ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, len(same))
            following, observed = self.following[start:stop], self.observed[start + 1 : stop + 1]
            equal = (following == observed) | ((following != following) & (observed != observed))  # what is missing in both
            same[start:stop] = equal.reshape(stop - start, -1).all(1)
        return same


def last_rows(
    flags: Mapping[str, np.ndarray], total: int, following: Sequence[Following], path: Path, guessed: list[str]
) -> np.ndarray:
    """Last rows of the episodes that lie end to end in `total` rows, by the flags (T,) that a file has."""
    end = np.logical_or.reduce([np.zeros(total, bool), *flags.values()])
    if not flags.keys() & {TRUNCATED, DONE}:
        if following:
            end[:-1] |= ~np.logical_and.reduce([pair.continues() for pair in following])
            guessed.append(
                f"{path.name}: there are no timeouts, so episodes also end where the next observation is not the following one."
            )
        else:
            known = "terminals alone say" if flags else "nothing says"
            guessed.append(f"{path.name}: there are no timeouts: {known} where episodes end, so some may be several in one.")
    if not end[-1]:
        end[-1] = True
        guessed.append(f"{path.name}: the last episode is cut off by the end of the file and kept.")
    return np.flatnonzero(end)


def ends_told(columns: Mapping[str, np.ndarray], total: int, path: Path, guessed: list[str]) -> np.ndarray | None:
    """Last rows of the episodes as those of `columns` (feature -> (T, ...)) say that are `ENDINGS`; None where none does.

    One that holds anything else than 0 and 1 (a duration may be called `timeout`) says nothing; a gap in it is no end.
    """
    flags = {}
    for name in ENDINGS:
        values = np.nan_to_num(columns[name]) if name in columns and columns[name].dtype.kind in "biuf" else None
        if values is not None and np.isin(values, (0, 1)).all():
            flags[name] = (values != 0).reshape(total, -1).any(1)
    if not flags:
        return None
    ends = last_rows(flags, total, [], path, guessed)
    guessed.append(f"{path.name}: {', '.join(flags)} say where its {len(ends)} episodes end.")
    return ends
