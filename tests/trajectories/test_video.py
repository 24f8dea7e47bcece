"""Video files: exact frame numbers, joining, resizing and what is said of bad files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from retrodict.errors import DataError
from retrodict.trajectories import video

SIZE = (48, 64)


def scene(frames: int, size: tuple[int, int] = SIZE, phase: int = 0) -> list[np.ndarray]:
    """A bright square that moves over a slope, so that no two frames are alike."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    made = []
    for i in range(phase, phase + frames):
        image = np.stack([rows * 3, columns * 2, (rows + columns) + 40], -1).clip(0, 255).astype(np.uint8)
        x = i * 2 % (size[1] - 8)
        image[8:24, x : x + 8] = [250, 10 + 5 * (i % 40), 30]
        made.append(image)
    return made


@pytest.fixture(scope="module", params=["libx264", "libsvtav1"])
def clip(request, tmp_path_factory) -> tuple[Path, np.ndarray]:
    path = tmp_path_factory.mktemp("video") / f"{request.param}.mp4"
    video.encode(scene(90), path, 30, request.param)
    return path, np.stack(list(video.decode(path)))


def test_frames_come_back_close_to_what_went_in(clip):
    path, decoded = clip
    assert decoded.shape == (90, *SIZE, 3)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - np.stack(scene(90))).mean() < 6
    info = video.probe(path)
    assert (info.frames, info.height, info.width, info.fps, info.pix_fmt) == (90, *SIZE, 30.0, "yuv420p")
    assert info.codec == ("h264" if "264" in path.name else "av1")


def test_decoding_agrees_with_plain_pyav(clip):
    path, decoded = clip
    with av.open(str(path)) as container:
        plain = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert np.array_equal(plain, decoded)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (1, 2), (7, 23), (31, 90), (89, 90), (5, 5), (40, None)])
def test_frame_numbers_are_exact(clip, start, stop):
    path, decoded = clip
    got = list(video.decode(path, start, stop))
    assert len(got) == (90 if stop is None else stop) - start
    assert np.array_equal(np.array(got).reshape(-1, *SIZE, 3), decoded[start:stop])


def test_frame_numbers_are_exact_where_the_clock_is_irregular_and_key_frames_are_rare(tmp_path):
    path = tmp_path / "irregular.mp4"
    times = np.cumsum(np.random.default_rng(0).integers(1, 9, 60))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=100, options={"g": "25", "bf": "2"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for time, image in zip(times, scene(60), strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = int(time)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    decoded = np.stack(list(video.decode(path)))
    assert len(decoded) == 60
    for start in (1, 24, 25, 26, 49, 59):
        assert np.array_equal(np.stack(list(video.decode(path, start, start + 1))), decoded[start : start + 1])


def test_odd_sizes_grey_frames_and_fractional_rates(tmp_path):
    for codec in video.ENCODERS:
        info = video.encode(scene(5, (41, 57)), tmp_path / "odd.mp4", 12.5, codec)
        assert info == video.probe(tmp_path / "odd.mp4")
        assert (info.height, info.width, info.fps) == (41, 57, 12.5)
    grey = [image[:, :, :1] for image in scene(5)]
    video.encode(grey, tmp_path / "grey.mp4", 30)
    back = np.stack(list(video.decode(tmp_path / "grey.mp4", channels=1)))
    assert back.shape == (5, *SIZE, 1)
    assert np.abs(back.astype(int) - np.stack(grey)).mean() < 6


def test_joining_changes_no_frame(clip, tmp_path):
    path, decoded = clip
    codec = path.stem
    video.encode(scene(13, phase=50), tmp_path / "b.mp4", 30, codec)
    other = np.stack(list(video.decode(tmp_path / "b.mp4")))
    info = video.concatenate([path, tmp_path / "b.mp4", path], tmp_path / "all.mp4")
    assert info.frames == 193
    assert info.fps == 30
    assert np.array_equal(np.stack(list(video.decode(tmp_path / "all.mp4"))), np.concatenate([decoded, other, decoded]))
    with av.open(str(tmp_path / "all.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert np.allclose(times, np.arange(193) / 30, atol=1e-4)  # LeRobot finds frames by time, to this tolerance
    video.encode(scene(5), tmp_path / "slow.mp4", 10, codec)
    with pytest.raises(DataError, match="without re-encoding"):
        video.concatenate([path, tmp_path / "slow.mp4"], tmp_path / "no.mp4")
    assert not (tmp_path / "no.mp4").exists()


def test_resizing_while_decoding_and_afterwards_look_alike(clip):
    path, decoded = clip
    small = np.stack(list(video.decode(path, 0, 8, size=(24, 32))))
    assert small.shape == (8, 24, 32, 3)
    means = decoded[:8].reshape(8, 24, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(small - means).mean() < 4
    assert np.abs(video.resize(decoded[:8], (24, 32)) - means).mean() < 1
    assert video.resize(decoded, SIZE) is decoded


def test_bad_files_are_named_with_numbers(clip, tmp_path):
    path, _ = clip
    with pytest.raises(DataError, match=r"has 90 frames, frames 80 to 94 were asked for"):
        list(video.decode(path, 80, 95))
    with pytest.raises(DataError, match="has 90 frames, frames 200 to 201"):
        list(video.decode(path, 200, 202))
    with pytest.raises(DataError, match=r"missing\.mp4 is missing"):
        list(video.decode(tmp_path / "missing.mp4"))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DataError, match=r"text\.mp4 cannot be read"):
        video.probe(tmp_path / "text.mp4")
    (tmp_path / "cut.mp4").write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"cut\.mp4 cannot be read"):
        list(video.decode(tmp_path / "cut.mp4"))


def test_a_file_cut_off_behind_its_header_is_found_out(tmp_path):
    path = tmp_path / "stream.mkv"  # a container that is readable up to where it ends
    video.encode(scene(60), path, 30)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"stream\.mkv"):
        list(video.decode(path, 0, 60))


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([], "no frames"),
        ([np.zeros((*SIZE, 3), np.float32)], "uint8"),
        ([np.zeros(SIZE, np.uint8)], "uint8"),
        ([np.zeros((*SIZE, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)], "frame 1"),
    ],
)
def test_frames_that_make_no_video_are_refused_and_leave_nothing(tmp_path, frames, said):
    with pytest.raises(DataError, match=said):
        video.encode(frames, tmp_path / "x.mp4", 30)
    assert not list(tmp_path.iterdir())


def test_unknown_encoders_are_refused(tmp_path):
    with pytest.raises(DataError, match="no encoder is called libnone"):
        video.encode(scene(1), tmp_path / "x.mp4", 30, "libnone")


def test_encoding_is_quiet(tmp_path):
    code = (
        "import numpy as np; from retrodict.trajectories import video\n"
        f"for c in video.ENCODERS: video.encode(np.zeros((3, 64, 64, 3), np.uint8), {str(tmp_path / 'x.mp4')!r}, 30, c)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    assert run.stdout == ""
