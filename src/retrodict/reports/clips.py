"""Clips: a few seconds of frames as a file that any browser or viewer plays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from retrodict.errors import DataError
from retrodict.trajectories.video import encode

SUFFIXES = (".mp4", ".gif", ".webp")


def write_clip(frames: Iterable[np.ndarray], path: str | Path, fps: float, width: int | None = None) -> Path:
    """Write frames uint8 (H, W, C) as MP4 (H.264), GIF or WebP, by the suffix of `path`.

    Args:
        frames: all of one size.
        path: the file; it is there whole or not at all.
        fps: frames per second.
        width: pixels to which small frames are enlarged by whole multiples, so that pixels stay pixels.

    Raises DataError for no frames or a suffix that is none of `.mp4`, `.gif`, `.webp`.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: a clip is written as {', '.join(SUFFIXES)}; got {path.suffix or 'no suffix'!r}.")
    enlarged = _enlarged(frames, width)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if path.suffix == ".mp4":
            encode(enlarged, partial, fps=fps, codec="libx264")
        else:
            _animate(enlarged, partial, fps)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _animate(frames: Iterable[np.ndarray], path: Path, fps: float) -> None:
    pictures = [Image.fromarray(frame) for frame in frames]
    if not pictures:
        raise DataError(f"{path.name}: no frames given; at least one is expected.")
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0)


def _enlarged(frames: Iterable[np.ndarray], width: int | None) -> Iterator[np.ndarray]:
    for frame in frames:
        # H.264 in its common form halves colour both ways, so odd sizes lose their last row or column.
        times = max(1, round(width / frame.shape[1])) if width else 1
        big = frame.repeat(times, 0).repeat(times, 1)
        big = big[: big.shape[0] // 2 * 2, : big.shape[1] // 2 * 2]
        yield np.ascontiguousarray(big.repeat(3, -1) if big.shape[-1] == 1 else big)
