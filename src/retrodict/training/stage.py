"""A stage of training: what is minimised, over which parameters, on which batches, and when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from retrodict.errors import DataError
from retrodict.training.optimisers import Optimiser
from retrodict.training.schedules import Scalar, at
from retrodict.training.validation import Validation

Batch = dict[str, Any]
"""Named tensors with a leading batch dimension; text as lists."""

Loss = Callable[[nn.Module, Batch, int], Mapping[str, Tensor]]
"""(net, batch, step of the stage) -> named scalar terms, whose sum is minimised."""


class Stream(Protocol):
    """Batches that can be read on from any step, perhaps ahead of time: `Windows` is one."""

    def stream(self, start: int) -> Iterator[Batch]: ...


Batches = Callable[[int], Batch] | Stream
"""The batch of a step, which must depend on nothing but the step."""


@dataclass(frozen=True, eq=False)
class Later:
    """Batches that can be made only when their stage begins, from what the stages before it have learned."""

    make: Callable[[], Stream]

    def stream(self, start: int) -> Iterator[Batch]:
        return self.make().stream(start)


def read_on(batches: Batches, step: int) -> Iterator[Batch]:
    """The batches from a step on."""
    return map(batches, count(step)) if callable(batches) else batches.stream(step)


@dataclass(frozen=True, eq=False)
class Stage:
    """Some steps with one loss. Parameters that no optimiser of the stage moves are frozen while it lasts.

    Attributes:
        steps: optimiser steps.
        loss: (net, batch, step) -> named scalar terms; they are summed, and each is logged.
        optimisers: what moves, and how; each with its own rate, weight decay and clip.
        clip: largest norm of the whole gradient; None leaves it.
        batches: the stage's own batches by step of the whole training; None takes those of `train`.
        validation: held-out judgement: early stopping and restoring the best weights.
        ema: momentum (a number or a schedule) of averaged weights, which are judged by validation and kept at the end.
        augment: changes training batches on the device, drawing from the generator it is given.
        after: called with the net and the step after each step (a teacher that follows, a projection).
        name: for logs.
    """

    steps: int
    loss: Loss
    optimisers: tuple[Optimiser, ...] = (Optimiser(),)
    clip: float | None = None
    batches: Batches | None = None
    validation: Validation | None = None
    ema: Scalar | None = None
    augment: Callable[[Batch, torch.Generator], Batch] | None = None
    after: Callable[[nn.Module, int], None] | None = None
    name: str = "train"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise DataError(f"stage {self.name!r} has {self.steps} steps; at least one is needed.")
        if any(o.asks_again for o in self.optimisers) and len(self.optimisers) > 1:
            raise DataError(f"stage {self.name!r}: lbfgs evaluates the loss by itself and must be the only optimiser.")

    def described(self) -> dict[str, Any]:
        """What a resumed run must have in common with the run it goes on with, as JSON."""
        knots = (0, self.steps // 2, self.steps - 1)  # a schedule is a function; these values tell most of them apart
        return {
            "name": self.name,
            "steps": self.steps,
            "clip": self.clip,
            "ema": None if self.ema is None else [at(self.ema, s) for s in knots],
            "optimisers": [
                {
                    "kind": o.name,
                    "rate": [at(o.rate, s) for s in knots],
                    "weight_decay": [at(o.weight_decay, s) for s in knots],
                    "clip": o.clip,
                    "options": {name: str(value) for name, value in o.options.items()},
                }
                for o in self.optimisers
            ],
        }


class Objective(nn.Module):
    """A net together with its loss, so that devices and precision are handled around the whole of both."""

    def __init__(self, net: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.net = net
        self.loss = loss

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        return dict(self.loss(self.net, batch, step))


def check_terms(terms: Mapping[str, Any], stage: str) -> None:
    """Raise DataError unless these are named scalar tensors of which at least one can be followed back to a parameter."""
    if not terms:
        raise DataError(f"stage {stage!r}: the loss returned no terms; a dict of named scalars is expected.")
    for name, value in terms.items():
        if not isinstance(value, Tensor) or value.numel() != 1:
            seen = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise DataError(f"stage {stage!r}: the loss term {name!r} is {seen}; a scalar tensor is expected.")
    if not any(value.requires_grad for value in terms.values()):
        raise DataError(f"stage {stage!r}: no loss term ({', '.join(terms)}) depends on a parameter that the stage moves.")
