"""Flow matching: a straight way from a sample to noise, and a model of the speed along it.

x_t = (1 - t) x_0 + t eps for t from 0 (the sample) to 1 (noise); a model is asked for v = eps - x_0.
(Lipman et al., 2023; Liu et al., 2023)
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Speed = Callable[[Tensor, Tensor], Tensor]
"""(samples (B, ...) on the way, their times (B,)) -> the speed v."""


def shifted(times: Tensor, shift: float) -> Tensor:
    """Times moved towards noise: s t / (1 + (s - 1) t); a shift of 1 leaves them.  (Esser et al., 2024)"""
    return shift * times / (1 + (shift - 1) * times)


def flow_matching(model: Speed, x: Tensor, times: Tensor, noise: Tensor | None = None) -> Tensor:
    """Squared error of the speed at times (B,) for samples (B, ...), the mean of each, (B,)."""
    noise = torch.randn_like(x) if noise is None else noise
    t = times.view(-1, *[1] * (x.dim() - 1)).to(x.dtype)
    return (model((1 - t) * x + t * noise, times) - (noise - x)).square().flatten(1).mean(1)


def flow(model: Speed, x: Tensor, steps: int = 10, *, shift: float = 1.0) -> Tensor:
    """Samples drawn out of noise `x` (B, ...) by Euler steps at times equally spaced before they are `shifted`."""
    times = shifted(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift).tolist()
    for time, after in pairwise(times):
        x = x + (after - time) * model(x, torch.full((len(x),), time, device=x.device, dtype=x.dtype))
    return x
