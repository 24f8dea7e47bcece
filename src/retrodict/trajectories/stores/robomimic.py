"""robomimic's layout: a group per demonstration (`data/demo_<i>`), with observations by name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.actions import ActionSpace
from retrodict.trajectories.columns import ArrayColumn, Column, Slice
from retrodict.trajectories.episodes import Episode
from retrodict.trajectories.features import ACTION, DEPTH, FINAL, PRIVILEGED, Feature
from retrodict.trajectories.recordings import Recordings
from retrodict.trajectories.stores.checks import check_finite
from retrodict.trajectories.stores.d4rl import continuous_actions
from retrodict.trajectories.stores.finals import keep
from retrodict.trajectories.stores.hdf5_columns import column_of
from retrodict.trajectories.stores.stating import RANGE_UNKNOWN, Stated
from retrodict.trajectories.stores.views import as_frames, feature_of, layout, observation_name

DEMO = re.compile(r"demo_(\d+)")


def recognises(file: Any) -> bool:
    """True where the file has demonstrations."""
    return isinstance(file.get("data"), h5py.Group) and any(DEMO.fullmatch(name) for name in file["data"])


def read(file: Any, path: Path, fps: float | None, infos: bool, actions: Stated | None) -> Recordings:
    """Recordings over an open file; see `hdf5.read`. `meta["masks"]` of an episode names the masks that it is in."""
    data = file["data"]
    guessed: list[str] = []
    features: dict[str, Feature] = {}
    spaces: dict[str, ActionSpace] = {}
    episodes = []
    masks = {name: {_text(demo) for demo in mask[()]} for name, mask in file.get("mask", {}).items()}
    environment = json.loads(data.attrs.get("env_args", "{}"))
    for name in sorted((name for name in data if DEMO.fullmatch(name)), key=lambda name: int(name[5:])):
        demo, where = data[name], f"{path}, {name}"
        if "actions" not in demo:
            raise DataError(f"{where} has no 'actions'; it has {', '.join(demo) or 'nothing'}.")
        length = demo["actions"].shape[0]
        slices = {}
        for key, dataset in _datasets(demo, infos).items():
            if not dataset.shape or dataset.shape[0] != length or not length:
                rows = dataset.shape[0] if dataset.shape else 0
                raise DataError(
                    f"{where}: {key!r} has {rows} rows and 'actions' {length}; one row a step, at least one, is expected."
                )
            feature, column, kind = _feature(key, dataset, where)
            if features.setdefault(feature, kind) != kind:
                raise DataError(
                    f"{where}: {feature!r} is {kind.dtype}{list(kind.shape)} and {features[feature].dtype}"
                    f"{list(features[feature].shape)} in earlier demonstrations; one shape is expected."
                )
            slices[feature] = Slice(column)
        column, spaces[name] = continuous_actions(demo["actions"], where, actions)
        slices[ACTION] = Slice(column)
        first = next(iter(spaces))
        if spaces[name].width != spaces[first].width:
            raise DataError(
                f"{where}: actions have {spaces[name].width} numbers and {spaces[first].width} in {first}; "
                "one action space is expected."
            )
        meta: dict[str, Any] = {"demo": name, "masks": sorted(mask for mask, demos in masks.items() if name in demos)}
        if "next_obs" in demo:
            meta[FINAL] = {}
            for key, dataset in demo["next_obs"].items():
                lies = layout(dataset.shape[1:], dataset.dtype)
                row = as_frames(dataset[-1], lies) if lies else dataset[-1]
                meta[FINAL][observation_name([key], lies)] = keep(row)
        episodes.append(Episode(int(name[5:]), length, slices, domain=environment.get("env_name"), source=str(path), meta=meta))
    space = next(iter(spaces.values()))
    features[ACTION] = Feature("float32", (space.width,))
    if depths := [feature for feature in features if feature.startswith(DEPTH)]:
        guessed.append(f"{path.name}: {', '.join(depths)} may not be in metres; the file does not say.")
    if actions is None:
        guessed.append(f"{path.name}: what an action means is unknown, and {RANGE_UNKNOWN}.")
    fps = fps if fps is not None else environment.get("env_kwargs", {}).get("control_freq")
    return Recordings(features, tuple(episodes), fps=fps, actions=space, meta={"guessed": guessed, "env_args": environment})


def _datasets(demo: Any, infos: bool) -> dict[str, Any]:
    found = {f"obs/{key}": node for key, node in demo.get("obs", {}).items() if isinstance(node, h5py.Dataset)}
    wanted = ("rewards", "dones", *(("states",) if infos else ()))
    return found | {key: demo[key] for key in wanted if key in demo}


def _feature(key: str, dataset: Any, where: str) -> tuple[str, Column, Feature]:
    if key == "dones":
        return "next.done", ArrayColumn(dataset[()].reshape(-1) != 0), Feature("bool", (1,))
    check_finite(dataset, f"{where}: {key!r}")
    lies = layout(dataset.shape[1:], dataset.dtype) if key.startswith("obs/") else None
    names = {"rewards": "next.reward", "states": PRIVILEGED + "states"}
    name = names.get(key) or observation_name([key.removeprefix("obs/")], lies)
    return name, column_of(dataset, lies), feature_of(dataset.shape[1:], dataset.dtype, lies)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, (bytes, np.bytes_)) else str(value)
