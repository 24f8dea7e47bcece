"""A folder of videos with or without logs."""

import json
import os
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.errors import DataError
from retrodict.trajectories import ActionSpace, Box, Discrete, Window
from retrodict.trajectories.stores import open as open_recordings
from retrodict.trajectories.stores.alignment import Film, match
from retrodict.trajectories.stores.headers import read_headers
from retrodict.trajectories.stores.logs import Log
from retrodict.trajectories.video import encode

CAMERA = "observation.images.main"


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("RETRODICT_CACHE", str(tmp_path_factory.mktemp("cache")))


def film(path, frames=10, fps=10, size=(32, 48)):
    """A video whose frame k is grey, of brightness 20 k."""
    encode((np.full((*size, 3), 20 * k % 256, np.uint8) for k in range(frames)), path, fps)
    return path


def table(path, rows):
    """A CSV of mappings."""
    lines = [",".join(rows[0]), *(",".join(str(v) for v in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def guesses(recordings):
    return " ".join(recordings.meta["guessed"])


def test_videos_without_logs_have_no_actions(tmp_path):
    for i, n in {10: 4, 2: 7}.items():
        film(tmp_path / f"clip{i}.mp4", n)
    recordings = open_recordings(tmp_path)
    assert [len(episode) for episode in recordings] == [7, 4]  # clip2 before clip10
    assert (recordings.fps, recordings.actions, list(recordings.features)) == (10, None, [CAMERA])
    assert recordings.features[CAMERA].shape == (32, 48, 3)
    for episode in recordings:
        np.testing.assert_allclose(episode[CAMERA].mean((1, 2, 3)), 20 * np.arange(len(episode)), atol=3)
    batch = next(iter(recordings.windows(Window(after=1, features=(CAMERA,)), batch=3)))
    assert tuple(batch[CAMERA].shape) == (3, 2, 3, 32, 48)


def test_logs_beside_some_videos(tmp_path):
    film(tmp_path / "a.mp4")
    film(tmp_path / "b.mp4", 6)
    table(tmp_path / "a.csv", [{"time": k / 10, "dx": k, "dy": -0.5 * k, "key": "w" if k % 2 else "a"} for k in range(10)])
    recordings = open_recordings(tmp_path)
    a, b = recordings
    assert ("action" in a, "action" in b) == (True, False)
    assert recordings.actions == ActionSpace({"action": Box(("dx", "dy"))})
    np.testing.assert_array_equal(a["action"], [[k, -0.5 * k] for k in range(10)])
    assert a["key"].tolist() == ["a", "w"] * 5
    for said in ("no column is called an action, so all columns of numbers are: dx, dy", "by time", "1 of 2 videos have no log"):
        assert said in guesses(recordings)


def test_named_actions_leave_the_rest_as_state(tmp_path):
    film(tmp_path / "a.mp4", 4)
    rows = [{"frame": k, "action": ["left", "right"][k % 2], "speed": k} for k in range(4)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recordings = open_recordings(tmp_path)
    assert recordings.actions == ActionSpace({"action": Discrete(("left", "right"))})
    assert recordings[0]["action"][:, 0].tolist() == [0, 1, 0, 1]
    assert recordings[0]["observation.state"][:, 0].tolist() == [0, 1, 2, 3]
    assert "they name" in guesses(recordings)


def test_a_slow_and_late_log_is_held_marked_and_reported(tmp_path):
    film(tmp_path / "a.mp4", 10, fps=10)
    table(tmp_path / "a.csv", [{"time_ms": t, "action": v} for t, v in ((200, 0.5), (500, 1.5), (801, 2.5))])
    episode = open_recordings(tmp_path)[0]
    # 801 ms is a rounding of 800 and goes with frame 8.
    assert episode["action"][:, 0].tolist() == [0.5] * 5 + [1.5] * 3 + [2.5] * 2
    assert episode["valid.action"].tolist() == [False] * 2 + [True] * 8
    said = guesses(open_recordings(tmp_path))
    assert "older than its frame by at most 0.2 s (a.mp4)" in said
    assert "2 frames come before the first row" in said


def test_a_fast_log_gives_the_last_row_at_each_frame(tmp_path):
    film(tmp_path / "a.mp4", 5, fps=10)
    table(tmp_path / "a.csv", [{"time": k / 40, "action": k + 0.5} for k in range(20)])
    recordings = open_recordings(tmp_path)
    assert recordings[0]["action"][:, 0].tolist() == [0.5, 4.5, 8.5, 12.5, 16.5]
    assert "15 rows lie between or beyond frames and are passed over" in guesses(recordings)


def test_a_log_that_ends_before_its_video_says_nothing_of_the_rest(tmp_path):
    film(tmp_path / "a.mp4", 10, fps=10)
    table(tmp_path / "a.csv", [{"time": k / 10, "action": k + 0.5} for k in range(6)])
    recordings = open_recordings(tmp_path)
    assert recordings[0]["valid.action"].tolist() == [True] * 7 + [False] * 3  # a row may be late by a step
    assert "3 frames come before the first row or long after the last" in guesses(recordings)
    table(tmp_path / "a.csv", [{"frame": k, "action": k + 0.5} for k in (0, 2, 4)])
    assert open_recordings(tmp_path)[0]["valid.action"].tolist() == [True] * 7 + [False] * 3


def test_a_video_with_uneven_frames_goes_by_its_own_clock(tmp_path):
    shown = np.array([0, 1, 2, 3, 20, 21, 22, 23, 24, 40])  # tenths of a second
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 48, 32, "yuv420p", Fraction(1, 1000)
        stream.codec_context.time_base = stream.time_base
        for k, tenths in enumerate(shown):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 20 * k, np.uint8), "rgb24")
            frame.pts, frame.time_base = int(tenths) * 100, stream.time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    film(tmp_path / "b.mp4", 4, fps=10)
    table(tmp_path / "a.csv", [{"time": k / 10, "action": k + 0.5} for k in range(41)])
    recordings = open_recordings(tmp_path)
    a, b = recordings
    np.testing.assert_array_equal(a["action"][:, 0], shown + 0.5)
    np.testing.assert_allclose(a["timestamp"], shown / 10, atol=1e-3)
    np.testing.assert_allclose(b["timestamp"], np.arange(4) / 10)
    assert recordings.fps is None
    assert "1 of 2 videos show their frames at uneven intervals" in guesses(recordings)


@pytest.mark.parametrize("key", ["video", "episode"])
def test_one_log_for_all(tmp_path, key):
    for i in range(3):
        film(tmp_path / f"clip_{i}.mp4", 4)
    rows = [
        {key: f"clip_{i}.mp4" if key == "video" else i, "time": 100 * i + 1000 + k / 10, "action_u": i + k / 8, "task": f"do {i}"}
        for i in (2, 0)
        for k in range(4)
    ]
    table(tmp_path / "actions.csv", rows)
    recordings = open_recordings(tmp_path)
    assert [("action" in episode) for episode in recordings] == [True, False, True]
    assert recordings[2]["action"][:, 0].tolist() == [2, 2.125, 2.25, 2.375]
    assert recordings[2].tasks == ("do 2",)
    assert "first row to the first frame" in guesses(recordings)


def test_a_single_video_with_its_log(tmp_path):
    film(tmp_path / "a.mp4", 4)
    film(tmp_path / "b.mp4", 4, size=(64, 64))
    table(tmp_path / "a.csv", [{"action": k / 4} for k in range(4)])
    recordings = open_recordings(tmp_path / "a.mp4")
    assert (len(recordings), "one by one" in guesses(recordings)) == (1, True)
    assert recordings[0]["action"][:, 0].tolist() == [0, 0.25, 0.5, 0.75]


# ---- bad input ------------------------------------------------------------------------------------------------------------


def refused(path, *names, **options):
    with pytest.raises(DataError) as caught:
        open_recordings(path, **options)
    for name in names:
        assert name in str(caught.value), str(caught.value)


def test_videos_that_do_not_go_together(tmp_path):
    film(tmp_path / "a.mp4")
    film(tmp_path / "b.mp4", size=(64, 48))
    refused(tmp_path, "a.mp4 is 48x32", "b.mp4 48x64", "scale one of them, or put them into folders of their own")
    film(tmp_path / "b.mp4", fps=30)
    refused(tmp_path, "a.mp4 has 10 frames per second", "b.mp4 30", "re-encode one of them")


def test_damaged_videos(tmp_path):
    film(tmp_path / "a.mp4")
    path = film(tmp_path / "b.mp4", 40)
    os.truncate(path, 300)
    refused(tmp_path, "b.mp4")
    path.write_text("no video")
    refused(tmp_path, "b.mp4")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"action": 1.5}] * 7, "a.csv has 7 rows for the 10 frames of"),
        ([{"frame": k, "action": 1.5} for k in range(14)], "a.csv names frame 13"),
        ([{"frame": k, "action": 1.5} for k in (3, 2)], "a.csv, line 3: 'frame' runs backwards"),
        ([{"time": t, "action": 1.5} for t in (0, 0.3, 0.2)], "a.csv, line 4: its clock runs backwards"),
        ([{"time": t, "action": v} for t, v in ((0, 1.5), (0.1, ""))], "a.csv, line 3: 'action' is empty or NaN"),
        ([{"time": t} for t in (0, 1)], "nothing to read beside clocks"),
    ],
)
def test_logs_that_do_not_fit(tmp_path, rows, said):
    film(tmp_path / "a.mp4")
    table(tmp_path / "a.csv", rows)
    refused(tmp_path, said)


