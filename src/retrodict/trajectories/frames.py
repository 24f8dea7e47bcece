"""Columns of camera frames: videos and encoded images, each decoded once into the frame cache and read from there by row."""

from __future__ import annotations

import io
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from retrodict.errors import DataError
from retrodict.trajectories import video
from retrodict.trajectories.cache import Entry, FrameCache, entry_name, frame_cache
from retrodict.trajectories.room import LIMIT

#: An entry of the cache is a block of about this many bytes, but never so few frames that seeking to it outweighs decoding it.
BLOCK_BYTES = 64_000_000
BLOCK_FRAMES = 256
#: Frames that are rather decoded and left than jumped over.
WORTH_A_SEEK = 64
#: Bytes of a file that are read at three places to tell it from another version of it.
READ_BYTES = 1 << 16


@dataclass(frozen=True)
class Clip:
    """`frames` frames of a video file from frame `start` on."""

    path: str | Path
    start: int
    frames: int


class FrameColumn(ABC):
    """Rows of camera frames that are decoded block by block when first asked for; `take` gives uint8 (n, H, W, C).

    Attributes:
        native: (height, width) of the frames as stored; a source of another size is refused.
        size: (height, width) of the rows.
        channels: 3 (RGB) or 1 (grey).
    """

    def __init__(self, blocks: Sequence[int], height: int, width: int, channels: int, size: tuple[int, int] | None) -> None:
        self.native, self.channels = (height, width), channels
        self.size = (height, width) if size is None else (int(size[0]), int(size[1]))
        self._starts = np.concatenate([[0], np.cumsum(blocks, dtype=np.int64)])
        self._names = [""] * len(blocks)  # of the entries in the cache; known once asked for

    @abstractmethod
    def sized(self, size: tuple[int, int]) -> Self:
        """The same frames at another size (height, width)."""

    @abstractmethod
    def part(self, start: int, count: int) -> Self:
        """The rows from `start` on as a column of their own, which decodes nothing else."""

    @abstractmethod
    def content(self, start: int, length: int) -> Iterator[bytes]:
        """Bytes that change when the source of the rows `start : start + length` does, wherever it lies; nothing is decoded."""

    @abstractmethod
    def _identity(self, block: int) -> tuple[object, ...]:
        """Tells the source of a block apart from all others, and from itself after a change."""

    @abstractmethod
    def _decode(self, block: int) -> Iterator[np.ndarray]:
        """The frames of a block, at `size`."""

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one row."""
        return (*self.size, self.channels)

    @property
    def row_bytes(self) -> int:
        return self.size[0] * self.size[1] * self.channels

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Frames at `rows` (n,), as uint8 (n, H, W, C), read straight into `out`.

        Raises DataError for rows that are not there and for sources that cannot be decoded.
        """
        rows = np.asarray(rows, np.int64)
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise DataError(f"{self}: frames {rows.min()} to {rows.max()} were asked for, it has {len(self)}.")
        if out is None:
            out = np.empty((len(rows), *self.shape), np.uint8)
        elif not out.flags.c_contiguous:
            out[:] = self.take(rows)
            return out
        from retrodict.trajectories.scatter import read_pieces  # compiled: not for processes that read no frames

        blocks = np.searchsorted(self._starts, rows, "right") - 1
        # Neighbouring rows of a block lie behind each other in its file: one read for each run of them.
        begins = np.flatnonzero(np.concatenate([[True], (rows[1:] - rows[:-1] != 1) | (blocks[1:] != blocks[:-1])])[: len(rows)])
        cache, names, width = frame_cache(), self._names, self.row_bytes
        open_now = [cache.held.get(names[block]) or self._entry(block, cache) for block in blocks[begins].tolist()]
        bad = read_pieces(
            np.array([entry.fileno() for entry in open_now], np.int64),
            (rows - self._starts[blocks])[begins] * width,
            begins * width,
            np.concatenate([begins[1:], [len(rows)]])[: len(begins)] * width - begins * width,
            out,
        )
        if bad >= 0:
            raise DataError(f"the frame cache of {self} is damaged ({open_now[bad].name}); delete that file and try again.")
        return out

    def prepare(self, starts: np.ndarray, lengths: np.ndarray) -> None:
        """Decode now, in order, what of the rows `start : start + length` (length above 0) is not cached, under a progress bar.

        Does nothing where they exceed the bound of the cache: they are then decoded as they are asked for.
        """
        wanted = np.zeros(len(self._names), bool)
        first = np.searchsorted(self._starts, starts, "right") - 1
        last = np.searchsorted(self._starts, starts + lengths - 1, "right") - 1
        for a, b in zip(first, last, strict=True):
            wanted[a : b + 1] = True
        sizes = np.diff(self._starts)
        frames, cache = int(sizes[wanted].sum()), frame_cache()
        if frames * self.row_bytes > cache.room.limit:
            warnings.warn(
                f"{frames} frames of {self.size[0]}x{self.size[1]} take {frames * self.row_bytes / 1e9:.1f} GB, the frame cache "
                f"holds {cache.room.limit / 1e9:.1f} GB: some will be decoded repeatedly; raise {LIMIT} or read smaller frames.",
                stacklevel=2,
            )
            return
        missing = [block for block in np.flatnonzero(wanted).tolist() if not cache.holds(self._name(block))]
        with _progress(int(sizes[missing].sum())) as advance:
            for block in missing:
                self._entry(block, cache)
                advance(int(sizes[block]))

    def _entry(self, block: int, cache: FrameCache) -> Entry:
        size = int(self._starts[block + 1] - self._starts[block]) * self.row_bytes
        return cache.file(self._name(block), size, partial(self._decode, block))

    def _name(self, block: int) -> str:
        if not self._names[block]:
            self._names[block] = entry_name(*self._identity(block), self.size, self.channels)
        return self._names[block]


