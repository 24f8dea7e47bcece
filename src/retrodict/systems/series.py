"""What laws ask of recorded series."""

from __future__ import annotations

import torch
from torch import Tensor

from retrodict.errors import DataError
from retrodict.trajectories import Feature, Recordings
from retrodict.trajectories.features import STATE


def refuse_uneven(recordings: Recordings, slug: str) -> None:
    """Raise DataError where `observation.state` is no series (T, N) of numbers at equal spacing."""
    shape = recordings.features[STATE].shape
    if len(shape) != 1 or shape[0] < 1:
        raise DataError(f"{slug} reads {STATE!r} of one size (T, N); it has the shape {list(shape)} per step.")
    for episode in recordings:
        if recordings.fps is None and "timestamp" in episode:
            raise DataError(f"{episode} has no even clock; {slug} needs equal spacing: resample it first.")


def whole_steps(times: Tensor, dt: float, who: str) -> Tensor:
    """How many steps of a map lie before each of `times` (T,), from 0 on and multiples of `dt` but for the rounding of float32.

    Raises DataError for other times.
    """
    clock = torch.as_tensor(times, dtype=torch.float64).cpu()
    if clock.ndim == 1 and len(clock) and torch.isfinite(clock).all() and (clock >= 0).all():
        steps = clock / dt
        rows = steps.round().long()
        if ((steps - rows).abs() <= 1e-3 + 1e-6 * rows).all():
            return rows
    raise DataError(f"{who} is a map with a step of {dt:g}: times are multiples of it, from 0 on.")


def channel_names(feature: Feature) -> tuple[str, ...]:
    """What the channels of a series are called: by the recordings, or x1, x2, ..."""
    names = feature.names if isinstance(feature.names, list) else []
    return tuple(map(str, names)) or tuple(f"x{i + 1}" for i in range(feature.shape[0]))
