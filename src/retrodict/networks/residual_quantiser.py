"""Vectors as a few choices: codebooks that each say what the ones before left, and follow the data by moving averages."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualQuantiser(nn.Module):
    """Vectors (..., width) to `layers` choices among `codes` each, whose codes add up to nearly the vector.

    Codes are moving averages of the vectors that chose them (van den Oord et al., 2017, appendix A.1), one codebook on what the
    one before leaves (SoundStream; Zeghidour et al., 2021). They begin on vectors of the first batch that lie
    apart, and a code that next to nothing chooses begins anew on one of the batch at hand that is far from every code.

    Args:
        width: of a vector.
        codes: of a codebook.
        layers: codebooks.
        decay: of the moving averages.
        rare: share of an even use below which a code begins anew.
    """

    book: Tensor
    count: Tensor
    total: Tensor

    def __init__(self, width: int, codes: int, layers: int, decay: float = 0.99, rare: float = 0.05) -> None:
        super().__init__()
        self.decay, self.rare = decay, rare
        self.register_buffer("book", torch.zeros(layers, codes, width))
        self.register_buffer("count", torch.zeros(layers, codes))  # 0 everywhere: not begun
        self.register_buffer("total", torch.zeros(layers, codes, width))

    def forward(self, x: Tensor) -> Tensor:
        """The choices (..., layers)."""
        rest, chosen = x.detach(), []
        for book in self.book:
            choice = torch.cdist(rest.reshape(-1, rest.shape[-1]), book).argmin(-1).view(rest.shape[:-1])
            rest = rest - book[choice]
            chosen.append(choice)
        return torch.stack(chosen, -1)

    def embed(self, choices: Tensor) -> Tensor:
        """The vectors (..., width) that choices (..., layers) stand for."""
        return torch.stack([book[choice] for book, choice in zip(self.book, choices.unbind(-1), strict=True)]).sum(0)

    @torch.no_grad()
    def follow(self, x: Tensor) -> None:
        """Move the codes towards the vectors (..., width) of a batch that choose them."""
        rest = x.detach().reshape(-1, x.shape[-1]).to(self.book.dtype)
        for layer, book in enumerate(self.book):
            if not self.count[layer].any():
                self._begin(layer, torch.arange(len(book), device=book.device), rest)
            choice = torch.cdist(rest, book).argmin(-1)
            used = torch.zeros_like(self.count[layer]).index_add_(0, choice, torch.ones_like(rest[:, 0]))
            self.count[layer].lerp_(used, 1 - self.decay)
            self.total[layer].lerp_(torch.zeros_like(book).index_add_(0, choice, rest), 1 - self.decay)
            book.copy_(self.total[layer] / self.count[layer].clamp_min(1e-6)[:, None])
            idle = (self.count[layer] < self.rare * self.count[layer].mean()).nonzero()[:, 0]
            self._begin(layer, idle, rest)
            rest = rest - book[torch.cdist(rest, book).argmin(-1)]

    def _begin(self, layer: int, which: Tensor, vectors: Tensor) -> None:
        """Put codes on vectors of a batch, each drawn the likelier the farther it is from every other code (k-means++).

        They are counted as if all were used evenly.
        """
        book, even = self.book[layer], len(vectors) / len(self.book[layer])
        there = torch.ones_like(self.count[layer], dtype=torch.bool).index_fill(0, which, False)
        for code in which:
            off = torch.cdist(vectors, book[there]).square().amin(1) if there.any() else torch.ones_like(vectors[:, 0])
            row = torch.multinomial(off + 1e-12, 1)[0]
            book[code], self.count[layer, code], self.total[layer, code] = vectors[row], even, even * vectors[row]
            there[code] = True
