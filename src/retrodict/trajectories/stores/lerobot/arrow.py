"""Values of an episode as Arrow columns, of the types in which LeRobot keeps them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from retrodict.errors import DataError
from retrodict.trajectories.features import Feature

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def numbers(values: np.ndarray, feature: Feature, name: str) -> pa.Array:
    """A column of values (T, *shape): plain for shape (1,), else lists, of which one of fixed size is LeRobot's for vectors.

    A shape with -1 makes one flat list of each step. Raises DataError for another dtype or shape than the feature's.
    """
    shape = values.shape[1:] or (1,)
    fits = len(shape) == len(feature.shape) and all(want in (-1, has) for want, has in zip(feature.shape, shape, strict=True))
    if values.dtype != np.dtype(feature.dtype) or not fits:
        raise DataError(
            f"{name!r} is {values.dtype} of shape {list(shape)}, the feature is {feature.dtype} of {list(feature.shape)}."
        )
    if 0 in shape and -1 not in feature.shape:
        raise DataError(f"{name!r} has steps of no values (shape {list(shape)}).")
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    if shape == (1,) and -1 not in feature.shape:
        return flat
    if -1 in feature.shape:
        shape = (int(np.prod(shape)),)
    if len(shape) == 1 and -1 not in feature.shape:
        return pa.FixedSizeListArray.from_arrays(flat, shape[0])
    for size, rows in reversed(list(zip(shape, len(values) * np.cumprod([1, *shape[:-1]]), strict=True))):
        flat = pa.ListArray.from_arrays(pa.array(np.arange(rows + 1) * size, pa.int32()), flat)
    return flat


def texts(values: Sequence[Any] | np.ndarray | pa.Array, name: str) -> pa.Array:
    """A column of one text for each step, or an Arrow array as it is."""
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    try:
        return pa.array([str(value) if isinstance(value, np.str_) else value for value in values], pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise DataError(f"{name!r} holds something else than one text for each step.") from None


def images(items: Sequence[np.ndarray | bytes | Path]) -> pa.Array:
    """A column of encoded images: frames (H, W, C) as PNG, and what is encoded already as it is."""
    return pa.array([{"bytes": _encoded(item), "path": None} for item in items], IMAGE)


def _encoded(item: np.ndarray | bytes | Path) -> bytes:
    if isinstance(item, bytes):
        return item
    if isinstance(item, Path):
        return item.read_bytes()
    buffer = io.BytesIO()
    Image.fromarray(item if item.shape[-1] == 3 else item[..., 0]).save(buffer, "png")
    return buffer.getvalue()
