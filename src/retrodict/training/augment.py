"""Augmentation of camera frames, with one draw for a whole clip where the clip must stay one.

Transforms take float frames (N, M, C, H, W) in 0..1 and draw once for each of the N; `Augment` says what an N is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Range = tuple[float, float]
Transform = Callable[[Tensor, torch.Generator | None, float], Tensor]
"""(frames (N, M, C, H, W), generator, strength) -> frames; strength in [0, 1] narrows all ranges towards no change."""


@dataclass(frozen=True)
class Augment:
    """Frames uint8 (B, T, C, H, W) or (B, T, V, C, H, W) -> the same, changed.

    Attributes:
        transforms: applied in order.
        share: what keeps one draw: a `window` (all frames and cameras of a clip; before and after of a pair), a `view` (each
            frame by itself), or the whole `batch`.
        normalise: (mean, std) per channel; frames then come out as normalised float32 instead of uint8.
    """

    transforms: tuple[Transform, ...]
    share: Literal["window", "view", "batch"] = "window"
    normalise: tuple[Sequence[float], Sequence[float]] | None = None

    def __call__(self, frames: Tensor, generator: torch.Generator | None = None, strength: float = 1.0) -> Tensor:
        shape = frames.shape
        draws = {"window": shape[0], "view": math.prod(shape[:-3]), "batch": 1}[self.share]
        x = frames.reshape(draws, -1, *shape[-3:]).to(torch.float32).mul_(1 / 255)
        for transform in self.transforms:
            x = transform(x, generator, strength)
        if self.normalise is not None:
            mean, std = (torch.tensor(v, device=x.device).view(-1, 1, 1) for v in self.normalise)
            return ((x - mean) / std).reshape(*shape[:-3], *x.shape[-3:])
        return x.clamp_(0, 1).mul_(255).round_().to(torch.uint8).reshape(*shape[:-3], *x.shape[-3:])


@dataclass(frozen=True)
class ColourJitter:
    """Brightness, contrast, saturation and hue, as one linear map of colours per draw.

    Hue turns the colour plane of YIQ, which keeps luminance; that is close to, not equal to, turning the hue of HSV.

    Attributes:
        brightness, contrast, saturation: ranges of the factors.
        hue: largest turn, as a share of the colour circle.
    """

    brightness: Range = (1.0, 1.0)
    contrast: Range = (1.0, 1.0)
    saturation: Range = (1.0, 1.0)
    hue: float = 0.0

    def __call__(self, x: Tensor, generator: torch.Generator | None = None, strength: float = 1.0) -> Tensor:
        n, device = len(x), x.device
        bright, contrast, saturate = (
            _draw(n, r, device, generator, strength, 1.0) for r in (self.brightness, self.contrast, self.saturation)
        )
        if x.shape[2] == 3:
            turn = _draw(n, (-self.hue, self.hue), device, generator, strength, 0.0) * 2 * math.pi
            grey = torch.tensor([0.299, 0.587, 0.114], device=device)
            to_yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], device=device)
            plane = torch.zeros(n, 3, 3, device=device)
            plane[:, 0, 0] = 1
            plane[:, 1, 1] = plane[:, 2, 2] = saturate * turn.cos()
            plane[:, 1, 2], plane[:, 2, 1] = -saturate * turn.sin(), saturate * turn.sin()
            colour = bright[:, None, None] * (torch.linalg.inv(to_yiq) @ plane @ to_yiq)
        else:
            grey = torch.full((x.shape[2],), 1 / x.shape[2], device=device)
            colour = bright[:, None, None] * torch.eye(x.shape[2], device=device).expand(n, -1, -1)
        level = (bright * torch.einsum("nmchw,c->n", x, grey) / (x.shape[1] * x.shape[3] * x.shape[4])) * (1 - contrast)
        out = torch.einsum("nij,nmjp->nmip", colour * contrast[:, None, None], x.flatten(3)) + level.view(-1, 1, 1, 1)
        return out.view_as(x).clamp_(0, 1)


@dataclass(frozen=True)
class Affine:
    """A small turn, shift, scale and shear about the centre; what comes in from outside repeats the border.

    Attributes:
        degrees: largest turn either way.
        shift: largest shift either way, in pixels.
        scale: range of the factor.
        shear: largest shear either way, in degrees.
    """

    degrees: float = 0.0
    shift: float = 0.0
    scale: Range = (1.0, 1.0)
    shear: float = 0.0

    def __call__(self, x: Tensor, generator: torch.Generator | None = None, strength: float = 1.0) -> Tensor:
        n, height, width = len(x), x.shape[-2], x.shape[-1]

        def draw(limit: float) -> Tensor:
            return _draw(n, (-limit, limit), x.device, generator, strength, 0.0)

        turn, shear = torch.deg2rad(draw(self.degrees)), torch.deg2rad(draw(self.shear)).tan()
        across, down = draw(self.shift), draw(self.shift)
        factor = _draw(n, self.scale, x.device, generator, strength, 1.0)
        # The map from places in the new frame to places in the old one, in pixels from the centre.
        cos, sin = turn.cos() / factor, turn.sin() / factor
        rows = torch.stack([torch.stack([cos, sin + shear * cos, across]), torch.stack([-sin, cos - shear * sin, down])])
        return _sample(x, rows.permute(2, 0, 1), (height, width))


@dataclass(frozen=True)
class Shift:
    """Pad by repeating the border and crop at a whole-pixel place: a shift by up to `pixels` either way."""

    pixels: int

    def __call__(self, x: Tensor, generator: torch.Generator | None = None, strength: float = 1.0) -> Tensor:
        n, height, width = len(x), x.shape[-2], x.shape[-1]
        limit = (-self.pixels * strength, self.pixels * strength)
        by = [_draw(n, limit, x.device, generator, 1.0, 0.0).round().long() for _ in range(2)]
        down = (torch.arange(height, device=x.device) + by[0][:, None]).clamp(0, height - 1)
        across = (torch.arange(width, device=x.device) + by[1][:, None]).clamp(0, width - 1)
        at = (down[:, :, None] * width + across[:, None, :]).flatten(1)  # (N, H W)
        flat = x.flatten(3)
        return flat.gather(3, at[:, None, None].expand(flat.shape)).view_as(x)


@dataclass(frozen=True)
class ResizedCrop:
    """A random part of the frame, brought back to its size.

    Attributes:
        scale: range of the part's area, as a share of the frame.
        ratio: range of its width over its height, relative to the frame's.
    """

    scale: Range
    ratio: Range = (3 / 4, 4 / 3)

    def __call__(self, x: Tensor, generator: torch.Generator | None = None, strength: float = 1.0) -> Tensor:
        n, height, width = len(x), x.shape[-2], x.shape[-1]
        area = _draw(n, self.scale, x.device, generator, strength, 1.0)
        ratio = _draw(n, (math.log(self.ratio[0]), math.log(self.ratio[1])), x.device, generator, strength, 0.0).exp()
        wide, high = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        across = _draw(n, (-0.5, 0.5), x.device, generator, 1.0, 0.0) * (1 - wide) * width
        down = _draw(n, (-0.5, 0.5), x.device, generator, 1.0, 0.0) * (1 - high) * height
        zero = torch.zeros_like(wide)
        rows = torch.stack([torch.stack([wide, zero, across]), torch.stack([zero, high, down])])
        return _sample(x, rows.permute(2, 0, 1), (height, width))


@dataclass(frozen=True)
class Flip:
    """Left and right exchanged with probability `p`; not for digits, text, or actions that have a left and a right (`Mirror`)."""

    p: float = 0.5

    def __call__(self, x: Tensor, generator: torch.Generator | None = None, strength: float = 1.0) -> Tensor:
        chosen = torch.rand(len(x), generator=generator, device=x.device) < self.p * strength
        return torch.where(chosen.view(-1, 1, 1, 1, 1), x.flip(-1), x)


@dataclass(frozen=True)
class Blur:
    """Gaussian blur with a standard deviation drawn from `sigma`, in pixels."""

    sigma: Range

    def __call__(self, x: Tensor, generator: torch.Generator | None = None, strength: float = 1.0) -> Tensor:
        n, frames, channels, height, width = x.shape
        sigma = _draw(n, self.sigma, x.device, generator, strength, 0.0).clamp_min(1e-3)
        reach = max(1, math.ceil(3 * self.sigma[1]))
        kernel = (-0.5 * (torch.arange(-reach, reach + 1, device=x.device) / sigma[:, None]) ** 2).exp()
        kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(frames * channels, 0)  # one per image and channel
        flat = F.pad(x.reshape(1, -1, height, width), (reach,) * 4, mode="replicate")
        flat = F.conv2d(flat, kernel[:, None, :, None], groups=len(kernel))
        return F.conv2d(flat, kernel[:, None, None, :], groups=len(kernel)).view_as(x)


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of standard deviation `std` on every entry; for vectors as well as frames, so it takes any shape."""

    std: float

    def __call__(self, x: Tensor, generator: torch.Generator | None = None, strength: float = 1.0) -> Tensor:
        return x + self.std * strength * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)


