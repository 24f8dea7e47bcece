"""Recordings: what was seen, as episodes with named features of which some may be missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.actions import ActionSpace
from retrodict.trajectories.columns import ArrayColumn, Slice
from retrodict.trajectories.episodes import Episode, runs_of
from retrodict.trajectories.features import ACTION, BOOKKEEPING, IMAGES, PRIVILEGED, RUN, RUNS, VALID, Feature
from retrodict.trajectories.windows import Window, Windows


@dataclass(frozen=True)
class Recordings:
    """Episodes of one kind: the one dataset that every system reads.

    Immutable: selecting, splitting and adding columns give new views over the same files or arrays.

    Attributes:
        features: every feature that at least one episode has.
        episodes: the episodes, in order.
        fps: steps per second, or None where the clock is irregular or unknown.
        actions: what the numbers in `action` mean, or None where no episode carries actions and nothing says.
        independent: the rows are exchangeable samples without time; windows longer than one step are refused.
        structures: things that stay fixed (cameras, skeletons, meshes, graphs), by name, as JSON.
        meta: whatever else the source said (`robot_type`, ...), kept untouched.
    """

    features: Mapping[str, Feature]
    episodes: tuple[Episode, ...]
    fps: float | None = None
    actions: ActionSpace | None = None
    independent: bool = False
    structures: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        number = isinstance(self.fps, Real) and not isinstance(self.fps, bool)
        if self.fps is not None and not (number and 0 < self.fps < float("inf")):
            raise DataError(f"fps is the number of steps per second, above 0, or None where it is unknown; got {self.fps!r}.")

    # ---- as a sequence of episodes ------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.episodes)

    def __iter__(self) -> Iterator[Episode]:
        return iter(self.episodes)

    @overload
    def __getitem__(self, index: int) -> Episode: ...
    @overload
    def __getitem__(self, index: slice) -> Recordings: ...
    def __getitem__(self, index: int | slice) -> Episode | Recordings:
        return self.of(self.episodes[index]) if isinstance(index, slice) else self.episodes[index]

    def __add__(self, other: Recordings) -> Recordings:
        """Both sets of episodes; a feature that both have must have one shape and dtype, actions and structures one meaning.

        The labelling runs of both are kept, and numbered anew; of all else in `meta` what stands here counts.
        """
        for name in self.features.keys() & other.features.keys():
            mine, theirs = self.features[name], other.features[name]
            if (mine.shape, mine.dtype) != (theirs.shape, theirs.dtype):
                raise DataError(
                    f"cannot join recordings: {name!r} is {mine.dtype}{list(mine.shape)} in one and "
                    f"{theirs.dtype}{list(theirs.shape)} in the other."
                )
        if self.actions and other.actions and self.actions != other.actions:
            raise DataError(f"cannot join recordings: their action spaces differ ({self.actions} and {other.actions}).")
        for name in self.structures.keys() & other.structures.keys():
            if self.structures[name] != other.structures[name]:
                raise DataError(f"cannot join recordings: the structure {name!r} is not the same in both.")
        mine, theirs, meta = self.meta.get(RUNS, []), other.meta.get(RUNS, []), {**other.meta, **self.meta}
        if mine and theirs and mine != theirs:
            meta[RUNS] = [*mine, *theirs]
            numbers = [np.asarray(e[RUN]) if RUN in e else None for e in other]
            other = other.with_column(RUN, [n if n is None else np.where(n >= 0, n + len(mine), n) for n in numbers])
        return replace(
            self,
            features={**other.features, **self.features},
            episodes=self.episodes + other.episodes,
            fps=self.fps if self.fps == other.fps else None,
            actions=self.actions or other.actions,
            structures={**other.structures, **self.structures},
            meta=meta,
        )

    @property
    def steps(self) -> int:
        """Number of steps over all episodes."""
        return sum(episode.length for episode in self.episodes)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Task texts, in order of first appearance."""
        return tuple(dict.fromkeys(task for episode in self for task in episode.tasks))

    @property
    def domains(self) -> tuple[str, ...]:
        """Domain names, in order of first appearance."""
        return tuple(dict.fromkeys(episode.domain for episode in self if episode.domain is not None))

    # ---- selecting ----------------------------------------------------------------------------------------------------

    def of(self, episodes: Iterable[Episode]) -> Recordings:
        """Recordings of the same kind over other episodes; features that none of them has are gone."""
        chosen = tuple(episodes)
        present = {name for episode in chosen for name in episode.slices}
        return replace(self, episodes=chosen, features={k: v for k, v in self.features.items() if k in present})

    def select(self, where: Callable[[Episode], bool] | Sequence[int] | None = None, *, domain: str | None = None) -> Recordings:
        """The episodes at positions `where`, or those for which it is true, or those of a `domain`."""
        if where is None:
            chosen: Iterable[Episode] = self.episodes
        elif callable(where):
            chosen = filter(where, self.episodes)
        else:
            chosen = [self.episodes[i] for i in where]
        return self.of(episode for episode in chosen if domain is None or episode.domain == domain)

    def having(self, *names: str) -> Recordings:
        """The episodes that have every named feature."""
        return self.select(lambda episode: all(name in episode for name in names))

    def lacking(self, name: str) -> Recordings:
        """The episodes that do not have the named feature."""
        return self.select(lambda episode: name not in episode)

    def unbroken(self, *names: str) -> Recordings:
        """Every stretch in which none of the named features is missing (`valid.<name>`) as an episode of its own.

        Raises DataError where nothing is left.
        """
        pieces = []
        for episode in self:
            there = np.all([np.ones(episode.length, bool), *(episode.there(name) for name in names)], axis=0)
            pieces += [episode] if there.all() else [episode.part(start, stop) for start, stop in runs_of(there)]
        if not pieces:
            raise DataError(f"{', '.join(names)}: missing at every one of {self.steps} steps; nothing is left.")
        return self.of(pieces).without(*(VALID + name for name in names))

    def split(
        self, fraction: float, seed: int = 0, *, by: Literal["episode", "domain"] = "episode"
    ) -> tuple[Recordings, Recordings]:
        """Two disjoint parts, the second with about `fraction` of the episodes (at least one of each where there are two).

        Splits by episode, never by step: steps of one episode resemble each other. `by="domain"` keeps domains whole. Independent
        samples are split by row.
        """
        if not 0 < fraction < 1:
            raise DataError(f"fraction must lie between 0 and 1, got {fraction}.")
        if self.independent and by == "episode":
            return self._split_rows(fraction, seed)
        keys = [episode.domain if by == "domain" else position for position, episode in enumerate(self)]
        groups = list(dict.fromkeys(keys))
        if len(groups) < 2:
            raise DataError(f"cannot split {len(groups)} {by}(s) into two parts; at least two are needed.")
        count = min(max(round(fraction * len(groups)), 1), len(groups) - 1)
        held = {groups[i] for i in np.random.default_rng(seed).permutation(len(groups))[:count]}
        parts: tuple[list[Episode], list[Episode]] = ([], [])
        for key, episode in zip(keys, self, strict=True):
            parts[key in held].append(episode)
        return self.of(parts[0]), self.of(parts[1])

    def _split_rows(self, fraction: float, seed: int) -> tuple[Recordings, Recordings]:
        """Every table of samples in two, each row in one of the parts."""
        rng = np.random.default_rng(seed)
        parts: tuple[list[Episode], list[Episode]] = ([], [])
        for table in self:
            if table.length < 2:
                raise DataError(f"cannot split {table.length} sample(s) into two parts; at least two are needed.")
            held = min(max(round(fraction * table.length), 1), table.length - 1)
            order = rng.permutation(table.length)
            for part, rows in zip(parts, (order[held:], order[:held]), strict=True):
                part.append(table.at(np.sort(rows)))
        return self.of(parts[0]), self.of(parts[1])

    def without(self, *names: str) -> Recordings:
        """The same episodes without the named features (and their `valid.*`); a name ending in `.` or `*` is a prefix."""
        prefixes = tuple(name.rstrip("*") for name in names if name.endswith((".", "*")))
        gone = {
            feature
            for feature in {*self.features, *(name for episode in self for name in episode.slices)}
            if feature in names or (base := feature.removeprefix(VALID)) in names or (prefixes and base.startswith(prefixes))
        }
        return replace(
            self,
            episodes=tuple(episode.without(gone) for episode in self),
            features={k: v for k, v in self.features.items() if k not in gone},
        )

    def visible(self) -> Recordings:
        """The same episodes without `privileged.*`, which no system may learn from."""
        return self.without(PRIVILEGED)

    def with_column(self, name: str, values: Sequence[np.ndarray | None], feature: Feature | None = None) -> Recordings:
        """The same episodes with a feature added or replaced: one array (T, *shape) per episode, None where it lacks it."""
        if len(values) != len(self):
            raise DataError(f"{name!r}: {len(values)} arrays given for {len(self)} episodes.")
        given = next((v for v in values if v is not None), None)
        if given is None:
            return self.without(name)
        feature = feature or describe(name, {i: v for i, v in enumerate(values) if v is not None})
        episodes = tuple(
            episode.without({name}) if array is None else episode.with_values({name: array})
            for episode, array in zip(self, values, strict=True)
        )
        return replace(self, episodes=episodes, features={**self.features, name: feature})

    def with_rows(self, name: str, rows: np.ndarray, feature: Feature | None = None) -> Recordings:
        """As `with_column`, from one array (steps, *shape) of all episodes end to end.

        Raises DataError where there are not as many rows as steps.
        """
        if len(rows) != self.steps:
            raise DataError(f"{name!r}: {len(rows)} rows given for {self.steps} steps.")
        ends = np.cumsum([len(episode) for episode in self])[:-1]
        return self.with_column(name, np.split(rows, ends), feature)

    # ---- reading and writing ------------------------------------------------------------------------------------------

    def windows(self, window: Window, batch: int = 32, **options: Any) -> Windows:
        """Batches of windows of these episodes; see `Windows` for the options."""
        return Windows(self, window, batch, **options)

    def save(self, folder: str | Path, **options: Any) -> Path:
        """Write as a LeRobotDataset v3.0; see `stores.lerobot.write` for the options."""
        from retrodict.trajectories.stores import lerobot  # stores build recordings, so they stand above this file

        return lerobot.write(self, folder, **options)


