"""Features: what one named column of a recording holds, and the names that columns may have.

Names follow LeRobot (`observation.state`, `observation.images.<camera>`, `action`, `next.reward`, `task`, ...); where it has
none, the prefixes below apply. The prefix is the meaning: `fit` may learn from `label.*` and cannot read `privileged.*`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

IMAGES = "observation.images."
DEPTH = "observation.depth."
POINTS = "observation.points"
STATE = "observation.state"
ACTION = "action"
LATENT_ACTION = "latent.action"
NEXT_STATE = "next." + STATE
REWARD = "next.reward"
TASK = "task"
TERMINATED = "next.terminated"
TRUNCATED = "next.truncated"
LABEL = "label."
PRIVILEGED = "privileged."
VALID = "valid."
WEIGHT = "sample.weight"
CONFIDENCE = "label.action.confidence"
SOURCE = "label.action.source"
RUN = "label.action.run"

FINAL = "final"
"""Key of `Episode.meta`: the observation after the last step, feature -> JSON, see `stores.finals`."""

RUNS = "labelling"
"""Key of `Recordings.meta`: a list of what was done in each labelling run; `label.action.run` counts in it, -1 is none."""

#: Values of `label.action.source`.
RECORDED, INFERRED, CORRECTED = 0, 1, 2

#: Columns that LeRobot keeps for every row; recordings carry them implicitly (index, clock, task), never as features.
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True)
class Feature:
    """One named column: the type and shape of one step of it.

    Attributes:
        dtype: NumPy name (`float32`, `int64`, `bool`, ...), or `image`/`video` (uint8 frames (H, W, C)), or `string`.
        shape: shape of one step; `(1,)` for a scalar, as LeRobot writes it; a dimension of `-1` differs between episodes.
        names: what the entries are called, per dimension or as LeRobot's nested mapping; None where unknown.
        info: whatever else the file said of it (`video.fps`, units, ...), kept untouched.
    """

    dtype: str
    shape: tuple[int, ...]
    names: Any = None
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_visual(self) -> bool:
        """True for camera frames, whether stored as video or as single images."""
        return self.dtype in ("image", "video")

    @property
    def is_text(self) -> bool:
        return self.dtype == "string"

    @property
    def is_numeric(self) -> bool:
        try:
            return np.dtype(self.dtype).kind in "biuf"
        except (TypeError, ValueError):  # `image`, `video`, `string`, or a type of some other library
            return False

    def to_json(self) -> dict[str, Any]:
        """As it stands under `features` in LeRobot's `meta/info.json`."""
        return {"dtype": self.dtype, "shape": list(self.shape), "names": self.names, **self.info}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Feature:
        rest = {k: v for k, v in entry.items() if k not in ("dtype", "shape", "names")}
        return cls(entry["dtype"], tuple(entry["shape"]), entry.get("names"), rest)


def cameras(features: Mapping[str, Feature]) -> tuple[str, ...]:
    """Names of the camera features, in order."""
    return tuple(name for name, feature in features.items() if name.startswith(IMAGES) and feature.is_visual)
