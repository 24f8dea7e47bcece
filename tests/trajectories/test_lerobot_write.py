"""Writing LeRobotDatasets: what is written reads back equal, nothing finished is lost, nothing of others is overwritten."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.errors import DataError
from retrodict.trajectories import ActionSpace, Box, Feature, MultiBinary, Recordings, from_arrays
from retrodict.trajectories.frames import Clip
from retrodict.trajectories.stores import lerobot
from retrodict.trajectories.stores.lerobot import stats
from retrodict.trajectories.video import encode

FPS = 10
SPACE = ActionSpace(
    {"buttons": MultiBinary(("jump", "fire")), "turn": Box(("yaw",), -1, 1, unit="degree")}, mode="delta", leads=True
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRODICT_CACHE", str(tmp_path_factory.mktemp("cache")))


def film(seed: int, length: int, side: int = 32) -> np.ndarray:
    return np.stack([np.full((side, side, 3), (40 * seed + 10 * t) % 256, np.uint8) for t in range(length)])


def as_video(recordings: Recordings) -> Recordings:
    return replace(
        recordings, features={n: replace(f, dtype="video") if f.is_visual else f for n, f in recordings.features.items()}
    )


def example(lengths: tuple[int, ...] = (5, 8, 3), acting: tuple[int, ...] = (0, 1, 2)) -> Recordings:
    """Recordings with a camera in video, of which the episodes `acting` carry actions."""
    made = []
    for i, length in enumerate(lengths):
        rng = np.random.default_rng(i)
        values: dict[str, np.ndarray] = {
            "observation.images.front": film(i, length),
            "observation.state": rng.normal(size=(length, 4)).astype(np.float32),
            "sample.weight": rng.random(length).astype(np.float32),
        }
        if i in acting:
            values["action"] = rng.normal(size=(length, 3)).astype(np.float32)
        made.append(values)
    return as_video(from_arrays(made, fps=FPS, actions=SPACE, tasks=[f"task {i % 2}" for i in range(len(lengths))]))


def assert_equal(found: Recordings, true: Recordings) -> None:
    assert len(found) == len(true)
    assert {n: (f.dtype, f.shape) for n, f in found.features.items()} == {n: (f.dtype, f.shape) for n, f in true.features.items()}
    assert (found.fps, found.actions, found.independent) == (true.fps, true.actions, true.independent)
    assert dict(found.structures) == dict(true.structures)
    assert dict(found.meta) == dict(true.meta)
    for mine, theirs in zip(found, true, strict=True):
        assert {*mine} - {"timestamp"} == {*theirs} - {"timestamp"}
        assert (mine.length, mine.tasks, mine.domain) == (theirs.length, theirs.tasks, theirs.domain)
        for name in theirs:
            got, want = mine[name], theirs[name]
            assert got.shape == want.shape, name
            if name in true.features and true.features[name].dtype == "video":
                assert np.abs(got.astype(int) - want.astype(int)).max() <= 4, name
            else:
                assert got.dtype == want.dtype, name
                np.testing.assert_array_equal(got, want, err_msg=name)


# ---- round trips ------------------------------------------------------------------------------------------------------

numbers = st.sampled_from(["float32", "float64", "int64", "int32", "uint8", "bool"])
shapes = st.sampled_from([(), (1,), (3,), (2, 3), (2, 1, 3)])
names = st.sampled_from(
    ["observation.state", "next.reward", "next.done", "label.class", "privileged.state", "valid.observation.state", "odd name"]
)


@st.composite
def recordings_of_many_kinds(draw: st.DrawFn) -> Recordings:
    lengths = draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    columns = draw(st.dictionaries(names, st.tuples(numbers, shapes), min_size=1, max_size=4))
    has = {name: draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths))) for name in columns}
    ragged, text, acting, clock, images = (
        draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths))) for _ in range(5)
    )
    made = []
    for i, length in enumerate(lengths):
        values: dict[str, Any] = {"index": np.arange(length)}
        for name, (dtype, shape) in columns.items():
            if has[name][i]:
                values[name] = (rng.normal(size=(length, *shape)) * 50).astype(dtype)
        if ragged[i]:
            values["observation.points"] = rng.normal(size=(length, i + 2, 3)).astype(np.float32)
        if text[i]:
            values["event.text"] = np.array([f"say {t} ü" for t in range(length)], object)
        if acting[i]:
            values["action"] = rng.normal(size=(length, 3)).astype(np.float32)
        if clock[i]:
            values["timestamp"] = 1e9 + np.sort(rng.random(length))
        if images[i]:
            values["observation.images.still"] = rng.integers(0, 256, (length, 6, 5, 3), np.uint8)
        values["observation.always"] = rng.normal(size=(length, 2)).astype(np.float32)
        made.append({name: value for name, value in values.items() if name != "index"})
    tasks = draw(st.lists(st.sampled_from(["walk", "öffnen"]), min_size=len(lengths), max_size=len(lengths)))
    domains = draw(st.one_of(st.none(), st.just(["lab", "field", "lab", "field"][: len(lengths)])))
    return from_arrays(
        made,
        fps=draw(st.sampled_from([10.0, 29.97, None])),
        actions=SPACE,
        tasks=tasks,
        domains=domains,
        independent=draw(st.booleans()),
        structures={"skeleton": {"bones": [1, 2]}},
        meta={"robot_type": "arm", "notes": ["a", "b"]},
    )


@settings(max_examples=25)
@given(recordings_of_many_kinds())
def test_what_is_written_reads_back_equal(recordings: Recordings) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = lerobot.write(recordings, Path(place) / "data", data_mb=0.001)
        found = lerobot.read(folder)
        assert_equal(found, recordings)
        assert_equal(lerobot.read(lerobot.write(found, Path(place) / "again")), recordings)


@pytest.mark.parametrize("acting", [(0, 1, 2), (1,), ()])
def test_video_and_absent_actions(tmp_path: Path, acting: tuple[int, ...]) -> None:
    recordings = example(acting=acting)
    folder = recordings.save(tmp_path / "data")
    assert_equal(lerobot.read(folder), recordings)

    info = json.loads((folder / "meta/info.json").read_text())
    stands = {name for path in (folder / "data").rglob("*.parquet") for name in pq.read_schema(path).names}
    assert ("action" in info["features"]) == ("action" in stands) == (len(acting) == 3)
    assert stands == {name for name, feature in info["features"].items() if feature["dtype"] != "video"}
    assert not [name for name in stands if name.startswith("action") and name != "action"]


def test_a_camera_that_only_some_episodes_have(tmp_path: Path) -> None:
    whole = example()
    recordings = replace(whole, episodes=(whole[0], whole[1].without({"observation.images.front"}), whole[2]))
    folder = recordings.save(tmp_path / "data")
    assert_equal(lerobot.read(folder), recordings)
    assert "observation.images.front" not in json.loads((folder / "meta/info.json").read_text())["features"]


def test_tasks_that_change_within_an_episode(tmp_path: Path) -> None:
    with lerobot.Writer(tmp_path / "data", {"next.reward": Feature("float32", (1,))}, FPS) as writer:
        reward = np.zeros(4, np.float32)
        writer.add({"next.reward": reward}, tasks=["walk"])
        writer.add({"next.reward": reward, "task_index": np.array([1, 1, 0, 1])}, tasks=["run", "walk"])
    found = lerobot.read(tmp_path / "data")
    assert found[1].tasks == ("run", "walk")
    np.testing.assert_array_equal(found[1]["task_index"], [1, 1, 0, 1])


def test_origin_survives_selection_and_a_second_writing(tmp_path: Path) -> None:
    first = lerobot.read(example().save(tmp_path / "first"))
    second = lerobot.read(first[1:].save(tmp_path / "second"))
    third = lerobot.read(second[1:].save(tmp_path / "third"))
    assert third[0].meta["origin/episode_index"] == 2
    assert third[0].meta["origin/source"] == "memory"


# ---- layout -----------------------------------------------------------------------------------------------------------


def test_files_roll_at_their_size(tmp_path: Path) -> None:
    recordings = example(lengths=(20,) * 6)
    folder = recordings.save(tmp_path / "data", data_mb=0.002, video_mb=0.008)
    assert len(list((folder / "data").rglob("*.parquet"))) > 1
    assert 1 < len(list((folder / "videos").rglob("*.mp4"))) < 6
    assert_equal(lerobot.read(folder), recordings)


def test_videos_of_a_dataset_are_linked(tmp_path: Path) -> None:
    first = lerobot.read(example().save(tmp_path / "first"))
    second = first[1:].save(tmp_path / "second")
    old, new = (next((folder / "videos").rglob("*.mp4")) for folder in (tmp_path / "first", second))
    assert old.stat().st_ino == new.stat().st_ino
    assert_equal(lerobot.read(second), example()[1:])


def test_clips_of_another_rate_or_container_are_encoded_anew(tmp_path: Path) -> None:
    encode(film(1, 6), tmp_path / "film.mp4", 25)
    features = {"observation.images.front": Feature("video", (32, 32, 3))}
    with lerobot.Writer(tmp_path / "linked", features, 25) as writer:
        writer.add({"observation.images.front": Clip(tmp_path / "film.mp4", 2, 4)})
    clips = lerobot.read(tmp_path / "linked")
    np.testing.assert_allclose(clips[0]["observation.images.front"].astype(int), film(1, 6)[2:], atol=4)
    slow = lerobot.read(replace(clips, fps=5.0).save(tmp_path / "slow"))
    assert next((tmp_path / "slow/videos").rglob("*.mp4")).stat().st_ino != (tmp_path / "film.mp4").stat().st_ino
    np.testing.assert_allclose(slow[0]["observation.images.front"].astype(int), film(1, 6)[2:], atol=4)


def test_statistics_of_numbers_and_frames(tmp_path: Path) -> None:
    recordings = example()
    written = json.loads((recordings.save(tmp_path / "data") / "meta/stats.json").read_text())
    for name in ("observation.state", "action", "sample.weight"):
        whole = np.concatenate([episode[name].reshape(episode.length, -1) for episode in recordings])
        np.testing.assert_allclose(written[name]["mean"], whole.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(written[name]["std"], whole.std(0), rtol=1e-5)
        np.testing.assert_allclose(written[name]["min"], whole.min(0))
        np.testing.assert_allclose(written[name]["max"], whole.max(0))
        assert written[name]["count"] == [16]
    frames = np.concatenate([episode["observation.images.front"] for episode in recordings]) / 255
    assert np.shape(written["observation.images.front"]["mean"]) == (3, 1, 1)
    np.testing.assert_allclose(np.ravel(written["observation.images.front"]["mean"]), frames.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(np.ravel(written["observation.images.front"]["std"]), frames.std((0, 1, 2)), atol=1e-6)
    assert set(written["action"]) == {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}


def test_statistics_pass_over_what_is_not_finite() -> None:
    found = stats.of_numbers(np.array([[1.0, np.nan], [3.0, np.nan], [np.inf, np.nan]]))
    assert found["mean"] == [2.0, 0.0]
    assert found["max"] == [3.0, 0.0]


# ---- refusing ---------------------------------------------------------------------------------------------------------


def add(tmp_path: Path, **values: Any) -> str:
    features = {
        "action": Feature("float32", (2,)),
        "observation.state": Feature("float32", (3,)),
        "observation.images.front": Feature("video", (32, 32, 3)),
        "event.text": Feature("string", (1,)),
    }
    with pytest.raises(DataError) as caught, lerobot.Writer(tmp_path / "data", features, FPS) as writer:
        writer.add({name.replace("__", "."): value for name, value in values.items()})
    assert not (tmp_path / "data").exists()
    return str(caught.value)


def test_bad_episodes_are_refused(tmp_path: Path) -> None:
    action = np.zeros((4, 2), np.float32)
    assert "'action' is NaN" in add(tmp_path, action=np.where(np.eye(4, 2, dtype=bool), np.nan, action).astype(np.float32))
    assert "float64" in add(tmp_path, action=action.astype(float))
    assert "shape [3]" in add(tmp_path, action=np.zeros((4, 3), np.float32))
    assert "common length" in add(tmp_path, action=action, observation__state=np.zeros((3, 3), np.float32))
    assert "not announced" in add(tmp_path, velocity=action)
    assert "frame 2" in add(tmp_path, observation__images__front=[*film(0, 2), film(0, 1, side=16)[0]])
    assert "timestamp" in add(tmp_path, action=action, timestamp=np.zeros(3))
    assert "one text" in add(tmp_path, event__text=[1, "a", 2.0])
    assert "task_index" in add(tmp_path, action=action, task_index=np.array([0, 0, 1, 0]))


def test_features_that_lerobot_cannot_keep_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="slash"):
        lerobot.Writer(tmp_path / "data", {"a/b": Feature("float32", (2,))}, FPS)
    with pytest.raises(DataError, match="3 or 1"):
        from_arrays([{"observation.images.front": np.zeros((3, 8, 8, 4), np.uint8)}], fps=FPS).save(tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_an_empty_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no episodes"), lerobot.Writer(tmp_path / "data", {}, FPS):
        pass
    assert not (tmp_path / "data").exists()


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/love.txt").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(DataError, match="no LeRobotDataset"):
            example().save(tmp_path / "letters", overwrite=overwrite)
    folder = example().save(tmp_path / "data")
    with pytest.raises(DataError, match="overwrite"):
        example(lengths=(2,)).save(folder)
    assert len(lerobot.read(folder)) == 3
    example(lengths=(2,)).save(folder, overwrite=True)
    assert len(lerobot.read(folder)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "letters"]


def test_a_dataset_can_be_rewritten_in_its_place(tmp_path: Path) -> None:
    folder = example().save(tmp_path / "data")
    lerobot.read(folder)[1:].save(folder, overwrite=True)
    assert_equal(lerobot.read(folder), example()[1:])


# ---- carrying on ------------------------------------------------------------------------------------------------------


def test_only_one_writer_at_a_time_and_only_of_the_same_thing(tmp_path: Path) -> None:
    features = {"action": Feature("float32", (2,))}
    first = lerobot.Writer(tmp_path / "data", features, FPS)
    with pytest.raises(DataError, match="another process"):
        lerobot.Writer(tmp_path / "data", features, FPS)
    first.add({"action": np.zeros((3, 2), np.float32)})
    first.__exit__(KeyboardInterrupt, None, None)
    with pytest.raises(DataError, match="other recordings or settings"):
        lerobot.Writer(tmp_path / "data", features, FPS, resume_as="something else")
    assert lerobot.Writer(tmp_path / "data", features, FPS).done == 1


def test_a_failed_episode_is_written_again(tmp_path: Path) -> None:
    features = {"observation.images.front": Feature("video", (32, 32, 3))}

    def breaking() -> Iterator[np.ndarray]:
        yield from film(1, 3)
        raise ConnectionError("the game crashed")

    with lerobot.Writer(tmp_path / "data", features, FPS) as writer:
        writer.add({"observation.images.front": film(0, 4)})
        with pytest.raises(ConnectionError):
            writer.add({"observation.images.front": breaking()})
        assert writer.done == 1
        writer.add({"observation.images.front": film(2, 5)})
    assert [episode.length for episode in lerobot.read(tmp_path / "data")] == [4, 5]


def write_games(folder: Path, fatal: int | None = None) -> list[int]:
    """Writes four episodes, dying in the middle of the video of episode `fatal`; returns those it wrote itself."""

    def frames(number: int) -> Iterator[np.ndarray]:
        for t in range(5):
            if number == fatal and t == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            yield np.full((32, 32, 3), 20 * number + 5 * t, np.uint8)

    features = {"observation.images.front": Feature("video", (32, 32, 3)), "action": Feature("float32", (1,))}
    with lerobot.Writer(folder, features, FPS) as writer:
        mine = list(range(writer.done, 4))
        for number in mine:
            writer.add({"action": np.full((5, 1), number, np.float32), "observation.images.front": frames(number)})
    return mine


@pytest.mark.slow
def test_a_killed_writer_resumes_at_the_first_unfinished_episode(tmp_path: Path) -> None:
    command = f"from pathlib import Path; from {__name__} import write_games; write_games(Path({str(tmp_path / 'data')!r}), 2)"
    killed = subprocess.run([sys.executable, "-c", command], cwd=Path(__file__).parent, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "data").exists()

    assert write_games(tmp_path / "data") == [2, 3]
    found = lerobot.read(tmp_path / "data")
    assert [float(episode["action"][0, 0]) for episode in found] == [0, 1, 2, 3]
    for number, episode in enumerate(found):
        np.testing.assert_allclose(episode["observation.images.front"][4].mean(), 20 * number + 20, atol=3)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
