"""Windows: what a system reads around a step, and batches of them gathered by index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from retrodict.errors import DataError
from retrodict.trajectories.features import VALID

if TYPE_CHECKING:
    from retrodict.trajectories.recordings import Recordings


@dataclass(frozen=True)
class Span:
    """Steps around an anchor: `before` steps back, the anchor, `after` steps on, `stride` apart, all moved by `offset`."""

    before: int = 0
    after: int = 0
    stride: int = 1
    offset: int = 0

    def __len__(self) -> int:
        return self.before + 1 + self.after

    @property
    def steps(self) -> np.ndarray:
        """Steps relative to the anchor, (T,)."""
        return np.arange(-self.before, self.after + 1) * self.stride + self.offset


@dataclass(frozen=True)
class Window:
    """What a system reads around a step.

    Attributes:
        before, after, stride, offset: the span read around the anchor, T = before + 1 + after steps.
        features: names read with that span, or a mapping name -> own `Span` (None for the window's).
        optional: features that an episode may lack; they come as zeros with `mask.<feature>` False there.
        edge: windows that overrun their episode repeat its first or last step, marked False in the mask (`replicate`), or are
            left out (`drop`); never zero-filled.
        image_size: (height, width) to which camera frames are brought; None keeps theirs.
    """

    before: int = 0
    after: int = 0
    features: tuple[str, ...] | Mapping[str, Span | None] = ()
    stride: int = 1
    offset: int = 0
    optional: tuple[str, ...] = ()
    edge: Literal["replicate", "drop"] = "replicate"
    image_size: tuple[int, int] | None = None

    @property
    def span(self) -> Span:
        return Span(self.before, self.after, self.stride, self.offset)

    @property
    def spans(self) -> dict[str, Span]:
        """Feature name -> the span read of it."""
        if isinstance(self.features, Mapping):
            return {name: span or self.span for name, span in self.features.items()}
        return dict.fromkeys(self.features, self.span)

    def __len__(self) -> int:
        return len(self.span)


class Windows:
    """Batches of windows, each a dict of tensors (B, T, *shape); camera frames come as uint8 (B, T, C, H, W).

    Beside the features: `mask` (B, T) is False where the window overran its episode, `mask.<feature>` (B, T) where a feature has
    its own span, gaps (`valid.<feature>`) or is lacking; `episode` (B,) the position in the recordings and `frame` (B,) the anchor.

    The batch at a step is a pure function of the seed and the step, so that a resumed run reads what it would have read.

    Args:
        recordings: episodes to read; those that lack a required feature are left out.
        window: what to read around each anchor.
        batch: windows per batch.
        order: `shuffle` (each anchor once per epoch), `sequence` (in order), or `replacement` (uniform draws).
        seed: seed of the order.
    """

    def __init__(
        self,
        recordings: Recordings,
        window: Window,
        batch: int = 32,
        *,
        order: Literal["shuffle", "sequence", "replacement"] = "shuffle",
        seed: int = 0,
    ) -> None:
        self.recordings, self.window, self.batch, self.order, self.seed = recordings, window, batch, order, seed
        required = [name for name in window.spans if name not in window.optional]
        starts = []
        for position, episode in enumerate(recordings):
            if all(name in episode for name in required):
                frames = np.arange(episode.length)
                if window.edge == "drop":
                    for span in window.spans.values():
                        frames = frames[(frames + span.steps[0] >= 0) & (frames + span.steps[-1] < episode.length)]
                starts.append(np.stack([np.full_like(frames, position), frames], 1))
        if not starts or not sum(map(len, starts)):
            raise DataError(
                f"no episode has windows of {required}; {len(recordings)} episode(s) with {list(recordings.features)}."
            )
        self.anchors = np.concatenate(starts)

    def __len__(self) -> int:
        """Batches in one epoch."""
        return -(-len(self.anchors) // self.batch)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """One epoch."""
        return (self.at(step) for step in range(len(self)))

    def at(self, step: int) -> dict[str, Tensor]:
        """The batch of a step, counted through all epochs."""
        if self.order == "replacement":
            rng = np.random.default_rng((self.seed, step))
            return self.gather(self.anchors[rng.integers(len(self.anchors), size=self.batch)])
        epoch, place = divmod(step, len(self))
        order = np.arange(len(self.anchors))
        if self.order == "shuffle":
            np.random.default_rng((self.seed, epoch)).shuffle(order)
        return self.gather(self.anchors[order[place * self.batch : (place + 1) * self.batch]])

    def gather(self, anchors: np.ndarray) -> dict[str, Tensor]:
        """The windows at `anchors` (B, 2): position of the episode, frame in it."""
        episodes = [self.recordings[int(position)] for position in anchors[:, 0]]
        lengths = np.array([episode.length for episode in episodes])
        steps = anchors[:, 1:] + self.window.span.steps
        out: dict[str, Any] = {
            "mask": torch.from_numpy((steps >= 0) & (steps < lengths[:, None])),
            "episode": torch.from_numpy(anchors[:, 0].copy()),
            "frame": torch.from_numpy(anchors[:, 1].copy()),
        }
        for name, span in self.window.spans.items():
            steps = anchors[:, 1:] + span.steps
            inside = (steps >= 0) & (steps < lengths[:, None])
            steps = np.clip(steps, 0, lengths[:, None] - 1)
            values = np.stack([episode.read(name, row) for episode, row in zip(episodes, steps, strict=True)])
            tensor = torch.from_numpy(values)
            out[name] = tensor.movedim(-1, 2) if self.recordings.features[name].is_visual else tensor
            if span != self.window.span or any(VALID + name in episode for episode in episodes):
                out[f"mask.{name}"] = torch.from_numpy(inside)
        return out
