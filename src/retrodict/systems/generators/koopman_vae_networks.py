"""Parts of the Koopman VAE: posteriors over regular and irregular windows, and decoders."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from retrodict.networks.gru import BidirectionalGRU
from retrodict.systems.generators.latent_priors import LOGVAR, Prior
from retrodict.systems.generators.neural_cde import NeuralCDE
from retrodict.trajectories.normalise import Normaliser

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
    """Latents of windows of which some steps are missing: an equation driven by the spline through the others, then a GRU.

    With `counts` it is driven by the number of steps seen so far as well, without which a value that is held, as nothing was seen
    before or after it, looks like one that stays.  (Kidger et al., 2020, observational intensity)
    """

    def __init__(self, channels: int, hidden: int, latent: int, counts: bool) -> None:
        super().__init__()
        self.counts = counts
        self.equation = NeuralCDE(channels + counts, hidden)
        self.end = nn.Sequential(nn.Linear(hidden, hidden), nn.Sigmoid())
        self.gru = BidirectionalGRU(hidden, hidden, 1)
        self.moments = Moments(2 * hidden, latent)

    def forward(self, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Windows (B, T, D), of which the steps `seen` (B, T) count."""
        values = fill_gaps(x, seen)
        if self.counts:
            values = torch.cat([values, seen.cumsum(1).to(values)[..., None]], -1)
        states = self.equation(values)
        found: tuple[Tensor, Tensor] = self.moments(self.gru(self.end(states)))
        return found


def fill_gaps(x: Tensor, seen: Tensor) -> Tensor:
    """Windows (B, T, D) with the natural cubic spline through the steps `seen` (B, T) at the others; flat beyond the outermost.

    The spline through some of the steps is the spline through all of them whose roughness x' K x is least: K x = 0 at the others.
    (Green and Silverman, Nonparametric regression and generalized linear models, 1994, section 2.1.) A window of which nothing
    was seen is zero.
    """
    count = x.shape[1]
    steps = torch.arange(count, device=x.device)
    first = torch.where(seen, steps, count).amin(1).clamp(max=count - 1)[:, None]
    last = torch.where(seen, steps, -1).amax(1).clamp(min=0)[:, None]
    values = torch.where(seen[..., None], x, 0)
    outside = (steps < first) | (steps > last)
    edge = values.gather(1, torch.where(steps < first, first, last)[..., None].expand_as(values))
    values = torch.where(outside[..., None], edge, values)
    known = (seen | outside)[..., None]
    # Rows of the identity where a step is known, of the roughness where it is not; in double, for they are ill-conditioned.
    system = torch.where(known, torch.eye(count, device=x.device).double(), roughness(count).to(x.device))
    filled: Tensor = torch.linalg.solve(system, values.double()).to(x.dtype)
    return torch.where(known, values, filled)


@cache
def roughness(steps: int) -> Tensor:
    """K (T, T) with x' K x the integrated squared second derivative of the natural cubic spline through x at 0, ..., T - 1."""
    second = torch.zeros(steps - 2, steps, dtype=torch.float64)
    for offset, weight in enumerate((1.0, -2.0, 1.0)):
        second.diagonal(offset)[:] = weight
    band = torch.zeros(steps - 2, steps - 2, dtype=torch.float64)
    for offset, weight in ((0, 2 / 3), (1, 1 / 6), (-1, 1 / 6)):
        band.diagonal(offset)[:] = weight
    energy: Tensor = second.T @ torch.linalg.solve(band, second)
    return energy


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


# ---- the whole --------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """Scaler, posterior, prior, decoder, and the linear law of the prior: z' ≈ z `operator` + noise, Cholesky factor `noise`."""

    operator: Tensor
    noise: Tensor

    def __init__(self, scaler: Normaliser, posterior: nn.Module, prior: Prior, decoder: Decoder, latent: int) -> None:
        super().__init__()
        self.scaler, self.posterior, self.prior, self.decoder = scaler, posterior, prior, decoder
        self.register_buffer("operator", torch.eye(latent))
        self.register_buffer("noise", torch.eye(latent))
