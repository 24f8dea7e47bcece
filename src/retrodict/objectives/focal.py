"""Losses of choices."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def focal(logits: Tensor, choice: Tensor, gamma: float = 2.0) -> Tensor:
    """-(1 - p)^gamma log p of the right choices, p being their probability: what is known already counts little.

    Args:
        logits: (..., n).
        choice: (...), which is right.
        gamma: 0 is the cross-entropy.

    Source: Lin et al., Focal loss for dense object detection, 2017, equation 4.
    """
    said = F.log_softmax(logits, -1).gather(-1, choice[..., None])[..., 0]
    return -((1 - said.exp()) ** gamma) * said
