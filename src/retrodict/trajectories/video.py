"""Video files: encode, decode by exact frame number, join without re-encoding (PyAV).

Frames are uint8 (H, W, C) with C 3 (RGB) or 1 (grey). What is written opens in LeRobot, torchcodec and browsers.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from retrodict.errors import DataError

#: How each encoder is asked to work. A key frame every second frame (LeRobot's choice) makes random access cheap, no B-frames
#: keep files joinable. H.264 is the default because here it encodes up to 4 times as fast as AV1 and decodes at least as fast.
ENCODERS: dict[str, dict[str, str]] = {
    "libx264": {"preset": "veryfast", "crf": "23", "bf": "0"},
    "libsvtav1": {"preset": "10", "crf": "30"},
}
KEY_FRAME_EVERY = 2
PIXELS = {1: "gray", 3: "rgb24"}


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds; `codec` is the format's name (`h264`, `av1`, ...), `fps` the mean frame rate."""

    frames: int
    height: int
    width: int
    fps: float
    codec: str
    pix_fmt: str


def encode(
    frames: Iterable[np.ndarray],
    path: str | Path,
    fps: float,
    codec: str = "libx264",
    quality: int | None = None,
) -> VideoInfo:
    """Write frames (H, W, 3) or (H, W, 1), uint8, as a video; the file is there whole or not at all.

    Args:
        frames: at least one frame, all of one size; may be a generator.
        path: where to write; the suffix names the container (`.mp4`).
        fps: frames per second.
        codec: FFmpeg's name of an encoder.
        quality: constant rate factor, smaller is better and larger; the encoder's customary value where None.

    Raises DataError for no frames, frames that differ in size or are not uint8 images, and unknown encoders.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise DataError(f"{path}: no frames given; a video needs at least one.")
    pixels = _pixels(path, first)
    options = {**ENCODERS.get(codec, {}), "g": str(KEY_FRAME_EVERY), **({} if quality is None else {"crf": str(quality)})}
    os.environ.setdefault("SVT_LOG", "1")  # else the AV1 encoder writes twenty lines to stderr for each file
    reformat = VideoReformatter().reformat
    count = 0
    try:
        with _readable(path), av.open(str(partial), "w") as container:
            stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(10_000), options=options)
            stream.height, stream.width = first.shape[:2]
            # Halved colour planes need even sides.
            stream.pix_fmt = "yuv420p" if codec != "libx264" or not (stream.height % 2 or stream.width % 2) else "yuv444p"
            for count, image in enumerate(itertools.chain((first,), remaining), 1):
                if image.shape != first.shape or image.dtype != np.uint8:
                    raise DataError(
                        f"{path}: frame {count - 1} is {image.dtype}{list(image.shape)}, frame 0 uint8{list(first.shape)}; "
                        "all frames of a video need one size."
                    )
                plane = np.ascontiguousarray(image if image.shape[2] == 3 else image[:, :, 0])
                frame = av.VideoFrame.from_ndarray(plane, format=pixels)
                container.mux(stream.encode(reformat(frame, format=stream.pix_fmt, threads=1)))
            container.mux(stream.encode(None))
            info = _info(stream, count)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return info


def decode(
    path: str | Path,
    start: int = 0,
    stop: int | None = None,
    size: tuple[int, int] | None = None,
    channels: int = 3,
) -> Iterator[np.ndarray]:
    """Frames `start` to `stop` (not included, None: the end) in order, uint8 (H, W, channels).

    Frame numbers count the shown frames from 0 and are exact, whatever the file's clock. With `size` (height, width) frames are
    resized as they are decoded, as `resize` does it.

    Raises DataError when the file is missing or damaged, or has fewer frames than asked for.
    """
    path = Path(path)
    convert = _Converter(size, channels)
    number = start
    with _readable(path), av.open(str(path)) as container:
        stream = _video_stream(container, path)
        for number, frame in _numbered(container, stream, path, start):
            if stop is not None and number >= stop:
                return
            if number >= start:
                yield convert(frame)
        seen = number + 1
    if stop is not None and stop > start and seen < stop:
        raise too_short(path, start, stop)


def probe(path: str | Path) -> VideoInfo:
    """What a video file holds, without decoding it.

    Raises DataError when the file is missing or is no video.
    """
    path = Path(path)
    with _readable(path), av.open(str(path)) as container:
        stream = _video_stream(container, path)
        return _info(stream, stream.frames or count_frames(path))


def count_frames(path: str | Path) -> int:
    """Number of frames that really stand in the file (its header may promise more)."""
    return len(_shown(path, *_fingerprint(Path(path))))


def frame_times(path: str | Path) -> np.ndarray | None:
    """When each frame is shown, in seconds from the first, (frames,) float64; None where the file has no clock."""
    path = Path(path)
    shown = _shown(path, *_fingerprint(path))
    if len(np.unique(shown)) < len(shown):
        return None
    with _readable(path), av.open(str(path)) as container:
        return np.asarray((shown - shown[0]) * float(_video_stream(container, path).time_base))


def too_short(path: str | Path, start: int, stop: int) -> DataError:
    """The error of a file that ends before frame `stop`."""
    return DataError(
        f"{path} has {count_frames(path)} frames, frames {start} to {stop - 1} were asked for; it may have been cut off."
    )


def concatenate(paths: Sequence[str | Path], out: str | Path) -> VideoInfo:
    """Join videos into one without re-encoding: the frames of the first, then those of the second, ...

    Raises DataError when they were not encoded alike (codec, size, pixel format, rate, parameters).
    """
    if not paths:
        raise DataError(f"{out}: no videos given to join.")
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.stem}.{os.getpid()}.partial{out.suffix}")
    try:
        with av.open(str(partial), "w") as container:
            target: Any = None
            key: Any = None
            frames = 0
            for path in map(Path, paths):
                with _readable(path), av.open(str(path)) as source:
                    stream = _video_stream(source, path)
                    coded = stream.codec_context
                    mine = (stream.width, stream.height, coded.pix_fmt, stream.average_rate, coded.codec.canonical_name)
                    if target is None:
                        target, key = container.add_stream_from_template(stream, opaque=True), (mine, coded.extradata)
                    elif key != (mine, coded.extradata):
                        raise DataError(f"cannot join {path} to {paths[0]} without re-encoding: {mine} and {key[0]} differ.")
                    begin = round(frames / stream.average_rate / stream.time_base) - (stream.start_time or 0)
                    for packet in source.demux(stream):
                        if packet.size:  # the last one is empty and only says that the file has ended
                            packet.pts, packet.dts = packet.pts + begin, packet.dts + begin
                            packet.stream = target
                            container.mux(packet)
                            frames += 1
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return probe(out)


def resize(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Images (..., H, W, C), uint8, at `size` (height, width), by the filter of `decode`: both look alike to a network."""
    lead, shape = images.shape[:-3], images.shape[-3:]
    if shape[:2] == tuple(size):
        return images
    convert = _Converter(size, shape[2])
    out = np.empty((int(np.prod(lead)), *size, shape[2]), np.uint8)
    for image, target in zip(images.reshape(-1, *shape), out, strict=True):
        plane = np.ascontiguousarray(image if shape[2] == 3 else image[:, :, 0])
        target[:] = convert(av.VideoFrame.from_ndarray(plane, format=_pixels("image", image)))
    return out.reshape(*lead, *size, shape[2])


