"""VPT's joint head: one softmax over everything that can be pressed, one over where the mouse goes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retrodict.networks.distributions import Categorical, Distribution
from retrodict.networks.heads import ActionDistribution, CategoricalHead
from retrodict.trajectories import Discrete
from retrodict.trajectories.codecs import JointCodec


@dataclass(frozen=True)
class Joint(Distribution):
    """log p(action) = log p(buttons) + log p(mouse); the mouse counts even where the buttons say that it rests, as in VPT.

    Attributes:
        buttons, mouse: one choice each.
        head: the head that made it; it knows the codec and keeps its tables.
    """

    buttons: Categorical
    mouse: Categorical
    head: JointHead

    def _indices(self, value: Tensor) -> tuple[Tensor, Tensor]:
        pair = self.head.codec.encode(value.detach().cpu().numpy())
        buttons, mouse = (torch.from_numpy(index)[..., None].to(value.device) for index in pair)
        return buttons, mouse

    def log_prob(self, value: Tensor) -> Tensor:
        buttons, mouse = self._indices(value)
        return self.buttons.log_prob(buttons) + self.mouse.log_prob(mouse)

    def _action(self, buttons: Tensor, mouse: Tensor) -> Tensor:
        action = self.head.codec.decode(buttons[..., 0].long().cpu().numpy(), mouse[..., 0].long().cpu().numpy())
        return torch.from_numpy(action).to(buttons.device)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self._action(self.buttons.sample(generator), self.mouse.sample(generator))

    def mode(self) -> Tensor:
        return self._action(self.buttons.mode(), self.mouse.mode())

    def confidence(self) -> Tensor:
        moves = self.head.moves[self.buttons.mode()[..., 0].long()]
        return self.buttons.confidence() * torch.where(moves, self.mouse.confidence(), 1.0)

    def entropy(self) -> Tensor:
        """Entropy (...) of both choices in nats."""
        return self.buttons.entropy() + self.mouse.entropy()

    def kl(self, other: Joint) -> Tensor:
        """KL(self || other), (...)."""
        return self.buttons.kl(other.buttons) + self.mouse.kl(other.mouse)


class JointHead(nn.Module):
    """Features (..., width) -> `ActionDistribution` over the whole action at once.

    Args:
        codec: how actions become pairs of indices.
        width: of the features.
        temperature: divides logits, in training too.
    """

    moves: Tensor

    def __init__(self, codec: JointCodec, width: int, *, temperature: float = 1.0):
        super().__init__()
        self.codec, self.temperature = codec, temperature
        self.buttons, self.mouse = (
            CategoricalHead(Discrete(tuple(map(str, range(n)))), "softmax", width, n) for n in (codec.buttons, codec.mouse)
        )
        self.register_buffer("moves", torch.from_numpy(codec.moves), persistent=False)

    def forward(self, features: Tensor, temperature: float = 1.0) -> ActionDistribution:
        temperature = self.temperature * temperature
        joint = Joint(self.buttons(features, temperature), self.mouse(features, temperature), self)
        return ActionDistribution(self.codec.space, {"joint": joint}, {})
