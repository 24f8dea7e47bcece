"""Values that are missing: NaN in what was recorded becomes a mask beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.features import VALID, Feature
from retrodict.trajectories.recordings import Recordings

MARKING = "open with nan_is_missing=True, on the command line --nan-is-missing, to have gaps marked"


def marked(feature: str, values: np.ndarray, where: str, entries: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """A feature (T, *shape) with its gaps filled with the last values seen, and `valid.<feature>` (T,), False there.

    Without gaps it stands alone; a feature that is missing throughout is left out.

    Args:
        feature: its name.
        values: numbers, NaN where one is missing.
        where: what it is, for the error.
        entries: what the numbers of a step are called, for the error.

    Raises DataError where one entry is missing throughout and the others are not.
    """
    flat = values.reshape(len(values), -1)
    missing = np.isnan(flat)
    if missing.all():
        return {}
    if not missing.any():
        return {feature: values}
    if (empty := missing.all(0)).any():
        entry = int(empty.argmax())
        raise DataError(
            f"{where}: {repr(entries[entry]) if entries else f'entry {entry}'} is empty or NaN throughout an episode that has "
            f"the rest of {feature!r}; leave it out, or the episode."
        )
    return {feature: hold(flat, missing).reshape(values.shape), VALID + feature: ~missing.any(1)}


def hold(flat: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Values (T, n) with missing ones replaced by the last one seen in their column, leading ones by the first."""
    seen = np.where(missing, -1, np.arange(len(flat))[:, None])
    last = np.maximum.accumulate(seen)
    last = np.where(last < 0, (~missing).argmax(0), last)
    return np.asarray(np.take_along_axis(flat, last, 0))


def with_gaps_marked(recordings: Recordings) -> Recordings:
    """The same recordings with the gaps of their features marked, episode by episode; those that were marked before stay so.

    Raises DataError as `marked` does.
    """
    episodes = list(recordings)
    numbers = [n for n, feature in recordings.features.items() if feature.is_numeric and np.dtype(feature.dtype).kind == "f"]
    for name in numbers:
        for i, episode in enumerate(episodes):
            if name in episode and np.isnan(episode[name]).any():
                values = marked(name, episode[name], str(episode))
                values |= {mask: values[mask] & episode.there(name) for mask in values if mask == VALID + name}
                episodes[i] = episode.with_values(values) if values else episode.without({name, VALID + name})
    if all(one is other for one, other in zip(episodes, recordings, strict=True)):
        return recordings
    masks = {n: Feature("bool", (1,)) for episode in episodes for n in episode if n.startswith(VALID)}
    return replace(recordings, features={**recordings.features, **masks}).of(episodes)