class VideoColumn(FrameColumn):
    """The frames of clips, one after the other.

    Raises DataError when read, naming the file, where it is missing, damaged, too short or has frames of another size.
    """

    def __init__(
        self, clips: Sequence[Clip], height: int, width: int, channels: int = 3, size: tuple[int, int] | None = None
    ) -> None:
        self.clips = tuple(clips)
        at_once = _block_frames(size or (height, width), channels)
        self._blocks = [
            Clip(clip.path, clip.start + begin, min(at_once, clip.frames - begin))
            for clip in self.clips
            for begin in range(0, clip.frames, at_once)
        ]
        super().__init__([block.frames for block in self._blocks], height, width, channels, size)

    def sized(self, size: tuple[int, int]) -> VideoColumn:
        return VideoColumn(self.clips, *self.native, self.channels, size)

    def part(self, start: int, count: int) -> VideoColumn:
        ends = np.cumsum([clip.frames for clip in self.clips]).tolist()
        taken = []
        for clip, end in zip(self.clips, ends, strict=True):
            first, last = max(start - (end - clip.frames), 0), min(start + count - (end - clip.frames), clip.frames)
            if first < last:
                taken.append(Clip(clip.path, clip.start + first, last - first))
        return VideoColumn(taken, *self.native, self.channels, self.size)

    def content(self, start: int, length: int) -> Iterator[bytes]:
        for clip in self.part(start, length).clips:
            yield f"{clip.start} {clip.frames} {self.size} {file_content(Path(clip.path))}".encode()

    def _identity(self, block: int) -> tuple[object, ...]:
        clip = self._blocks[block]
        return (*_file_identity(Path(clip.path)), clip.start, clip.frames)

    def _decode(self, block: int) -> Iterator[np.ndarray]:
        clip = self._blocks[block]
        info = video.probe(clip.path)
        if (info.height, info.width) != self.native:
            seen, asked = f"{info.height}x{info.width}", "x".join(map(str, self.native))
            raise DataError(f"{clip.path} has frames of {seen}, {asked} (height x width) was expected.")
        return _reel(clip, self.size, self.channels)

    def __str__(self) -> str:
        return f"video {self.clips[0].path}" if self.clips else "video of no clips"


