"""Priors over latent paths: a GRU that is fed its own draws, a linear law with noise, and none at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retrodict.dynamics.koopman import fit_operator
from retrodict.networks.gru import ParallelGRU
from retrodict.training.randomness import isolated

LOGVAR = (-8.0, 6.0)
"""Bounds of log-variances, beyond which a Gaussian is a point or says nothing."""


def noisy(mean: Tensor, logvar: Tensor) -> Tensor:
    """A draw from N(mean, exp(logvar)), through which gradients flow."""
    return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)


class Prior(nn.Module, ABC):
    """A distribution over latent paths."""

    @abstractmethod
    def paths(self, n: int, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Paths (n, T, d), and mean and log-variance of every step given the ones before it."""

    @abstractmethod
    def following(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of every step of given paths (B, T, d) given the ones before it."""


class GRUPrior(Prior):
    """The paper's: a GRU that is fed what was drawn from it."""

    def __init__(self, latent: int, hidden: int) -> None:
        super().__init__()
        self.gru = ParallelGRU(1, latent, hidden)
        self.mean, self.logvar = nn.Linear(hidden, latent), nn.Linear(hidden, latent)

    def paths(self, n: int, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        gru = self.gru
        weights = gru.inwards[0], gru.around[0], gru.inwards_bias[0, :, 0], gru.around_bias[0, :, 0]
        z, h = gru.inwards.new_zeros(n, gru.inwards.shape[2]), gru.around.new_zeros(n, gru.around.shape[2])
        noise = torch.randn(steps, *z.shape, device=z.device)
        both = torch.cat([self.mean.weight, self.logvar.weight]).T
        offset = torch.cat([self.mean.bias, self.logvar.bias])
        rows: list[tuple[Tensor, Tensor, Tensor]] = []
        for t in range(steps):
            h = torch.gru_cell(z, h, *weights)
            mean, logvar = torch.addmm(offset, h, both).chunk(2, -1)
            logvar = logvar.clamp(*LOGVAR)
            z = torch.addcmul(mean, torch.exp(0.5 * logvar), noise[t])
            rows.append((z, mean, logvar))
        drawn, means, logvars = (torch.stack(part, 1) for part in zip(*rows, strict=True))
        return drawn, means, logvars

    def following(self, z: Tensor) -> tuple[Tensor, Tensor]:
        h = self.gru(torch.cat([torch.zeros_like(z[:, :1]), z[:, :-1]], 1)[None])[0]
        return self.mean(h), self.logvar(h).clamp(*LOGVAR)


class LinearPrior(Prior):
    """z_1 ~ N(mu, Sigma), z_{t+1} = z_t A + noise: the linear law itself, learned."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.operator = nn.Parameter(0.95 * torch.eye(latent) + 0.02 * torch.randn(latent, latent))
        self.first, self.first_logvar = nn.Parameter(torch.zeros(latent)), nn.Parameter(torch.zeros(latent))
        self.logvar = nn.Parameter(torch.full((latent,), -2.0))

    def paths(self, n: int, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        noise = torch.randn(steps, n, len(self.first), device=self.first.device)
        mean, logvar = self.first.expand(n, -1), self.first_logvar.clamp(*LOGVAR)
        rows: list[tuple[Tensor, Tensor, Tensor]] = []
        for t in range(steps):
            z = torch.addcmul(mean, torch.exp(0.5 * logvar), noise[t])
            rows.append((z, mean, logvar.expand_as(z)))
            mean, logvar = z @ self.operator, self.logvar.clamp(*LOGVAR)
        drawn, means, logvars = (torch.stack(part, 1) for part in zip(*rows, strict=True))
        return drawn, means, logvars

    def following(self, z: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.cat([self.first.expand_as(z[:, :1]), z[:, :-1] @ self.operator], 1)
        logvar = torch.cat([self.first_logvar.expand_as(z[:, :1]), self.logvar.expand_as(z[:, 1:])], 1)
        return mean, logvar.clamp(*LOGVAR)


class IndependentPrior(Prior):
    """N(0, 1) at every step by itself: an ordinary VAE, the baseline."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(latent))

    def paths(self, n: int, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        zero = torch.zeros(n, steps, *self.get_buffer("centre").shape, device=self.get_buffer("centre").device)
        return torch.randn_like(zero), zero, zero

    def following(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(z), torch.zeros_like(z)


# ---- how linear a prior is ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LinearLaw:
    """The linear law that a prior's paths obey best.

    Attributes:
        operator: A with z' ≈ z A, (d, d).
        noise: Cholesky factor of the covariance of what is left, (d, d).
        explained: share of the variance of z' that A explains; at most 1.
    """

    operator: Tensor
    noise: Tensor
    explained: float


@torch.no_grad()
def linear_law(prior: Prior, steps: int, seed: int, n: int = 512) -> LinearLaw:
    """From n paths of a prior."""
    with isolated(seed):
        z = prior.paths(n, steps)[0].double()
    before, after = z[:, :-1].flatten(0, 1), z[:, 1:].flatten(0, 1)
    operator = fit_operator(before, after, method="pinv")
    rest = after - before @ operator
    covariance = rest.mT @ rest / len(rest) + 1e-9 * torch.eye(rest.shape[1]).to(rest)
    explained = 1 - float((rest**2).sum() / ((after - after.mean(0)) ** 2).sum())
    return LinearLaw(operator, torch.linalg.cholesky(covariance), explained)
