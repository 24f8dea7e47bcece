"""How strongly to force a recurrent map towards data so that its gradients stay bounded (Hess et al., 2023)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from retrodict.dynamics.plrnn import AlmostLinear, Map, jacobian
from retrodict.errors import DataError

Estimate = Literal["upper_bound", "batch_maximum", "product_bound", "arithmetic_mean", "geometric_mean"]


@torch.no_grad()
def forcing_strength(law: Map, signal: Tensor, estimate: Estimate) -> float:
    """Alpha = max(0, 1 - 1 / n) with n the size of the Jacobians along a signal.

    Args:
        law: the map.
        signal: states (T, B, M) at which Jacobians are taken: where forcing draws the map to, not where it is.
        estimate: what n is: `upper_bound` from the norms of the parameters, for any state of a shallow map; `batch_maximum` the
            largest spectral norm; `product_bound` the largest, over sequences, geometric mean of the spectral norms;
            `arithmetic_mean` and `geometric_mean` the largest, over sequences, spectral norm of the mean Jacobian, entry by
            entry (the cheapest; the second of absolute values).

    Raises DataError where `upper_bound` is asked of a map without one.
    """
    if estimate == "upper_bound":
        if isinstance(law, AlmostLinear) or law.a.ndim == 2:
            raise DataError("the upper bound of the Jacobian is that of a shallow map with a diagonal A; take another estimate.")
        size = law.a.abs().max() + torch.linalg.matrix_norm(law.w1, 2) * torch.linalg.matrix_norm(law.w2, 2)
    elif estimate == "arithmetic_mean":
        size = torch.linalg.matrix_norm(_mean_jacobian(law, signal), 2).max()
    else:
        jacobians = jacobian(law, signal)
        if estimate == "geometric_mean":
            means = jacobians.abs().clamp(min=1e-12).log().mean(0).exp()
            size = torch.linalg.matrix_norm(means, 2).max()
        else:
            norms = torch.linalg.matrix_norm(jacobians, 2)
            size = norms.max() if estimate == "batch_maximum" else norms.log().mean(0).exp().max()
    return max(0.0, 1 - 1 / float(size))


def _mean_jacobian(law: Map, signal: Tensor) -> Tensor:
    """Means (B, M, M) over time; the Jacobian is linear in the bits, so the bits are averaged."""
    return law.affine(law.bits(signal).to(signal).mean(0))[0]