@dataclass(frozen=True)
class Mirror:
    """Frames and actions seen in a mirror: left and right exchanged in both, with one draw for each window.

    Attributes:
        order: for each number of the mirrored action, which number of the original it is (arms or keys change places).
        sign: -1 for numbers that change sign (a turn, a sideways move), 1 for the others.
        p: probability.
    """

    order: tuple[int, ...]
    sign: tuple[float, ...]
    p: float = 0.5

    def __call__(self, frames: Tensor, action: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Frames (B, ..., H, W) and actions (B, ..., width), mirrored together."""
        chosen = torch.rand(len(frames), generator=generator, device=frames.device) < self.p
        mirrored = action[..., list(self.order)] * action.new_tensor(self.sign)
        return (
            torch.where(chosen.view(-1, *[1] * (frames.dim() - 1)), frames.flip(-1), frames),
            torch.where(chosen.view(-1, *[1] * (action.dim() - 1)), mirrored, action),
        )


VPT_AUGMENTATION = Augment(
    (
        Affine(degrees=2.0, shift=2.0, scale=(0.98, 1.02), shear=2.0),
        ColourJitter(brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=0.2),
    )
)
"""The augmentation of VPT's inverse model, one draw per clip (Baker et al., 2022)."""


def _draw(n: int, within: Range, device: torch.device, generator: torch.Generator | None, strength: float, rest: float) -> Tensor:
    """Uniform numbers (n,) from a range that `strength` narrows towards `rest`."""
    low, high = (rest + strength * (end - rest) for end in within)
    return low + (high - low) * torch.rand(n, generator=generator, device=device)


def _sample(x: Tensor, rows: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames (N, M, C, H, W) read at the places that an affine map (N, 2, 3) in pixels from the centre gives, bilinearly."""
    n, frames, channels = x.shape[:3]
    height, width = size
    theta = rows.clone()
    theta[:, 0, 1] *= height / width
    theta[:, 1, 0] *= width / height
    theta[:, 0, 2] *= 2 / width
    theta[:, 1, 2] *= 2 / height
    grid = F.affine_grid(theta, [n, 1, height, width], align_corners=False)
    flat = x.reshape(n, frames * channels, height, width)
    return F.grid_sample(flat, grid, mode="bilinear", padding_mode="border", align_corners=False).view_as(x)
