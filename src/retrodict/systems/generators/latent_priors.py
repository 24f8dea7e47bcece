"""Priors over latent paths: a GRU that is fed its own draws, a linear law with noise, and none at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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
        weights = gru.inwards[0], gru.inwards_bias[0, :, 0], gru.around[0], gru.around_bias[0]
        heads = torch.cat([self.mean.weight, self.logvar.weight]), torch.cat([self.mean.bias, self.logvar.bias])
        noise = torch.randn(steps, len(self.mean.bias), n, dtype=gru.around.dtype, device=gru.around.device)
        compiled = noise.device.type == "cpu" and noise.dtype == torch.float32
        drawn, moments = (_Draws.apply if compiled else draws_in_torch)(noise, *weights, *heads)  # type: ignore[no-untyped-call]
        mean, logvar = moments.permute(2, 0, 1).chunk(2, -1)
        return drawn.permute(2, 0, 1), mean, logvar

    def following(self, z: Tensor) -> tuple[Tensor, Tensor]:
        h = self.gru(torch.cat([torch.zeros_like(z[:, :1]), z[:, :-1]], 1)[None])[0]
        return self.mean(h), self.logvar(h).clamp(*LOGVAR)


def draws_in_torch(
    noise: Tensor, inwards: Tensor, inwards_bias: Tensor, around: Tensor, around_bias: Tensor, heads: Tensor, heads_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Draws (T, D, B) of a GRU that is fed them, and their means and log-variances (T, 2 D, B), from noise (T, D, B)."""
    z, h = noise.new_zeros(noise.shape[2], noise.shape[1]), noise.new_zeros(noise.shape[2], heads.shape[1])
    rows: list[tuple[Tensor, Tensor]] = []
    for given in noise:
        h = torch.gru_cell(z, h, inwards, around, inwards_bias, around_bias[:, 0])
        mean, logvar = torch.addmm(heads_bias, h, heads.T).chunk(2, -1)
        logvar = logvar.clamp(*LOGVAR)
        z = mean + torch.exp(0.5 * logvar) * given.T
        rows.append((z.T, torch.cat([mean, logvar], -1).T))
    drawn, moments = (torch.stack(part) for part in zip(*rows, strict=True))
    return drawn, moments


class _Draws(torch.autograd.Function):
    """`draws_in_torch` in loops compiled by numba, on a CPU and in single precision; not twice differentiable."""

    @staticmethod
    def forward(ctx: Any, noise: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        from retrodict.systems.generators import latent_prior_kernels

        steps, width, size = noise.shape
        hidden = weights[2].shape[1]
        states, drawn = noise.new_zeros(steps + 1, hidden, size), noise.new_zeros(steps + 1, width, size)
        kept, moments = noise.new_empty(steps, 4 * hidden, size), noise.new_empty(steps, 2 * width, size)
        filled = (states, kept, moments, drawn)
        latent_prior_kernels.draws(*_arrays(noise, *weights, torch.tensor(LOGVAR), *filled))
        ctx.save_for_backward(noise, *weights, *filled)
        return drawn[1:], moments

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_drawn: Tensor, by_moments: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        from retrodict.systems.generators import latent_prior_kernels

        noise, *weights, states, kept, moments, drawn = ctx.saved_tensors
        inwards, _, around, _, heads, _ = weights
        given = (by_drawn, by_moments, noise, inwards.T, around.T, heads.T, torch.tensor(LOGVAR), states, kept, moments, drawn)
        found = [torch.zeros(weight.shape) for weight in weights]
        latent_prior_kernels.draws_backward(*_arrays(*given, *found))
        return None, *found


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.contiguous().numpy() for tensor in tensors]


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
