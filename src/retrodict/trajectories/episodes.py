"""Episodes: one recording from start to end, read feature by feature."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.columns import ArrayColumn, ChosenRows, Slice


@dataclass(frozen=True)
class Episode:
    """One episode: `length` steps, and for each feature it has, where the rows lie. Nothing is read before it is asked for.

    A feature that the episode lacks is absent from `slices`; single missing steps have a boolean `valid.<feature>` beside them.

    Attributes:
        index: `episode_index` in its source; with `source` it identifies the episode through every selection and conversion.
        length: number of steps T.
        slices: feature name -> rows of a column; `timestamp` (seconds) stands here too where the source has a clock.
        tasks: task texts met in the episode, the first being its task.
        domain: name of the environment it comes from, or None.
        source: file or dataset it was read from, for error messages and provenance.
        meta: whatever else the source said of this episode, kept untouched.
    """

    index: int
    length: int
    slices: Mapping[str, Slice]
    tasks: tuple[str, ...] = ()
    domain: str | None = None
    source: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __contains__(self, name: object) -> bool:
        return name in self.slices

    def __iter__(self) -> Iterator[str]:
        return iter(self.slices)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, name: str) -> np.ndarray:
        """All values of a feature, (T, *shape).

        Raises DataError when the episode has no such feature.
        """
        return self.read(name, np.arange(self.length))

    @property
    def identity(self) -> tuple[str, int]:
        """Names the episode among all episodes of all sources: the file it was first read from, and its index there.

        However a path is spelled and however often the episode was saved again, it is one episode: a copy of what a model
        learned from must not pass for held-out. Pieces of an episode share its identity.
        """
        source = str(self.meta.get("origin/source", self.source))
        index = int(self.meta.get("origin/episode_index", self.index))
        return (os.path.realpath(source) if os.path.exists(source) else source, index)

    def read(self, name: str, steps: np.ndarray) -> np.ndarray:
        """Values of a feature at `steps` (n,), as (n, *shape)."""
        try:
            where = self.slices[name]
        except KeyError:
            raise DataError(f"{self} has no feature {name!r}; it has {', '.join(sorted(self.slices)) or 'none'}.") from None
        return where.column.take(np.asarray(steps) + where.start)

    def with_values(self, values: Mapping[str, np.ndarray]) -> Episode:
        """The same episode with features added or replaced by arrays (T, *shape)."""
        for name, array in values.items():
            if len(array) != self.length:
                raise DataError(f"{self}: {name!r} has {len(array)} steps, expected {self.length}.")
        added = {name: Slice(ArrayColumn(np.asarray(array))) for name, array in values.items()}
        return replace(self, slices={**self.slices, **added})

    def at(self, steps: np.ndarray) -> Episode:
        """The same episode with only `steps` (n,), in that order; for samples without time, whose rows are exchangeable."""
        rows = np.asarray(steps)
        chosen = {k: Slice(ChosenRows(v.column, rows + v.start)) for k, v in self.slices.items()}
        return replace(self, length=len(rows), slices=chosen)

    def without(self, names: set[str]) -> Episode:
        """The same episode without the named features."""
        return replace(self, slices={k: v for k, v in self.slices.items() if k not in names})

    def __str__(self) -> str:
        return f"episode {self.index}" + (f" of {self.source}" if self.source else "")