def describe(name: str, arrays: Mapping[int, np.ndarray]) -> Feature:
    """The feature that arrays (T, *shape) of several episodes, by number, make, with -1 for a dimension in which they differ.

    Raises DataError when they differ in dtype or in number of dimensions, or actions in their shape.
    """
    number, first = next(iter(arrays.items()))
    for other, array in arrays.items():
        same = "shape" if name == ACTION else "number of dimensions"
        alike = array.shape[1:] == first.shape[1:] if name == ACTION else array.ndim == first.ndim
        if array.dtype != first.dtype or not alike:
            seen = [f"{a.dtype} of shape {a.shape[1:]} a step in episode {i}" for i, a in ((number, first), (other, array))]
            raise DataError(
                f"{name!r} is {' and '.join(seen)}; bring all episodes to one dtype and {same}, or keep these episodes apart."
            )
    shape = tuple(sizes[0] if len(set(sizes)) == 1 else -1 for sizes in zip(*(a.shape[1:] for a in arrays.values()), strict=True))
    if first.dtype == object or first.dtype.kind == "U":
        return Feature("string", shape or (1,))
    if first.ndim == 4 and first.dtype == np.uint8 and (name.startswith(IMAGES) or shape[-1] in (1, 3)):
        return Feature("image", shape, ["height", "width", "channels"])
    return Feature(first.dtype.name, shape or (1,))


