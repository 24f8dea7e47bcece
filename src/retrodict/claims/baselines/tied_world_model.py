"""A unified world model whose two noise levels are one: it can only draw video and actions together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from retrodict.systems.contract import Card
from retrodict.systems.policies.uwm import UWM


@dataclass
class TiedWorldModel(UWM):
    """The ablation of `UWM`: in training, all parts of a sample are at one level.  (As in PAD: Guo et al., 2024)"""

    card: ClassVar[Card] = Card(
        slug="tied-world-model",
        title="Prediction with Action: Visual Policy Learning via Joint Denoising Process",
        authors="Guo, Hu, Zhang, Wang, Chen, Lu, Chen",
        year=2024,
        reads="camera frames and actions",
        returns="frames to come and actions, together",
        claim="drawing what is seen and what is done together helps acting",
        baseline=True,
    )

    def drawn_levels(self, batch: Mapping[str, Tensor], parts: Sequence[str]) -> dict[str, Tensor]:
        one = next(iter(super().drawn_levels(batch, parts).values()))
        return dict.fromkeys(parts, one)
