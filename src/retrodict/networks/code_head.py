"""A small head on codes that stay as they are: a perceptron and an action head, for one action or a chunk of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from retrodict.networks.heads import ActionDistribution, ActionHead, Kind
from retrodict.networks.mlp import MLP
from retrodict.trajectories import ActionSpace, Box


def regressing(space: ActionSpace, kind: Kind = "mse") -> dict[str, Kind]:
    """Kinds for an `ActionHead` that regresses continuous parts (those without a quantiser) by `kind`."""
    return {name: kind for name, part in space.parts.items() if isinstance(part, Box) and part.quantiser is None}


class CodeHead(nn.Module):
    """Codes (..., d) -> a distribution over the next `chunk` actions, (..., chunk).

    Args:
        width: d.
        space: what an action is made of; continuous parts are regressed by mean squared error.
        hidden: widths of the perceptron's hidden layers.
        dropout: after each of them.
        chunk: actions said ahead.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, space: ActionSpace, hidden: Sequence[int], dropout: float, chunk: int = 1) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.chunk = chunk
        sizes = (width, *hidden[:-1], hidden[-1] * chunk)
        self.trunk = MLP(sizes, dropout=dropout, last_activation="relu")
        self.drop = nn.Dropout(dropout)
        self.head = ActionHead(space, hidden[-1], regressing(space))

    @torch.no_grad()
    def fit_scale(self, codes: Tensor, actions: np.ndarray) -> None:
        """Set the scale of codes (n, d) and of flat actions (n, width); a coordinate that never changes is only shifted."""
        rows = codes.double().cpu()
        std = rows.std(0, correction=0)
        self.mean.copy_(rows.mean(0))
        self.std.copy_(torch.where(std > 1e-8, std, 1.0))
        self.head.fit_scale(actions)

    def forward(self, codes: Tensor) -> ActionDistribution:
        x = self.drop(self.trunk((codes.float() - self.mean) / self.std))
        dist: ActionDistribution = self.head(x.unflatten(-1, (self.chunk, -1)))
        return dist

    def act(self, codes: Tensor) -> Tensor:
        """Flat actions (..., chunk, width), continuous parts within their range."""
        action: Tensor = self(codes).mode()
        return action
