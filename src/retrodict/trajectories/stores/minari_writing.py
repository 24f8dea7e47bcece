"""Writing recordings as a Minari dataset that the minari package opens (`minari.load_dataset`).

Frames are written as they are (Minari's own default is JPEG, which loses detail). What Minari has no place for stands under
the key `retrodict` of its metadata, so that reading the dataset again gives the same recordings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from retrodict.errors import DataError
from retrodict.files import replacing_folder
from retrodict.trajectories.episodes import Episode
from retrodict.trajectories.features import ACTION, FINAL, Feature
from retrodict.trajectories.recordings import Recordings
from retrodict.trajectories.stores.checks import check_finite
from retrodict.trajectories.stores.finals import restore
from retrodict.trajectories.stores.minari_files import MAIN
from retrodict.trajectories.stores.spaces import (
    Leaf,
    Space,
    action_space,
    leaves,
    observation_names,
    space_of_actions,
    space_of_feature,
)

METADATA = "metadata.json"
OURS = "retrodict"
OBSERVATION = "observation."
ENDINGS = ("next.reward", "next.terminated", "next.truncated", "next.done")
VERSION = "0.5.4"
"""The first Minari that reads frames which are no JPEG; older ones say so instead of failing on the first frame."""
DATASET_ID = re.compile(r"([-\w][-\w/]*/)?[-\w]+-v\d+")
FRAMES_AT_ONCE = 64


def write(recordings: Recordings, folder: str | Path, *, dataset_id: str | None = None) -> Path:
    """Write recordings as a Minari dataset in HDF5; the folder appears whole or not at all.

    Minari finds a dataset by its place: `$MINARI_DATASETS_PATH/<dataset_id>`. What Minari demands and an episode lacks is filled
    as `fills` says. Every episode needs `action` and the same observations.

    Args:
        recordings: what to write.
        folder: the folder of the dataset; one that was written here before is replaced.
        dataset_id: its name for `minari.load_dataset`, `[namespace/]name-v0`; that of the folder where not given.

    Raises DataError for a name that Minari refuses, features that episodes lack or whose shape differs, and values that are not
    finite.
    """
    folder = Path(folder)
    dataset_id = dataset_id or folder.name
    if not DATASET_ID.fullmatch(dataset_id):
        raise DataError(f"Minari names datasets `name-v0`, and {dataset_id!r} is no such name; call the folder {folder.name}-v0.")
    _refuse_foreign(folder)
    observed = tuple(name for name in recordings.features if name.startswith(OBSERVATION))
    _check(recordings, observed)
    assert recordings.actions is not None
    observations = _observations(recordings, observed)
    acted = _original(recordings, "action_space")
    if acted is None or action_space(leaves(acted)) != recordings.actions:
        acted = space_of_actions(recordings.actions)
    others = [n for n in recordings.features if n not in (*observed, ACTION, *ENDINGS)]
    infos = {name.removeprefix("privileged."): name for name in (*others, "timestamp")}
    metadata = dict(recordings.meta.get("minari", {}))
    metadata |= {
        "dataset_id": dataset_id,
        "minari_version": VERSION,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "total_episodes": len(recordings),
        "total_steps": recordings.steps,
        "observation_space": json.dumps(observations[0]),
        "action_space": json.dumps(acted),
        OURS: {
            "observations": {"/".join(map(str, leaf.keys)): name for leaf, name in observations[1]},
            "infos": infos,
            "features": {name: feature.to_json() for name, feature in recordings.features.items()},
            "actions": recordings.actions.to_json(),
            "fps": recordings.fps,
            "structures": recordings.structures,
            "meta": {key: value for key, value in recordings.meta.items() if key not in ("minari", "guessed")},
        },
    }
    if filled := fills(recordings):
        metadata["description"] = " ".join(filter(None, (metadata.get("description"), *filled)))
    with replacing_folder(folder, f"data/{METADATA}") as partial:
        (partial / "data").mkdir()
        with h5py.File(partial / "data" / MAIN, "w", track_order=True) as file:
            for i, episode in enumerate(recordings):
                group = file.create_group(f"episode_{i}")
                _write_episode(group, episode, recordings, observations[1], leaves(acted), infos)
                group.attrs["id"] = i
        size = (partial / "data" / MAIN).stat().st_size / 1e6
        (partial / "data" / METADATA).write_text(json.dumps(metadata | {"dataset_size": round(size, 1)}, default=_plain))
    return folder


def fills(recordings: Recordings) -> list[str]:
    """Sentences on what Minari demands, the recordings lack, and `write` fills."""
    lacking = {name: sum(name not in episode for episode in recordings) for name in ENDINGS}
    said = {
        "next.reward": "have no next.reward: rewards are written as 0.",
        "next.terminated": "have no next.terminated: terminations are what next.done says, or False.",
        "next.truncated": "have no next.truncated: the last step is written as truncated where nothing else ends an episode.",
    }
    sentences = [f"{lacking[name]} episodes {sentence}" for name, sentence in said.items() if lacking[name]]
    if without := sum(FINAL not in episode.meta for episode in recordings):
        sentences.append(f"{without} episodes have no observation after their last action: their last one is repeated.")
    return sentences


def _refuse_foreign(folder: Path) -> None:
    manifest = folder / "data" / METADATA
    if manifest.exists() and f'"{OURS}"' not in manifest.read_text(errors="replace"):
        raise DataError(f"{folder} holds a Minari dataset that was not written here; name another folder.")


def _check(recordings: Recordings, observed: tuple[str, ...]) -> None:
    if not len(recordings) or not observed:
        raise DataError(f"Minari needs episodes with observations; these are {len(recordings)} with {list(recordings.features)}.")
    for name in observed:
        if -1 in recordings.features[name].shape:
            raise DataError(f"{name!r} differs in shape between episodes; Minari needs one shape.")
    for episode in recordings:
        for name in (*observed, ACTION):
            if name not in episode:
                raise DataError(
                    f"{episode} has no {name!r}, which Minari needs in every episode; leave it out or add the feature."
                )


def _original(recordings: Recordings, name: str) -> Space | None:
    """The space that the recordings were read with from Minari, where they were."""
    text = recordings.meta.get("minari", {}).get(name)
    return json.loads(text) if text else None


def _observations(recordings: Recordings, observed: tuple[str, ...]) -> tuple[Space, list[tuple[Leaf, str]]]:
    """The observation space and the feature of each of its leaves."""
    space = _original(recordings, "observation_space")
    if space is not None:
        found = leaves(space)
        names = observation_names(found, {})
        fits = all(
            leaf.width == int(np.prod(recordings.features[n].shape)) for leaf in found if (n := names[leaf.keys]) in observed
        )
        if fits and set(names.values()) == set(observed):
            return space, [(leaf, names[leaf.keys]) for leaf in found]
    spaces = {name.removeprefix(OBSERVATION): _space(recordings, name) for name in observed}
    if len(spaces) == 1:
        space = next(iter(spaces.values()))
        return space, [(Leaf((), space), observed[0])]
    space = {"type": "Dict", "subspaces": spaces}
    return space, list(zip(leaves(space), observed, strict=True))


def _space(recordings: Recordings, name: str) -> Space:
    feature = recordings.features[name]
    texts = {text for episode in recordings for text in episode[name].tolist()} if feature.is_text else set()
    return space_of_feature(feature, texts)


def _write_episode(
    group: Any,
    episode: Episode,
    recordings: Recordings,
    observed: list[tuple[Leaf, str]],
    acted: list[Leaf],
    infos: dict[str, str],
) -> None:
    final = episode.meta.get(FINAL, {})
    filled = [name for name in ENDINGS if name not in episode]
    for leaf, name in observed:
        keys = "/".join(f"_index_{key}" if isinstance(key, int) else key for key in ("observations", *leaf.keys))
        feature = recordings.features[name]
        last = restore(final[name], feature) if name in final else episode.read(name, np.array([episode.length - 1]))[0]
        _write_column(group, keys, episode, name, feature, leaf, last)
    if not final:
        filled.append(FINAL)
    flat, at = episode[ACTION], 0
    check_finite(flat, f"{episode}: 'action'")
    for leaf in acted:
        keys = "/".join(f"_index_{key}" if isinstance(key, int) else key for key in ("actions", *leaf.keys))
        values = flat[:, at : at + leaf.width]
        values = np.rint(values) + leaf.start if leaf.kind != "Box" else values
        group.create_dataset(keys, data=values.reshape(episode.length, *leaf.shape).astype(leaf.dtype))
        at += leaf.width
    _write_endings(group, episode)
    for key, name in infos.items():
        if name in episode:
            feature = recordings.features.get(name, Feature("float64", ()))
            last = restore(final[name], feature) if name in final else None
            _write_column(group, f"infos/{key}", episode, name, feature, None, last)
    for key, value in episode.meta.items():
        if isinstance(value, (int, float, str)):
            group.attrs[key] = value
    group.attrs["total_steps"] = episode.length
    kept = {"index": episode.index, "tasks": episode.tasks, "domain": episode.domain, "source": episode.source, "filled": filled}
    meta = {key: value for key, value in episode.origin.items() if key != FINAL}
    group.attrs[OURS] = json.dumps(kept | {"meta": meta}, default=_plain)


def _write_endings(group: Any, episode: Episode) -> None:
    def flags(name: str) -> np.ndarray:
        return np.asarray(episode[name]).reshape(-1).astype(bool) if name in episode else np.zeros(episode.length, bool)

    terminated, truncated = flags("next.terminated"), flags("next.truncated")
    if "next.terminated" not in episode:
        terminated = flags("next.done") & ~truncated
    if "next.truncated" not in episode:
        truncated[-1] = not terminated[-1]
    rewards = np.asarray(episode["next.reward"]).reshape(-1) if "next.reward" in episode else np.zeros(episode.length, np.float32)
    check_finite(rewards, f"{episode}: 'next.reward'")
    for key, values in {"rewards": rewards, "terminations": terminated, "truncations": truncated}.items():
        group.create_dataset(key, data=values)


def _write_column(group: Any, path: str, episode: Episode, name: str, feature: Feature, leaf: Leaf | None, last: Any) -> None:
    """Write a feature, a block at a time, with the row after its last one where it is given."""
    rows = episode.length + (last is not None)
    if feature.is_text:
        texts = [*episode[name].tolist(), *([] if last is None else [last])]
        group.create_dataset(path, data=texts, dtype=h5py.string_dtype())
        return
    first = episode.read(name, np.array([0]))
    shape = first.shape[1:] if leaf is None else leaf.shape
    dtype = first.dtype if leaf is None else leaf.dtype
    packing = {"chunks": (1, *shape), "compression": "gzip", "compression_opts": 1} if feature.is_visual else {}
    dataset = group.create_dataset(path, (rows, *shape), dtype, **packing)
    for start, values in _blocks(episode, name, feature):
        check_finite(values, f"{episode}: {name!r}", start)
        dataset[start : start + len(values)] = _as(values, shape, leaf)
    if last is not None:
        dataset[episode.length] = _as(np.asarray(last)[None], shape, leaf)[0]


def _blocks(episode: Episode, name: str, feature: Feature) -> Iterator[tuple[int, np.ndarray]]:
    at_once = FRAMES_AT_ONCE if feature.is_visual else 4096
    for start in range(0, episode.length, at_once):
        yield start, episode.read(name, np.arange(start, min(start + at_once, episode.length)))


def _as(values: np.ndarray, shape: tuple[int, ...], leaf: Leaf | None) -> np.ndarray:
    """Rows in the shape of a space: frames that it has with the channels first go back there."""
    if leaf is not None and len(shape) == 3 and values.shape[1:] != shape:
        values = np.moveaxis(values, -1, 1)
    return values.reshape(len(values), *shape)


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise DataError(f"{value!r} ({type(value).__name__}) stands in the recordings' meta and cannot be written as JSON.")
