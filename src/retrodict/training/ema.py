"""A moving average of a net: the teacher or target of a self-supervised net, or the weights that are kept in the end."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from retrodict.training.schedules import Scalar, at


class EMA(nn.Module):
    """A copy of a module that follows it: average <- momentum * average + (1 - momentum) * live.

    Being a module, it can be a part of a net (a teacher) and is then saved with it. It is never trained by gradients.
    Momentum 1 freezes it; Polyak averaging with tau is a momentum of 1 - tau.

    Args:
        live: the module that is followed.
        momentum: a number, or a schedule over steps.
        buffers: copy the buffers (statistics of normalisation layers) at each update; False keeps the copy's own.
        training: keep the copy in training mode (own batch statistics, dropout) instead of evaluation mode.
    """

    def __init__(self, live: nn.Module, momentum: Scalar, *, buffers: bool = True, training: bool = False) -> None:
        super().__init__()
        self.module = copy.deepcopy(live).requires_grad_(False)
        self.momentum, self.buffers_too, self.always_training = momentum, buffers, training
        self._live = (live,)  # a tuple hides it from nn.Module: it is not a part of the average
        self.train(training)

    @property
    def live(self) -> nn.Module:
        return self._live[0]

    def forward(self, *args: object, **kwargs: object) -> object:
        return self.module(*args, **kwargs)

    def train(self, mode: bool = True) -> EMA:
        """Stay in the mode chosen at the beginning, whatever the net around it does."""
        super().train(self.always_training)
        return self

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the live module by one step."""
        share = 1 - at(self.momentum, step)
        if share:
            self._lerp(self.live, share)
        if self.buffers_too:
            for mine, theirs in zip(self.module.buffers(), self.live.buffers(), strict=True):
                mine.copy_(theirs)

    @torch.no_grad()
    def mix(self, fresh: nn.Module, share: float) -> None:
        """Perturb the copy: (1 - share) * copy + share * fresh, `fresh` being a module of the same shape."""
        self._lerp(fresh, share)

    def _lerp(self, towards: nn.Module, share: float) -> None:
        mine: list[Tensor] = list(self.module.parameters())
        theirs: list[Tensor] = list(towards.parameters())
        if mine:
            torch._foreach_lerp_(mine, theirs, share)

    @contextmanager
    def swapped(self) -> Iterator[nn.Module]:
        """The live module with the averaged weights inside the block, and with its own again after it."""
        own = {name: value.detach().clone() for name, value in self.live.state_dict().items()}
        try:
            self.live.load_state_dict(self.module.state_dict())
            yield self.live
        finally:
            self.live.load_state_dict(own)
