"""Actors: networks that learn by acting, and how they act when they have learned."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from retrodict.networks.heads import ActionDistribution
from retrodict.roles import Batch, Policy

State = dict[str, Tensor]
"""What an actor remembers, named tensors (B, ...); empty where it remembers nothing."""


class Actor(Protocol):
    """A network that reads T steps of B episodes and says at each what it would do and what it expects.

    One that remembers (recurrent state, attention memory, the last frames of a window) keeps that in its state, and forgets it
    at every step where `first` is True. It must answer the same whether steps come one by one or as a sequence.
    """

    def initial(self, size: int) -> State:
        """The state of `size` episodes before they begin."""
        ...

    def __call__(self, observation: Batch, first: Tensor, state: State) -> tuple[ActionDistribution, Tensor, State]:
        """What to do and what to expect.

        Args:
            observation: feature name -> (B, T, *shape), camera frames uint8 (B, T, C, H, W).
            first: (B, T) bool, the step begins an episode.
            state: as after the step before.

        Returns a distribution over flat actions of steps (B, T), values (B, T, n) of n critics, and the state after them.
        """
        ...


class Acting(Policy):
    """An actor as a policy: draws its actions, or takes the likeliest.

    Args:
        net: an `Actor`.
        sample: draw actions rather than take the likeliest.
        seed: of the draws.
    """

    def __init__(self, net: nn.Module, *, sample: bool = True, seed: int = 0) -> None:
        self.net, self.sample = net, sample
        self.device = next(net.parameters()).device
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.state: State | None = None
        self.first = torch.empty(0, dtype=torch.bool)

    @torch.no_grad()
    def act(self, observation: Batch) -> Tensor:
        size = len(next(iter(observation.values())))
        if self.state is None:
            self.state, self.first = self.net.initial(size), torch.ones(size, dtype=torch.bool)  # type: ignore[operator]
        shown = {name: values for name, values in observation.items() if isinstance(values, Tensor)}  # not words
        sequence = {name: values[:, None].to(self.device) for name, values in shown.items()}
        distribution, _, self.state = self.net(sequence, self.first[:, None].to(self.device), self.state)
        self.first = torch.zeros(size, dtype=torch.bool)
        action: Tensor = distribution.sample(self.generator) if self.sample else distribution.mode()
        return action[:, 0]

    def reset(self, mask: Tensor | None = None) -> None:
        if mask is None:
            self.state = None
        else:
            self.first = self.first | mask.cpu()