def from_arrays(
    episodes: Sequence[Mapping[str, np.ndarray]],
    *,
    fps: float | None = None,
    actions: ActionSpace | None = None,
    tasks: Sequence[str] | None = None,
    domains: Sequence[str] | None = None,
    source: str = "memory",
    **about: Any,
) -> Recordings:
    """Recordings over arrays in memory: one mapping of feature name -> array (T, *shape) per episode.

    Args:
        episodes: features of each episode; they may have different lengths and lack features.
        fps: steps per second; a `timestamp` array (T,) in seconds in an episode is its own clock.
        actions: the meaning of `action`; a plain continuous space with unknown meaning where not given.
        tasks, domains: one text per episode.
        about: further fields of `Recordings` (`structures`, `meta`, `independent`).

    Raises DataError for an empty list or one of something else, arrays of unequal length in an episode, features that change
    shape or dtype, tasks or domains that are not one text per episode, and an `fps` that is no number above 0.
    """
    kinds = [type(values).__name__ for values in episodes if not isinstance(values, Mapping)]
    if isinstance(episodes, Mapping) or kinds:
        seen = "a single mapping" if isinstance(episodes, Mapping) else f"one with {kinds[0]}"
        raise DataError(f"episodes is a list with a mapping of feature name -> array (T, *shape) for each; got {seen}.")
    if not episodes:
        raise DataError("no episodes given; at least one is expected.")
    for name, texts in (("tasks", tasks), ("domains", domains)):
        if texts is not None:
            _refuse_other_texts(name, texts, len(episodes))
    made = []
    for i, values in enumerate(episodes):
        lengths = {name: len(array) if np.ndim(array) else 0 for name, array in values.items()}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise DataError(f"episode {i}: features need one common length above 0, got {lengths}.")
        slices = {name: Slice(ArrayColumn(_row_by_row(array))) for name, array in values.items()}
        made.append(
            Episode(
                index=i,
                length=next(iter(lengths.values())),
                slices=slices,
                tasks=(tasks[i],) if tasks is not None else (),
                domain=domains[i] if domains is not None else None,
                source=source,
            )
        )
    names = dict.fromkeys(name for values in episodes for name in values if name not in BOOKKEEPING)
    features = {name: describe(name, {i: np.asarray(v[name]) for i, v in enumerate(episodes) if name in v}) for name in names}
    if actions is None and "action" in features:
        actions = ActionSpace.unknown(features["action"])
    return Recordings(features, tuple(made), fps=fps, actions=actions, **about)


def _refuse_other_texts(name: str, texts: Sequence[str], count: int) -> None:
    """Raise DataError unless these are one text for each of `count` episodes."""
    if isinstance(texts, str):
        raise DataError(f"{name} is a list with one text per episode, got the text {texts!r}; give [{texts!r}] * {count}.")
    if len(texts) != count:
        raise DataError(f"{name} is a list with one text per episode, got {len(texts)} for {count} episodes.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"{name} is a list with one text per episode; that of episode {i} is {text!r}.")


def from_samples(*, source: str = "memory", **columns: np.ndarray) -> Recordings:
    """Independent samples (images, triples, snapshot pairs): rows are exchangeable and have no time.

    Columns are arrays (N, *shape); dots in feature names are written as double underscores (`label__class`).
    """
    named = {name.replace("__", "."): np.asarray(array) for name, array in columns.items()}
    return from_arrays([named], source=source, independent=True)


def _row_by_row(array: np.ndarray) -> np.ndarray:
    """The array laid out step by step: taking a few rows of one that lies column by column would copy all of it."""
    array = np.asarray(array)
    return array if isinstance(array, np.memmap) else np.ascontiguousarray(array).reshape(array.shape)
