"""Cheap features of what changed between two steps, good enough for a small model to tell which action was taken."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from retrodict.errors import DataError
from retrodict.trajectories import Recordings, Window
from retrodict.trajectories.features import cameras

#: Frames are looked at in this size (height, width); whole-picture shifts are tried up to this many of its pixels.
SIZE = (36, 48)
SHIFT = 8
#: Cells (rows, columns) in which local change and motion are summed up.
CELLS = (4, 6)
READ_AT_ONCE = 256
#: Numbers of a step, by feature, up to which small models are cheap; a depth image or a point cloud is left out.
WIDEST = 256


def watched(recordings: Recordings) -> tuple[str, ...]:
    """The features in which actions should show: cameras where there are any, else the numeric observations.

    Raises DataError when there is neither.
    """
    seen = cameras(recordings.features) or tuple(
        name
        for name, feature in recordings.features.items()
        if name.startswith("observation.") and feature.is_numeric and -1 not in feature.shape and np.prod(feature.shape) <= WIDEST
    )
    if not seen:
        raise DataError(
            f"actions can be held against camera frames or observations; these recordings have {', '.join(recordings.features)}."
        )
    return seen


def changes(recordings: Recordings, position: int, names: tuple[str, ...], start: int, stop: int) -> np.ndarray:
    """What changed from step t to t + 1, for t in [start, stop - 1), as features (stop - start - 1, d), float32."""
    pieces = []
    for name in names:
        visual = recordings.features[name].is_visual
        windows = recordings.windows(Window(features=(name,), image_size=SIZE if visual else None))
        made: list[Tensor] = []
        for begin in range(start, stop - 1, READ_AT_ONCE):
            frames = np.arange(begin, min(begin + READ_AT_ONCE, stop - 1) + 1)
            values = windows.gather(np.stack([np.full_like(frames, position), frames], 1))[name][:, 0]
            made.append(_of_images(values) if visual else _of_numbers(values))
        pieces.append(torch.cat(made))
    return torch.cat(pieces, 1).numpy()


def _of_numbers(values: Tensor) -> Tensor:
    flat = values.reshape(len(values), -1).float()
    return torch.cat([flat[:-1], flat[1:] - flat[:-1]], 1)


def _of_images(frames: Tensor) -> Tensor:
    """Coarse pictures, where they changed, and how they moved: locally by gradients, as a whole by trying shifts."""
    grey = adaptive_avg_pool2d(frames.float().mean(1, keepdim=True) / 255, SIZE)  # (n + 1, 1, h, w)
    before, after = grey[:-1], grey[1:]
    change = after - before
    cells = [adaptive_avg_pool2d(x, CELLS).flatten(1) for x in (before, change, change.abs())]
    colour = adaptive_avg_pool2d((frames[1:].float() - frames[:-1].float()) / 255, (3, 4)).flatten(1)
    # Optical flow in the manner of Lucas and Kanade, at two scales, from products of gradients in space and in time.
    flow = []
    for scale in (1, 3):
        a, b = (avg_pool2d(x, scale) if scale > 1 else x for x in (before, after))
        middle, step = (a + b) / 2, b - a
        across, down = middle.diff(dim=3)[:, :, 1:, :], middle.diff(dim=2)[:, :, :, 1:]
        step = step[:, :, 1:, 1:]
        for gradient in (across, down):
            along, square = (adaptive_avg_pool2d(gradient * x, CELLS).flatten(1) for x in (step, gradient))
            flow.append(-along / (square + 1e-4))
            flow.append(-along.sum(1, keepdim=True) / (square.sum(1, keepdim=True) + 1e-4))
    return torch.cat(
        [*cells, colour, *(f.clamp(-5, 5) for f in flow), _mismatch(before, after, 3), _mismatch(before, after, 2)], 1
    )


def _mismatch(before: Tensor, after: Tensor, dim: int) -> Tensor:
    """How badly the pictures match when one is shifted along `dim` by -SHIFT..SHIFT pixels, relative to the mean over shifts."""
    length = before.shape[dim]
    errors = []
    for shift in range(-SHIFT, SHIFT + 1):
        a = before.narrow(dim, max(0, shift), length - abs(shift))
        b = after.narrow(dim, max(0, -shift), length - abs(shift))
        errors.append((a - b).abs().mean((1, 2, 3)))
    table = torch.stack(errors, 1)
    return table / (table.mean(1, keepdim=True) + 1e-4)
