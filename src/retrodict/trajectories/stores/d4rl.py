"""D4RL's layout: one long array per feature, episodes end where `terminals` or `timeouts` say; in HDF5 or in NPZ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.actions import ActionSpace, Box, Discrete
from retrodict.trajectories.columns import ArrayColumn, Column, Slice
from retrodict.trajectories.episodes import Episode
from retrodict.trajectories.features import ACTION, FINAL, PRIVILEGED, Feature
from retrodict.trajectories.recordings import Recordings
from retrodict.trajectories.stores.checks import check_finite
from retrodict.trajectories.stores.endings import Following, last_rows
from retrodict.trajectories.stores.finals import keep
from retrodict.trajectories.stores.gaps import with_gaps_marked
from retrodict.trajectories.stores.hdf5_columns import column_of
from retrodict.trajectories.stores.stating import RANGE_UNKNOWN, Stated, stated_space
from retrodict.trajectories.stores.views import FlatView, as_frames, feature_of, layout, observation_name

NEXT = "next."
FLAGS = {"next.terminated": "terminals", "next.truncated": "timeouts"}
GROUPS = ("observations", "actions", "rewards", *FLAGS.values(), "next_observations", "infos")
METADATA = "metadata"


def recognises(arrays: Iterable[str]) -> bool:
    """True where arrays, by their paths in a file, are D4RL's; without `actions`, they are recordings that lack them."""
    heads = {name.partition("/")[0] for name in arrays}
    return "observations" in heads and not any(name.startswith("actions/") for name in arrays)


def read(
    arrays: Mapping[str, Any],
    path: Path,
    *,
    about: Mapping[str, Any],
    fps: float | None,
    infos: bool,
    actions: Stated | None,
    nan_is_missing: bool,
) -> Recordings:
    """Recordings over the arrays of a file, by their paths in it; see `hdf5.read`. `about` is what else it says of itself."""
    found = _found(arrays, path, infos)
    guessed: list[str] = []
    columns: dict[str, Column] = {}
    features: dict[str, Feature] = {}
    following = []
    for name, dataset in found.items():
        group, *keys = name.split("/")
        if group in ("terminals", "timeouts", "actions"):
            continue
        check_finite(dataset, f"{path}: {name!r}", nan_is_missing=nan_is_missing)
        lies = layout(dataset.shape[1:], dataset.dtype) if group.endswith("observations") else None
        feature = {"rewards": "next.reward", "infos": PRIVILEGED + ".".join(keys)}.get(group) or observation_name(keys, lies)
        if (observed := found.get("/".join(("observations", *keys)))) is not None and group == "next_observations":
            following.append(Following(feature, observed, dataset, lies))
        else:
            columns[feature], features[feature] = column_of(dataset, lies), feature_of(dataset.shape[1:], dataset.dtype, lies)
    space = None
    if "actions" in found:
        check_finite(found["actions"], f"{path}: 'actions'", nan_is_missing=nan_is_missing)
        columns[ACTION], space = action_column(found["actions"], path, actions, guessed)
        features[ACTION] = Feature("float32", (space.width,))
    flags = {name: _flag(found[source]) for name, source in FLAGS.items() if source in found}
    ends = last_rows(flags, len(next(iter(found.values()))), following, path, guessed)
    if flags:
        flags["next.done"] = np.logical_or.reduce(list(flags.values()))
    columns |= {name: ArrayColumn(values) for name, values in flags.items()}
    features |= dict.fromkeys(flags, Feature("bool", (1,)))
    finals: list[dict[str, Any]] = [{} for _ in ends]
    for pair in following:
        broken = ~pair.continues()
        broken[ends[:-1]] = False
        if broken.any():
            columns[NEXT + pair.name], features[NEXT + pair.name] = column_of(pair.following, pair.lies), features[pair.name]
            guessed.append(f"{path.name}: next observations differ from the following ones and are kept as {NEXT + pair.name!r}.")
            continue
        for final, row in zip(finals, pair.following[ends], strict=True):
            if not (row != row).any():  # NaN: it is missing
                final[pair.name] = keep(as_frames(row, pair.lies) if pair.lies else row)
    starts = [0, *(ends[:-1] + 1).tolist()]
    episodes = tuple(
        Episode(
            index=i,
            length=end + 1 - start,
            slices={name: Slice(column, start) for name, column in columns.items()},
            source=str(path),
            meta={FINAL: final} if final else {},
        )
        for i, (start, end, final) in enumerate(zip(starts, ends.tolist(), finals, strict=True))
    )
    meta = {"guessed": guessed, "d4rl": _about(arrays, about, path, guessed)}
    made = Recordings(features, episodes, fps=fps, actions=space, meta=meta)
    return with_gaps_marked(made) if nan_is_missing else made


