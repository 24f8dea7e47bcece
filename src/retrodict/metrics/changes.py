"""Where something changed between two frames: a forecast is judged there, as most of a frame stays."""

from __future__ import annotations

from torch import Tensor


def changed(before: Tensor, after: Tensor, top: float = 0.2) -> Tensor:
    """The patches (..., L) that changed most: the share `top` of each frame with the largest mean squared change.

    Args:
        before, after: patches (..., L, d).
        top: share of the L patches, of which at least one is taken.
    """
    change = (after.float() - before.float()).square().mean(-1)
    count = max(1, round(top * change.shape[-1]))
    chosen = change.topk(count, -1).indices
    return change.new_zeros(change.shape).scatter(-1, chosen, 1.0).bool()