def test_logs_that_do_not_go_together(tmp_path):
    for name in "ab":
        film(tmp_path / f"{name}.mp4", 4)
        table(tmp_path / f"{name}.csv", [{"frame": k, f"action_{name}": k / 2} for k in range(4)])
    refused(tmp_path, "a.csv", "b.csv", "differ in column 'action_a'")
    (tmp_path / "b.csv").unlink()
    table(tmp_path / "b.tsv", [{"frame": 0}])
    table(tmp_path / "b.csv", [{"frame": 0}])
    refused(tmp_path, "b.mp4 has two logs", "b.csv", "b.tsv")
    for name in ("a.csv", "b.csv", "b.tsv"):
        (tmp_path / name).unlink()
    table(tmp_path / "log.csv", [{"time": 0, "action": 1.5}])
    refused(tmp_path, "log.csv bears no video's name", "add a column called video")
    table(tmp_path / "log.csv", [{"video": "c.mp4", "time": 0, "action": 1.5}])
    refused(tmp_path, "log.csv: 'video' names 'c.mp4', which is none of the 2 videos")
    table(tmp_path / "log2.csv", [{"video": "a.mp4", "time": 0, "action": 1.5}])
    refused(tmp_path, "log.csv", "log2.csv", "one log for all videos")


def clocked(path, name, rows, apart):
    table(path, [{name: apart * k, "action": k + 0.5} for k in range(rows)])


