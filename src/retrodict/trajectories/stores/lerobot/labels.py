"""Recordings written anew with inferred actions; where they are a LeRobotDataset, videos are linked and only Parquet is new.

`action` is never null or NaN, so a withheld label is spelled by what is emitted: `split` makes each run of kept steps an episode,
`weight` writes all rows and gives the withheld ones `sample.weight` 0, `all` writes all rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.actions import ActionSpace
from retrodict.trajectories.episodes import Episode, runs_of
from retrodict.trajectories.features import (
    ACTION,
    CONFIDENCE,
    CORRECTED,
    INFERRED,
    RECORDED,
    RUN,
    RUNS,
    SOURCE,
    VALID,
    WEIGHT,
    Feature,
)
from retrodict.trajectories.fingerprint import fingerprint
from retrodict.trajectories.recordings import Recordings
from retrodict.trajectories.stores.checks import check_finite
from retrodict.trajectories.stores.lerobot.pieces import Piece
from retrodict.trajectories.stores.lerobot.source import cut, values_of
from retrodict.trajectories.stores.lerobot.staging import WrittenWhole
from retrodict.trajectories.stores.lerobot.writer import Writer

Emit = Literal["split", "weight", "all"]

#: Where a step of a `split` episode comes from: its episode and frame in the recordings that were labelled.
FROM_EPISODE, FROM_FRAME = "label.source.episode_index", "label.source.frame_index"


@dataclass(frozen=True)
class EpisodeLabels:
    """Labels of one episode of T steps.

    Attributes:
        action: (T, A), finite at every step, also where the label is withheld.
        confidence: (T,) in [0, 1].
        source: (T,) of `RECORDED`, `INFERRED`, `CORRECTED`.
        weight: (T,) in [0, 1], how far to trust each step; 0 withholds it. All are kept where None.
    """

    action: np.ndarray
    confidence: np.ndarray
    source: np.ndarray
    weight: np.ndarray | None = None

    @property
    def kept(self) -> np.ndarray:
        """Which steps are not withheld (T,)."""
        return np.ones(len(self.action), bool) if self.weight is None else np.asarray(self.weight) > 0


def label_features(source: Recordings, actions: ActionSpace, emit: Emit) -> dict[str, Feature]:
    """The features of recordings once they are labelled."""
    number, count = Feature("float32", (1,)), Feature("int64", (1,))
    features = {name: feature for name, feature in source.features.items() if name != VALID + ACTION}
    features |= {
        ACTION: Feature("float32", (actions.width,), list(actions.names)),
        CONFIDENCE: number,
        SOURCE: count,
        RUN: count,
    }
    extra = {"weight": {WEIGHT: number}, "split": {FROM_EPISODE: count, FROM_FRAME: count}, "all": {}}
    return features | extra[emit]


def label_values(episode: Episode, labels: EpisodeLabels, emit: Emit, run: int) -> dict[str, np.ndarray]:
    """What a labelling run writes beside what was seen in an episode; a label that was there and stays keeps its own run."""
    action = np.asarray(labels.action, np.float32)
    runs = np.where(np.asarray(labels.source) == INFERRED, run, -1)
    if RUN in episode and ACTION in episode:
        earlier = np.asarray(episode[RUN]).reshape(-1)
        stays = (np.asarray(episode[ACTION], np.float32).reshape(action.shape) == action).all(1)
        runs = np.where((earlier >= 0) & stays, earlier, runs)
    values: dict[str, np.ndarray] = {
        ACTION: action,
        CONFIDENCE: np.asarray(labels.confidence, np.float32),
        SOURCE: np.asarray(labels.source, np.int64),
        RUN: runs.astype(np.int64),
    }
    if emit == "split" and FROM_EPISODE not in episode:  # recordings that were split before keep the origin that they have
        values |= {FROM_EPISODE: np.full(episode.length, episode.index), FROM_FRAME: np.arange(episode.length)}
    if emit == "weight":
        given = np.asarray(episode[WEIGHT]).reshape(-1) if WEIGHT in episode else np.ones(episode.length)
        values[WEIGHT] = np.asarray(given if labels.weight is None else given * labels.weight, np.float32)
    return values


class LabelWriter(WrittenWhole):
    """Writes recordings with labels, episode by episode; use it as a context. Killed at any moment, it carries on.

    Args:
        source: the recordings that were labelled.
        folder: the dataset to make.
        emit: what becomes of withheld labels, see the head of this file.
        run: the model, its hash and settings; kept in `meta` under `labelling`. A run carries on only with the same, so no dates.
        actions: meaning of the labels; that of the source where None.
        overwrite: replace a dataset that is there.
        options: further options of `Writer`.
    """

    def __init__(
        self,
        source: Recordings,
        folder: str | Path,
        emit: Emit = "split",
        *,
        run: Mapping[str, Any],
        actions: ActionSpace | None = None,
        overwrite: bool = False,
        **options: Any,
    ) -> None:
        actions = actions or source.actions
        if actions is None:
            raise DataError("the recordings do not say what an action is; name the action space of the labels.")
        if emit not in get_args(Emit):
            raise DataError(f"emit is {emit!r}; {', '.join(get_args(Emit))} are known.")
        self.source, self.emit = source, emit
        runs = list(source.meta.get(RUNS, ()))
        self._run = len(runs)
        same = [emit, run, fingerprint(source)]
        self._writer = Writer(
            folder,
            label_features(source, actions, emit),
            source.fps,
            actions=actions,
            structures=source.structures,
            meta={**source.meta, RUNS: [*runs, {**run, "emit": emit}]},
            independent=source.independent,
            overwrite=overwrite,
            resume_as=json.dumps(same, default=str),
            **options,
        )
        self._width = actions.width

    @property
    def done(self) -> int:
        """Number of episodes of the source that are finished, of this and earlier runs: where to carry on."""
        return self._writer.done

    def add(self, labels: EpisodeLabels) -> None:
        """Labels of the next episode, `source[done]`.

        Raises DataError when they do not fit the episode or the action space, or an action is not finite.
        """
        episode = self.source[self.done]
        self._check(episode, labels)
        values = values_of(episode, self.source)
        values.pop(VALID + ACTION, None)
        values |= label_values(episode, labels, self.emit, self._run)
        if self.emit == "split":
            self._writer.add_pieces(_split(episode, values, labels.kept))
        else:
            self._writer.add(values, tasks=episode.tasks, domain=episode.domain, meta=episode.origin)

    def close(self) -> Path:
        """Put the dataset into its place.

        Raises DataError when episodes have no labels yet, or all labels were withheld.
        """
        if self.done != len(self.source):
            raise DataError(f"{len(self.source) - self.done} of {len(self.source)} episodes have no labels yet.")
        return self._writer.close()

    def release(self) -> None:
        self._writer.release()

    def _check(self, episode: Episode, labels: EpisodeLabels) -> None:
        if np.shape(labels.action) != (episode.length, self._width):
            raise DataError(f"{episode}: labels of shape {np.shape(labels.action)}, {(episode.length, self._width)} is expected.")
        check_finite(np.asarray(labels.action), f"{episode}: the inferred action")
        for name, given in (("confidence", labels.confidence), ("weight", labels.weight)):
            if given is None:
                continue
            low, high = (np.min(given), np.max(given)) if np.size(given) else (0, 0)
            if np.shape(given) != (episode.length,) or not (low >= 0 and high <= 1):
                raise DataError(
                    f"{episode}: {name} of shape {np.shape(given)} from {low} to {high}; "
                    f"({episode.length},) in [0, 1] is expected."
                )
        codes = set(np.unique(labels.source).tolist())
        if np.shape(labels.source) != (episode.length,) or not codes <= {RECORDED, INFERRED, CORRECTED}:
            raise DataError(
                f"{episode}: source of shape {np.shape(labels.source)} with codes {sorted(codes)}; 0, 1, 2 are known."
            )


def write_labelled(
    source: Recordings,
    labels: Callable[[Recordings], Iterable[EpisodeLabels]],
    folder: str | Path,
    emit: Emit = "split",
    *,
    run: Mapping[str, Any],
    **options: Any,
) -> Path:
    """Label recordings as a stream: `labels` is handed the episodes not yet done and yields the labels of each in turn.

    The options are those of `LabelWriter`. Raises DataError where it does, and when labels end before the episodes do.
    """
    writer = LabelWriter(source, folder, emit, run=run, **options)
    with writer:
        if writer.done < len(source):
            for each in labels(source[writer.done :]):
                writer.add(each)
    return Path(folder)


def _split(episode: Episode, values: dict[str, Any], kept: np.ndarray) -> Iterator[Piece]:
    for start, stop in runs_of(kept):
        part = cut(values, start, stop)
        if "timestamp" in part:
            part["timestamp"] = part["timestamp"] - part["timestamp"][0]
        yield Piece(part, episode.tasks, episode.domain, episode.origin_of(start, stop))