class EncodedImageColumn(FrameColumn):
    """Frames that are single encoded images (PNG, JPEG, ...): file paths, or the bytes themselves.

    Raises DataError when read, naming the file or row, where one is missing, damaged or of another size.
    """

    def __init__(
        self,
        items: Sequence[bytes | str | Path],
        height: int,
        width: int,
        channels: int = 3,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.items = items
        at_once = _block_frames(size or (height, width), channels)
        super().__init__(
            [min(at_once, len(items) - begin) for begin in range(0, len(items), at_once)], height, width, channels, size
        )

    def sized(self, size: tuple[int, int]) -> EncodedImageColumn:
        return EncodedImageColumn(self.items, *self.native, self.channels, size)

    def part(self, start: int, count: int) -> EncodedImageColumn:
        return EncodedImageColumn(self.items[start : start + count], *self.native, self.channels, self.size)

    def content(self, start: int, length: int) -> Iterator[bytes]:
        yield f"{self.size}".encode()
        for row in range(start, start + length):
            item = self.items[row]
            yield item if isinstance(item, bytes) else file_content(Path(item)).encode()

    def _rows(self, block: int) -> range:
        return range(int(self._starts[block]), int(self._starts[block + 1]))

    def _identity(self, block: int) -> tuple[object, ...]:
        items = [self.items[row] for row in self._rows(block)]
        return tuple(blake2b(i, digest_size=16).hexdigest() if isinstance(i, bytes) else _file_identity(Path(i)) for i in items)

    def _decode(self, block: int) -> Iterator[np.ndarray]:
        for row in self._rows(block):
            item = self.items[row]
            name = f"image {row}" if isinstance(item, bytes) else str(item)
            try:
                with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item) as image:
                    pixels = np.array(image.convert("RGB" if self.channels == 3 else "L"))
            except (OSError, ValueError) as error:
                raise DataError(f"{name} cannot be read as an image ({error}).") from None
            if pixels.shape[:2] != self.native:
                seen, asked = pixels.shape, self.native
                raise DataError(f"{name} is {seen[0]}x{seen[1]}, {asked[0]}x{asked[1]} (height x width) was expected.")
            yield video.resize(pixels.reshape(*self.native, self.channels), self.size)

    def __str__(self) -> str:
        first = self.items[0] if len(self.items) else b""
        return f"images in memory ({len(self)})" if isinstance(first, bytes) else f"images {Path(first).parent}"


def _block_frames(size: tuple[int, int], channels: int) -> int:
    return max(BLOCK_FRAMES, BLOCK_BYTES // (size[0] * size[1] * channels))


def file_content(path: Path) -> str:
    """Letters that tell a file from another version of it: by its size, and its bytes at the beginning, the middle and the end.

    Raises DataError where it is missing.
    """
    return _file_content(*_file_identity(path))


@lru_cache(maxsize=4096)
def _file_content(path: str, size: int, changed: int) -> str:
    read = blake2b(str(size).encode(), digest_size=16)
    with open(path, "rb") as file:
        for begin in sorted({0, max((size - READ_BYTES) // 2, 0), max(size - READ_BYTES, 0)}):
            file.seek(begin)
            read.update(file.read(READ_BYTES))
    return read.hexdigest()


def _file_identity(path: Path) -> tuple[str, int, int]:
    try:
        stat = path.stat()
    except OSError:
        raise DataError(f"{path} is missing; camera frames are expected there.") from None
    return (str(path.resolve()), stat.st_size, stat.st_mtime_ns)


_last = threading.local()


def _reel(clip: Clip, size: tuple[int, int], channels: int) -> Iterator[np.ndarray]:
    """Frames of a clip; one that begins where the last one of this thread ended is read on from the same open decoder."""
    source = (str(clip.path), size, channels)
    held, position, frames = getattr(_last, "reel", (None, 0, iter(())))
    _last.reel = (None, 0, iter(()))  # given up unless this clip is read to its end
    if held != source or not 0 <= clip.start - position <= WORTH_A_SEEK:
        position, frames = clip.start, video.decode(clip.path, clip.start, None, size, channels)
    stop = clip.start + clip.frames
    while position < stop:
        frame = next(frames, None)
        if frame is None:
            raise video.too_short(clip.path, clip.start, stop)
        if position >= clip.start:
            yield frame
        position += 1
    _last.reel = (source, position, frames)


class _progress:
    """A progress bar on stderr that shows itself only once the work has taken a second, and only in a terminal."""

    def __init__(self, frames: int) -> None:
        self.frames, self.done, self.began = frames, 0, time.monotonic()
        self.bar: Progress | None = None

    def __enter__(self) -> _progress:
        return self

    def __call__(self, frames: int) -> None:
        self.done += frames
        if self.bar is None and time.monotonic() - self.began > 1 and self.done < self.frames:
            console = Console(stderr=True)
            self.bar = Progress(console=console, transient=True, disable=not console.is_terminal)
            self.task = self.bar.add_task("decoding frames", total=self.frames)
            self.bar.start()
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()