class _Converter:
    """Decoded frames to arrays. One scaler for all frames and no scaler threads: 5 times as fast as a new one for each frame."""

    def __init__(self, size: tuple[int, int] | None, channels: int) -> None:
        self.size, self.channels = size, channels
        self.reformat = VideoReformatter().reformat

    def __call__(self, frame: Any) -> np.ndarray:
        height, width = self.size or (frame.height, frame.width)
        filter_ = Interpolation.AREA if height < frame.height or width < frame.width else Interpolation.BILINEAR
        image = self.reformat(frame, width, height, PIXELS[self.channels], interpolation=filter_, threads=1).to_ndarray()
        return np.ascontiguousarray(image).reshape(height, width, self.channels)  # rows may come padded


def _numbered(container: Any, stream: Any, path: Path, start: int) -> Iterator[tuple[int, Any]]:
    """Decoded frames with their numbers, from a key frame at or before `start`."""
    if start:
        shown = _shown(path, *_fingerprint(path))
        if start < len(shown) and len(np.unique(shown)) == len(shown):  # a file without a clock can only be counted through
            container.seek(int(shown[start]), stream=stream)
            for frame in container.decode(stream):
                yield int(np.searchsorted(shown, frame.pts)), frame
            return
    yield from enumerate(container.decode(stream))


@lru_cache(maxsize=32)
def _shown(path: Path, bytes_: int, changed: int) -> np.ndarray:
    """Presentation times of the frames in the order in which they are shown, in the stream's clock; reads packets only."""
    with _readable(path), av.open(str(path)) as container:
        packets = container.demux(_video_stream(container, path))
        times = [packet.pts for packet in packets if packet.size and not packet.is_discard]
    return np.sort(np.array([0 if time is None else time for time in times], np.int64))


def _fingerprint(path: Path) -> tuple[int, int]:
    with _readable(path):
        stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _video_stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise DataError(f"{path} holds no video.")
    return container.streams.video[0]


def _info(stream: Any, frames: int) -> VideoInfo:
    coded = stream.codec_context
    fps = float(stream.average_rate or coded.framerate or 0)
    return VideoInfo(frames, coded.height, coded.width, fps, coded.codec.canonical_name, coded.pix_fmt)


def _pixels(what: Any, image: np.ndarray) -> str:
    if image.ndim != 3 or image.shape[2] not in PIXELS or image.dtype != np.uint8:
        raise DataError(f"{what}: a frame is uint8 (height, width, 3 or 1), got {image.dtype}{list(image.shape)}.")
    return PIXELS[image.shape[2]]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what FFmpeg says of a file into one sentence that names it."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path} is missing; a video file is expected there.") from None
    except av.codec.codec.UnknownCodecError as error:
        raise DataError(f"{path}: no encoder is called {error}; {' or '.join(ENCODERS)} will do.") from None
    except av.FFmpegError as error:
        raise DataError(
            f"{path} cannot be read or written as a video ({error.strerror}); it may be damaged or cut off."
        ) from None
