"""What a system sees at each step, as one vector: cameras through image networks, numbers through perceptrons, added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrodict.networks.impala import ImpalaCNN, TemporalStem
from retrodict.networks.layers import initialise


class Frames(nn.Module):
    """Camera frames (B, T, C, H, W), uint8 -> (B, T, width): temporal convolution (where `temporal` > 1), then IMPALA per frame.

    Args:
        shape: (C, H, W).
        width: width given out.
        stacks, dense: see `ImpalaCNN`.
        patch: patches of this many pixels are laid into channels before anything else: no pixel is lost, and the costly layers
            at full size become patch^2 times cheaper. 1 is the paper's.
        temporal: frames that the temporal convolution sees; 1 for none.
        stem: channels that the temporal convolution gives out.
    """

    def __init__(
        self, shape: tuple[int, int, int], width: int, stacks: Sequence[int], dense: int, patch: int, temporal: int, stem: int
    ):
        super().__init__()
        channels, height, width_ = shape
        self.patch, self.padding = patch, (-height % patch, -width_ % patch)
        channels, size = channels * patch**2, (-(-height // patch), -(-width_ // patch))
        self.stem = TemporalStem(channels, stem, temporal) if temporal > 1 else None
        self.cnn = ImpalaCNN(stem if self.stem else channels, size, stacks, dense, width, norm_input=self.stem is not None)

    def forward(self, frames: Tensor) -> Tensor:
        x = frames.flatten(0, 1).to(torch.float32).mul_(1 / 255)
        if any(self.padding):
            x = F.pad(x, (0, self.padding[1], 0, self.padding[0]))
        x = F.pixel_unshuffle(x, self.patch).view(*frames.shape[:2], -1, *self.cnn.size)
        out: Tensor = self.cnn(x if self.stem is None else self.stem(x))
        return out


class Numbers(nn.Module):
    """Numbers (B, T, n) -> (B, T, width): brought to mean 0 and standard deviation 1 (`fit_scale`), seen over a few steps, mixed.

    Args:
        n: numbers per step.
        width: width given out.
        temporal: steps that the first layer sees, centred; 1 for none but its own.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n: int, width: int, temporal: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("std", torch.ones(n))
        self.first = nn.Conv1d(n, width, temporal, padding=temporal // 2)
        self.second = nn.Linear(width, width)
        for layer in (self.first, self.second):
            initialise(layer.weight, "kaiming")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    @torch.no_grad()
    def fit_scale(self, values: np.ndarray) -> None:
        """Take mean and standard deviation from recorded values (steps, n); a number that never changes is only shifted."""
        std = values.std(0, dtype=np.float64)
        self.mean.copy_(torch.from_numpy(values.mean(0, dtype=np.float64)))
        self.std.copy_(torch.from_numpy(np.where(std > 1e-8, std, 1.0)))

    def forward(self, x: Tensor) -> Tensor:
        x = (x.float() - self.mean) / self.std
        return F.relu(self.second(F.relu(self.first(x.transpose(1, 2)).transpose(1, 2))))


class Observations(nn.Module):
    """Named tensors (B, T, ...) -> (B, T, width).

    Args:
        images: feature name -> (C, H, W) of camera frames.
        numbers: feature name -> shape of one step of anything else.
        width: width given out.
        stacks, dense, patch, temporal, stem: see `Frames`.
    """

    def __init__(
        self,
        images: Mapping[str, tuple[int, int, int]],
        numbers: Mapping[str, tuple[int, ...]],
        width: int,
        *,
        stacks: Sequence[int],
        dense: int,
        patch: int,
        temporal: int = 1,
        stem: int = 16,
    ):
        super().__init__()
        self.names = (*images, *numbers)
        seen = [Frames(shape, width, stacks, dense, patch, temporal, stem) for shape in images.values()]
        counted = [Numbers(int(np.prod(shape)), width, temporal) for shape in numbers.values()]
        self.readers = nn.ModuleList([*seen, *counted])  # not a ModuleDict: feature names have dots

    def fit_scale(self, name: str, values: np.ndarray) -> None:
        """Set the scale of numbers from recorded values (steps, *shape)."""
        reader = self.readers[self.names.index(name)]
        assert isinstance(reader, Numbers)
        reader.fit_scale(values.reshape(len(values), -1))

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        seen = []
        for name, reader in zip(self.names, self.readers, strict=True):
            seen.append(reader(batch[name] if isinstance(reader, Frames) else batch[name].flatten(2)))
        return torch.stack(seen).sum(0) if len(seen) > 1 else seen[0]
