"""Looking through an encoder: what systems have in common that read the codes of a frozen encoder of single frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from retrodict.errors import DataError
from retrodict.roles import Batch, Encoder
from retrodict.systems.contract import Spec, System
from retrodict.training.probes import encoded
from retrodict.trajectories import Recordings, Window

CODE = "code"
"""The column of codes."""


def require_encoder(encoder: System | None, who: str) -> Encoder:
    """The encoder of a field, fitted and of single frames; raises DataError where it is not."""
    if encoder is None or not isinstance(encoder, Encoder):
        raise DataError(f"{who} looks through a fitted encoder: {who}(encoder=...); got {type(encoder).__name__}.")
    if encoder.grain != "frame":
        raise DataError(f"{who} looks through an encoder of single frames (grain 'frame'); this one's is {encoder.grain!r}.")
    encoder.check_fitted()  # type: ignore[attr-defined]
    return encoder


def single(encoder: Encoder) -> Window:
    """The window of one step that an encoder of single frames takes."""
    return replace(encoder.reads, before=0, after=0, stride=1, edge="replicate")


def code_of(encoder: Encoder, observation: Batch) -> Tensor:
    """Codes (B, d) of what B worlds show, each feature (B, *shape)."""
    names = encoder.reads.spans
    seen = {name: observation[name][:, None] for name in names if name in observation}
    return encoder.encode(seen or observation)[:, 0]


def codes_of(encoder: Encoder, recordings: Recordings, name: str) -> tuple[Tensor, Tensor]:
    """Codes (N, d) of every step at which a feature is there, each encoded once, and its values (N, *shape) beside them."""
    seen = encoded(encoder, recordings, (name,))
    there = np.concatenate([episode.there(name) for episode in recordings])
    return torch.from_numpy(seen.codes[there]), torch.from_numpy(np.asarray(seen.values[name])[there])


def with_codes(encoder: Encoder, recordings: Recordings, beside: str) -> Recordings:
    """Recordings in which every step has its code (d,) as the column `CODE`, encoded once; `beside` must be recorded."""
    return recordings.with_rows(CODE, encoded(encoder, recordings, (beside,)).codes)


def same_actions(width: int, recordings: Recordings, who: str) -> None:
    """Raise DataError where demonstrations have other actions than those that were learned from."""
    theirs = recordings.actions.width if recordings.actions is not None else 0
    if theirs != width:
        raise DataError(
            f"{who} learned actions of {width} numbers and these demonstrations have {theirs}; they are another robot's."
        )


def width_of(encoder: Encoder, spec: Spec) -> int:
    """Width of an encoder's codes, found by encoding a blank frame."""
    blank = {}
    for name in encoder.reads.spans:
        feature = spec.features[name]
        shape = (feature.shape[-1], *feature.shape[:-1]) if feature.is_visual else feature.shape
        blank[name] = torch.zeros(1, 1, *shape, dtype=torch.uint8 if feature.is_visual else torch.float32)
    return int(encoder.encode(blank).shape[-1])
