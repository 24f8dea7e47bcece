"""Judges of generated series, after the fact: can a network tell them from real ones, and does it learn from them what it should?

The protocol of TimeGAN (Yoon, Jarrett and van der Schaar, 2019). Several judges are trained side by side, as one batched network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retrodict.errors import DataError
from retrodict.networks.gru import ParallelGRU
from retrodict.training.randomness import isolated


@dataclass(frozen=True)
class Scores:
    """What each judge found, (judges,).

    Attributes:
        values: of the judges.
    """

    values: Tensor

    @property
    def mean(self) -> float:
        return float(self.values.mean())


class Judges(nn.Module):
    """As many GRUs of one layer as there are judges, each with its own weights and read-out: (J, B, T, D) to (J, B, T, 1)."""

    def __init__(self, judges: int, inputs: int, hidden: int) -> None:
        super().__init__()
        self.gru = ParallelGRU(judges, inputs, hidden)
        reach = 1 / math.sqrt(hidden)  # as torch draws a linear layer
        self.out = nn.Parameter(torch.empty(judges, hidden, 1).uniform_(-reach, reach))
        self.out_bias = nn.Parameter(torch.empty(judges, 1, 1).uniform_(-reach, reach))

    def forward(self, x: Tensor) -> Tensor:
        states = self.gru(x)
        return torch.baddbmm(self.out_bias, states.flatten(1, 2), self.out).reshape(*x.shape[:-1], 1)


def discriminative_score(
    real: Tensor, fake: Tensor, *, hidden: int | None = None, judges: int = 5, steps: int = 2000, batch: int = 128, seed: int = 0
) -> Scores:
    """|0.5 - accuracy| of judges that learned to tell real windows (N, T, D) from generated ones (M, T, D): 0 is best, 0.5 worst.

    Args:
        hidden: units of a judge; half the channels where None, which with few channels makes weak judges: they pass samples that
            vary too little.
        judges: how many, each with its own start, batches, and split of 80 and 20 % of both sets.
        steps, batch: Adam steps at 1e-3, and windows of each set in a step.
    """
    _check(real, fake)
    width = hidden or max(real.shape[2] // 2, 1)
    low, high = real.amin((0, 1)), real.amax((0, 1))
    real, fake = ((x - low) / (high - low).clamp_min(1e-12) for x in (real.float(), fake.float()))
    with isolated(seed):
        net = Judges(judges, real.shape[2], width).to(real.device)
        split = [[torch.randperm(len(x)) for _ in range(judges)] for x in (real, fake)]
        learn, held = zip(*(_split(x, orders) for x, orders in zip((real, fake), split, strict=True)), strict=True)

        def loss() -> Tensor:
            said = [net(_drawn(x, batch))[:, :, -1, 0] for x in learn]
            parts = (nn.functional.softplus(-said[0]), nn.functional.softplus(said[1]))
            return torch.stack([part.mean(1) for part in parts]).sum()  # judges share no weights, so a sum trains each alone

        _trained(net, loss, steps)
        with torch.no_grad():
            said = [net(x)[:, :, -1, 0] for x in held]
        right = torch.cat([said[0] > 0, said[1] < 0], 1).float().mean(1)
    return Scores((right - 0.5).abs())


def predictive_score(
    real: Tensor, fake: Tensor, *, hidden: int | None = None, judges: int = 5, steps: int = 5000, batch: int = 128, seed: int = 0
) -> Scores:
    """Mean absolute error on real windows of judges that learned from generated ones to foretell the last channel a step ahead.

    Channels are scaled to [0, 1] by the range of the real ones. The judge sees the other channels; see `discriminative_score`.

    Raises DataError for windows of one channel, of which nothing is left to foretell from.
    """
    _check(real, fake)
    if real.shape[2] < 2:
        raise DataError(
            "the predictive score foretells one channel from the others; these windows have one: at least 2 are needed."
        )
    width = hidden or max(real.shape[2] // 2, 1)
    low, high = real.amin((0, 1)), real.amax((0, 1))
    real, fake = ((x - low) / (high - low).clamp_min(1e-12) for x in (real.float(), fake.float()))
    with isolated(seed):
        net = Judges(judges, real.shape[2] - 1, width).to(real.device)

        def errors(x: Tensor) -> Tensor:
            return (torch.sigmoid(net(x[:, :, :-1, :-1])[..., 0]) - x[:, :, 1:, -1]).abs()

        every = fake.expand(judges, *fake.shape)
        _trained(net, lambda: errors(_drawn(every, batch)).mean((1, 2)).sum(), steps)
        with torch.no_grad():
            return Scores(errors(real.expand(judges, *real.shape)).mean((1, 2)))


def _trained(net: Judges, loss: Callable[[], Tensor], steps: int) -> None:
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _split(x: Tensor, orders: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Each judge's 80 % and 20 % of the windows, (J, n, T, D) both."""
    cut = int(0.8 * len(x))
    return torch.stack([x[order[:cut]] for order in orders]), torch.stack([x[order[cut:]] for order in orders])


def _drawn(x: Tensor, batch: int) -> Tensor:
    """A batch for each judge, (J, B, T, D)."""
    rows = torch.randint(x.shape[1], (len(x), batch), device=x.device)
    return x[torch.arange(len(x), device=x.device)[:, None], rows]


def _check(real: Tensor, fake: Tensor) -> None:
    if real.ndim != 3 or real.shape[1:] != fake.shape[1:] or min(len(real), len(fake)) < 5:
        raise DataError(
            f"judges compare windows (N, T, D) of one shape, at least 5 of each; got {list(real.shape)}, {list(fake.shape)}."
        )
