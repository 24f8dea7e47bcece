"""What Seer remembers while it acts: the tokens of the last steps of many worlds, each with its own beginning."""

from __future__ import annotations

import torch
from torch import Tensor

from retrodict.errors import DataError, RetrodictError


class SeerMemory:
    """The last `history` steps of B worlds.

    An episode begins at the first place, as windows of training do, and goes on from place to place; once all are taken, each new
    step pushes the oldest out. So an answer is read at the place of the newest step, before which lies nothing foreign.
    """

    def __init__(self, history: int) -> None:
        self.history = history
        self._tokens: Tensor | None = None  # (B, history, n, width)
        self._count: Tensor | None = None  # (B,), steps of the episode that are kept

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget the worlds where `mask` (B,) is True, all where it is None."""
        if mask is None:
            self._tokens = self._count = None
        elif self._count is not None:
            mask = torch.as_tensor(mask, dtype=torch.bool, device=self._count.device)
            if mask.shape != self._count.shape:
                raise DataError(f"reset takes one truth value for each of {len(self._count)} worlds, got {list(mask.shape)}.")
            self._count = self._count.masked_fill(mask, 0)

    def add(self, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Take in the newest step (B, 1, n, width); gives the steps so far (B, T, n, width) and the place (B,) of the newest."""
        if self._tokens is None or self._count is None:
            self._tokens = observed.new_zeros(len(observed), self.history, *observed.shape[2:])
            self._count = torch.zeros(len(observed), dtype=torch.long, device=observed.device)
        if len(self._count) != len(observed):
            raise RetrodictError(
                f"seer remembers {len(self._count)} worlds and was given {len(observed)}; call reset() in between."
            )
        full = self._count == self.history
        tokens = torch.where(full[:, None, None, None], self._tokens.roll(-1, 1), self._tokens)
        now = self._count.clamp(max=self.history - 1)
        tokens[torch.arange(len(now), device=now.device), now] = observed[:, 0]
        self._tokens, self._count = tokens, now + 1
        return tokens[:, : int(now.max()) + 1], now
