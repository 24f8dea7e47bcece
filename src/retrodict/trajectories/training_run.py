"""A training run as a recording: what a network was at each of some steps while it learned."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.recordings import Recordings, from_arrays

STEP, WEIGHTS, METRICS = "observation.step", "observation.weights.", "observation.metrics."


@dataclass(frozen=True)
class TrainingRun:
    """Weights and measurements of a network over the steps of its training, in the precision in which it learned.

    Attributes:
        steps: steps (T,) at which it was looked at, rising; 0 is before the first.
        weights: parameter name -> (T, *shape), in the order of the layers.
        metrics: name -> (T,) or (T, k): losses, accuracies, strengths of modes, ...

    Raises DataError where the arrays do not have one entry per step, or steps do not rise.
    """

    steps: np.ndarray
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    metrics: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.steps.ndim != 1 or not len(self.steps) or (np.diff(self.steps) <= 0).any():
            raise DataError(f"a training run needs steps (T,) that rise, got {self.steps.tolist()[:8]}.")
        for name, values in {**self.weights, **self.metrics}.items():
            if len(values) != len(self.steps):
                raise DataError(f"a training run of {len(self.steps)} steps has {len(values)} values of {name!r}.")

    def at(self, step: float) -> dict[str, np.ndarray]:
        """The weights at a step, to rewind to; between two steps that were kept, on the straight line between them.

        Raises DataError for a step before the first or after the last.
        """
        if not self.steps[0] <= step <= self.steps[-1]:
            raise DataError(f"the run was kept from step {self.steps[0]} to {self.steps[-1]}; step {step:g} is outside.")
        after = int(np.searchsorted(self.steps, step))
        if self.steps[after] == step:
            return {name: values[after] for name, values in self.weights.items()}
        share = (step - self.steps[after - 1]) / (self.steps[after] - self.steps[after - 1])
        return {name: (1 - share) * values[after - 1] + share * values[after] for name, values in self.weights.items()}

    def recordings(self) -> Recordings:
        """The run as one episode, a time series whose clock counts steps."""
        return from_arrays([self._columns()], source="training run")

    def save(self, path: str | Path) -> Path:
        """Write a `.npz` that `retrodict.open` reads as a time series and `load` as a run."""
        path = Path(path).with_suffix(".npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial.npz")
        np.savez_compressed(partial, allow_pickle=False, **self._columns())
        partial.replace(path)
        return path

    @classmethod
    def of(cls, recordings: Recordings) -> Self:
        """The run that `recordings` gave; raises DataError where these are not the recordings of one."""
        if len(recordings) != 1 or STEP not in recordings[0]:
            raise DataError(f"these recordings are no training run: one episode with {STEP!r} is expected.")
        episode = recordings[0]

        def named(prefix: str) -> dict[str, np.ndarray]:
            return {name.removeprefix(prefix): np.asarray(episode[name]) for name in episode if name.startswith(prefix)}

        return cls(np.asarray(episode[STEP]).reshape(-1), named(WEIGHTS), named(METRICS))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The run that `save` wrote; raises DataError where the file holds none."""
        from retrodict.trajectories.stores import open  # stores stand above this file

        return cls.of(open(path))

    def _columns(self) -> dict[str, np.ndarray]:
        weights = {WEIGHTS + name: values for name, values in self.weights.items()}
        metrics = {METRICS + name: values for name, values in self.metrics.items()}
        return {"timestamp": (self.steps - self.steps[0]).astype(np.float64), STEP: self.steps, **weights, **metrics}
