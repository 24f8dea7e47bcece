"""Distributions over one part of an action: what a head says of a step, in the units of the recordings.

All take and give values (..., n) as they lie in the flat action; leading dimensions are steps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

RegressionLoss = Literal["mse", "l1", "smooth_l1", "norm_cosine"]


class Distribution(ABC):
    """What is known of one part of an action."""

    @abstractmethod
    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability, or density, of values (..., n) as a whole, (...)."""

    @abstractmethod
    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """A draw (..., n)."""

    @abstractmethod
    def mode(self) -> Tensor:
        """The most likely value (..., n)."""

    @abstractmethod
    def confidence(self) -> Tensor:
        """Probability (...) that the mode is right as a whole: the same choice or bin, or within the tolerance."""

    def loss(self, value: Tensor) -> Tensor:
        """What training makes small, (...)."""
        return -self.log_prob(value)


@dataclass(frozen=True)
class Categorical(Distribution):
    """n independent choices out of K: a choice, buttons (K = 2), or the bins of continuous values.

    Attributes:
        logits: log probabilities (..., n, K).
        bounds: (n, K - 1) between the bins of continuous values; None where the value is the index.
        centres: (n, K) value of each bin.
    """

    logits: Tensor
    bounds: Tensor | None = None
    centres: Tensor | None = None

    def index(self, value: Tensor) -> Tensor:
        """Indices (..., n) of values."""
        if self.bounds is None:
            return value.round().long()
        return (value[..., None] > self.bounds).sum(-1)

    def value(self, index: Tensor) -> Tensor:
        """Values (..., n) of indices."""
        if self.centres is None:
            return index.to(self.logits.dtype)
        return torch.gather(self.centres.expand(*index.shape, -1), -1, index[..., None])[..., 0]

    def log_prob(self, value: Tensor) -> Tensor:
        return self.logits.gather(-1, self.index(value)[..., None])[..., 0].sum(-1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        flat = self.logits.exp().flatten(0, -2)
        return self.value(torch.multinomial(flat, 1, generator=generator).reshape(self.logits.shape[:-1]))

    def mode(self) -> Tensor:
        return self.value(self.logits.argmax(-1))

    def confidence(self) -> Tensor:
        return self.logits.amax(-1).sum(-1).exp()

    def entropy(self) -> Tensor:
        """Entropy (...) in nats."""
        return -(self.logits.exp() * self.logits.clamp_min(-1e4)).sum((-2, -1))

    def kl(self, other: Categorical) -> Tensor:
        """KL(self || other), (...)."""
        return (self.logits.exp() * (self.logits.clamp_min(-1e4) - other.logits.clamp_min(-1e4))).sum((-2, -1))


@dataclass(frozen=True)
class Normal(Distribution):
    """Independent Gaussians.

    Attributes:
        mean, std: (..., n).
        tolerance: (n,), an error up to which a value counts as right.
        low, high: modes and samples are brought into this range; the density knows nothing of it.
    """

    mean: Tensor
    std: Tensor
    tolerance: Tensor
    low: float = -math.inf
    high: float = math.inf

    def log_prob(self, value: Tensor) -> Tensor:
        z = (value - self.mean) / self.std
        return (-0.5 * z**2 - self.std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return (self.mean + self.std * _noise(self.mean, generator)).clamp(self.low, self.high)

    def mode(self) -> Tensor:
        return self.mean.clamp(self.low, self.high)

    def confidence(self) -> Tensor:
        return torch.erf(self.tolerance / (self.std * math.sqrt(2))).prod(-1)

    def entropy(self) -> Tensor:
        """Differential entropy (...) in nats."""
        return (0.5 * math.log(2 * math.pi * math.e) + self.std.log()).sum(-1)

    def kl(self, other: Normal) -> Tensor:
        """KL(self || other), (...)."""
        ratio, apart = self.std / other.std, (self.mean - other.mean) / other.std
        return (0.5 * (ratio**2 + apart**2 - 1) - ratio.log()).sum(-1)


@dataclass(frozen=True)
class TanhNormal(Distribution):
    """A Gaussian squashed into (low, high) by tanh.

    Attributes:
        mean, std: of the Gaussian before the squashing, (..., n).
        tolerance: (n,), an error up to which a value counts as right.
    """

    mean: Tensor
    std: Tensor
    tolerance: Tensor
    low: float
    high: float

    @property
    def _half(self) -> float:
        return (self.high - self.low) / 2

    def _squash(self, u: Tensor) -> Tensor:
        return self.low + self._half * (1 + u.tanh())

    def _unsquash(self, value: Tensor) -> Tensor:
        y = ((value - self.low) / self._half - 1).clamp(-1 + 1e-6, 1 - 1e-6)  # atanh is infinite at the ends
        return y.atanh()

    def _log_prob(self, u: Tensor) -> Tensor:
        """Log density of the value that `u` is squashed to."""
        z = (u - self.mean) / self.std
        slope = 2 * (math.log(2) - u - F.softplus(-2 * u)) + math.log(self._half)  # log of d value / d u
        return (-0.5 * z**2 - self.std.log() - 0.5 * math.log(2 * math.pi) - slope).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        return self._log_prob(self._unsquash(value))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self._squash(self.mean + self.std * _noise(self.mean, generator))

    def draw(self, n: int = 1) -> tuple[Tensor, Tensor]:
        """`n` draws (n, ..., k), through which gradients flow, and their log densities (n, ...), exact at the ends too."""
        u = self.mean + self.std * torch.randn(n, *self.mean.shape, device=self.mean.device, dtype=self.mean.dtype)
        return self._squash(u), self._log_prob(u)

    def mode(self) -> Tensor:
        return self._squash(self.mean)

    def confidence(self) -> Tensor:
        centre = self.mode()
        ends = (self._unsquash(centre + sign * self.tolerance) for sign in (1, -1))
        above, below = (torch.special.ndtr((end - self.mean) / self.std) for end in ends)
        within: Tensor = above - below
        return within.prod(-1)


@dataclass(frozen=True)
class Regression(Distribution):
    """A value without a probability: it has a loss and no confidence.

    Attributes:
        mean: (..., n).
        kind: `mse`, `l1` or `smooth_l1`, averaged over n; `norm_cosine` is (|a| - |b|)^2 + 1 - cos(a, b).
        scale: (n,) the unit in which errors are measured.
        low, high: modes and samples are brought into this range; the loss knows nothing of it.
    """

    mean: Tensor
    kind: RegressionLoss
    scale: Tensor
    low: float = -math.inf
    high: float = math.inf

    def loss(self, value: Tensor) -> Tensor:
        mine, theirs = self.mean / self.scale, value / self.scale
        if self.kind == "norm_cosine":
            apart: Tensor = mine.norm(dim=-1) - theirs.norm(dim=-1)
            return apart**2 + 1 - F.cosine_similarity(mine, theirs, dim=-1)
        distance = {"mse": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}[self.kind]
        return distance(mine, theirs, reduction="none").mean(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        raise TypeError("a regression head gives no probability; use the kind 'gaussian' where one is needed")

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.mode()

    def mode(self) -> Tensor:
        return self.mean.clamp(self.low, self.high)

    def confidence(self) -> Tensor:
        raise TypeError("a regression head gives no confidence; use the kind 'gaussian' where one is needed")


@dataclass(frozen=True)
class Cells(Distribution):
    """A point in a rectangle: which cell of a grid, and where in it.

    Attributes:
        logits: log probabilities of the cells (..., rows * columns).
        offset: place in the cell from 0 to 1, across and down, (..., 2).
        grid: (rows, columns).
        low, high: the range of both coordinates.
    """

    logits: Tensor
    offset: Tensor
    grid: tuple[int, int]
    low: float
    high: float

    def _places(self, value: Tensor) -> tuple[Tensor, Tensor]:
        size = value.new_tensor([self.grid[1], self.grid[0]])
        place = ((value - self.low) / (self.high - self.low)).clamp(0, 1) * size
        cell = torch.minimum(place.floor(), size - 1)
        return (cell[..., 1] * self.grid[1] + cell[..., 0]).long(), place - cell

    def _point(self, index: Tensor) -> Tensor:
        cell = torch.stack([index % self.grid[1], index // self.grid[1]], -1) + self.offset
        return self.low + (self.high - self.low) * cell / cell.new_tensor([self.grid[1], self.grid[0]])

    def log_prob(self, value: Tensor) -> Tensor:
        return self.logits.gather(-1, self._places(value)[0][..., None])[..., 0]

    def loss(self, value: Tensor) -> Tensor:
        index, offset = self._places(value)
        chosen = self.logits.gather(-1, index[..., None])[..., 0]
        return F.smooth_l1_loss(self.offset, offset, reduction="none").sum(-1) - chosen

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        flat = self.logits.exp().flatten(0, -2)
        return self._point(torch.multinomial(flat, 1, generator=generator).reshape(self.logits.shape[:-1]))

    def mode(self) -> Tensor:
        return self._point(self.logits.argmax(-1))

    def confidence(self) -> Tensor:
        return self.logits.amax(-1).exp()


def squashed_deviation(raw: Tensor) -> Tensor:
    """A standard deviation of any number: exp(-5 + 3.5 (tanh(raw) + 1)), between exp(-5) and exp(2)."""
    return (-5 + 3.5 * (raw.tanh() + 1)).exp()


def mixed_moments(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (..., n) of the mixture, in equal shares, of an ensemble of Gaussians (..., members, n)."""
    middle = mean.mean(-2)
    variance = (std**2 + mean**2).mean(-2) - middle**2
    return middle, variance.clamp_min(torch.finfo(mean.dtype).tiny).sqrt()


def _noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)
