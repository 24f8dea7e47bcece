"""HDF5 files as D4RL and robomimic write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retrodict.errors import DataError
from retrodict.trajectories.recordings import Recordings
from retrodict.trajectories.stores import d4rl, robomimic
from retrodict.trajectories.stores.hdf5_columns import leaves_of, opened
from retrodict.trajectories.stores.stating import Stated

KIND = "an HDF5 file as D4RL or robomimic writes them"
SUFFIXES = (".hdf5", ".h5", ".hdf")
SHOWN = 8


def recognises(path: Path) -> bool:
    """True for an HDF5 file, by its name."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def read(
    path: Path,
    *,
    fps: float | None = None,
    infos: bool = True,
    actions: Stated | None = None,
    nan_is_missing: bool = False,
) -> Recordings:
    """Recordings over an HDF5 file; values stay on disk and are read by row.

    `action[t]` leads from `observation[t]` to the next; what the simulator knew (infos, states) becomes `privileged.<name>`; the
    observation after the last action stands in an episode's `meta["final"]`. A demonstration, or a file, without `actions` makes
    episodes without `action`.

    Args:
        path: the file.
        fps: steps per second where the file does not say.
        infos: False leaves `privileged.*` out.
        actions: what an action means, see `opening.open`; the file does not say its range.
        nan_is_missing: mark NaN in `valid.<feature>` instead of refusing it; what is NaN throughout an episode is absent.

    Raises DataError for damaged files, other layouts, arrays whose lengths or shapes do not agree, NaN and infinite values.
    """
    with opened(path) as file:
        if robomimic.recognises(file):
            return robomimic.read(file, path, fps=fps, infos=infos, actions=actions, nan_is_missing=nan_is_missing)
        if d4rl.recognises(arrays := leaves_of(file)):
            return d4rl.read(arrays, path, about=file.attrs, fps=fps, infos=infos, actions=actions, nan_is_missing=nan_is_missing)
        raise DataError(f"{path} holds {_listed(file)}; `observations` (D4RL) or `data/demo_<i>` (robomimic) are expected.")


def _listed(file: Any) -> str:
    names = list(file)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "") or "nothing"
