"""Episodes: one recording from start to end, read feature by feature."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.columns import ArrayColumn, ChosenRows, Slice
from retrodict.trajectories.features import FINAL, TERMINATED, TRUNCATED, VALID

ROWS = 64
"""Rows of an episode that its fingerprint is taken of."""


class Content:
    """Rows of the numeric observations of an episode, as it was first read."""

    def __init__(self, length: int, slices: Mapping[str, Slice]) -> None:
        self._length = length
        self._slices = {
            name: where
            for name, where in slices.items()
            if name.startswith("observation.")
            and isinstance(where.column, ArrayColumn)
            and where.column.values.dtype.kind in "iuf"
            and where.column.values.ndim <= 2
        }

    @cached_property
    def fingerprint(self) -> str | None:
        """Sixteen letters that tell this content from any other, by its length and rows spread over it; None without numbers."""
        if not self._slices:
            return None
        sha = hashlib.sha256(str(self._length).encode())
        rows = np.unique(np.linspace(0, self._length - 1, min(ROWS, self._length)).astype(int))
        for name, where in sorted(self._slices.items()):
            sha.update(name.encode())
            sha.update(np.ascontiguousarray(where.column.take(rows + where.start)).tobytes())
        return sha.hexdigest()[:16]


def runs_of(kept: np.ndarray) -> list[tuple[int, int]]:
    """First and last-but-one step of each run of True in `kept` (T,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], kept.astype(np.int8), [0]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


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
        content: what it was first read with, by which it is known again; set by itself and kept through every change.
    """

    index: int
    length: int
    slices: Mapping[str, Slice]
    tasks: tuple[str, ...] = ()
    domain: str | None = None
    source: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    content: Content = field(default=None, repr=False, compare=False)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.content is None:
            object.__setattr__(self, "content", Content(self.length, self.slices))

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
        """Names the episode among all episodes of all sources: a fingerprint of what was first read of it, and its index there.

        Saved again, converted, copied or moved, it is one episode: a copy of what a model learned from must not pass for
        held-out. Pieces of an episode share its identity. One without numbers to take a fingerprint of goes by its path.
        """
        origin = self.origin
        return (str(origin.get("origin/fingerprint") or origin["origin/source"]), int(origin["origin/episode_index"]))

    @property
    def origin(self) -> Mapping[str, Any]:
        """`meta` with where the episode was first recorded, for a copy to carry along."""
        if "origin/source" in self.meta:
            return self.meta
        first = {"origin/source": self.path, "origin/episode_index": self.index}
        fingerprint = self.content.fingerprint
        return {**first, **({"origin/fingerprint": fingerprint} if fingerprint else {}), **self.meta}

    def origin_of(self, start: int, stop: int) -> dict[str, Any]:
        """`meta` of a piece: where it was first recorded, and which frames of the whole recording it holds."""
        first = int(self.meta.get("origin/from_frame", 0))
        meta = {**self.origin, "origin/from_frame": first + start, "origin/to_frame": first + stop}
        if stop < self.length:  # what was seen after the last step of the whole was not seen after that of this piece
            meta.pop(FINAL, None)
        return meta

    @property
    def path(self) -> str:
        """Where it was read from, however that was spelled."""
        return os.path.realpath(self.source) if os.path.exists(self.source) else self.source

    def there(self, name: str) -> np.ndarray:
        """At which steps (T,) all of a feature was recorded, by its `valid.<name>`."""
        if VALID + name not in self:
            return np.ones(self.length, bool)
        return np.asarray(np.asarray(self[VALID + name]).reshape(self.length, -1).astype(bool).all(1))

    def over(self) -> np.ndarray:
        """At which steps (T,) it ended or was cut off (`next.terminated`, `next.truncated`); what follows began anew."""
        ends = [np.asarray(self[name]).reshape(self.length, -1) for name in (TERMINATED, TRUNCATED) if name in self]
        return np.asarray(np.concatenate([np.zeros((self.length, 1)), *ends], 1).astype(bool).any(1))

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

    def part(self, start: int, stop: int) -> Episode:
        """The steps from `start` to `stop` (not included) as an episode of the same identity, whose clock begins at 0."""
        if not 0 <= start < stop <= self.length:
            raise DataError(f"{self} has no steps {start} to {stop}; it has {self.length}.")
        slices = {name: Slice(where.column, where.start + start) for name, where in self.slices.items()}
        piece = replace(self, length=stop - start, slices=slices, meta=self.origin_of(start, stop))
        if "timestamp" in piece:
            clock = piece["timestamp"]
            piece = piece.with_values({"timestamp": clock - clock[0]})
        return piece

    def without(self, names: set[str]) -> Episode:
        """The same episode without the named features."""
        return replace(self, slices={k: v for k, v in self.slices.items() if k not in names})

    def __str__(self) -> str:
        return f"episode {self.index}" + (f" of {self.source}" if self.source else "")
