"""Divergences of Gaussians with independent entries."""

from __future__ import annotations

import torch
from torch import Tensor


def kl_normal(
    mean: Tensor, logvar: Tensor, other_mean: Tensor | float = 0.0, other_logvar: Tensor | float = 0.0, dims: int = 1
) -> Tensor:
    """KL[N(mean, exp(logvar)) ‖ N(other_mean, exp(other_logvar))], summed over the last `dims` dimensions: one number per sample.

    Args:
        mean, logvar: (..., d).
        other_mean, other_logvar: of the other Gaussian, broadcast: the unit Gaussian where not given, a learned prior, another
            network's moments, the centre of a class.
        dims: dimensions that belong to one sample; 2 for a path (B, T, d).
    """
    other = torch.as_tensor(other_logvar, dtype=logvar.dtype, device=logvar.device)
    apart = (mean - other_mean) ** 2
    each = 0.5 * (other - logvar + (logvar.exp() + apart) * torch.exp(-other) - 1)
    return each.sum(tuple(range(-dims, 0)))
