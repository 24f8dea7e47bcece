"""The observation after the last action, which other formats keep as one row more.

Episodes here have as many observations as actions, as LeRobot's have. The row that is over stands in the episode's
`meta["final"]`, as JSON, so that it survives every conversion: feature -> nested lists, a text, or
`{"image": base64 of its file}`.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from retrodict.trajectories.features import Feature


def keep(value: Any) -> Any:
    """One row as JSON: numbers, a text, a frame (H, W, C), or the bytes of an encoded image."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return {"image": base64.b64encode(value).decode()}
    value = np.asarray(value)
    if value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] in (1, 3):
        file = io.BytesIO()
        Image.fromarray(value[:, :, 0] if value.shape[2] == 1 else value).save(file, format="PNG")
        return keep(file.getvalue())
    return value.tolist()


def restore(entry: Any, feature: Feature) -> Any:
    """The row that `keep` made JSON of."""
    if feature.is_text:
        return entry
    if feature.is_visual:
        pixels = np.array(Image.open(io.BytesIO(base64.b64decode(entry["image"]))))
        return pixels.reshape(feature.shape)
    return np.array(entry, feature.dtype)
