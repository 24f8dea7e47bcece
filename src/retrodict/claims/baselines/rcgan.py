"""RCGAN: a recurrent generator against a recurrent discriminator, the adversarial baseline for series.  (Esteban et al., 2017)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from retrodict.errors import DataError
from retrodict.networks.gru import ParallelGRU
from retrodict.roles import Batch, Generator
from retrodict.systems.contract import Card, Spec
from retrodict.systems.gradient import GradientSystem
from retrodict.training.optimisers import Optimiser
from retrodict.training.stage import Stage
from retrodict.trajectories import Recordings, Window
from retrodict.trajectories.features import STATE
from retrodict.trajectories.normalise import Normaliser


class Nets(nn.Module):
    """Scaler, generator (noise at every step to a window) and discriminator (a logit at every step; above 0 means real)."""

    def __init__(self, scaler: Normaliser, channels: int, noise: int, hidden: int) -> None:
        super().__init__()
        self.scaler, self.noise = scaler, noise
        self.maker, self.painter = ParallelGRU(1, noise, hidden), nn.Linear(hidden, channels)
        self.watcher, self.verdict = ParallelGRU(1, channels, hidden), nn.Linear(hidden, 1)

    def make(self, n: int, steps: int) -> Tensor:
        """Windows (n, steps, D) in [0, 1]."""
        z = torch.randn(1, n, steps, self.noise, device=self.painter.bias.device)
        return torch.sigmoid(self.painter(self.maker(z)[0]))

    def judge(self, x: Tensor) -> Tensor:
        """Logits (B, T)."""
        said: Tensor = self.verdict(self.watcher(x[None])[0])[..., 0]
        return said


@dataclass
class RCGAN(GradientSystem, Generator):
    """A GRU that makes windows from noise at every step, and one that tells them from real ones at every step.

    Reads `observation.state`, without gaps. Both move in every step, each by its own part of the loss.

    Attributes:
        frames: steps of a window.
        noise: width of the noise at a step.
        hidden: units of either GRU.
    """

    card: ClassVar[Card] = Card(
        slug="rcgan",
        title="Real-valued (Medical) Time Series Generation with Recurrent Conditional GANs",
        authors="Esteban, Hyland, Rätsch",
        year=2017,
        url="https://arxiv.org/abs/1706.02633",
        reads="windows of numbers",
        returns="new windows",
        claim="recurrent networks can be trained adversarially to make series",
        baseline=True,
    )

    frames: int = 24
    noise: int = 16
    hidden: int = 40
    steps: int = field(default=4000, kw_only=True)
    batch: int = field(default=64, kw_only=True)
    learning_rate: float = field(default=1e-3, kw_only=True)

    def features(self, recordings: Recordings) -> tuple[str, ...]:
        return (STATE,)

    def window(self, spec: Spec) -> Window:
        return Window(0, self.frames - 1, (STATE,), edge="drop")

    def build(self, spec: Spec) -> Nets:
        channels = spec.features[STATE].shape[0]
        scaler = Normaliser((channels,), "range", low=0.0, high=1.0, constant="error", name=STATE)
        return Nets(scaler, channels, self.noise, self.hidden)

    def prepare(self, recordings: Recordings) -> None:
        self.net_.scaler.fit(np.concatenate([np.asarray(episode[STATE]) for episode in recordings]))

    def stages(self, net: Any) -> tuple[Stage, ...]:
        sides = ((net.maker, net.painter), (net.watcher, net.verdict))
        adam: dict[str, Any] = {"kind": "adam", "rate": self.learning_rate, "options": {"betas": (0.5, 0.999)}}
        optimisers = tuple(Optimiser(parameters=[p for part in side for p in part.parameters()], **adam) for side in sides)
        return (Stage(self.steps, self.stage_loss, optimisers, clip=self.clip),)

    def loss(self, net: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        real = net.scaler(batch[STATE].float())
        fake = net.make(len(real), self.frames)
        sorted_ = softplus(-net.judge(real)).mean() + softplus(net.judge(fake.detach())).mean()
        frozen = [p for part in (net.watcher, net.verdict) for p in part.parameters()]
        for p in frozen:  # the maker learns from the verdict and must not move it
            p.requires_grad_(False)
        fooled = softplus(-net.judge(fake)).mean()
        for p in frozen:
            p.requires_grad_(True)
        return {"discriminator": sorted_, "generator": fooled}

    @torch.no_grad()
    def sample(self, n: int, given: Batch | None = None) -> dict[str, Tensor]:
        """`n` windows {`observation.state`: (n, frames, D)}; raises DataError where something is given."""
        self.check_fitted()
        if given:
            raise DataError(f"rcgan makes windows from nothing; it was given {', '.join(given)}.")
        return {STATE: self.net_.scaler.inverse(self.net_.make(n, self.frames))}