def _found(arrays: Mapping[str, Any], path: Path, infos: bool) -> dict[str, Any]:
    """The arrays that have a row for each step, by their path in the file."""
    groups = [group for group in GROUPS if infos or group != "infos"]
    found = {name: dataset for group in groups for name, dataset in arrays.items() if name.partition("/")[0] == group}
    check_rows(found, str(path))
    return found


def check_rows(found: Mapping[str, Any], where: str) -> int:
    """The number of rows that arrays have in common; raises DataError where they have none."""
    rows = {name: dataset.shape[0] if dataset.shape else 0 for name, dataset in found.items()}
    first = "actions" if "actions" in rows else next(iter(rows))
    for name, count in rows.items():
        if count != rows[first] or not count:
            raise DataError(
                f"{where}: {name!r} has {count} rows and {first!r} {rows[first]}; one row a step, at least one, is expected."
            )
    return rows[first]


def action_column(dataset: Any, path: Path, stated: Stated | None, guessed: list[str]) -> tuple[Column, ActionSpace]:
    """The `action` column of a dataset (T,) or (T, n) and its meaning.

    Where it is not stated, whole numbers (T,) are choices, and of others nothing is known.
    """
    if stated is not None or dataset.dtype.kind not in "iu" or dataset.ndim > 1:
        if stated is None:
            guessed.append(f"{path.name}: what an action means is unknown, and {RANGE_UNKNOWN}.")
        return continuous_actions(dataset, stated)
    values = dataset[()]
    if values.min() < 0:
        raise DataError(f"{path}: actions are whole numbers down to {values.min()}; choices that start at 0 are expected.")
    guessed.append(f"{path.name}: actions are whole numbers up to {values.max()}: taken for choices.")
    choices = Discrete(tuple(map(str, range(int(values.max()) + 1))))
    return FlatView((column_of(dataset),), (0,)), ActionSpace({ACTION: choices}, leads=True)


def continuous_actions(dataset: Any, stated: Stated | None) -> tuple[Column, ActionSpace]:
    """The `action` column of a dataset (T, n), each action of which leads to the next observation; else all is as stated."""
    column = column_of(dataset)
    width = int(np.prod(dataset.shape[1:]))
    space = stated_space(stated, ActionSpace({ACTION: Box(tuple(f"action_{i}" for i in range(width)))}, leads=True))
    return (column if dataset.dtype == np.float32 and dataset.ndim == 2 else FlatView((column,), (0,))), space


def _flag(dataset: Any) -> np.ndarray:
    return np.asarray(dataset[()] != 0).reshape(-1)


def _about(arrays: Mapping[str, Any], about: Mapping[str, Any], path: Path, guessed: list[str]) -> dict[str, Any]:
    """What the file says of itself, except for arrays (the weights of the policy that acted)."""
    metadata = {name.removeprefix(METADATA + "/"): leaf for name, leaf in arrays.items() if name.startswith(METADATA + "/")}
    if large := [f"{METADATA}/{name} {leaf.shape}" for name, leaf in metadata.items() if leaf.size != 1]:
        guessed.append(f"{path.name}: arrays of the metadata are left out: {', '.join(large)}.")
    small = {name: _plain(leaf[()]) for name, leaf in metadata.items() if leaf.size == 1}
    return {name: _plain(value) for name, value in about.items()} | small


def _plain(value: Any) -> Any:
    value = np.asarray(value).reshape(-1).tolist()
    value = [entry.decode(errors="replace") if isinstance(entry, bytes) else entry for entry in value]
    return value[0] if len(value) == 1 else value
