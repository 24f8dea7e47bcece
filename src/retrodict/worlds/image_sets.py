"""Small sets of real images that need no download, as independent samples with a class each."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from retrodict.errors import DataError
from retrodict.files import published_file
from retrodict.trajectories import Recordings, from_samples

Part = Literal["train", "test"]

TEST_SHARE = 3
"""Of the digits, every third is a test image; the set itself has no such parts."""


def image_set(
    name: str, size: int | None = None, *, part: Part | None = None, classes: Sequence[int] | None = None
) -> Recordings:
    """Images (N, size, size, 1) uint8 in `observation.images.picture` with `label.class` (N, 1), as independent samples.

    Args:
        name: `digits`, the 1,797 of scikit-learn, 8x8 (16 grey levels, spread to 0, 15, ..., 240 so that none is rounded); or
            `fashion`, 12,000 and 6,000 of Fashion-MNIST, 28x28, in the folder `images` of the published data.
        size: side in pixels, by averaging over areas; the set's own where None. 8, 14 and 28 are usual.
        part: `train` or `test`; None takes all images.
        classes: keep these only (to hold others out); labels stay what they were.

    Raises DataError for an unknown set, part or class, for a size above the set's own, and where the data are not there.
    """
    if name not in SETS:
        raise DataError(f"no image set is called {name!r}; there are {', '.join(SETS)}.")
    if part not in (None, "train", "test"):
        raise DataError(f"image sets have the parts train and test, got {part!r}.")
    images, labels = SETS[name](part)
    side = images.shape[-1]
    if size is not None and not 1 <= size <= side:
        raise DataError(f"{name} has images of {side}x{side}; a size from 1 to {side} is expected, got {size}.")
    if classes is not None:
        if unknown := sorted(set(classes) - set(labels.tolist())):
            raise DataError(f"{name} has no class {unknown[0]}; it has {sorted(set(labels.tolist()))}.")
        keep = np.isin(labels, list(classes))
        images, labels = images[keep], labels[keep]
    if size is not None and size != side:
        images = F.interpolate(torch.from_numpy(images)[:, None].float(), (size, size), mode="area")[:, 0].round().byte().numpy()
    columns = {"observation__images__picture": images[..., None], "label__class": labels[:, None].astype(np.int64)}
    return from_samples(source=f"{name}{'' if part is None else f' ({part})'}", **columns)


def _digits(part: Part | None) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    found = load_digits()
    rows = np.arange(len(found.target))
    chosen = rows if part is None else rows[(rows % TEST_SHARE == 0) == (part == "test")]
    return (found.images[chosen] * 15).astype(np.uint8), found.target[chosen]


def _fashion(part: Part | None) -> tuple[np.ndarray, np.ndarray]:
    files = {"train": "fashion-train12k", "test": "fashion-test6k"}
    read = [[_idx(f"{files[p]}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1")] for p in ([part] if part else files)]
    images, labels = (np.concatenate(arrays) for arrays in zip(*read, strict=True))
    return images, labels


def _idx(file: str) -> np.ndarray:
    """An array of bytes in the idx format: magic number, sizes as big-endian int32, data."""
    path = published_file("images", file)
    content = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(content, ">i4", content[3], 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)


SETS: dict[str, Callable[[Part | None], tuple[np.ndarray, np.ndarray]]] = {"digits": _digits, "fashion": _fashion}
