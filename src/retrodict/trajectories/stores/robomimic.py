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
from retrodict.trajectories.stores.d4rl import check_rows, continuous_actions
from retrodict.trajectories.stores.finals import keep
from retrodict.trajectories.stores.gaps import with_gaps_marked
from retrodict.trajectories.stores.hdf5_columns import column_of
from retrodict.trajectories.stores.stating import RANGE_UNKNOWN, Stated
from retrodict.trajectories.stores.views import as_frames, feature_of, layout, observation_name

DEMO = re.compile(r"demo_(\d+)")


def recognises(file: Any) -> bool:
    """True where the file has demonstrations."""
    return isinstance(file.get("data"), h5py.Group) and any(DEMO.fullmatch(name) for name in file["data"])


def read(file: Any, path: Path, *, fps: float | None, infos: bool, actions: Stated | None, nan_is_missing: bool) -> Recordings:
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
        found = _datasets(demo, infos)
        if not found:
            raise DataError(f"{where} has nothing to read; it has {', '.join(demo) or 'nothing'}.")
        length = check_rows(found, where)
        slices = {}
        for key, dataset in found.items():
            if key != "dones":
                check_finite(dataset, f"{where}: {key!r}", nan_is_missing=nan_is_missing)
            if key == "actions":
                column, spaces[name] = continuous_actions(dataset, actions)
                slices[ACTION] = Slice(column)
                continue
            feature, column, kind = _feature(key, dataset)
            if features.setdefault(feature, kind) != kind:
                raise DataError(
                    f"{where}: {feature!r} is {kind.dtype}{list(kind.shape)} and {features[feature].dtype}"
                    f"{list(features[feature].shape)} in earlier demonstrations; bring all to one dtype and shape, or keep "
                    "them in files of their own."
                )
            slices[feature] = Slice(column)
        first = next(iter(spaces), name)
        if name in spaces and spaces[name].width != spaces[first].width:
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
    space = next(iter(spaces.values()), None)
    if space is not None:
        features[ACTION] = Feature("float32", (space.width,))
        if lacking := [episode.meta["demo"] for episode in episodes if ACTION not in episode]:
            guessed.append(
                f"{path.name}: {len(lacking)} of {len(episodes)} demonstrations have no actions ({lacking[0]} is the first)."
            )
    if depths := [feature for feature in features if feature.startswith(DEPTH)]:
        guessed.append(f"{path.name}: {', '.join(depths)} may not be in metres; the file does not say.")
    if space is not None and actions is None:
        guessed.append(f"{path.name}: what an action means is unknown, and {RANGE_UNKNOWN}.")
    fps = fps if fps is not None else environment.get("env_kwargs", {}).get("control_freq")
    meta = {"guessed": guessed, "env_args": environment}
    made = Recordings(features, tuple(episodes), fps=fps, actions=space, meta=meta)
    return with_gaps_marked(made) if nan_is_missing else made


def _datasets(demo: Any, infos: bool) -> dict[str, Any]:
    found = {f"obs/{key}": node for key, node in demo.get("obs", {}).items() if isinstance(node, h5py.Dataset)}
    wanted = ("actions", "rewards", "dones", *(("states",) if infos else ()))
    return found | {key: demo[key] for key in wanted if key in demo}


def _feature(key: str, dataset: Any) -> tuple[str, Column, Feature]:
    """The feature that a dataset other than the actions becomes: its name, its values, and what they are."""
    if key == "dones":
        return "next.done", ArrayColumn(dataset[()].reshape(-1) != 0), Feature("bool", (1,))
    known = {"rewards": "next.reward", "states": PRIVILEGED + "states"}
    lies = None if key in known else layout(dataset.shape[1:], dataset.dtype)
    name = known.get(key) or observation_name([key.removeprefix("obs/")], lies)
    return name, column_of(dataset, lies), feature_of(dataset.shape[1:], dataset.dtype, lies)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, (bytes, np.bytes_)) else str(value)