@pytest.mark.parametrize(
    ("rows", "apart", "said"),
    [
        (20_000, 0.1, ("they last 2 s", "2000 s if it counts s, 2 s if it counts ms", "in s rows lie 1 frames apart")),
        (600, 0.1, ("59.9 s if it counts s", "no unit makes them alike")),
        (3, 0.05, ("0.1 s if it counts s", "no unit makes them alike")),
    ],
)
def test_a_clock_without_a_unit_that_the_videos_do_not_tell_is_refused(tmp_path, rows, apart, said):
    film(tmp_path / "a.mp4", 20, fps=10)
    clocked(tmp_path / "a.csv", "time", rows, apart)
    refused(tmp_path, "a.csv: the clock 'time' does not say its unit", *said, "call the column time_s, time_ms")
    clocked(tmp_path / "a.csv", "time_s", rows, apart)
    expected = [min(k * round(0.1 / apart), rows - 1) + 0.5 for k in range(20)]
    assert open_recordings(tmp_path)[0]["action"][:, 0].tolist() == expected


@pytest.mark.parametrize(("unit", "apart"), [(1, 0.05), (1e-3, 50), (1e-6, 50_000)])
def test_a_clock_without_a_unit_counts_in_the_one_that_all_videos_tell(tmp_path, unit, apart):
    for name, rows in {"a": 40, "b": 3}.items():  # the second log ends early, the first does not
        film(tmp_path / f"{name}.mp4", 20, fps=10)
        clocked(tmp_path / f"{name}.csv", "time", rows, apart)
    recordings = open_recordings(tmp_path)
    assert recordings[0]["action"][:, 0].tolist() == [2 * k + 0.5 for k in range(20)]
    assert recordings[1]["valid.action"].tolist() == [True] * 3 + [False] * 17
    assert f"'time' is in units of {unit:g} s, by the length of the videos" in guesses(recordings)
    assert "in units of 1 s, by its name" not in guesses(recordings)


# ---- the rule, against its definition ---------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    times=st.lists(st.floats(0, 3, width=32), min_size=1, max_size=30).map(sorted),
    frames=st.integers(1, 60),
    fps=st.sampled_from([10.0, 24.0, 30.0]),
)
def test_rows_go_to_frames_at_or_after_their_time(tmp_path_factory, times, frames, fps):
    log = Log(tmp_path_factory.getbasetemp() / "a.csv", {"time_s": np.array(times), "action": np.arange(len(times)) + 0.5}, 2)
    headers = read_headers(log, of_video=True)
    video = Film("a.mp4", frames, fps)
    shown = np.arange(frames) / fps + 0.1 / fps
    if times[0] > shown[-1]:
        with pytest.raises(DataError, match="no frame has a row"):
            match(log, headers, np.arange(len(times)), video, from_start=False)
        return
    found = match(log, headers, np.arange(len(times)), video, from_start=False)
    due = times[-1] + 1.1 * max(1 / fps, *np.diff(times), 0)
    for frame in range(frames):
        before = [row for row, time in enumerate(times) if time <= shown[frame]]
        assert found.known[frame] == (bool(before) and frame / fps < due)
        assert found.rows[frame] == (before[-1] if before else 0)
