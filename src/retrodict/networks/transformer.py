"""A transformer trunk: what may be looked at is a mask, what is remembered is a value, and no positions are kept inside."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrodict.networks.layers import Activation, activation, initialise

Init = Literal["default", "scaled_normal", "fan_in", "t_fixup"]


@dataclass(frozen=True)
class Memory:
    """What a trunk remembers of past steps: the keys and values of every layer.

    Attributes:
        keys, values: (depth, B, heads, M, width / heads).
        valid: (B, M), False for steps that are forgotten.
        length: at most this many steps are kept; None keeps all (the cache of step-by-step generation).
    """

    keys: Tensor
    values: Tensor
    valid: Tensor
    length: int | None = None

    def reset(self, first: Tensor) -> Memory:
        """Forget everything in the sequences where `first` (B,) is True."""
        return replace(self, valid=self.valid & ~first[:, None])

    def __len__(self) -> int:
        return self.valid.shape[1]


class Attention(nn.Module):
    """Multi-head attention of a sequence to itself and to remembered keys and values.

    Args:
        fused: one projection for queries, keys and values instead of three.
    """

    def __init__(self, width: int, heads: int, dropout: float, fused: bool):
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} cannot be shared by {heads} heads")
        self.heads, self.dropout = heads, dropout
        names = ("qkv",) if fused else ("query", "key", "value")
        self.into = nn.ModuleDict({name: nn.Linear(width, width * 3 // len(names)) for name in names})
        self.out = nn.Linear(width, width)

    @property
    def projections(self) -> list[nn.Linear]:
        """The layers that make queries, keys and values."""
        return [layer for layer in self.into.values() if isinstance(layer, nn.Linear)]

    @property
    def query_key_value(self) -> list[Tensor]:
        """Their weights, as views where the projection is fused."""
        return [part for layer in self.projections for part in layer.weight.chunk(3 // len(self.projections))]

    def forward(self, x: Tensor, sight: Sight | None, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (part for layer in self.projections for part in layer(x).chunk(3 // len(self.projections), -1))
        q, k, v = (part.view(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in (q, k, v))
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        looked = attend(q, k, v, sight, self.dropout if self.training else 0.0)
        return self.out(looked.transpose(1, 2).flatten(2)), k, v


@dataclass(frozen=True)
class Sight:
    """What attention looks at: made of a mask once for all layers of a trunk.

    Attributes:
        mask: broadcasts to (B, H, L, K); boolean (True: looks) or additive. Every row looks at something.
        blind: rows (..., L, 1) that were to look at nothing; attention gives zeros there.
    """

    mask: Tensor
    blind: Tensor

    @classmethod
    def through(cls, mask: Tensor | None) -> Sight | None:
        """Of a mask (L, K), (B, L, K) or (B, H, L, K), boolean (True: may look) or additive; None looks at everything."""
        if mask is None:
            return None
        if mask.dim() == 3:
            mask = mask[:, None]
        if mask.dtype == torch.bool:
            blind = ~mask.any(-1, keepdim=True)
            return cls(mask | blind, blind)
        blind = (mask == -torch.inf).all(-1, keepdim=True)
        return cls(mask.masked_fill(blind, 0.0), blind)


def attend(q: Tensor, k: Tensor, v: Tensor, sight: Sight | None, dropout: float = 0.0) -> Tensor:
    """Softmax attention (B, H, L, d); a row that may look at nothing gives zeros, not NaN."""
    if sight is None:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    mask = sight.mask if sight.mask.dtype == torch.bool else sight.mask.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, mask, dropout).masked_fill(sight.blind, 0.0)


class Block(nn.Module):
    """Attention and a two-layer perceptron, each with its residual."""

    def __init__(
        self, width: int, heads: int, hidden: int, norm_first: bool, kind: Activation, dropout: float, fused: bool, condition: int
    ):
        super().__init__()
        self.norm_first = norm_first
        self.attention = Attention(width, heads, dropout, fused)
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=not condition) for _ in range(2))
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.activation = activation(kind)
        self.drop = nn.Dropout(dropout)
        # adaLN-zero: the condition shifts and scales what goes in and gates what comes out; the gates start closed.
        self.modulation = nn.Linear(condition, 6 * width) if condition else None

    def mlp(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.drop(self.activation(self.first(x))))
        return out

    def forward(
        self, x: Tensor, sight: Sight | None, past: tuple[Tensor, Tensor] | None, condition: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        if not self.norm_first:
            looked, k, v = self.attention(x, sight, past)
            x = self.norms[0](x + self.drop(looked))
            return self.norms[1](x + self.drop(self.mlp(x))), k, v
        if self.modulation is None:
            looked, k, v = self.attention(self.norms[0](x), sight, past)
            x = x + self.drop(looked)
            return x + self.drop(self.mlp(self.norms[1](x))), k, v
        assert condition is not None, "this trunk is modulated by a condition; pass it"
        shifts = self.modulation(F.silu(condition))
        shift0, scale0, gate0, shift1, scale1, gate1 = (shifts if shifts.dim() == 3 else shifts[:, None]).chunk(6, -1)
        looked, k, v = self.attention(self.norms[0](x) * (1 + scale0) + shift0, sight, past)
        x = x + gate0 * self.drop(looked)
        return x + gate1 * self.drop(self.mlp(self.norms[1](x) * (1 + scale1) + shift1)), k, v


class Transformer(nn.Module):
    """A sequence (B, L, width) -> (B, L, width).

    It knows no positions: add them to the input, or pass an additive mask (see `RelativeBias`). There is no norm after the last
    block of the pre-norm form; the reader of the output puts one where it wants it.

    Args:
        width, depth, heads: sizes.
        mlp: width of the hidden layer of each block as a multiple of `width`, or as a number of units where it is an int.
        norm_first: norm before each part (pre-norm) or after each residual (post-norm).
        activation: of the hidden layer.
        dropout: on attention weights, hidden units and residuals.
        init: `default` (torch's); `scaled_normal` (standard deviation 0.02, residual projections divided by sqrt(2 depth));
            `fan_in` (VPT's: rows of one norm, residual parts scaled by 1/sqrt(2 depth)); `t_fixup` (Xavier, residual parts scaled
            by 0.67 depth^-1/4).
        fused: one projection for queries, keys and values.
        condition: width of a condition that modulates every block (adaLN-zero, pre-norm only), 0 for none.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        *,
        mlp: float | int = 4.0,
        norm_first: bool = True,
        activation: Activation = "gelu",
        dropout: float = 0.0,
        init: Init = "default",
        fused: bool = False,
        condition: int = 0,
    ):
        super().__init__()
        if condition and not norm_first:
            raise ValueError("a condition modulates the norms before each part; norm_first=True is needed")
        self.width, self.heads = width, heads
        hidden = mlp if isinstance(mlp, int) else int(width * mlp)
        blocks = [Block(width, heads, hidden, norm_first, activation, dropout, fused, condition) for _ in range(depth)]
        for block in blocks:
            _initialise(block, init, depth)
        self.blocks = nn.ModuleList(blocks)

    def memory(self, batch: int, length: int | None = None) -> Memory:
        """An empty memory for `batch` sequences that keeps at most `length` steps."""
        weight = next(self.parameters())
        empty = weight.new_zeros(len(self.blocks), batch, self.heads, 0, self.width // self.heads)
        return Memory(empty, empty, torch.zeros(batch, 0, dtype=torch.bool, device=weight.device), length)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """One pass without memory.

        Args:
            x: (B, L, width).
            mask: boolean (True: may look) or additive, (L, L), (B, L, L) or (B, heads, L, L); None looks at everything.
            condition: (B, c) or (B, L, c).
            valid: (B, L), False for padding, which nothing looks at.
        """
        if valid is not None:
            mask = _without(mask, valid)
        sight = Sight.through(mask)
        for block in self.blocks:
            x, _, _ = block(x, sight, None, condition)
        return x

    def step(
        self, x: Tensor, memory: Memory, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> tuple[Tensor, Memory]:
        """One pass that also looks at what is remembered, and the memory afterwards; no gradient flows into the past.

        Args:
            x: (B, L, width), the steps that come next.
            memory: what came before, M steps.
            mask: as in `forward` with M + L keys, the remembered ones first; None looks at everything.
        """
        valid = torch.cat([memory.valid, memory.valid.new_ones(x.shape[:2])], 1)
        mask = _without(mask, valid) if not bool(valid.all()) else mask
        sight = Sight.through(mask)
        keys, values = [], []
        for block, past in zip(self.blocks, zip(memory.keys, memory.values, strict=True), strict=True):
            x, k, v = block(x, sight, past, condition)
            keys.append(k.detach())
            values.append(v.detach())
        kept = slice(None) if memory.length is None else slice(max(valid.shape[1] - memory.length, 0), None)
        return x, replace(
            memory, keys=torch.stack(keys)[..., kept, :], values=torch.stack(values)[..., kept, :], valid=valid[:, kept]
        )


class RelativeBias(nn.Module):
    """A learned number per head and distance, as an additive mask: the sense of time for a trunk that knows no positions.

    Args:
        reach: distances beyond it share one number.
    """

    def __init__(self, heads: int, reach: int):
        super().__init__()
        self.reach = reach
        self.table = nn.Parameter(torch.zeros(heads, 2 * reach + 1))

    def forward(self, mask: Tensor) -> Tensor:
        """The additive form (B or 1, heads, L, K) of a boolean mask (L, K) or (B, L, K); the last query is at the last key."""
        length, keys = mask.shape[-2:]
        query = torch.arange(length, device=mask.device)[:, None] + keys - length
        distance = (query - torch.arange(keys, device=mask.device)).clamp(-self.reach, self.reach)
        bias = self.table[:, distance + self.reach][None]
        return bias.masked_fill(~(mask if mask.dim() == 3 else mask[None])[:, None], -torch.inf)


def _without(mask: Tensor | None, valid: Tensor) -> Tensor:
    """A mask without the keys that are not `valid` (B, K)."""
    if mask is None:
        return valid[:, None, None, :]
    mask = mask[None] if mask.dim() == 2 else mask
    seen = valid[:, None, :] if mask.dim() == 3 else valid[:, None, None, :]
    return mask & seen if mask.dtype == torch.bool else mask.masked_fill(~seen, -torch.inf)


@torch.no_grad()
def _initialise(block: Block, init: Init, depth: int) -> None:
    if block.modulation is not None:
        nn.init.zeros_(block.modulation.weight)
        nn.init.zeros_(block.modulation.bias)
    if init == "default":
        return
    out, first, second = block.attention.out, block.first, block.second
    query, key, value = block.attention.query_key_value
    for weight in (query, key, value, out.weight, first.weight, second.weight):
        initialise(weight, {"scaled_normal": "normal", "fan_in": "fan_in", "t_fixup": "xavier"}[init])
    for layer in [*block.attention.projections, out, first, second]:
        nn.init.zeros_(layer.bias)
    if init == "scaled_normal":
        scales = {out.weight: (2 * depth) ** -0.5, second.weight: (2 * depth) ** -0.5}
    elif init == "fan_in":
        residual = (2 * depth) ** -0.5  # shared by value and output projection, whose product is what is added
        root = math.sqrt(residual)
        scales = {query: 0.1, key: 0.2, value: root, out.weight: root, second.weight: residual}
    else:
        scale = 0.67 * depth**-0.25
        scales = {value: scale, out.weight: scale, first.weight: scale, second.weight: scale}
    for weight, scale in scales.items():
        weight *= scale
