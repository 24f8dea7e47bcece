"""Samples as inputs x and targets y of a regression, in float64: what a theory of learning looks at."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from retrodict.errors import DataError
from retrodict.trajectories import Recordings
from retrodict.trajectories.features import STATE, cameras

CENTRED = 0.05
"""Mean of a target, in its deviations, from which on it is told what becomes of it."""


def feature_of(recordings: Recordings, wanted: str, who: str) -> str:
    """The feature of the inputs: the one wanted, else the state, else the only camera; raises DataError where there is none."""
    if wanted:
        return wanted
    seen = [STATE] if STATE in recordings.features else list(cameras(recordings.features))
    if len(seen) != 1:
        raise DataError(f"{who} reads {STATE!r} or one camera, found {', '.join(seen) or 'neither'}; name the feature to read.")
    return seen[0]


def numbers(recordings: Recordings, name: str) -> Tensor:
    """A feature of all samples (n, d), float64; camera frames from 0 to 1, as (height, width, channels) laid out in a row."""
    values = np.concatenate([np.asarray(episode[name]).reshape(episode.length, -1) for episode in recordings])
    return torch.from_numpy(values.astype(np.float64) / (255 if recordings.features[name].is_visual else 1))


def stored_type(recordings: Recordings, name: str) -> torch.dtype:
    """The type in which a feature is kept."""
    kept: torch.dtype = torch.from_numpy(np.asarray(recordings[0][name][:1])).dtype
    return kept


@dataclass(frozen=True)
class Target:
    """How a label becomes numbers: classes as one-hot vectors less their mean, numbers as they are.

    Attributes:
        name: the feature.
        classes: labels of the classes, empty where the label is a vector of numbers.
        means: share of each class among the samples of the fit.
    """

    name: str
    classes: tuple[int, ...] = ()
    means: tuple[float, ...] = ()

    @staticmethod
    def check(recordings: Recordings, name: str, who: str) -> str:
        """The name itself; raises DataError where the label holds no numbers."""
        if name in recordings.features and not recordings.features[name].is_numeric:
            raise DataError(f"{who}: {name!r} holds {recordings.features[name].dtype}; class numbers or values are expected.")
        return name

    @classmethod
    def of(cls, recordings: Recordings, name: str) -> Self:
        """Learn the classes; warns where targets that are numbers are not centred."""
        y = np.concatenate([np.asarray(episode[name]).reshape(episode.length, -1) for episode in recordings])
        if y.dtype.kind in "iub" and y.shape[1] == 1:
            classes, counts = np.unique(y, return_counts=True)
            return cls(name, tuple(classes.tolist()), tuple((counts / len(y)).tolist()))
        if (np.abs(y.mean(0)) > CENTRED * y.std(0)).any():
            warnings.warn(
                f"{name!r} is not centred: inputs of mean 0 cannot express its mean, which stays in the loss; with others it "
                "is the first mode. Subtract it.",
                stacklevel=4,
            )
        return cls(name)

    def numbers(self, recordings: Recordings) -> Tensor:
        """Targets of all samples (n, out), float64; raises DataError for a class that the fit did not see."""
        if not self.classes:
            return numbers(recordings, self.name)
        y = np.concatenate([np.asarray(episode[self.name]).reshape(-1) for episode in recordings])
        if (unknown := ~np.isin(y, self.classes)).any():
            raise DataError(f"{self.name!r} is {y[unknown][0]}; the fit saw the classes {', '.join(map(str, self.classes))}.")
        return torch.from_numpy((y[:, None] == np.array(self.classes)).astype(np.float64) - np.array(self.means))

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "classes": list(self.classes), "means": list(self.means)}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Self:
        return cls(entry["name"], tuple(entry["classes"]), tuple(entry["means"]))
