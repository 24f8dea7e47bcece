"""What is to be done, as a token: a learned vector for each task that was met, and one for not being told."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from retrodict.errors import DataError


class TaskEncoder(nn.Module):
    """Tasks by number (...) -> (..., width); number 0 is that nothing is said.

    Args:
        vocabulary: the tasks' texts.
        width: width given out.
    """

    def __init__(self, vocabulary: Sequence[str], width: int) -> None:
        super().__init__()
        self.vocabulary = tuple(vocabulary)
        self.table = nn.Embedding(len(self.vocabulary) + 1, width)
        nn.init.normal_(self.table.weight, std=0.02)

    def numbers(self, texts: Sequence[str]) -> Tensor:
        """The numbers (B,) of tasks, on the CPU.

        Raises DataError for a text that is no task of the vocabulary, naming those that are.
        """
        for text in texts:
            if text not in self.vocabulary:
                known = ", ".join(map(repr, self.vocabulary)) or "none"
                raise DataError(
                    f"the task {text!r} was never seen; only tasks that were trained can be told, in the same words: {known}."
                )
        return torch.tensor([1 + self.vocabulary.index(text) for text in texts], dtype=torch.long)

    @torch.no_grad()
    def extended(self, vocabulary: Sequence[str]) -> TaskEncoder:
        """An encoder of further tasks too, for which it begins with the vector of not being told."""
        more = TaskEncoder((*self.vocabulary, *(text for text in vocabulary if text not in self.vocabulary)), self.width)
        more.table.weight[:] = self.table.weight[0].cpu()
        more.table.weight[: len(self.table.weight)] = self.table.weight.cpu()
        return more

    @property
    def width(self) -> int:
        return self.table.embedding_dim

    def forward(self, number: Tensor) -> Tensor:
        out: Tensor = self.table(number)
        return out
