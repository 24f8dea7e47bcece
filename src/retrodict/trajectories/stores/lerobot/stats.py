"""Statistics of features as LeRobot keeps them: `min`, `max`, `mean`, `std`, `count` and quantiles, by episode and over all.

Ours are exact within an episode. Over episodes they are joined as LeRobot joins them: quantiles are the mean of the episodes'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)
SMALLEST_SIDE = 150  # larger frames are thinned out to about this many pixels a side, as LeRobot does

Stats = dict[str, Any]
"""Name of a statistic -> nested list; `count` is a list of one number."""


def of_numbers(values: np.ndarray) -> Stats:
    """Statistics of values (T, *shape) over steps, one for each entry of the last axis; NaN and infinity are passed over."""
    flat = values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)
    if flat.dtype == bool:
        flat = flat.astype(np.uint8)
    if flat.dtype.kind == "f":
        flat = flat.astype(np.float64)
        if not np.isfinite(flat).all():
            flat = np.where(np.isfinite(flat), flat, np.nan)
            flat = np.where(np.isnan(flat).all(0), 0.0, flat)
    names = [f"q{round(100 * q):02d}" for q in QUANTILES]
    quantiles = np.nanquantile(flat, QUANTILES, axis=0) if flat.size else np.zeros((len(QUANTILES), flat.shape[1]))
    return {
        "min": np.nanmin(flat, 0).tolist(),
        "max": np.nanmax(flat, 0).tolist(),
        "mean": np.nanmean(flat, 0).tolist(),
        "std": np.nanstd(flat, 0).tolist(),
        "count": [len(values)],
        **{name: row.tolist() for name, row in zip(names, quantiles, strict=True)},
    }


class FrameStats:
    """Statistics of uint8 frames (H, W, C) that pass by, from one histogram for each channel, (C, 256)."""

    def __init__(self, channels: int) -> None:
        self.histogram, self.frames = np.zeros((channels, 256), np.int64), 0

    def watch(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same frames, counted."""
        for frame in frames:
            self.add(frame)
            yield frame

    def add(self, frame: np.ndarray) -> None:
        step = max(max(frame.shape[:2]) // SMALLEST_SIDE, 1)
        for channel, counts in enumerate(self.histogram):
            counts += np.bincount(frame[::step, ::step, channel].ravel(), minlength=256)
        self.frames += 1

    def result(self) -> Stats:
        """In [0, 1] and of shape (C, 1, 1), as LeRobot keeps them."""
        levels = np.arange(256) / 255
        share = self.histogram / self.histogram.sum(1, keepdims=True)
        mean = share @ levels
        variance = np.maximum(share @ levels**2 - mean**2, 0)
        below = np.cumsum(share, axis=1)
        seen = self.histogram > 0
        found = {
            "min": levels[seen.argmax(1)],
            "max": levels[255 - seen[:, ::-1].argmax(1)],
            "mean": mean,
            "std": np.sqrt(variance),
            **{f"q{round(100 * q):02d}": levels[(below >= q - 1e-12).argmax(1)] for q in QUANTILES},
        }
        return {"count": [self.frames], **{name: value.reshape(-1, 1, 1).tolist() for name, value in found.items()}}


def over_episodes(episodes: Sequence[Mapping[str, Stats]]) -> dict[str, Stats]:
    """Statistics of the whole dataset from those of its episodes, for the features that have them in any."""
    names = dict.fromkeys(name for episode in episodes for name in episode)
    return {name: _joined([episode[name] for episode in episodes if name in episode]) for name in names}


def _joined(parts: Sequence[Stats]) -> Stats:
    count = np.array([part["count"][0] for part in parts], float)
    kinds = [name for name in parts[0] if name != "count" and all(name in part for part in parts)]
    stacked = {name: np.array([part[name] for part in parts], float) for name in kinds}
    share = (count / count.sum()).reshape(-1, *[1] * (stacked["mean"].ndim - 1))
    mean = (share * stacked["mean"]).sum(0)
    spread = (share * (stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2)).sum(0)
    whole = {
        "min": stacked["min"].min(0),
        "max": stacked["max"].max(0),
        "mean": mean,
        "std": np.sqrt(spread),
        **{name: (share * stacked[name]).sum(0) for name in kinds if name.startswith("q")},
    }
    return {**{name: value.tolist() for name, value in whole.items()}, "count": [int(count.sum())]}
