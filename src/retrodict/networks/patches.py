"""Patches of images and videos, and where they lie: the way there and back, and fixed or learned positions on a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn


def to_patches(x: Tensor, size: Sequence[int]) -> Tensor:
    """Images (..., C, H, W), or whatever has as many last dimensions as `size`, cut into patches (..., L, C prod(size)).

    Patches follow one another as their corners do, the last dimension first; in a patch the channel comes last, as in MAE
    (He et al., 2022). Tubes of a video (..., C, T, H, W) have a `size` of three numbers.

    Raises ValueError where a side is no multiple of the patch's.
    """
    n = len(size)
    lead, channels, sides = x.shape[: -n - 1], x.shape[-n - 1], x.shape[-n:]
    if any(side % s for side, s in zip(sides, size, strict=True)):
        raise ValueError(f"sides {tuple(sides)} are no multiples of patches of {tuple(size)}")
    counts = [side // s for side, s in zip(sides, size, strict=True)]
    split = x.reshape(-1, channels, *(k for pair in zip(counts, size, strict=True) for k in pair))
    order = (0, *range(2, 2 + 2 * n, 2), *range(3, 3 + 2 * n, 2), 1)
    return split.permute(order).reshape(*lead, math.prod(counts), math.prod(size) * channels)


def from_patches(patches: Tensor, size: Sequence[int], sides: Sequence[int]) -> Tensor:
    """The inverse of `to_patches`: patches (..., L, d) of images whose last dimensions are `sides`."""
    n = len(size)
    lead, counts = patches.shape[:-2], [side // s for side, s in zip(sides, size, strict=True)]
    split = patches.reshape(-1, *counts, *size, patches.shape[-1] // math.prod(size))
    order = (0, 1 + 2 * n, *(k for pair in zip(range(1, 1 + n), range(1 + n, 1 + 2 * n), strict=True) for k in pair))
    return split.permute(order).reshape(*lead, split.shape[-1], *sides)


def sincos(places: Tensor, width: int, base: float = 10_000.0) -> Tensor:
    """Sines and cosines of places (..., n) -> (..., width): a share of the width for each coordinate, in its order.

    Of width / n numbers the first half are sines, with frequencies from 1 down to 1 / base, the second half cosines.  (Vaswani
    et al., 2017; MAE's fixed positions for n = 2.) Places may be any numbers: steps, cells of a grid, metres.

    Raises ValueError where the width is no multiple of 2 n.
    """
    n = places.shape[-1]
    if width % (2 * n):
        raise ValueError(f"sines and cosines of {n} coordinates need a multiple of {2 * n} numbers; got {width}")
    half = width // (2 * n)
    frequency = base ** (-torch.arange(half, dtype=torch.float64, device=places.device) / half)
    angle = places.double()[..., None] * frequency
    return torch.cat([angle.sin(), angle.cos()], -1).flatten(-2).float()


def grid(shape: Sequence[int]) -> Tensor:
    """The cells of a grid (L, n), in the order of `to_patches`."""
    return torch.cartesian_prod(*(torch.arange(k, dtype=torch.float32) for k in shape)).view(-1, len(shape))


class Positions(nn.Module):
    """Adds to tokens (..., L, width) where they lie on a grid of L cells.

    Args:
        shape: of the grid: (rows, columns), (frames, rows, columns), (steps,).
        width: of the tokens.
        kind: `fixed` sines and cosines; `learned`, a vector for each cell; `separable`, a learned vector for each place along
            each side, which are added up.
    """

    def __init__(self, shape: Sequence[int], width: int, kind: Literal["fixed", "learned", "separable"] = "fixed") -> None:
        super().__init__()
        self.shape, self.kind = tuple(shape), kind
        if kind == "fixed":
            self.register_buffer("table", sincos(grid(shape), width), persistent=False)
        else:
            sides = shape if kind == "separable" else (math.prod(shape),)
            self.sides = nn.ParameterList(nn.init.trunc_normal_(torch.empty(k, width), std=0.02) for k in sides)

    def vectors(self) -> Tensor:
        """The vectors of all cells, (L, width)."""
        if self.kind == "fixed":
            return self.get_buffer("table")
        sides = list(self.sides)
        total: Tensor = sides[0]
        for side in sides[1:]:
            total = (total[:, None] + side).flatten(0, 1)
        return total

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.vectors()
