"""`meta/retrodict.json`: what recordings say of themselves and LeRobot has no place for.

LeRobot ignores the file; a dataset without it reads with everything in it unknown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrodict.errors import DataError
from retrodict.files import write_text
from retrodict.trajectories.actions import ActionSpace
from retrodict.trajectories.features import Feature
from retrodict.trajectories.stores.lerobot.layout import EXTENSION, read_json


@dataclass(frozen=True)
class Extension:
    """Content of `meta/retrodict.json`.

    Attributes:
        actions: what the numbers in `action` mean.
        fps: steps per second as the recordings say it; None where the clock is irregular or unknown (`info.json` needs a number).
        independent, structures, meta: as in `Recordings`.
        scalars: features of shape (1,) whose steps are numbers, (T,), not vectors of one, (T, 1).
        ragged: feature -> shape with -1 for the dimension that differs between episodes; on disk each step is one flat list.
        partial: features that only some episodes have; they are not declared in `info.json`.
    """

    actions: ActionSpace | None = None
    fps: float | None = None
    independent: bool = False
    structures: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    scalars: tuple[str, ...] = ()
    ragged: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    partial: Mapping[str, Feature] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        content = {
            "actions": self.actions and self.actions.to_json(),
            "fps": self.fps,
            "independent": self.independent,
            "structures": self.structures,
            "meta": self.meta,
            "scalars": self.scalars,
            "ragged": self.ragged,
            "partial": {name: feature.to_json() for name, feature in self.partial.items()},
        }
        write_text(folder / EXTENSION, json.dumps(content, indent=4, ensure_ascii=False, default=plain))

    @classmethod
    def read(cls, folder: Path) -> Extension | None:
        """None where the dataset has none."""
        path = folder / EXTENSION
        if not path.exists():
            return None
        content = read_json(path)
        try:
            return cls(
                actions=content["actions"] and ActionSpace.from_json(content["actions"]),
                fps=content["fps"],
                independent=content["independent"],
                structures=content["structures"],
                meta=content["meta"],
                scalars=tuple(content["scalars"]),
                ragged={name: tuple(shape) for name, shape in content["ragged"].items()},
                partial={name: Feature.from_json(entry) for name, entry in content["partial"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} is not as retrodict writes it ({error!r}); remove it to read the dataset without it."
            ) from None


def plain(value: Any) -> Any:
    """NumPy values as JSON knows them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)
