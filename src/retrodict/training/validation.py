"""Judging a net on what it did not learn from: early stopping, the best weights, and rates that fall on a plateau."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from retrodict.errors import DataError
from retrodict.training.randomness import isolated

Measure = Callable[[nn.Module, int], float]
"""(net in evaluation mode, step of the stage) -> a number of which less is better."""


@dataclass(frozen=True, eq=False)
class Validation:
    """When a net is judged, and what follows from it.

    Attributes:
        measure: the judgement; less is better. `heldout_loss` makes one of a loss.
        every: steps between judgements; the last step is always judged.
        patience: judgements without improvement after which the stage ends; 0 never ends it.
        keep: the weights with which a stage ends: those judged `best`, or the `last`.
    """

    measure: Measure
    every: int = 100
    patience: int = 0
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        if self.every < 1 or self.patience < 0:
            raise DataError(f"validation needs every >= 1 and patience >= 0, got {self.every} and {self.patience}.")


class Watch:
    """What validation has said so far in a stage."""

    def __init__(self, validation: Validation) -> None:
        self.validation = validation
        self.best = math.inf
        self.weights: dict[str, Tensor] | None = None
        self.waited = 0

    @property
    def exhausted(self) -> bool:
        """True when there was no improvement for as long as patience allows."""
        return 0 < self.validation.patience <= self.waited

    def judged(self, value: float, net: nn.Module) -> None:
        """Take note of a judgement of the net as it stands."""
        if value < self.best:
            self.best, self.waited = value, 0
            if self.validation.keep == "best":
                self.weights = {k: v.detach().to("cpu", copy=True) for k, v in net.state_dict().items()}
        else:
            self.waited += 1

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.best, self.waited, self.weights = saved["best"], saved["waited"], saved["weights"]


class Slowdown:
    """A plateau under way: the factor by which a rate is lowered so far."""

    def __init__(self, factor: float, patience: int, minimum: float) -> None:
        self.by, self.patience, self.minimum = factor, patience, minimum
        self.factor, self.best, self.waited = 1.0, math.inf, 0

    def judged(self, value: float) -> None:
        """Take note of a judgement."""
        if value < self.best:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.factor, self.waited = max(self.factor * self.by, self.minimum), 0

    def state_dict(self) -> dict[str, float]:
        return {"factor": self.factor, "best": self.best, "waited": self.waited}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.factor, self.best, self.waited = saved["factor"], saved["best"], saved["waited"]


def heldout_loss(
    loss: Callable[[nn.Module, dict[str, Any], int], Mapping[str, Tensor]],
    batches: Callable[[], Iterable[dict[str, Any]]],
    device: torch.device,
    seed: int = 0,
) -> Measure:
    """A measure: the mean of a loss over batches, each weighted by its size, with the same random draws every time.

    No gradients are kept; a loss that differentiates inside opens `torch.enable_grad()` itself.
    """

    def measure(net: nn.Module, step: int) -> float:
        sums, count = torch.zeros((), dtype=torch.float64), 0
        with torch.no_grad(), isolated(seed):
            for batch in batches():
                size = len(next(iter(batch.values())))
                there = {name: rows.to(device) if isinstance(rows, Tensor) else rows for name, rows in batch.items()}
                terms = loss(net, there, step)
                sums += size * sum(float(term) for term in terms.values())
                count += size
        if not count:
            raise DataError("there is nothing to validate on: no batch of held-out windows.")
        return float(sums) / count

    return measure
