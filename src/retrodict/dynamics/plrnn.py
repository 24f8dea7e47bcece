"""Piecewise-linear recurrent maps z' = F(z): one step, the region a state lies in, and the affine map that holds there.

A region is a vector of bits, one for each rectifier that is on; within one, z' = J z + c exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class AlmostLinear(NamedTuple):
    """z' = A z + W phi(z) + h, where phi rectifies the last `rectified` entries and leaves the others.

    With `rectified` 0 it is a linear recursion.

    Attributes:
        a: diagonal of A, (M,).
        w: W, (M, M).
        h: (M,).
        rectified: how many entries, from the last, pass a rectifier.
    """

    a: Tensor
    w: Tensor
    h: Tensor
    rectified: int

    def step(self, z: Tensor) -> Tensor:
        """The states (..., M) one step later."""
        linear = z.shape[-1] - self.rectified
        phi = torch.cat([z[..., :linear], z[..., linear:].relu()], -1)
        return self.a * z + phi @ self.w.mT + self.h

    def bits(self, z: Tensor) -> Tensor:
        """Which of the last entries are above 0, (..., rectified)."""
        return z[..., z.shape[-1] - self.rectified :] > 0

    def affine(self, bits: Tensor) -> tuple[Tensor, Tensor]:
        """J (..., M, M) and c (..., M) of the regions with these bits."""
        passed = self.w.new_ones(*bits.shape[:-1], 1, len(self.a))
        passed[..., 0, len(self.a) - self.rectified :] = bits.to(self.w)
        return self.a.diag() + self.w * passed, self.h.expand(*bits.shape[:-1], -1)

    def to(self, dtype: torch.dtype, device: torch.device | str) -> AlmostLinear:
        """The same map in another precision and place, cut from any gradient."""
        a, w, h = (value.detach().to(device, dtype) for value in self[:3])
        return AlmostLinear(a, w, h, self.rectified)


class Shallow(NamedTuple):
    """z' = A z + W1 [relu(W2 z + h2) - relu(W2 z)] + h1; the second rectifier only where `clipped`.

    The bracket of the clipped form is bounded, so that orbits are where the norm of A is below 1.

    Attributes:
        a: A in full (M, M), or its diagonal (M,).
        w1, w2: (M, H) and (H, M).
        h1, h2: (M,) and (H,).
        clipped: which form.
    """

    a: Tensor
    w1: Tensor
    w2: Tensor
    h1: Tensor
    h2: Tensor
    clipped: bool = True

    def step(self, z: Tensor) -> Tensor:
        """The states (..., M) one step later."""
        hidden = z @ self.w2.mT
        bracket = (hidden + self.h2).relu() - (hidden.relu() if self.clipped else 0)
        return (z @ self.a.mT if self.a.ndim == 2 else self.a * z) + bracket @ self.w1.mT + self.h1

    def bits(self, z: Tensor) -> Tensor:
        """Which rectifiers are on: first all W2 z + h2 > 0, then, where clipped, all W2 z > 0: (..., H) or (..., 2 H)."""
        hidden = z @ self.w2.mT
        lifted = hidden + self.h2 > 0
        return torch.cat([lifted, hidden > 0], -1) if self.clipped else lifted

    def affine(self, bits: Tensor) -> tuple[Tensor, Tensor]:
        """J (..., M, M) and c (..., M) of the regions with these bits."""
        width = len(self.h2)
        lifted = bits[..., :width].to(self.w1)
        slope = lifted - bits[..., width:].to(self.w1) if self.clipped else lifted
        straight = self.a if self.a.ndim == 2 else self.a.diag()
        return straight + (self.w1 * slope[..., None, :]) @ self.w2, (lifted * self.h2) @ self.w1.mT + self.h1

    def to(self, dtype: torch.dtype, device: torch.device | str) -> Shallow:
        """The same map in another precision and place, cut from any gradient."""
        a, w1, w2, h1, h2 = (value.detach().to(device, dtype) for value in self[:5])
        return Shallow(a, w1, w2, h1, h2, self.clipped)


Map = AlmostLinear | Shallow


def jacobian(law: Map, z: Tensor) -> Tensor:
    """dF/dz at the states (..., M), (..., M, M)."""
    return law.affine(law.bits(z))[0]
