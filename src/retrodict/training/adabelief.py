"""AdaBelief: Adam whose step is large where the gradient is as expected.  (Zhuang et al., 2020, arXiv:2010.07468)"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


class AdaBelief(torch.optim.Optimizer):
    """Adam with the variance of the gradient around its own moving average in the place of its square.

    m <- b1 m + (1 - b1) g;  s <- b2 s + (1 - b2) (g - m)^2 + eps;  w <- w - rate * m^ / (sqrt(s^) + eps), both debiased.
    Weight decay is decoupled, as in AdamW.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            (b1, b2), eps, rate = group["betas"], group["eps"], group["lr"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                memory = self.state[weight]
                if not memory:
                    memory.update(step=0, mean=torch.zeros_like(weight), spread=torch.zeros_like(weight))
                memory["step"] += 1
                mean = memory["mean"].lerp_(weight.grad, 1 - b1)
                surprise = weight.grad - mean
                spread = memory["spread"].mul_(b2).addcmul_(surprise, surprise, value=1 - b2).add_(eps)
                weight.mul_(1 - rate * group["weight_decay"])
                scale = (spread / (1 - b2 ** memory["step"])).sqrt_().add_(eps)
                weight.addcdiv_(mean, scale, value=-rate / (1 - b1 ** memory["step"]))
        return loss
