"""Frame columns and the cache behind them: decoded once, bounded, shared, and whole whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrodict.errors import DataError
from retrodict.trajectories import Episode, Feature, Recordings, Window, frames, video
from retrodict.trajectories.cache import frame_cache
from retrodict.trajectories.columns import Slice
from retrodict.trajectories.frames import Clip, EncodedImageColumn, VideoColumn

SIZE = (32, 40)
CAMERA = "observation.images.top"


def scene(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 5, 3), np.uint8).repeat(8, 1).repeat(8, 2)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RETRODICT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def clips(tmp_path) -> tuple[list[Clip], np.ndarray]:
    """Five clips of two videos, not in the order of the files, and their frames."""
    for name, count in (("a", 70), ("b", 30)):
        video.encode(scene(count, ord(name)), tmp_path / f"{name}.mp4", 30)
    chosen = [
        Clip(tmp_path / f"{n}.mp4", start, count) for n, start, count in (("a", 40, 30), ("b", 0, 30), ("a", 0, 7), ("a", 9, 1))
    ]
    return chosen, np.concatenate([np.stack(list(video.decode(c.path, c.start, c.start + c.frames))) for c in chosen])


def entries(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.u8"))


def test_rows_are_the_frames_of_the_clips_in_any_order(clips):
    column = VideoColumn(clips[0], *SIZE)
    assert len(column) == 68
    rows = np.random.default_rng(0).integers(0, 68, 300)
    rows[:40] = np.arange(20, 60)  # a run over the border of two clips
    assert np.array_equal(column.take(rows), clips[1][rows])
    out = np.empty((300, *SIZE, 3), np.uint8)
    assert column.take(rows, out) is out
    assert np.array_equal(out, clips[1][rows])
    spread = np.zeros((300, 2, *SIZE, 3), np.uint8)[:, 0]
    assert np.array_equal(column.take(rows, spread), clips[1][rows])
    assert column.take(np.array([], int)).shape == (0, *SIZE, 3)
    for bad in ([-1], [68]):
        with pytest.raises(DataError, match="it has 68"):
            column.take(np.array(bad))


def test_long_clips_are_cut_into_blocks(clips, cache, monkeypatch):
    monkeypatch.setattr(frames, "BLOCK_FRAMES", 8)
    monkeypatch.setattr(frames, "BLOCK_BYTES", 1)
    column = VideoColumn(clips[0], *SIZE)
    assert np.array_equal(column.take(np.arange(68)), clips[1])
    assert len(entries(cache)) == 4 + 4 + 1 + 1


def test_each_clip_is_decoded_once_and_only_when_asked_for(clips, cache, monkeypatch):
    decoded = []
    decode = video.decode
    monkeypatch.setattr(video, "decode", lambda *a, **k: decoded.append(a[:2]) or decode(*a, **k))
    column = VideoColumn(clips[0], *SIZE)
    column.take(np.array([3, 4]))
    assert decoded == [(clips[0][0].path, 40)]
    column.take(np.array([5, 29]))
    VideoColumn(clips[0], *SIZE).take(np.array([6]))
    assert len(decoded) == 1
    column.prepare(np.array([30]), np.array([31]))
    assert decoded[1:] == [(clips[0][1].path, 0), (clips[0][2].path, 0)]
    assert len(entries(cache)) == 3


def test_a_changed_video_is_decoded_again(clips, tmp_path):
    clip = Clip(tmp_path / "a.mp4", 0, 5)
    VideoColumn([clip], *SIZE).take(np.arange(5))
    video.encode(scene(70, 9), tmp_path / "a.mp4", 30)
    os.utime(tmp_path / "a.mp4", ns=(0, 1))
    assert np.array_equal(VideoColumn([clip], *SIZE).take(np.arange(5)), np.stack(list(video.decode(clip.path, 0, 5))))


def test_another_size_is_another_column(clips):
    small = VideoColumn(clips[0], *SIZE).sized((16, 20))
    assert small.take(np.arange(68)).shape == (68, 16, 20, 3)
    assert np.array_equal(small.take(np.array([0]))[0], next(video.decode(clips[0][0].path, 40, 41, size=(16, 20))))
    assert np.array_equal(small.sized(SIZE).take(np.arange(68)), clips[1])


def test_bad_sources_are_named(tmp_path):
    video.encode(scene(10), tmp_path / "a.mp4", 30)
    with pytest.raises(DataError, match=r"a\.mp4 has frames of 32x40, 30x40"):
        VideoColumn([Clip(tmp_path / "a.mp4", 0, 5)], 30, 40).take(np.array([0]))
    with pytest.raises(DataError, match=r"a\.mp4 has 10 frames, frames 5 to 19"):
        VideoColumn([Clip(tmp_path / "a.mp4", 5, 15)], *SIZE).take(np.array([0]))
    with pytest.raises(DataError, match=r"no\.mp4 is missing"):
        VideoColumn([Clip(tmp_path / "no.mp4", 0, 5)], *SIZE).take(np.array([0]))


def test_encoded_images_from_files_and_bytes(tmp_path):
    images = scene(6)
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    for items in (paths, [path.read_bytes() for path in paths]):
        column = EncodedImageColumn(items, *SIZE)
        assert np.array_equal(column.take(np.array([5, 0, 1, 2])), images[[5, 0, 1, 2]])
        assert column.sized((16, 20)).take(np.array([1])).shape == (1, 16, 20, 3)
    paths[3].write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"3\.png cannot be read as an image"):
        EncodedImageColumn(paths, *SIZE).take(np.array([3]))
    with pytest.raises(DataError, match=r"0\.png is 32x40, 8x8"):
        EncodedImageColumn(paths[:1], 8, 8).take(np.array([0]))
    paths[0].unlink()
    with pytest.raises(DataError, match=r"0\.png is missing"):
        EncodedImageColumn(paths[:1], *SIZE).take(np.array([0]))


def test_the_bound_is_kept_and_a_larger_dataset_still_reads(clips, cache, monkeypatch):
    limit = 40 * 32 * 40 * 3
    monkeypatch.setenv("RETRODICT_CACHE_GB", str(limit / 1e9))
    column = VideoColumn(clips[0], *SIZE)
    with pytest.warns(UserWarning, match="RETRODICT_CACHE_GB"):
        column.prepare(np.array([0]), np.array([68]))
    assert not entries(cache)
    for row in np.random.default_rng(0).integers(0, 68, 30):
        assert np.array_equal(column.take(np.array([row]))[0], clips[1][row])
        assert sum(path.stat().st_size for path in entries(cache)) <= limit
    windows = camera_recordings(clips).windows(Window(1, 0, (CAMERA,)), 68)
    with pytest.warns(UserWarning, match="RETRODICT_CACHE_GB"):
        batch = windows.at(0)
    assert batch[CAMERA].shape == (68, 2, 3, *SIZE)


def test_a_cache_file_cut_off_under_a_reader_is_named(clips, cache):
    column = VideoColumn(clips[0], *SIZE)
    column.take(np.arange(10))
    for path in entries(cache):
        os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"frame cache of video .* is damaged \(.*\.u8\); delete that file"):
        column.take(np.arange(len(column)))


def test_what_was_opened_longest_ago_is_evicted_first(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("RETRODICT_CACHE_GB", str(35 * 32 * 40 * 3 / 1e9))
    video.encode(scene(40), tmp_path / "a.mp4", 30)
    kept, idle, new = (VideoColumn([Clip(tmp_path / "a.mp4", start, 10)], *SIZE) for start in (0, 10, 20))
    for column in (kept, idle):
        column.take(np.arange(10))
        time.sleep(0.02)
    frame_cache().held.clear()  # as another process that opens it later
    kept.take(np.arange(10))
    new.take(np.arange(10))
    VideoColumn([Clip(tmp_path / "a.mp4", 30, 10)], *SIZE).take(np.arange(10))
    cache_ = frame_cache()
    assert cache_.holds(kept._name(0))
    assert not cache_.holds(idle._name(0))


@pytest.mark.parametrize("bad", ["0", "-1", "many"])
def test_a_senseless_bound_is_refused(bad, monkeypatch, tmp_path):
    monkeypatch.setenv("RETRODICT_CACHE_GB", bad)
    with pytest.raises(DataError, match="RETRODICT_CACHE_GB"):
        VideoColumn([Clip(tmp_path / "a.mp4", 0, 1)], *SIZE).prepare(np.array([0]), np.array([1]))


READ = """
import os, pathlib, signal, sys, time
import numpy as np
from retrodict.trajectories.frames import Clip, VideoColumn
path, gate, die_in = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
decode, made = VideoColumn._decode, []
def slowly(self, block):
    made.append(block)
    for number, frame in enumerate(decode(self, block)):
        if block == die_in and number == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.002)
        yield frame
