"""RAdam in one fused call: Adam whose rate is scaled by how well the variance of the gradient is known.  (Liu et al., 2020)"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

LARGE = 1e12
"""An epsilon beside which any gradient vanishes: Adam's step is then the mean gradient, undivided."""


class RAdam(torch.optim.Optimizer):
    """Rectified Adam, step for step that of `torch.optim.RAdam`, which has no fused form and takes several times as long.

    With rho_t the degrees of freedom of the second moment after t steps, the step is that of Adam with the rate times a factor
    of rho_t, or, while rho_t is at most 5, that of momentum alone. Both are one call of Adam's fused kernel, given rate and
    epsilon. Weight decay is added to the gradient.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "taken": 0}
        # `fused` tells torch to bring the counts of steps to the device of the weights when a state is loaded.
        super().__init__(params, {**settings, "fused": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            group["taken"] += 1
            rate, eps = _rectified(group["lr"], group["eps"], group["betas"][1], group["taken"])
            weights = [weight for weight in group["params"] if weight.grad is not None]
            memories = [self._memory(weight) for weight in weights]
            taken = [memory["step"] for memory in memories]
            torch._foreach_add_(taken, 1)
            torch._fused_adam_(
                weights,
                [weight.grad for weight in weights],
                [memory["mean"] for memory in memories],
                [memory["square"] for memory in memories],
                [],
                taken,
                lr=rate,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=eps,
                amsgrad=False,
                maximize=False,
            )
        return loss

    # torch wraps `step` of every optimiser in a record for its profiler, which takes half as long as this step does; a function
    # that says it is wrapped is left alone. Hooks around a step are then not called: nothing here sets any.
    step.hooked = True  # type: ignore[attr-defined]

    def _memory(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        memory: dict[str, torch.Tensor] = self.state[weight]
        if not memory:
            memory["step"] = torch.zeros((), device=weight.device)
            memory["mean"], memory["square"] = torch.zeros_like(weight), torch.zeros_like(weight)
        return memory


def _rectified(rate: float, eps: float, beta: float, step: int) -> tuple[float, float]:
    """Rate and epsilon with which Adam takes RAdam's step."""
    decayed = beta**step
    most = 2 / (1 - beta) - 1
    rho = most - 2 * step * decayed / (1 - decayed)
    if rho <= 5:
        return rate * LARGE, LARGE
    factor = math.sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))
    return rate * factor, eps / math.sqrt(1 - decayed)  # RAdam adds epsilon before the second moment is debiased
