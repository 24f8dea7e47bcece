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
from retrodict.trajectories import ActionSpace, Episode, Feature, Recordings
from retrodict.trajectories.features import ACTION, CONFIDENCE, INFERRED, RUN, SOURCE, VALID, WEIGHT
from retrodict.trajectories.stores.lerobot.labels import FROM_EPISODE, FROM_FRAME, RUNS, Emit, EpisodeLabels, runs_of


def with_labels(
    source: Recordings, labels: Iterable[EpisodeLabels], emit: Emit, *, run: Mapping[str, Any], actions: ActionSpace
) -> Recordings:
    """The recordings with labels, as views: one entry of `labels` for each episode, in order.

    Raises DataError when every label was withheld.
    """
    runs = list(source.meta.get(RUNS, ()))
    features = {name: feature for name, feature in source.features.items() if name != VALID + ACTION}
    features |= {
        ACTION: Feature("float32", (actions.width,), list(actions.names)),
        CONFIDENCE: Feature("float32", (1,)),
        SOURCE: Feature("int64", (1,)),
        RUN: Feature("int64", (1,)),
    }
    if emit == "weight":
        features[WEIGHT] = Feature("float32", (1,))
    if emit == "split":
        features |= {FROM_EPISODE: Feature("int64", (1,)), FROM_FRAME: Feature("int64", (1,))}
    episodes: list[Episode] = []
    for episode, each in zip(source, labels, strict=True):
        earlier = episode[RUN] if RUN in episode else np.full(episode.length, -1)
        values: dict[str, np.ndarray] = {
            ACTION: np.asarray(each.action, np.float32),
            CONFIDENCE: np.asarray(each.confidence, np.float32),
            SOURCE: np.asarray(each.source, np.int64),
            # What was there keeps the run that it came from.
            RUN: np.where(each.source == INFERRED, len(runs), -1) if ACTION not in episode else np.asarray(earlier).reshape(-1),
        }
        weight = np.ones(episode.length) if each.weight is None else each.weight
        if emit == "weight":
            given = np.asarray(episode[WEIGHT]).reshape(-1) if WEIGHT in episode else 1.0
            values[WEIGHT] = (weight * given).astype(np.float32)
        labelled = episode.without({VALID + ACTION}).with_values(values)
        episodes += _pieces(labelled, weight > 0, len(episodes)) if emit == "split" else [labelled]
    if not episodes:
        raise DataError("every label was withheld, so nothing is left; allow a larger max_error, or emit 'weight' or 'all'.")
    meta = {**source.meta, RUNS: [*runs, {**run, "emit": emit}]}
    return replace(source, features=features, episodes=tuple(episodes), actions=actions, meta=meta)


def _pieces(episode: Episode, kept: np.ndarray, count: int) -> Iterator[Episode]:
    """The runs of kept steps as episodes that name their frames; they are numbered from `count` on."""
    origin = {"origin/source": episode.identity[0], "origin/episode_index": episode.identity[1], **episode.meta}
    values = {
        name: default if name not in episode else np.asarray(episode[name])
        for name, default in (
            (FROM_EPISODE, np.full(episode.length, episode.index)),
            (FROM_FRAME, np.arange(episode.length)),
        )
    }
    episode = episode.with_values(values)
    for number, (start, stop) in enumerate(runs_of(kept)):
        piece = replace(
            episode,
            index=count + number,
            length=stop - start,
            slices={name: replace(where, start=where.start + start) for name, where in episode.slices.items()},
            source=f"{episode.source} (labelled)",
        )
        if "timestamp" in piece:
            piece = piece.with_values({"timestamp": piece["timestamp"] - piece["timestamp"][0]})
        frames = piece[FROM_FRAME]
        yield replace(piece, meta={**origin, "origin/from_frame": int(frames[0]), "origin/to_frame": int(frames[-1]) + 1})
