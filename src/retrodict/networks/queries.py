"""Learned queries that read any number of tokens: a resampler, a decoder of chunks, a reader of sets."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from retrodict.networks.layers import Activation, activation
from retrodict.networks.transformer import Attention, Sight, attend

Among = Literal["none", "first", "joint"]


class QueryBlock(nn.Module):
    """Queries look at each other (as `among` says) and at tokens, then pass a perceptron; each part has its residual."""

    def __init__(
        self, width: int, heads: int, hidden: int, among: Among, norm_first: bool, kind: Activation, dropout: float
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} cannot be shared by {heads} heads")
        self.heads, self.among, self.norm_first, self.rate = heads, among, norm_first, dropout
        self.own = Attention(width, heads, dropout, fused=False) if among == "first" else None
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3 if among == "first" else 2))
        self.norm_tokens = nn.LayerNorm(width) if among == "joint" else nn.Identity()
        self.activation, self.drop = activation(kind), nn.Dropout(dropout)

    def look(self, queries: Tensor, tokens: Tensor, sight: Sight | None) -> Tensor:
        """Attention of queries (B, n, width) to tokens (B, L, width), and where `among` is `joint` to the queries themselves."""
        tokens = self.norm_tokens(tokens)
        if self.among == "joint":
            tokens = torch.cat([tokens, queries], 1)
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, queries), (self.key, tokens), (self.value, tokens))
        )
        looked: Tensor = self.out(attend(q, k, v, sight, self.rate if self.training else 0.0).transpose(1, 2).flatten(2))
        return looked

    def mlp(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.drop(self.activation(self.first(x))))
        return out

    def forward(self, x: Tensor, tokens: Tensor, sight: Sight | None) -> Tensor:
        parts = [lambda y: self.look(y, tokens, sight), self.mlp]
        if self.own is not None:
            own = self.own
            parts.insert(0, lambda y: own(y, None, None)[0])
        for norm, part in zip(self.norms, parts, strict=True):
            x = x + self.drop(part(norm(x))) if self.norm_first else norm(x + self.drop(part(x)))
        return x


class QueryDecoder(nn.Module):
    """Tokens (B, L, inputs) -> (B, queries, width): what a fixed number of learned queries read from any number of tokens.

    With `among="joint"` and `norm_first` it is the Perceiver resampler (Alayrac et al., 2022): queries look at tokens and queries
    together. With `first` it is the decoder of a transformer: queries look at each other, then at the tokens. With `none` and one
    block it is an attentive reader. Positions are no part of it: add them to the tokens.

    Args:
        queries: how many there are.
        width, depth, heads: sizes.
        inputs: width of the tokens, if it is another.
        among: how queries see each other.
        norm_first: norm before each part, and one at the end, or after each residual.
        mlp: width of the hidden layer as a multiple of `width`.
        activation, dropout: as in `Transformer`.
    """

    def __init__(
        self,
        queries: int,
        width: int,
        depth: int,
        heads: int,
        *,
        inputs: int | None = None,
        among: Among = "joint",
        norm_first: bool = True,
        mlp: float = 4.0,
        activation: Activation = "gelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.into = nn.Identity() if inputs in (None, width) else nn.Linear(inputs or width, width)
        self.blocks = nn.ModuleList(
            QueryBlock(width, heads, int(width * mlp), among, norm_first, activation, dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width) if norm_first else nn.Identity()
        self.joint = among == "joint"

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """What the queries read; `valid` (B, L) is False for tokens that are not there."""
        tokens = self.into(tokens)
        x, sight = self.queries.expand(len(tokens), -1, -1), None
        if valid is not None:
            seen = torch.cat([valid, valid.new_ones(x.shape[:2])], 1) if self.joint else valid
            sight = Sight.through(seen[:, None, None, :])
        for block in self.blocks:
            x = block(x, tokens, sight)
        out: Tensor = self.norm(x)
        return out
