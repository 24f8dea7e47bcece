"""Minari datasets, read and written without the minari package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.actions import ActionSpace
from retrodict.trajectories.columns import ArrayColumn, Column, Slice
from retrodict.trajectories.episodes import Episode
from retrodict.trajectories.features import ACTION, FINAL, PRIVILEGED, Feature
from retrodict.trajectories.recordings import Recordings
from retrodict.trajectories.stores.checks import check_finite
from retrodict.trajectories.stores.gaps import with_gaps_marked
from retrodict.trajectories.stores.headers import TASK
from retrodict.trajectories.stores.minari_files import Raw, Terms, read_arrow, read_hdf5
from retrodict.trajectories.stores.minari_writing import METADATA, OURS, write
from retrodict.trajectories.stores.spaces import Leaf, action_space, leaves, observation_names
from retrodict.trajectories.stores.stating import Stated, stated_space
from retrodict.trajectories.stores.views import FlatView, feature_of, layout

__all__ = ["KIND", "read", "recognises", "write"]

KIND = "a Minari dataset folder"
READERS = {"hdf5": read_hdf5, "arrow": read_arrow, "parquet": read_arrow}
NEEDED = ("total_episodes", "data_format", "observation_space", "action_space")
MISSIONS = TASK | {"mission"}


def recognises(path: Path) -> bool:
    """True for the folder of a dataset and for the `data` folder in it."""
    return path.is_dir() and _metadata(path) is not None


def read(
    path: Path,
    *,
    fps: float | None = None,
    infos: bool = True,
    actions: Stated | None = None,
    nan_is_missing: bool = False,
) -> Recordings:
    """Recordings over a Minari dataset (HDF5, Arrow or Parquet); values stay on disk and are read by row.

    A box becomes `observation.state`, a picture `observation.images.<key>`, the entries of a dict or tuple `observation.<key>`;
    infos become `privileged.<name>`. Episodes have as many steps as actions, `action[t]` leads from `observation[t]` to the next;
    the observation after the last action stands in `meta["final"]` of the episode (see `finals`).

    Args:
        path: the folder of the dataset, or the `data` folder in it.
        fps: steps per second, of which the format says nothing.
        infos: False leaves `privileged.*` out.
        actions: what an action means, see `opening.open`, in place of what the dataset says.
        nan_is_missing: mark NaN in `valid.<feature>` instead of refusing it; what is NaN throughout an episode is absent.

    Raises DataError for damaged files, arrays that do not fit the spaces, no episodes, and NaN.
    """
    data = path if (path / METADATA).exists() else path / "data"
    about = _checked(data)
    ours = about.pop(OURS, {})
    try:
        observed, acted = (leaves(json.loads(about[f"{name}_space"])) for name in ("observation", "action"))
        space = ActionSpace.from_json(ours["actions"]) if "actions" in ours else action_space(acted)
        space = stated_space(actions, space)
    except DataError as error:
        raise DataError(f"{data / METADATA}: {error}") from None
    builder = Builder(
        source=str(path),
        observed=observed,
        acted=acted,
        names=observation_names(observed, ours.get("observations", {})),
        info_names=ours.get("infos", {}),
        with_infos=infos,
        nan_is_missing=nan_is_missing,
        domain=(json.loads(about.get("env_spec") or "{}") or {}).get("id"),
    )
    terms = Terms(bool(about.get("jpeg_encoding", True)), nan_is_missing)
    raws = READERS[about["data_format"]](data, about["total_episodes"], observed, acted, terms)
    episodes = tuple(builder.episode(i, raw) for i, raw in enumerate(raws))
    features = {**builder.features, ACTION: Feature("float32", (space.width,), list(space.names))}
    features |= {name: Feature.from_json(entry) for name, entry in ours.get("features", {}).items() if name in features}
    said = {leaf.name or "itself": builder.names[leaf.keys] for leaf in observed}
    guessed = [f"the observation {name} is kept as {feature!r}." for name, feature in said.items() if not ours]
    if any(name.startswith(PRIVILEGED) for name in features) and not ours:
        guessed.append("infos are kept as privileged.*, which no system may learn from.")
    recordings = Recordings(
        features,
        episodes,
        fps=fps if fps is not None else ours.get("fps"),
        actions=space,
        structures=ours.get("structures", {}),
        meta={**ours.get("meta", {}), "minari": about, "guessed": [*guessed, *builder.left_out]},
    )
    return with_gaps_marked(recordings) if nan_is_missing else recordings


def _metadata(path: Path) -> dict[str, Any] | None:
    for file in (path / "data" / METADATA, path / METADATA):
        if file.is_file():
            try:
                found = json.loads(file.read_text())
            except (json.JSONDecodeError, UnicodeDecodeError):
                return {} if file.parent.name == "data" else None
            return found if isinstance(found, dict) and ("data_format" in found or "minari_version" in found) else None
    return None


def _checked(data: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads((data / METADATA).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{data / METADATA} is damaged: {error}.") from None
    if lacking := [name for name in NEEDED if name not in about]:
        raise DataError(
            f"{data / METADATA} does not say {', '.join(lacking)}; datasets written by Minari 0.5 or later are expected."
        )
    if about["data_format"] not in READERS:
        raise DataError(f"{data / METADATA} names the format {about['data_format']!r}; {', '.join(READERS)} can be read.")
    if not about["total_episodes"]:
        raise DataError(f"{data / METADATA}: the dataset has no episodes; at least one is expected.")
    return about


@dataclass
class Builder:
    """Makes episodes of what a dataset holds, and collects the features that they have between them."""

    source: str
    observed: list[Leaf]
    acted: list[Leaf]
    names: Mapping[tuple[str | int, ...], str]
    info_names: Mapping[str, str]
    with_infos: bool
    nan_is_missing: bool
    domain: str | None
    features: dict[str, Feature] = field(default_factory=dict)
    left_out: dict[str, None] = field(default_factory=dict)

    def episode(self, index: int, raw: Raw) -> Episode:
        where = f"{self.source}, episode {index}"
        about = dict(raw.about)
        ours = json.loads(about.pop(OURS, "{}"))
        filled = set(ours.get("filled", ()))
        flags = _flags(raw, where, self.nan_is_missing)
        length = len(flags["next.reward"])
        columns, final = self._observations(raw)
        columns[ACTION] = self._action(raw)
        for name, column in flags.items():
            if name not in filled:
                columns[name] = column
                self.features.setdefault(name, feature_of((), column.values.dtype, None))
        if self.with_infos:
            infos, last = self._infos(raw, length)
            columns, final = columns | infos, final | last
        tasks = ours.get("tasks", self._tasks(raw, length))
        meta = ours.get("meta", about)
        return Episode(
            index=ours.get("index", index),
            length=length,
            slices={name: Slice(column) for name, column in columns.items()},
            tasks=tuple(tasks),
            domain=ours.get("domain", self.domain),
            source=ours.get("source", self.source),
            meta={**meta, FINAL: final} if final and FINAL not in filled else meta,
        )

    def _observations(self, raw: Raw) -> tuple[dict[str, Column], dict[str, Any]]:
        """Columns of the observation, and the row after the last action where there is one."""
        columns: dict[str, Column] = {}
        final = {}
        for leaf, values in zip(self.observed, raw.observations, strict=True):
            name = self.names[leaf.keys]
            columns[name] = values.column
            self.features.setdefault(name, feature_of(leaf.shape, leaf.dtype, layout(leaf.shape, leaf.dtype)))
            if values.last is not None:
                final[name] = values.last
        return columns, final

    def _action(self, raw: Raw) -> Column:
        columns, first = tuple(values.column for values in raw.actions), self.acted[0]
        if len(self.acted) == 1 and first.dtype == np.float32 and len(first.shape) == 1:
            return columns[0]  # it is the flat vector already, and may be memory-mapped
        return FlatView(columns, tuple(leaf.start for leaf in self.acted))

    def _infos(self, raw: Raw, length: int) -> tuple[dict[str, Column], dict[str, Any]]:
        columns, final = {}, {}
        for key, values in raw.infos.items():
            name = self.info_names.get(key, PRIVILEGED + key)
            if len(values.column) not in (length, length + 1):
                self.left_out[f"the info {key!r} is left out: it has not one row a step."] = None
                continue
            columns[name] = values.column
            if name != "timestamp":
                self.features.setdefault(name, feature_of(*values.row, None))
            if values.last is not None:
                final[name] = values.last
        return columns, final

    def _tasks(self, raw: Raw, length: int) -> tuple[str, ...]:
        """What the episode is told to do, where the environment says so in words."""
        for leaf, values in zip(self.observed, raw.observations, strict=True):
            if leaf.kind == "Text" and leaf.keys and leaf.keys[-1] in MISSIONS:
                return tuple(dict.fromkeys(values.column.take(np.arange(length)).tolist()))
        return ()


def _flags(raw: Raw, where: str, nan_is_missing: bool) -> dict[str, ArrayColumn]:
    for name, values in raw.flags.items():
        if len(values) != len(raw.flags["rewards"]) or not len(values):
            raise DataError(f"{where}: {name} has {len(values)} steps; {len(raw.flags['rewards'])}, at least one, are expected.")
    check_finite(np.asarray(raw.flags["rewards"]), f"{where}: rewards", nan_is_missing=nan_is_missing)
    terminated, truncated = (np.asarray(raw.flags[name]).astype(bool) for name in ("terminations", "truncations"))
    return {
        "next.reward": ArrayColumn(np.asarray(raw.flags["rewards"])),
        "next.terminated": ArrayColumn(terminated),
        "next.truncated": ArrayColumn(truncated),
        "next.done": ArrayColumn(terminated | truncated),
    }
