"""Denoising diffusion: how noise is mixed in, and how a sample is drawn out of it.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps at levels t from 0 (nearly clean) to T - 1 (nearly all noise); a model says eps.
(DDPM: Ho et al., 2020; DDIM: Song et al., 2021)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from retrodict.errors import DataError

Kind = Literal["cosine", "linear"]
Spacing = Literal["trailing", "leading"]
Denoiser = Callable[[Tensor, int], Tensor]
"""(noisy samples, their level) -> the noise in them."""

CLEAN = -1
"""The level below 0, at which nothing is noise."""


class Schedule:
    """How much of a sample is left at each level.

    Args:
        kind: `cosine` (squared cosine, betas at most 0.999; Nichol & Dhariwal, 2021) or `linear` (betas from 1e-4 to 0.02 where
            there are 1000 levels, larger where there are fewer; Ho et al., 2020).
        levels: T, 100 and 1000 in the papers.
    """

    def __init__(self, kind: Kind = "cosine", levels: int = 100) -> None:
        if kind not in ("cosine", "linear") or levels < 2:
            raise DataError(f"a noise schedule is cosine or linear and has at least 2 levels; got {kind!r} and {levels}.")
        self.kind, self.levels = kind, levels

    @cached_property
    def betas(self) -> Tensor:
        """Share of the variance that is replaced from one level to the next, (T,), float64."""
        if self.kind == "linear":
            finer = 1000 / self.levels  # as much noise in the end, however many levels lead there
            return (finer * torch.linspace(1e-4, 0.02, self.levels, dtype=torch.float64)).clamp(max=0.999)
        left = torch.cos((torch.linspace(0, 1, self.levels + 1, dtype=torch.float64) + 0.008) / 1.008 * torch.pi / 2) ** 2
        return (1 - left[1:] / left[:-1]).clamp(max=0.999)

    @cached_property
    def kept(self) -> Tensor:
        """abar: share of the variance that is still the sample's, (T,), float64."""
        return (1 - self.betas).cumprod(0)

    def at(self, level: int) -> float:
        """The share kept at one level, 1 for `CLEAN`."""
        return 1.0 if level == CLEAN else float(self.kept[level])

    def add_noise(self, x: Tensor, levels: Tensor, noise: Tensor) -> Tensor:
        """Samples (B, ...) at levels (B,), each its own."""
        sample, mixed = self._weights(x, levels)
        return sample * x + mixed * noise

    def v_of(self, x: Tensor, levels: Tensor, noise: Tensor) -> Tensor:
        """What is called v, sqrt(abar) eps - sqrt(1 - abar) x_0, of samples (B, ...) at levels (B,).  (Salimans & Ho, 2022)

        At low levels it is the noise and at high ones the sample: its error counts what is known of the sample without it.
        """
        sample, mixed = self._weights(x, levels)
        return sample * noise - mixed * x

    def noise_of(self, v: Tensor, noisy: Tensor, levels: Tensor) -> Tensor:
        """The noise in samples at levels (B,) of which v is said."""
        sample, mixed = self._weights(noisy, levels)
        return mixed * noisy + sample * v

    def _weights(self, x: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(abar) and sqrt(1 - abar) at levels (B,), for x (B, ...)."""
        kept = self.kept.to(x.device)[levels].view(-1, *[1] * (x.dim() - 1))
        return kept.sqrt().to(x.dtype), (1 - kept).sqrt().to(x.dtype)

    def sampled(self, steps: int, spacing: Spacing = "leading") -> list[int]:
        """The levels at which a sampler of so many steps asks, descending: from T - 1 (`trailing`) or to 0 (`leading`).

        At T - 1 of the cosine next to nothing of a sample is left: what is said there of the noise says nothing of the sample.

        Raises DataError for more steps than levels.
        """
        if not 1 <= steps <= self.levels:
            raise DataError(f"a sampler takes between 1 step and one for each of {self.levels} levels; got {steps}.")
        if spacing == "leading":
            return [i * (self.levels // steps) for i in range(steps)][::-1]
        return [round(self.levels - i * self.levels / steps) - 1 for i in range(steps)]


def ddim(
    model: Denoiser,
    x: Tensor,
    schedule: Schedule,
    steps: int = 10,
    *,
    spacing: Spacing = "leading",
    start: int | None = None,
    limit: float | None = None,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Samples drawn out of noise `x` (B, ...).

    Args:
        steps, spacing: see `Schedule.sampled`.
        start: the level that `x` is at, where it is not all noise; levels above it are left out.
        limit: what a sample is thought to be at each step is kept within -limit and limit.
        eta: 0 draws nothing (DDIM); 1 draws as much at each step as DDPM does.
        generator: of what is drawn.
    """
    levels = [t for t in schedule.sampled(steps, spacing) if start is None or t <= start]
    for level, below in pairwise([*levels, CLEAN]):
        noise = model(x, level)
        kept, left = schedule.at(level), schedule.at(below)
        clean = _clean(x, noise, kept)
        if limit is not None:
            clean = clean.clamp(-limit, limit)
        drawn = eta * ((1 - left) / (1 - kept) * (1 - kept / left)) ** 0.5
        x = left**0.5 * clean + max(1 - left - drawn**2, 0.0) ** 0.5 * noise
        if drawn:
            x = x + drawn * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return x


def inverted(
    model: Denoiser, x: Tensor, schedule: Schedule, steps: int = 10, *, spacing: Spacing = "leading", stop: int | None = None
) -> Tensor:
    """The noise (B, ...) out of which `ddim` would draw the samples `x`: its steps backwards, up to level `stop`.

    Each step asks at the level that it leads to, where `ddim` asked; that is exact only as far as the noise hardly differs there.
    """
    levels = [t for t in schedule.sampled(steps, spacing) if stop is None or t <= stop]
    for below, level in pairwise([CLEAN, *levels[::-1]]):
        noise = model(x, level)
        kept = schedule.at(level)
        x = kept**0.5 * _clean(x, noise, schedule.at(below)) + (1 - kept) ** 0.5 * noise
    return x


def guided(model: Denoiser, unconditional: Denoiser, weight: float) -> Denoiser:
    """Classifier-free guidance: (1 + w) eps - w eps without the condition.  (Ho & Salimans, 2022)"""
    return lambda x, level: (1 + weight) * model(x, level) - weight * unconditional(x, level)


def _clean(x: Tensor, noise: Tensor, kept: float) -> Tensor:
    clean: Tensor = (x - (1 - kept) ** 0.5 * noise) / kept**0.5
    return clean
