"""What makes a training itself: its configuration and its data. A run folder belongs to one such identity and no other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from retrodict.errors import DataError
from retrodict.files import write_text
from retrodict.training.checkpoint import Checkpoints
from retrodict.trajectories import Recordings

IDENTITY = "run.json"


def digest(recordings: Recordings, names: Iterable[str]) -> str:
    """Sixteen letters that change when other episodes are given, or other values in them.

    Of each episode it reads its identity, its length, and the first, middle and last value of each numeric feature: enough to
    tell data sets apart, and quick on large ones.
    """
    sha = hashlib.sha256()
    numeric = [name for name in sorted(names) if name in recordings.features and recordings.features[name].is_numeric]
    for episode in recordings:
        sha.update(repr((episode.identity, episode.length, sorted(episode))).encode())
        steps = np.array([0, episode.length // 2, episode.length - 1])
        for name in numeric:
            if name in episode:
                sha.update(np.ascontiguousarray(episode.read(name, steps)).tobytes())
    return sha.hexdigest()[:16]


def claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Take a folder for a run, or make sure that it belongs to one of the same identity.

    Raises DataError naming what differs when it holds a run of another configuration or on other data.
    """
    mine = json.loads(json.dumps(identity, default=str))
    path = folder / IDENTITY
    if not path.exists():
        if Checkpoints(folder).paths():
            raise DataError(f"{folder} holds checkpoints but no {IDENTITY} that says of what; name another folder.")
        write_text(path, json.dumps(mine, indent=1))
        return
    try:
        theirs = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); name another folder, or remove this one to start again.") from None
    old, new = _flat(theirs), _flat(mine)
    differing = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if differing:
        shown = [f"{name} = {old.get(name, 'nothing')} and now {new.get(name, 'nothing')}" for name in differing[:3]]
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise DataError(
            f"{folder} holds a run of another configuration ({'; '.join(shown)}{more}); "
            "name another folder, or remove this one to start again."
        )


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        entries = [(f"{name}.{key}" if name else str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list):
        entries = [(f"{name}[{i}]", inner) for i, inner in enumerate(value)]
    else:
        return {name: value}
    return {k: v for key, inner in entries for k, v in _flat(inner, key).items()}
