"""Parts of the Koopman VAE: posteriors over regular and irregular windows, priors over latent paths, decoders."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from retrodict.networks.gru import BidirectionalGRU

LOGVAR = (-8.0, 6.0)
"""Bounds of log-variances, beyond which a Gaussian is a point or says nothing."""


def noisy(mean: Tensor, logvar: Tensor) -> Tensor:
    """A draw from N(mean, exp(logvar)), through which gradients flow."""
    return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)


# ---- posteriors -------------------------------------------------------------------------------------------------------


class Moments(nn.Module):
    """Mean and log-variance of a latent at every step, from features whose statistics are normalised over the batch."""

    def __init__(self, inputs: int, latent: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(inputs)
        self.mean, self.logvar = nn.Linear(inputs, latent), nn.Linear(inputs, latent)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, inputs) -> two of (B, T, latent)."""
        h = self.norm(h.flatten(0, 1)).reshape(h.shape)
        return self.mean(h), self.logvar(h).clamp(*LOGVAR)


class Posterior(nn.Module):
    """Latents of regular windows: a GRU in both directions."""

    def __init__(self, channels: int, hidden: int, latent: int, layers: int) -> None:
        super().__init__()
        self.gru = BidirectionalGRU(channels, hidden, layers)
        self.moments = Moments(2 * hidden, latent)

    def forward(self, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Windows (B, T, D), `seen` (B, T) being all True."""
        found: tuple[Tensor, Tensor] = self.moments(self.gru(x))
        return found


class IrregularPosterior(nn.Module):
    """Latents of windows of which some steps are missing: a neural CDE driven by the natural cubic spline through the others.

    dh = f(h) dX by Runge-Kutta with the step of the grid, then a GRU in both directions.
    """

    def __init__(self, channels: int, steps: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.start = nn.Linear(channels, hidden)
        self.field = nn.Sequential(
            *(m for _ in range(3) for m in (nn.Linear(hidden, hidden), nn.ReLU())),
            nn.Linear(hidden, hidden * channels),
            nn.Tanh(),
        )
        self.end = nn.Sequential(nn.Linear(hidden, hidden), nn.Sigmoid())
        self.gru = BidirectionalGRU(hidden, hidden, 1)
        self.moments = Moments(2 * hidden, latent)
        self.spline = NaturalSpline(steps)

    def forward(self, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Windows (B, T, D), of which the steps `seen` (B, T) count."""
        path = self.spline.fill(x, seen)
        at, between = self.spline.slopes(path)

        def change(h: Tensor, slope: Tensor) -> Tensor:
            moved: Tensor = (self.field(h).reshape(*h.shape, -1) @ slope[..., None])[..., 0]
            return moved

        h = self.start(path[:, 0])
        states = [h]
        for t in range(path.shape[1] - 1):
            k1 = change(h, at[:, t])
            k2 = change(h + k1 / 2, between[:, t])
            k3 = change(h + k2 / 2, between[:, t])
            k4 = change(h + k3, at[:, t + 1])
            h = h + (k1 + 2 * k2 + 2 * k3 + k4) / 6
            states.append(h)
        found: tuple[Tensor, Tensor] = self.moments(self.gru(self.end(torch.stack(states, 1))))
        return found


class NaturalSpline(nn.Module):
    """Natural cubic splines on the grid 0, ..., T-1: all of what is asked of them is linear in the values at the knots.

    A spline through some of the steps is the spline through all of them whose roughness x' K x is least; its values at the others
    solve K x = 0 there. (Green and Silverman, Nonparametric regression and generalized linear models, 1994, section 2.1.)
    """

    roughness: Tensor
    at: Tensor
    between: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        second = np.zeros((steps - 2, steps))  # second differences
        for i in range(steps - 2):
            second[i, i : i + 3] = 1, -2, 1
        band = np.diag(np.full(steps - 2, 2 / 3)) + np.diag(np.full(steps - 3, 1 / 6), 1) + np.diag(np.full(steps - 3, 1 / 6), -1)
        curvature = np.zeros((steps, steps))
        curvature[1:-1] = np.linalg.solve(band, second)
        rise = np.eye(steps)[1:] - np.eye(steps)[:-1]
        before, after = curvature[:-1], curvature[1:]
        at = np.vstack([rise - before / 3 - after / 6, (rise + before / 6 + after / 3)[-1:]])
        between = rise + (before - after) / 24
        for name, matrix in (("roughness", second.T @ curvature[1:-1]), ("at", at), ("between", between)):
            self.register_buffer(name, torch.from_numpy(matrix).float(), persistent=False)

    def fill(self, x: Tensor, seen: Tensor) -> Tensor:
        """Windows (B, T, D) with the spline through the steps `seen` (B, T) at the others; beyond the outermost, their values.

        A window of which nothing was seen is zero.
        """
        steps = torch.arange(x.shape[1], device=x.device)
        first = torch.where(seen, steps, x.shape[1]).amin(1).clamp(max=x.shape[1] - 1)
        last = torch.where(seen, steps, -1).amax(1).clamp(min=0)
        values = torch.where(seen[..., None], x, 0)
        outside = (steps < first[:, None]) | (steps > last[:, None])
        nearest = torch.where(steps < first[:, None], first[:, None], last[:, None])
        edge = values.gather(1, nearest[..., None].expand_as(values))
        known = seen | outside
        values = torch.where(outside[..., None], edge, values)
        # Rows of the identity where a step is known, of the roughness where it is not; in double, for they are ill-conditioned.
        system = torch.where(known[..., None], torch.eye(x.shape[1], device=x.device), self.roughness).double()
        filled: Tensor = torch.linalg.solve(system, values.double()).to(x.dtype)
        return filled

    def slopes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives of the spline through windows (B, T, D): at the steps (B, T, D) and half way between (B, T-1, D)."""
        return torch.einsum("st,btd->bsd", self.at, x), torch.einsum("st,btd->bsd", self.between, x)


# ---- priors -----------------------------------------------------------------------------------------------------------


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
        self.gru = nn.GRU(latent, hidden, batch_first=True)
        self.mean, self.logvar = nn.Linear(hidden, latent), nn.Linear(hidden, latent)

    def paths(self, n: int, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        inwards, around, *biases = (getattr(self.gru, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        z = self.mean.bias.new_zeros(n, self.gru.input_size)
        h = z.new_zeros(n, self.gru.hidden_size)
        noise = torch.randn(steps, n, self.gru.input_size, device=z.device)
        both = torch.cat([self.mean.weight, self.logvar.weight]).T
        offset = torch.cat([self.mean.bias, self.logvar.bias])
        rows: list[tuple[Tensor, Tensor, Tensor]] = []
        for t in range(steps):
            h = torch.gru_cell(z, h, inwards, around, *biases)
            mean, logvar = torch.addmm(offset, h, both).chunk(2, -1)
            logvar = logvar.clamp(*LOGVAR)
            z = torch.addcmul(mean, torch.exp(0.5 * logvar), noise[t])
            rows.append((z, mean, logvar))
        drawn, means, logvars = (torch.stack(part, 1) for part in zip(*rows, strict=True))
        return drawn, means, logvars

    def following(self, z: Tensor) -> tuple[Tensor, Tensor]:
        h = self.gru(torch.cat([torch.zeros_like(z[:, :1]), z[:, :-1]], 1))[0]
        return self.mean(h), self.logvar(h).clamp(*LOGVAR)


class LinearPrior(Prior):
    """z_1 ~ N(mu, Sigma), z_{t+1} = z_t A + noise: the linear law itself, learned."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.operator = nn.Parameter(0.9 * torch.linalg.qr(torch.randn(latent, latent))[0])
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


# ---- decoders ---------------------------------------------------------------------------------------------------------


class Decoder(nn.Module):
    """Latent paths (B, T, d) to windows (B, T, D) in [0, 1]: by a GRU in both directions, or step by step (`layers` 0)."""

    def __init__(self, latent: int, hidden: int, channels: int, layers: int) -> None:
        super().__init__()
        self.gru = BidirectionalGRU(latent, hidden, layers) if layers else None
        self.step = nn.Identity() if layers else nn.Sequential(nn.Linear(latent, 2 * hidden), nn.ReLU())
        self.out = nn.Linear(2 * hidden, channels)

    def forward(self, z: Tensor) -> Tensor:
        h = self.step(z) if self.gru is None else self.gru(z)
        return torch.sigmoid(self.out(h))
