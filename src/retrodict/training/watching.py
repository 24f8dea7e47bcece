"""Watching a representation while it is learned: is it collapsing, and what can be read from it by now?"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from retrodict.metrics.representation import Health, health
from retrodict.training.run import Moment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retrodict.training.probes import Split

Codes = Callable[[nn.Module], Tensor]
"""From the net as it stands to the codes (..., d) of some fixed frames."""


class CollapseAlarm:
    """A callback of a `Run` that warns once when codes no longer differ, or differ in hardly any direction.

    Args:
        codes: gives the codes that are watched; called without gradient, the net being in evaluation mode.
        least: the mean standard deviation below which it warns.
        rank: the effective rank below which it warns; codes that are normalised collapse without losing their deviation.
        every: steps between looks.

    Attributes:
        history: (step, health) of every look.
    """

    def __init__(self, codes: Codes, least: float, rank: float = 0.0, every: int = 100) -> None:
        self.codes, self.least, self.rank, self.every = codes, least, rank, every
        self.history: list[tuple[int, Health]] = []
        self._warned = False

    def __call__(self, moment: Moment) -> None:
        if moment.step % self.every:
            return
        with looking(moment.net):
            now = health(self.codes(moment.net))
        self.history.append((moment.step, now))
        if (now.std < self.least or now.rank < self.rank) and not self._warned:
            self._warned = True
            warnings.warn(
                f"the codes are collapsing: at step {moment.step} their mean standard deviation is {now.std:.2g} (alarm below "
                f"{self.least:g}), their effective rank {now.rank:.1f} (below {self.rank:g}); a small loss now means nothing.",
                stacklevel=2,
            )


class DetachedProbe:
    """A callback of a `Run` that reads a target from the codes by ridge regression every so often; for display only.

    Args:
        codes: gives the codes (N, d) that are read.
        target: (N, m), what is read.
        split: rows to learn from and to be judged on.
        every: steps between readings.

    Attributes:
        history: (step, R^2) of every reading.
    """

    def __init__(self, codes: Codes, target: np.ndarray, split: Split, every: int = 500) -> None:
        self.codes, self.target, self.split, self.every = codes, target, split, every
        self.history: list[tuple[int, float]] = []

    def __call__(self, moment: Moment) -> None:
        from retrodict.training.probes import probe

        if moment.step % self.every:
            return
        with looking(moment.net):
            codes = self.codes(moment.net).float().cpu().numpy()
        self.history.append((moment.step, probe(codes, self.target, self.split).value))


@contextmanager
def looking(net: nn.Module) -> Iterator[None]:
    """The net in evaluation mode and without gradients inside the block, as it was after it."""
    was = net.training
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        net.train(was)
