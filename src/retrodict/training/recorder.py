"""A callback of the loop that keeps what a network was while it learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retrodict.errors import DataError
from retrodict.training.run import Moment
from retrodict.trajectories import TrainingRun

Measures = Callable[[Any], Mapping[str, "Tensor | float"]]
"""From a net to numbers or vectors about it, by name: accuracies, strengths of modes, ..."""


class Recorder:
    """Records a training: `Run(callbacks=(recorder,))`, then `recorder.run`.

    The terms of the loss are kept as `loss.<term>`: what the step that led to these weights saw, before it.

    Args:
        every: steps between looks, or the steps to look at (rewinding wants few, a learning curve many).
        measure: asked about the net, without gradients, at every look.
        weights: keep the parameters too.
    """

    def __init__(self, every: int | frozenset[int] = 1, measure: Measures | None = None, weights: bool = True) -> None:
        self.every, self.measure, self.weights = every, measure, weights
        self._steps: list[int] = []
        self._rows: list[dict[str, np.ndarray]] = []
        self._losses: list[Mapping[str, Tensor]] = []

    def begin(self, net: nn.Module) -> None:
        """Look at a net before its first step; call it where the net is made, since the loop speaks after each step only."""
        self._look(0, net)

    def __call__(self, moment: Moment) -> None:
        if self._steps and len(self._losses) < len(self._steps):
            self._losses.append(moment.losses)  # the first step saw the net as it began
        if moment.step % self.every == 0 if isinstance(self.every, int) else moment.step in self.every:
            self._look(moment.step, moment.net)
            self._losses.append(moment.losses)

    @property
    def run(self) -> TrainingRun:
        """What was recorded so far; raises DataError before anything was."""
        if not self._rows:
            raise DataError("nothing was recorded yet: hand the recorder to a fit, as Run(callbacks=(recorder,)).")
        columns = {name: np.stack([row[name] for row in self._rows]) for name in self._rows[0]}
        weights = {name.removeprefix("w:"): values for name, values in columns.items() if name.startswith("w:")}
        metrics = {name.removeprefix("m:"): values for name, values in columns.items() if name.startswith("m:")}
        if len(self._losses) == len(self._rows):  # terms that a later stage lacks are left out
            kept = [name for name in self._losses[0] if all(name in terms for terms in self._losses)]
            metrics |= {f"loss.{name}": np.array([float(terms[name]) for terms in self._losses]) for name in kept}
        return TrainingRun(np.array(self._steps), weights, metrics)

    @torch.no_grad()
    def _look(self, step: int, net: nn.Module) -> None:
        row = {f"m:{name}": _array(value) for name, value in (self.measure(net) if self.measure else {}).items()}
        if self.weights:
            row |= {f"w:{name}": _array(value) for name, value in net.named_parameters()}
        self._steps.append(step)
        self._rows.append(row)


def _array(value: Tensor | float) -> np.ndarray:
    return value.detach().cpu().numpy().copy() if isinstance(value, Tensor) else np.asarray(value, np.float64)
