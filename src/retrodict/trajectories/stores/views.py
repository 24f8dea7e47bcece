"""What arrays of other formats look like here: frames as (H, W, C), actions as one flat float32 vector, names of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from retrodict.trajectories.columns import Column
from retrodict.trajectories.features import DEPTH, IMAGES, STATE, Feature

SMALLEST = 32
"""Bytes on a grid with a shorter side are taken for symbols (as MiniGrid's), not for a picture; Minari draws the same line."""

Layout = Literal["HWC", "CHW", "HW"]


def layout(shape: Sequence[int], dtype: np.dtype) -> Layout | None:
    """How camera frames of this shape and dtype lie, None where it is no picture."""
    if dtype != np.uint8:
        return None
    for name, sides, channels in (("HWC", shape[:2], shape[2:]), ("CHW", shape[1:], shape[:1])):
        if len(shape) == 3 and min(sides) >= SMALLEST and tuple(channels) in ((1,), (3,)):
            return name  # type: ignore[return-value]
    return "HW" if len(shape) == 2 and min(shape) >= SMALLEST else None


def as_frames(array: np.ndarray, lies: Layout) -> np.ndarray:
    """Frames (..., H, W, C) of an array that lies otherwise."""
    return array if lies == "HWC" else np.moveaxis(array, -3, -1) if lies == "CHW" else array[..., None]


@dataclass(frozen=True)
class FlatView:
    """Columns side by side as one float32 vector (n, width), each less its start (a number or (width,))."""

    columns: tuple[Column, ...]
    starts: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.columns[0])

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        parts = [
            (column.take(rows).reshape(len(rows), -1) - start).astype(np.float32)
            for column, start in zip(self.columns, self.starts, strict=True)
        ]
        return np.concatenate(parts, 1, out=out)


def observation_name(path: Sequence[str], lies: Layout | None) -> str:
    """The feature that an observation under these keys becomes."""
    keys = [key.replace("/", ".") for key in path]
    if lies:
        keys = keys[1:] if keys[:1] == ["images"] else keys
        return IMAGES + (".".join(keys).removesuffix("_image") or "main")
    if keys and keys[-1].endswith("_depth"):
        return DEPTH + ".".join(keys).removesuffix("_depth")
    return STATE if keys in ([], ["observation"]) else "observation." + ".".join(keys)


def feature_of(shape: Sequence[int], dtype: np.dtype, lies: Layout | None) -> Feature:
    """The feature that rows of this shape and dtype make."""
    if lies:
        side = as_frames(np.empty(tuple(shape), np.bool_), lies).shape
        return Feature("image", side, ["height", "width", "channels"])
    if dtype.kind in "OSU":
        return Feature("string", (1,))
    return Feature(dtype.name, tuple(shape) or (1,))
