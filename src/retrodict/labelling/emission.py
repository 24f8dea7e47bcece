"""What becomes of labels in memory; on disk it is `stores.lerobot.LabelWriter` that spells them, in the same way.

`split` makes each run of kept steps an episode, `weight` keeps all rows and gives withheld ones `sample.weight` 0, `all`
keeps all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories import ActionSpace, Episode, Recordings
from retrodict.trajectories.episodes import runs_of
from retrodict.trajectories.features import ACTION, RUNS, VALID
from retrodict.trajectories.stores.lerobot.labels import (
    Emit,
    EpisodeLabels,
    label_features,
    label_values,
)


def with_labels(
    source: Recordings, labels: Iterable[EpisodeLabels], emit: Emit, *, run: Mapping[str, Any], actions: ActionSpace
) -> Recordings:
    """The recordings with labels, as views: one entry of `labels` for each episode, in order.

    Raises DataError when every label was withheld.
    """
    runs = list(source.meta.get(RUNS, ()))
    episodes: list[Episode] = []
    for episode, each in zip(source, labels, strict=True):
        labelled = episode.without({VALID + ACTION}).with_values(label_values(episode, each, emit, len(runs)))
        episodes += _pieces(labelled, each.kept, len(episodes)) if emit == "split" else [labelled]
    if not episodes:
        raise DataError("every label was withheld, so nothing is left; allow a larger max_error, or emit 'weight' or 'all'.")
    meta = {**source.meta, RUNS: [*runs, {**run, "emit": emit}]}
    features = label_features(source, actions, emit)
    return replace(source, features=features, episodes=tuple(episodes), actions=actions, meta=meta)


def _pieces(episode: Episode, kept: np.ndarray, count: int) -> Iterator[Episode]:
    """The runs of kept steps as episodes that name their frames; they are numbered from `count` on."""
    for number, (start, stop) in enumerate(runs_of(kept)):
        yield replace(episode.part(start, stop), index=count + number, source=f"{episode.source} (labelled)")
