"""Patches as a target: each by its own mean and deviation, so that edges count as much in the dark as in the light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from torch import Tensor


@dataclass(frozen=True)
class PatchScale:
    """Mean and deviation (..., L, 1) of patches (..., L, d).  (He et al., 2022, `norm_pix_loss`)"""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, patches: Tensor, floor: float = 1e-6) -> Self:
        """Those of the patches given; the deviation is sqrt(variance + floor), the variance being divided by d - 1."""
        return cls(patches.mean(-1, keepdim=True), (patches.var(-1, keepdim=True) + floor).sqrt())

    def normalised(self, patches: Tensor) -> Tensor:
        """Patches less their mean, by their deviation."""
        return (patches - self.mean) / self.deviation

    def undone(self, patches: Tensor) -> Tensor:
        """The inverse of `normalised`: pixels, for viewing."""
        return patches * self.deviation + self.mean
