"""The decoder of a masked autoencoder: from some tokens and many copies of one mask token to patches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from retrodict.networks.patches import Positions
from retrodict.networks.transformer import Transformer


class MaskTokenDecoder(nn.Module):
    """Tokens (B, n, inputs) -> what the cells of a grid hold, (B, L, outputs).  (He et al., 2022)

    Either tokens stand for cells of the grid, and the mask token for those that are missing (`at`); or they stand before a whole
    grid of mask tokens, having places of their own on a grid of `given` (Tian et al., 2024; Wu et al., 2024). Which of both is
    told by `given`.

    Args:
        inputs: width of the tokens.
        shape: of the grid: (rows, columns), or (frames, rows, columns).
        outputs: numbers of a cell, the pixels of a patch.
        width, depth, heads: of the blocks.
        given: the tokens' own grid; None where they are cells of `shape`.
        positions: fixed, learned or separable, see `Positions`; the tokens' own are fixed.
    """

    def __init__(
        self,
        inputs: int,
        shape: Sequence[int],
        outputs: int,
        *,
        width: int,
        depth: int = 2,
        heads: int = 4,
        given: Sequence[int] | None = None,
        positions: Positions | None = None,
    ) -> None:
        super().__init__()
        self.into = nn.Linear(inputs, width)
        self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        self.positions = positions or Positions(shape, width)
        self.own_positions = Positions(given, width) if given is not None else None
        self.blocks = Transformer(width, depth, heads)
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, tokens: Tensor, at: Tensor | None = None) -> Tensor:
        """Every cell of the grid; `at` (B, n) says which cells the tokens are, where they are cells."""
        tokens = self.into(tokens)
        places = self.positions.vectors()
        masked = self.mask_token.expand(len(tokens), len(places), -1)
        if self.own_positions is not None:
            seen = torch.cat([self.own_positions(tokens), masked + places], 1)
            seen = self.blocks(seen)[:, tokens.shape[1] :]
        else:
            if at is None:
                raise ValueError("these tokens are cells of the grid; say which by `at`")
            seen = masked.scatter(1, at[..., None].expand_as(tokens), tokens.to(masked.dtype))
            seen = self.blocks(seen + places)
        out: Tensor = self.out(self.norm(seen))
        return out
