"""Acting by chunks: a policy says several actions ahead; which of them is taken, and how overlapping answers are joined.

And its counterpart on the side of what is seen: the last few observations.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from retrodict.errors import DataError, RetrodictError

Mode = Literal["all", "first", "ensemble"]


class ChunkExecutor:
    """Takes chunks (B, horizon, width) and gives one action (B, width) per step, for B worlds side by side.

    Args:
        horizon: actions of a chunk.
        mode: `all` plays a chunk to its end before the next is asked for; `first` asks anew at every step; `ensemble` does too
            and takes the mean of all answers for this step, the i-th oldest weighing exp(-decay i).  (Zhao et al., 2023)
        decay: of the ensemble; 0.01 there.
    """

    def __init__(self, horizon: int, mode: Mode = "all", decay: float = 0.01) -> None:
        if horizon < 1 or mode not in ("all", "first", "ensemble"):
            raise DataError(f"a chunk has at least one action and is played all, first or ensemble; got {horizon}, {mode!r}.")
        self.horizon, self.mode, self.decay = horizon, mode, decay
        self._chunks: Tensor | None = None  # (kept, B, horizon, width), oldest first
        self._age: Tensor | None = None  # (kept, B), steps since each was said; too old where it counts for nothing
        self._ready = False

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget the chunks of the worlds where `mask` (B,) is True, of all where it is None; called before each episode."""
        self._ready = True
        if mask is None:
            self._chunks = self._age = None
        elif self._age is not None:
            self._age[:, torch.as_tensor(mask, dtype=torch.bool, device=self._age.device)] = self.horizon

    @property
    def needs(self) -> bool:
        """Whether some world needs a new chunk before its next action."""
        return self.mode != "all" or self._age is None or bool((self._age[-1] >= self.horizon).any())

    def push(self, chunk: Tensor | None) -> Tensor:
        """The action (B, width) of this step; `chunk` (B, horizon, width) is the new answer, needed where `needs` says so.

        Raises RetrodictError where `reset` was not called first or a chunk is missing; DataError for another horizon.
        """
        if not self._ready:
            raise RetrodictError("a policy was asked to act without reset(): call it before the first step of each episode.")
        if chunk is not None and chunk.shape[1] != self.horizon:
            raise DataError(f"chunks of {self.horizon} actions are played here; got one of {chunk.shape[1]}.")
        if self.needs:
            if chunk is None:
                raise RetrodictError("a new chunk of actions is needed at this step and none was given.")
            self._take(chunk)
        assert self._chunks is not None
        assert self._age is not None
        valid = self._age < self.horizon  # (kept, B)
        at = self._age.clamp(max=self.horizon - 1)[..., None, None].expand(-1, -1, 1, self._chunks.shape[-1])
        said = self._chunks.gather(2, at)[:, :, 0]  # (kept, B, width)
        order = valid.cumsum(0) - 1  # 0 is the oldest that counts
        weight = torch.exp(-self.decay * order) * valid if self.mode == "ensemble" else valid.to(said.dtype)
        action = (said * weight[..., None]).sum(0) / weight.sum(0)[:, None]
        self._age = self._age + 1
        return action

    def _take(self, chunk: Tensor) -> None:
        new = torch.zeros(1, len(chunk), dtype=torch.long, device=chunk.device)
        if self._chunks is None or self._age is None or self.mode == "first":
            self._chunks, self._age = chunk[None], new
        elif self.mode == "all":  # worlds that are still in the middle of a chunk go on with it
            over = self._age[-1] >= self.horizon
            self._chunks = torch.where(over[:, None, None], chunk, self._chunks[-1])[None]
            self._age = torch.where(over, 0, self._age[-1])[None]
        else:
            self._chunks = torch.cat([self._chunks, chunk[None]])[-self.horizon :]
            self._age = torch.cat([self._age, new])[-self.horizon :]


class Recent:
    """The last `length` observations (B, ...) of B worlds side by side; before an episode's first one stands that one again."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._seen: Tensor | None = None  # (B, length, ...)
        self._fresh: Tensor | None = None  # (B,), True where an episode begins

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget the worlds where `mask` (B,) is True, all where it is None."""
        if mask is None:
            self._seen = self._fresh = None
        elif self._fresh is not None:
            self._fresh = self._fresh | torch.as_tensor(mask, dtype=torch.bool, device=self._fresh.device)

    def push(self, seen: Tensor) -> Tensor:
        """The last observations (B, length, ...), this one included.

        Raises RetrodictError where another number of worlds was seen before.
        """
        again = seen[:, None].expand(-1, self.length, *seen.shape[1:])
        if self._seen is None or self._fresh is None:
            self._seen = again
        elif len(self._seen) != len(seen):
            raise RetrodictError(f"a policy played {len(self._seen)} worlds and is shown {len(seen)}; call reset() in between.")
        else:
            fresh = self._fresh.view(-1, *[1] * (again.dim() - 1))
            self._seen = torch.where(fresh, again, torch.cat([self._seen[:, 1:], seen[:, None]], 1))
        self._fresh = torch.zeros(len(seen), dtype=torch.bool, device=seen.device)
        return self._seen
