"""Two small systems made for the tests of the contract, and ways to break them. They keep out of the registry of others."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from retrodict.roles import Encoder, Inferred, InverseModel, Policy
from retrodict.systems import REGISTRY, Card, GradientSystem
from retrodict.trajectories import Window
from retrodict.trajectories.features import ACTION, IMAGES, STATE

CAMERA = IMAGES + "front"


def card(slug):
    return Card(slug, "A toy", "Nobody", 2024, reads="states", returns="actions", claim="it is small")


@dataclass
class ToyInverse(GradientSystem, InverseModel, Encoder):
    """Actions from three states in a row, and a code of each; with dropout, noise, and a normaliser."""

    card: ClassVar[Card] = card("toy-inverse")

    width: int = 8
    sizes: tuple[int, ...] = (8,)
    steps: int = 4
    batch: int = 8
    holdout: float = 0.3
    ema: float | None = 0.5

    def window(self, spec):
        return Window(1, 1, (STATE, ACTION))

    def build(self, spec):
        return nn.ModuleDict(
            {
                "normal": nn.BatchNorm1d(spec.features[STATE].shape[0], affine=False),
                "body": nn.Sequential(nn.Linear(spec.features[STATE].shape[0], self.width), nn.ReLU(), nn.Dropout(0.2)),
                "head": nn.Linear(self.width, spec.features[ACTION].shape[0]),
            }
        )

    def prepare(self, recordings):
        states = torch.cat([torch.from_numpy(episode[STATE]) for episode in recordings])
        self.net_["normal"].running_mean.copy_(states.mean(0))

    def augment(self, batch, generator):
        return {**batch, STATE: batch[STATE] + 0.01 * torch.randn(batch[STATE].shape, generator=generator)}

    def code(self, net, states):
        return net["body"](net["normal"](states.flatten(0, 1))).unflatten(0, states.shape[:2])

    def loss(self, net, batch):
        guess = net["head"](self.code(net, batch[STATE]))
        return {"action": F.mse_loss(guess, batch[ACTION])}

    @property
    def reads(self):
        self.check_fitted()
        return Window(1, 1, (STATE,))

    @torch.no_grad()
    def infer(self, window):
        seen = self.checked(window, (STATE,))
        action = self.net_["head"](self.code(self.net_, seen[STATE]))
        return Inferred(action, torch.full(action.shape[:2], 0.5), {"size": action.norm(dim=-1)})

    @torch.no_grad()
    def encode(self, window):
        seen = self.checked(window, (STATE,))
        return self.code(self.net_, seen[STATE])


@dataclass
class ToyPolicy(GradientSystem, Policy):
    """A policy that looks at the mean colour of one camera and remembers what it saw before."""

    card: ClassVar[Card] = card("toy-policy")

    steps: int = 4
    batch: int = 8

    def features(self, recordings):
        return (*(n for n in recordings.features if n.startswith(IMAGES)), ACTION)

    def window(self, spec):
        return Window(0, 0, (CAMERA, ACTION))

    def build(self, spec):
        return nn.Linear(3, spec.features[ACTION].shape[0])

    def colours(self, frames):
        return frames.float().mean((-2, -1)) / 255

    def loss(self, net, batch):
        return {"action": F.mse_loss(net(self.colours(batch[CAMERA])), batch[ACTION])}

    @torch.no_grad()
    def act(self, observation):
        seen = self.colours(self.checked(observation, (CAMERA,), time=False)[CAMERA])
        memory = getattr(self, "memory", None)
        self.memory = seen if memory is None else (memory + seen) / 2
        return self.net_(self.memory)

    def reset(self, mask=None):
        if mask is None:
            self.memory = None
        else:
            self.memory = torch.where(mask[:, None], 0.0, self.memory)


TOYS = {slug: REGISTRY.pop(slug) for slug in ("toy-inverse", "toy-policy")}
