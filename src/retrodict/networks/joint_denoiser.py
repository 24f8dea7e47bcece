"""A diffusion transformer over several parts of a sample at once, each with a noise level of its own.

(DiT: Peebles & Xie, 2023; two levels: UWM, Zhu et al., 2025.) With one part it is the network of a diffusion policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrodict.networks.mlp import MLP
from retrodict.networks.patches import sincos
from retrodict.networks.transformer import Transformer


class Levels(nn.Module):
    """Noise levels (B, parts) -> (B, width): sines and cosines of each, side by side, mixed by a perceptron."""

    def __init__(self, parts: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.mix = MLP((parts * width, 4 * width, width), activation="mish")

    def forward(self, levels: Tensor) -> Tensor:
        out: Tensor = self.mix(sincos(levels[..., None], self.width).flatten(-2))
        return out


class ChunkPart(nn.Module):
    """Chunks (B, steps, size), one token for each step: actions, or the codes of frames."""

    def __init__(self, steps: int, size: int, width: int) -> None:
        super().__init__()
        self.shape, self.tokens = (steps, size), steps
        self.into = MLP((size, 4 * width, width), activation="mish")
        self.out = MLP((width, 4 * width, size), activation="mish", last_scale=0.0)

    def embed(self, chunk: Tensor) -> Tensor:
        """Tokens (B, n, width)."""
        out: Tensor = self.into(chunk)
        return out

    def read(self, tokens: Tensor) -> Tensor:
        """What the tokens say, in the shape of the part."""
        out: Tensor = self.out(tokens)
        return out


class JointDenoiser(nn.Module):
    """What there is to say of every part of noisy samples: v, or the noise in it.

    All tokens look at all others; condition and levels shift, scale and gate every block (adaLN-zero), so that at the start each
    block is the identity and the answer is zero.

    Args:
        parts: name -> `ChunkPart` of this width.
        condition: width of the condition.
        width, depth, heads: of the transformer.
        registers: learned tokens beside those of the parts.
    """

    def __init__(
        self, parts: Mapping[str, ChunkPart], condition: int, width: int, depth: int, heads: int, registers: int
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        tokens = [*(part.tokens for part in parts.values()), registers]
        self.slices = [slice(*ends) for ends in pairwise(accumulate(tokens, initial=0))]
        self.levels = Levels(len(parts), width)
        self.registers = nn.Parameter(torch.randn(registers, width) * 0.02) if registers else None
        # Not DiT's 0.02: beside tokens of actions and codes that hardly tells one step from the next for thousands of steps.
        self.positions = nn.Parameter(torch.randn(sum(tokens), width) * 0.5)
        self.trunk = Transformer(width, depth, heads, condition=condition + width, fused=True)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(condition + width, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, noisy: Mapping[str, Tensor], levels: Mapping[str, Tensor], condition: Tensor) -> dict[str, Tensor]:
        """An answer for each part, of the shapes of `noisy`; levels (B,) by part, condition (B, c)."""
        told = torch.cat([condition, self.levels(torch.stack([levels[name] for name in self.parts], -1))], -1)
        embedded = [part.embed(noisy[name]) for name, part in self.parts.items()]  # type: ignore[operator]
        if self.registers is not None:
            embedded.append(self.registers.expand(len(condition), -1, -1))
        x = torch.cat(embedded, 1) + self.positions
        x = self.trunk(x, condition=told)
        shift, scale = self.modulation(F.silu(told))[:, None].chunk(2, -1)
        x = self.norm(x) * (1 + scale) + shift
        spans = zip(self.parts.items(), self.slices[:-1], strict=True)
        return {name: part.read(x[:, where]) for (name, part), where in spans}  # type: ignore[operator]
