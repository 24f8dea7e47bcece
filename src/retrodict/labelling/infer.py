"""Slide an inverse model over recordings: batches across episodes, every step labelled once, memory that does not grow."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from retrodict.errors import DataError
from retrodict.roles import Inferred, InverseModel
from retrodict.trajectories import ActionSpace, Episode, Recordings, Span, Window


@dataclass(frozen=True)
class Inference:
    """What an inverse model said of one episode.

    Attributes:
        position: place of the episode in the recordings.
        action: flat actions (T, width), float32.
        confidence: as the model gave it, before calibration, (T,), float32.
        seen: False where what would show the action lies outside the episode, beyond a step at which it ended and began anew,
            or is missing (`valid.<feature>`), so that the label is a guess, (T,).
        extras: further outputs by name, (T, ...).
    """

    position: int
    action: np.ndarray
    confidence: np.ndarray
    seen: np.ndarray
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Tiling:
    """Windows that label every step of an episode once.

    Attributes:
        anchors: where the windows stand (W,).
        window: the window that labels each step (T,).
        place: the place of the step in that window (T,).
    """

    anchors: np.ndarray
    window: np.ndarray
    place: np.ndarray


def tile(reads: Window, keeps: slice, length: int, fps: float | None = None) -> Tiling:
    """Lay windows over an episode so that each step is among the kept steps of one of them.

    Windows hop by as many steps as they keep; a stride above 1 interleaves them. Where the edge is `drop` the model never saw
    a window
    that overran its episode: the first and last windows then move inside and keep their ends, if the episode is long enough.
    Windows whose steps are not evenly spaced in rows (an irregular clock) stand on every step and keep the anchor.

    Raises DataError when the model keeps no step of its window.
    """
    frames = np.arange(length)
    steps = rows(reads.span, fps)
    if steps is None or len(set(np.diff(steps))) > 1:
        return Tiling(frames, frames, np.full(length, reads.before))
    kept = steps[keeps]
    if not len(kept):
        raise DataError(f"{keeps} keeps no step of a window of {len(steps)}.")
    stride = int(steps[1] - steps[0]) if len(steps) > 1 else 1
    block = stride * len(kept)
    anchors = frames // block * block + frames % stride - kept[0]
    start, end = (edge == "drop" for edge in reads.edges)
    inside = anchors.copy()
    if start:
        inside += stride * np.maximum(0, -((inside + steps[0]) // stride))
    if end:
        inside -= stride * np.maximum(0, -((length - 1 - inside - steps[-1]) // stride))
    fits = ~(start & (inside + steps[0] < 0)) & ~(end & (inside + steps[-1] >= length))
    anchors = np.where(fits, inside, anchors)
    unique, window = np.unique(anchors, return_inverse=True)
    return Tiling(unique, window, (frames - anchors - steps[0]) // stride)


def rows(span: Span, fps: float | None) -> np.ndarray | None:
    """Rows of a span relative to its anchor; None where only a clock could tell."""
    if span.every is None:
        return np.asarray(span.steps, np.int64)
    return None if fps is None else np.rint(span.steps * fps).astype(np.int64)


def guessed(reads: Window, keeps: slice, space: ActionSpace | None) -> tuple[bool, bool]:
    """Whether no frame shows the action of the first step of an episode, and of the last.

    An action that leads to the next frame cannot be seen at the last step (of a model that looks ahead); one that led to its
    own frame cannot at the first (of a model that looks back). Where it is unknown which, the first is assumed, as most
    recordings have it so.
    """
    spans = [span for reading in reads.spans.values() for span in _spans(reading, reads)]
    kept = reads.span.steps[keeps]
    if space is not None and space.leads is False:
        return bool(min((span.steps[0] for span in spans), default=0) < kept.max()), False
    return False, bool(max((span.steps[-1] for span in spans), default=0) > kept.min())


def blind(reads: Window, tiling: Tiling, episode: Episode, fps: float | None) -> np.ndarray:
    """Which steps (T,) of an episode are labelled by a window in which something that the model reads is missing."""
    windows = np.zeros(len(tiling.anchors), bool)
    for name, reading in reads.spans.items():
        there = episode.there(name)
        if there.all():
            continue
        for span in _spans(reading, reads):
            steps = rows(span, fps)
            if steps is None:  # which rows a clock will choose is not known here
                return np.ones(episode.length, bool)
            windows |= ~there[np.clip(tiling.anchors[:, None] + steps, 0, episode.length - 1)].all(1)
    return np.asarray(windows[tiling.window])


def infer(model: InverseModel, recordings: Recordings, *, batch: int = 64, done: Collection[int] = ()) -> Iterator[Inference]:
    """Inferences of the episodes, in order.

    Batches run across episodes and are the same whichever episodes are `done` already (positions; they are passed over), so
    that a run that was stopped and carried on gives the very numbers of one that was not.

    Raises DataError naming the episode when it lacks a feature that the model reads, or when an answer has a wrong shape or is
    not finite.
    """
    reads, keeps = model.reads, model.keeps
    required = [name for name in reads.spans if name not in reads.optional]
    for episode in recordings:
        for name in required:
            if name not in episode:
                raise DataError(f"{episode} lacks {name!r}, which the inverse model reads; it has {', '.join(sorted(episode))}.")
    if not len(recordings):
        return
    windows = recordings.windows(reads, batch)
    ends = guessed(reads, keeps, recordings.actions)
    for parts in _batches(recordings, reads, keeps, batch):
        if all(part.draft.position in done for part in parts):
            continue
        anchors = np.concatenate([part.anchors for part in parts])
        with torch.inference_mode():
            answer = model.infer(windows.gather(anchors))
        arrays = _arrays(answer, len(anchors), len(reads))
        at = 0
        for part in parts:
            n = len(part.anchors)
            part.draft.place({name: values[at : at + n] for name, values in arrays.items()}, part.first, n)
            at += n
            if part.last and part.draft.position not in done:
                episode = recordings[part.draft.position]
                yield part.draft.finished(episode, ends, blind(reads, part.draft.tiling, episode, recordings.fps))


class _Draft:
    """The labels of an episode while its windows come in."""

    def __init__(self, position: int, tiling: Tiling) -> None:
        self.position, self.tiling = position, tiling
        self.values: dict[str, np.ndarray] = {}

    def place(self, arrays: Mapping[str, np.ndarray], first: int, count: int) -> None:
        """Take over the answers (count, T, ...) of the windows from `first` on."""
        steps = np.flatnonzero((self.tiling.window >= first) & (self.tiling.window < first + count))
        for name, array in arrays.items():
            if name not in self.values:
                self.values[name] = np.zeros((len(self.tiling.window), *array.shape[2:]), array.dtype)
            self.values[name][steps] = array[self.tiling.window[steps] - first, self.tiling.place[steps]]

    def finished(self, episode: Episode, ends: tuple[bool, bool], blind: np.ndarray) -> Inference:
        action, confidence = self.values.pop("action"), self.values.pop("confidence")
        bad = ~(np.isfinite(action).all(1) & np.isfinite(confidence))
        if bad.any():
            raise DataError(f"{episode}: the inverse model's answer is not finite at step {int(bad.argmax())}; train it again.")
        last = episode.over()
        last[-1] = True
        seen = ~(blind | (ends[0] & np.roll(last, 1)) | (ends[1] & last))
        return Inference(self.position, action, np.clip(confidence, 0, 1), seen, self.values)


@dataclass(frozen=True)
class _Part:
    """The windows of one episode in one batch: `anchors` (n, 2), from window `first` on; `last` where they end the episode."""

    draft: _Draft
    anchors: np.ndarray
    first: int
    last: bool


def _batches(recordings: Recordings, reads: Window, keeps: slice, batch: int) -> Iterator[list[_Part]]:
    parts: list[_Part] = []
    room = batch
    for position, episode in enumerate(recordings):
        tiling = tile(reads, keeps, episode.length, recordings.fps)
        draft, first, count = _Draft(position, tiling), 0, len(tiling.anchors)
        while first < count:
            taken = tiling.anchors[first : first + room]
            anchors = np.stack([np.full_like(taken, position), taken], 1)
            parts.append(_Part(draft, anchors, first, first + len(taken) == count))
            first, room = first + len(taken), room - len(taken)
            if not room:
                yield parts
                parts, room = [], batch
    if parts:
        yield parts


def _arrays(answer: Inferred, batch: int, length: int) -> dict[str, np.ndarray]:
    shapes = {"action": tuple(answer.action.shape[:2]), "confidence": tuple(answer.confidence.shape)}
    if set(shapes.values()) != {(batch, length)} or answer.action.ndim != 3:
        raise DataError(f"an inverse model answers every step of {batch} windows of {length}, this one gave {shapes}.")
    arrays = {"action": answer.action, "confidence": answer.confidence, **answer.extras}
    return {name: tensor.detach().cpu().float().numpy() for name, tensor in arrays.items()}


def _spans(reading: object, reads: Window) -> Sequence[Span]:
    if isinstance(reading, Span):
        return [reading]
    return list(reading) if isinstance(reading, tuple) else [reads.span]