VideoColumn._decode = slowly
column = VideoColumn([Clip(path, start, 10) for start in range(0, 70, 10)], 32, 40)
gate.with_suffix(f".{os.getpid()}").touch()
while not gate.exists():
    time.sleep(0.001)
total = int(column.take(np.arange(70)).astype(np.int64).sum())
print(total, len(made))
"""


def reader(path: Path, die_in: int = -1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", READ, str(path), str(path.with_name("gate")), str(die_in)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def start_together(folder: Path, processes: int) -> None:
    """Open the gate once all stand before it."""
    while len(list(folder.glob("gate.*"))) < processes:
        time.sleep(0.01)
    (folder / "gate").touch()


def test_two_processes_at_once_decode_each_clip_once_between_them(clips, tmp_path):
    total = int(np.stack(list(video.decode(tmp_path / "a.mp4"))).astype(np.int64).sum())
    processes = [reader(tmp_path / "a.mp4") for _ in range(2)]
    start_together(tmp_path, 2)
    answers = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [int(answer[0]) for answer in answers] == [total, total]
    assert sum(int(answer[1]) for answer in answers) == 7


def test_a_killed_builder_leaves_nothing_broken(clips, cache, tmp_path):
    process = reader(tmp_path / "a.mp4", die_in=3)
    start_together(tmp_path, 1)
    process.wait(timeout=60)
    assert process.returncode == -signal.SIGKILL
    (unfinished,) = cache.rglob("*.partial")
    unfinished.with_name("of another clip.partial").touch()
    assert len(entries(cache)) == 3
    column = VideoColumn([Clip(tmp_path / "a.mp4", start, 10) for start in range(0, 70, 10)], *SIZE)
    assert np.array_equal(column.take(np.arange(70)), np.stack(list(video.decode(tmp_path / "a.mp4"))))
    assert not list(cache.rglob("*.partial"))


def test_an_entry_that_was_cut_off_is_made_again(clips, cache):
    VideoColumn(clips[0], *SIZE).take(np.arange(68))
    frame_cache().held.clear()
    for path in entries(cache):
        path.write_bytes(b"short")
    assert np.array_equal(VideoColumn(clips[0], *SIZE).take(np.arange(68)), clips[1])


def test_a_source_that_gives_too_little_is_refused_and_not_kept(cache):
    with pytest.raises(DataError, match="gave 6 bytes of frames where 12"):
        frame_cache().file("ab" * 16, 12, lambda: [np.zeros((1, 2, 3), np.uint8)])
    assert not entries(cache)


def camera_recordings(clips: tuple[list[Clip], np.ndarray]) -> Recordings:
    column = VideoColumn(clips[0], *SIZE)
    starts = np.cumsum([0, *(clip.frames for clip in clips[0])])
    episodes = tuple(
        Episode(i, clip.frames, {CAMERA: Slice(column, int(start))})
        for i, (clip, start) in enumerate(zip(clips[0], starts, strict=False))
    )
    return Recordings({CAMERA: Feature("video", (*SIZE, 3))}, episodes, fps=30)


def test_windows_of_video_equal_slicing_by_hand(clips):
    recordings = camera_recordings(clips)
    by_hand = [recordings[i][CAMERA] for i in range(4)]
    for got in recordings.windows(Window(2, 1, (CAMERA,), stride=2), 8):
        assert got[CAMERA].shape[1:] == (4, 3, *SIZE)
        assert got[CAMERA].permute(0, 1, 3, 4, 2).is_contiguous()  # channels-last in memory, which convolutions like
        for b, (e, f) in enumerate(zip(got["episode"].tolist(), got["frame"].tolist(), strict=True)):
            steps = (f + np.arange(-2, 2) * 2).clip(0, len(by_hand[e]) - 1)
            assert np.array_equal(got[CAMERA][b].permute(0, 2, 3, 1), by_hand[e][steps])
