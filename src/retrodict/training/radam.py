"""RAdam in one fused call: Adam whose rate is scaled by how well the variance of the gradient is known.  (Liu et al., 2020)"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

LARGE = 1e12
"""An epsilon beside which any gradient vanishes: Adam's step is then the mean gradient, undivided."""


class RAdam(torch.optim.Adam):
    """Rectified Adam, step for step that of `torch.optim.RAdam`, which has no fused form and takes several times as long.

    With rho_t the degrees of freedom of the second moment after t steps, the step is that of Adam with the rate times a factor
    of rho_t, or, while rho_t is at most 5, that of momentum alone. Both are one call of fused Adam, given rate and epsilon.
    Weight decay is added to the gradient.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        given = list(params)
        tensors = [p for entry in given for p in (entry["params"] if isinstance(entry, dict) else [entry])]
        fused = all(p.device.type in ("cpu", "cuda") for p in tensors)
        super().__init__(given, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        asked = [(group["lr"], group["eps"]) for group in self.param_groups]
        for group in self.param_groups:
            group["taken"] = group.get("taken", 0) + 1
            group["lr"], group["eps"] = _rectified(group["lr"], group["eps"], group["betas"][1], group["taken"])
        try:
            super().step()
        finally:
            for group, (rate, eps) in zip(self.param_groups, asked, strict=True):
                group["lr"], group["eps"] = rate, eps
        return loss


def _rectified(rate: float, eps: float, beta: float, step: int) -> tuple[float, float]:
    """Rate and epsilon with which Adam takes RAdam's step."""
    decayed = beta**step
    most = 2 / (1 - beta) - 1
    rho = most - 2 * step * decayed / (1 - decayed)
    if rho <= 5:
        return rate * LARGE, LARGE
    factor = math.sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))
    return rate * factor, eps / math.sqrt(1 - decayed)  # RAdam adds epsilon before the second moment is debiased
