"""Policies that draw several actions ahead: what they remember between steps."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from retrodict.networks.chunks import ChunkExecutor, Mode, Recent
from retrodict.roles import Batch, Policy
from retrodict.systems.gradient import GradientSystem


@dataclass
class DrawnChunks(GradientSystem, Policy):
    """Base of policies that look at the last `observed` steps and draw the next `chunk` actions.

    A system says what is remembered of a step (`glimpse`) and how actions are drawn from that (`next_chunk`), and calls `forget`
    when it is fitted.

    Attributes:
        observed: steps up to now that are looked at.
        chunk: actions said ahead.
        mode: which of them are played, see `ChunkExecutor`.
    """

    observed: int = field(default=2, kw_only=True)
    chunk: int = field(default=8, kw_only=True)
    mode: Mode = field(default="all", kw_only=True)

    _played: ChunkExecutor | None = field(default=None, init=False, repr=False, compare=False)
    _recent: Recent | None = field(default=None, init=False, repr=False, compare=False)
    _drawing: torch.Generator | None = field(default=None, init=False, repr=False, compare=False)

    @abstractmethod
    def glimpse(self, observation: Batch) -> Tensor:
        """What is remembered of what B worlds show at one step, (B, ...)."""

    @abstractmethod
    def next_chunk(self, recent: Tensor, generator: torch.Generator | None) -> Tensor:
        """Chunks (B, chunk, width) in the units of actions, from the last glimpses (B, observed, ...)."""

    def act(self, observation: Batch) -> Tensor:
        """Flat actions (B, width) for B worlds side by side; remembers what it saw.

        Raises NotFittedError before `fit`; DataError where a feature is missing or of the wrong form, or no action was ever seen;
        RetrodictError where `reset` was not called first, or another number of worlds is played than before.
        """
        seen = self.glimpse(observation)
        played, remembered = self._memory()
        recent = remembered.push(seen)
        return played.push(self.next_chunk(recent, self._drawing) if played.needs else None)

    def reset(self, mask: Tensor | None = None) -> None:
        if mask is None or self._drawing is None:
            self.forget()
            self._drawing = torch.Generator(self.torch_device).manual_seed(self.seed)
        played, remembered = self._memory()
        played.reset(mask)
        remembered.reset(mask)

    def forget(self) -> None:
        """Be as before any step: `reset` must be called before the next one."""
        self._played = self._recent = self._drawing = None

    def _memory(self) -> tuple[ChunkExecutor, Recent]:
        if self._played is None or self._recent is None:
            self._played, self._recent = ChunkExecutor(self.chunk, self.mode), Recent(self.observed)
        return self._played, self._recent
