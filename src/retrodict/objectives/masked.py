"""Means over what is there."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(
    x: Tensor,
    mask: Tensor | None = None,
    dims: int | tuple[int, ...] | None = None,
    weight: Tensor | None = None,
    sum_dims: int | tuple[int, ...] = (),
) -> Tensor:
    """Mean of x over the valid entries; 0 where none is valid. What stands at invalid entries, NaN included, does not matter.

    Args:
        x: any shape.
        mask: True for valid entries; its dimensions are the leading ones of x (after `sum_dims` are summed away).
        dims: dimensions to take the mean over; None takes all.
        weight: weights with the leading dimensions of x, per step (B, T) or per trajectory (B,): the mean becomes
            sum(weight x) / sum(weight).
        sum_dims: dimensions summed before anything else, for losses that sum over features and average over the batch.
    """
    if sum_dims != ():
        x = x.sum(sum_dims)
    if mask is None and weight is None:
        return x.mean() if dims is None else x.mean(dims)
    factor = torch.ones_like(x)
    if weight is not None:
        factor = factor * _leading(weight.to(x.dtype), x)
    if mask is not None:
        valid = _leading(mask.bool(), x)
        factor, x = factor * valid, x.masked_fill(~valid, 0.0)
    total, amount = (x * factor, factor)
    total, amount = (total.sum(), amount.sum()) if dims is None else (total.sum(dims), amount.sum(dims))
    return torch.where(amount > 0, total / amount.clamp_min(torch.finfo(x.dtype).tiny), torch.zeros_like(total))


def _leading(factor: Tensor, x: Tensor) -> Tensor:
    """A factor over the leading dimensions of x, broadcast to x."""
    return factor.reshape(*factor.shape, *[1] * (x.dim() - factor.dim())).expand_as(x)
