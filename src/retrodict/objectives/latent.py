"""Prediction in the space of codes: the target is a code too, through which no gradient flows, or a constant would win."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from retrodict.objectives.masked import masked_mean

Distance = Literal["cosine", "l1", "squared"]


def latent_prediction(
    prediction: Tensor, target: Tensor, distance: Distance, mask: Tensor | None = None, *, stop_gradient: bool = True
) -> Tensor:
    """How far predicted codes (..., d) are from the codes (..., d) that came, a mean over (...).

    Args:
        prediction, target: codes.
        distance: `cosine` (1 - cos), `l1` (mean absolute difference from the target normalised as by a LayerNorm without weights)
            or `squared` (squared Euclidean distance).
        mask: (...), which of them count.
        stop_gradient: False lets the gradient into the target, which collapses codes: for controls only.
    """
    target = target.detach() if stop_gradient else target
    if distance == "cosine":
        apart = 1 - F.cosine_similarity(prediction, target, dim=-1)
    elif distance == "l1":
        apart = (prediction - F.layer_norm(target, target.shape[-1:])).abs().mean(-1)
    else:
        apart = (prediction - target).square().sum(-1)
    return masked_mean(apart, mask)
