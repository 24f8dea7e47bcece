"""Reading LeRobotDatasets that were laid out by hand, in every version, sound and damaged."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from retrodict.errors import DataError
from retrodict.trajectories import from_arrays
from retrodict.trajectories.stores import lerobot
from retrodict.trajectories.video import concatenate, encode

LENGTHS = (6, 11, 4)
FPS = 10
CAMERAS = ("observation.images.front", "observation.images.wrist")
SIDE = 32


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETRODICT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def film(seed: int, length: int) -> np.ndarray:
    """Frames whose brightness is their number."""
    return np.stack([np.full((SIDE, SIDE, 3), 20 + 15 * t + seed, np.uint8) for t in range(length)])


def values(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    length = LENGTHS[number]
    return {
        "observation.state": rng.normal(size=(length, 4)).astype(np.float32),
        "action": rng.normal(size=(length, 2)).astype(np.float32),
        "next.reward": rng.normal(size=length).astype(np.float32),
        "instruction": np.array([f"say {t}" for t in range(length)], object),
    }


def png(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "png")
    return buffer.getvalue()


def table(number: int, first: int, *, actions: bool = True, extra: bool = False, images: bool = False) -> pa.Table:
    given, length = values(number), LENGTHS[number]
    columns: dict[str, Any] = {
        "observation.state": pa.FixedSizeListArray.from_arrays(pa.array(given["observation.state"].reshape(-1)), 4),
        "next.reward": given["next.reward"],
        "instruction": pa.array(given["instruction"].tolist(), pa.string()),
        "timestamp": (np.arange(length) / FPS).astype(np.float32),
        "frame_index": np.arange(length),
        "episode_index": np.full(length, number),
        "index": first + np.arange(length),
        "task_index": np.arange(length) % 2 if number == 1 else np.full(length, number % 2),
    }
    if actions:
        columns["action"] = pa.array(given["action"].tolist(), pa.list_(pa.float32()))
    if extra:
        columns["gaze"] = pa.array([[{"x": 1.0 * t, "what": "door"}] for t in range(length)])
    if images:
        shown = [{"bytes": png(frame), "path": None} for frame in film(number, length)]
        columns["observation.images.still"] = pa.array(shown, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    return pa.table(columns)


def info(version: str, *, actions: bool = True, videos: bool = True, images: bool = False, **changed: Any) -> dict[str, Any]:
    features: dict[str, Any] = {
        "observation.state": {"dtype": "float32", "shape": [4], "names": {"motors": list("abcd")}},
        "next.reward": {"dtype": "float32", "shape": [1], "names": None},
        "instruction": {"dtype": "string", "shape": [1], "names": None},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    }
    features |= {
        n: {"dtype": "int64", "shape": [1], "names": None} for n in ("frame_index", "episode_index", "index", "task_index")
    }
    if actions:
        features["action"] = {"dtype": "float32", "shape": [2], "names": ["left", "right"]}
    if images:
        features["observation.images.still"] = {
            "dtype": "image",
            "shape": [SIDE, SIDE, 3],
            "names": ["height", "width", "channel"],
        }
    for camera in CAMERAS if videos else ():
        features[camera] = {
            "dtype": "video",
            "shape": [3, SIDE, SIDE] if camera.endswith("wrist") else [SIDE, SIDE, 3],
            "names": ["channels", "height", "width"] if camera.endswith("wrist") else ["height", "width", "channels"],
            "info": {"video.fps": FPS, "video.codec": "h264"},
        }
    paths = {
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    if version == "v3.0":
        paths = {
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        }
    about = {"codebase_version": version, "robot_type": "doomguy", "total_episodes": 3, "total_frames": 21, "chunks_size": 2}
    return {**about, "fps": FPS, **paths, "features": features, **changed}


def make_v2(folder: Path, version: str = "v2.1", **kinds: Any) -> Path:
    """One Parquet and one MP4 file for each episode, two episodes in a chunk."""
    content = info(version, **{k: v for k, v in kinds.items() if k != "extra"})
    (folder / "meta").mkdir(parents=True)
    tasks = [["fetch"], ["leave", "fetch"], ["fetch"]]
    lines = [{"episode_index": i, "tasks": tasks[i], "length": n, "operator": f"person {i}"} for i, n in enumerate(LENGTHS)]
    (folder / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "meta/tasks.jsonl").write_text(
        "\n".join(json.dumps({"task_index": i, "task": t}) for i, t in enumerate(("fetch", "leave")))
    )
    stats = {
        camera: {"min": [[[0.0]]] * 3, "max": [[[1.0]]] * 3, "mean": [[[0.5]]] * 3, "std": [[[0.1]]] * 3} for camera in CAMERAS
    }
    if version == "v2.0":
        (folder / "meta/stats.json").write_text(json.dumps({camera: {**s, "count": [21]} for camera, s in stats.items()}))
    else:
        each = [
            {"episode_index": i, "stats": {camera: {**s, "count": [n]} for camera, s in stats.items()}}
            for i, n in enumerate(LENGTHS)
        ]
        (folder / "meta/episodes_stats.jsonl").write_text("\n".join(map(json.dumps, each)))
    (folder / "meta/info.json").write_text(json.dumps(content))
    shown = {k: v for k, v in kinds.items() if k in ("actions", "extra", "images")}
    for number, length in enumerate(LENGTHS):
        at = {"episode_chunk": number // 2, "episode_index": number}
        path = folder / content["data_path"].format(**at)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(number, sum(LENGTHS[:number]), **shown), path)
        for place, camera in enumerate(CAMERAS if kinds.get("videos", True) else ()):
            encode(film(number + 3 * place, length), folder / content["video_path"].format(video_key=camera, **at), FPS)
    return folder


def make_v3(folder: Path, **kinds: Any) -> Path:
    """Two data files, the second of which lacks `action` where `partly` is asked for; videos of all episodes in one file."""
    partly = kinds.pop("partly", False)
    content = info("v3.0", **{k: v for k, v in kinds.items() if k != "extra"})
    shown = {k: v for k, v in kinds.items() if k in ("actions", "extra", "images")}
    (folder / "meta/episodes/chunk-000").mkdir(parents=True)
    (folder / "data/chunk-000").mkdir(parents=True)
    (folder / "data/chunk-001").mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps(content))
    pq.write_table(pa.table({"task_index": [0, 1], "__index_level_0__": ["fetch", "leave"]}), folder / "meta/tasks.parquet")
    starts = [sum(LENGTHS[:i]) for i in range(3)]
    tables = [table(i, starts[i], **shown) for i in range(3)]
    if partly:
        tables[2] = tables[2].drop_columns(["action"])
    pq.write_table(pa.concat_tables(tables[:2]), folder / "data/chunk-000/file-000.parquet", row_group_size=5)
    pq.write_table(tables[2], folder / "data/chunk-001/file-000.parquet")
    rows: list[dict[str, Any]] = []
    for i, length in enumerate(LENGTHS):
        row = {
            "episode_index": i,
            "tasks": [["fetch"], ["leave", "fetch"], ["fetch"]][i],
            "length": length,
            "operator": f"person {i}",
        }
        row |= {
            "data/chunk_index": int(i == 2),
            "data/file_index": 0,
            "dataset_from_index": starts[i],
            "dataset_to_index": starts[i] + length,
        }
        for camera in CAMERAS if kinds.get("videos", True) else ():
            row |= {f"videos/{camera}/chunk_index": 0, f"videos/{camera}/file_index": 0}
            row |= {
                f"videos/{camera}/from_timestamp": starts[i] / FPS,
                f"videos/{camera}/to_timestamp": (starts[i] + length) / FPS,
            }
        rows.append({**row, "stats/action/mean": [0.0, 0.0], "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
    pq.write_table(pa.Table.from_pylist(rows), folder / "meta/episodes/chunk-000/file-000.parquet")
    for place, camera in enumerate(CAMERAS if kinds.get("videos", True) else ()):
        pieces = [folder / f"piece{i}.mp4" for i in range(3)]
        for i, piece in enumerate(pieces):
            encode(film(i + 3 * place, LENGTHS[i]), piece, FPS)
        concatenate(pieces, folder / content["video_path"].format(video_key=camera, chunk_index=0, file_index=0))
        for piece in pieces:
            piece.unlink()
    return folder


def make(folder: Path, version: str, **kinds: Any) -> Path:
    return make_v3(folder, **kinds) if version == "v3.0" else make_v2(folder, version, **kinds)


VERSIONS = ("v2.0", "v2.1", "v3.0")


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_is_read(tmp_path: Path, version: str) -> None:
    recordings = lerobot.read(make(tmp_path / "data", version))

    assert [episode.length for episode in recordings] == list(LENGTHS)
    assert recordings.fps == FPS
    assert recordings.meta == {"robot_type": "doomguy"}
    assert recordings.actions is not None
    assert recordings.actions.names == ("left", "right")
    for number, episode in enumerate(recordings):
        for name, true in values(number).items():
            assert episode[name].dtype == true.dtype
            np.testing.assert_array_equal(episode[name], true)
        np.testing.assert_allclose(episode["timestamp"], np.arange(LENGTHS[number]) / FPS, rtol=1e-6)
        for place, camera in enumerate(CAMERAS):
            frames = episode[camera]
            assert frames.shape == (LENGTHS[number], SIDE, SIDE, 3)
            assert np.abs(frames.astype(int) - film(number + 3 * place, LENGTHS[number])).max() <= 3
        assert episode.meta["operator"] == f"person {number}"
    assert recordings[0].tasks == ("fetch",)
    assert recordings[1].tasks == ("leave", "fetch")
    assert [recordings[1].tasks[i] for i in recordings[1]["task_index"]][:3] == ["fetch", "leave", "fetch"]
    assert "task_index" not in recordings[0]
    assert recordings.features[CAMERAS[1]].shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize("version", VERSIONS)
def test_no_actions_unknown_columns_and_images(tmp_path: Path, version: str) -> None:
    recordings = lerobot.read(make(tmp_path / "data", version, actions=False, videos=False, extra=True, images=True))

    assert "action" not in recordings.features
    assert recordings.actions is None
    assert recordings[1]["gaze"][3] == [{"x": 3.0, "what": "door"}]
    for number, episode in enumerate(recordings):
        np.testing.assert_array_equal(episode["observation.images.still"], film(number, LENGTHS[number]))


def test_an_episode_whose_file_lacks_a_column_lacks_the_feature(tmp_path: Path) -> None:
    recordings = lerobot.read(make_v3(tmp_path / "data", partly=True, videos=False))

    assert ["action" in episode for episode in recordings] == [True, True, False]
    np.testing.assert_array_equal(recordings[1]["action"], values(1)["action"])


def test_opening_decodes_nothing_and_maps_numbers(tmp_path: Path, cache: Path) -> None:
    recordings = lerobot.read(make_v3(tmp_path / "data"))

    assert not (cache / "frames").exists()
    column = recordings[0].slices["observation.state"].column
    assert isinstance(column.values, np.memmap)  # type: ignore[attr-defined]
    assert column is recordings[2].slices["observation.state"].column, "one column serves all episodes"


def test_columns_are_converted_once_and_again_after_a_change(tmp_path: Path, cache: Path) -> None:
    folder = make_v3(tmp_path / "data", videos=False)
    lerobot.read(folder)
    made = {path: path.stat().st_mtime_ns for path in (cache / "columns").rglob("*.npy")}
    lerobot.read(folder)
    assert {path: path.stat().st_mtime_ns for path in (cache / "columns").rglob("*.npy")} == made

    path = folder / "data/chunk-001/file-000.parquet"
    changed = pq.read_table(path)
    changed = changed.set_column(changed.column_names.index("next.reward"), "next.reward", pa.array(np.full(4, 7, np.float32)))
    pq.write_table(changed, path)
    np.testing.assert_array_equal(lerobot.read(folder)[2]["next.reward"], np.full(4, 7))


def test_two_readers_at_once(tmp_path: Path, cache: Path) -> None:
    folder, both, seen = make_v3(tmp_path / "data", videos=False), threading.Barrier(2), []

    def read() -> None:
        both.wait()
        seen.append(lerobot.read(folder)[1]["action"].copy())

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 2
    np.testing.assert_array_equal(seen[0], seen[1])
    assert not list((cache / "columns").glob("*.partial"))


# ---- bad input --------------------------------------------------------------------------------------------------------


def refusal(folder: Path) -> str:
    """The one sentence with which a dataset is refused."""
    with pytest.raises(DataError) as caught:
        lerobot.read(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(path: Path, name: str, column: pa.Array | None) -> None:
    old = pq.read_table(path)
    place = old.column_names.index(name)
    pq.write_table(old.remove_column(place) if column is None else old.set_column(place, name, column), path)


def test_a_missing_folder_and_missing_metadata(tmp_path: Path) -> None:
    assert "nothing" in refusal(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "info.json" in refusal(tmp_path / "empty")
    folder = make_v3(tmp_path / "data", videos=False)
    (folder / "meta/tasks.parquet").unlink()
    assert "tasks.parquet" in refusal(folder)


@pytest.mark.parametrize("lost", ["data/chunk-001/episode_000002.parquet", f"videos/chunk-000/{CAMERAS[1]}/episode_000001.mp4"])
def test_a_missing_file_is_named(tmp_path: Path, lost: str) -> None:
    folder = make_v2(tmp_path / "data")
    (folder / lost).unlink()
    assert lost in refusal(folder)


@pytest.mark.parametrize("cut", ["data/chunk-000/episode_000001.parquet", "meta/info.json", "meta/episodes.jsonl"])
def test_a_truncated_file_is_named(tmp_path: Path, cut: str) -> None:
    path = make_v2(tmp_path / "data", videos=False) / cut
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert cut in refusal(tmp_path / "data")


def test_damaged_pages_leave_no_half_made_cache(tmp_path: Path, cache: Path) -> None:
    folder = make_v3(tmp_path / "data", videos=False)
    path = folder / "data/chunk-000/file-000.parquet"
    content = bytearray(path.read_bytes())
    content[4:400] = b"\xff" * 396  # the first data pages; the footer stays whole
    path.write_bytes(bytes(content))
    assert "chunk-000/file-000.parquet" in refusal(folder)
    assert list((cache / "columns").iterdir()) == []


def test_unknown_version_and_no_episodes(tmp_path: Path) -> None:
    folder = make_v3(tmp_path / "data", videos=False)
    content = json.loads((folder / "meta/info.json").read_text())
    (folder / "meta/info.json").write_text(json.dumps({**content, "codebase_version": "v9.1"}))
    assert "v9.1" in refusal(folder)
    (folder / "meta/info.json").write_text(json.dumps({**content, "total_episodes": 5}))
    assert "5 episodes" in refusal(folder)
    path = folder / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    assert "no episodes" in refusal(folder)


def test_columns_that_are_not_as_declared(tmp_path: Path) -> None:
    folder = make_v2(tmp_path / "data", videos=False)
    path = folder / "data/chunk-000/episode_000001.parquet"
    rewrite(path, "next.reward", pa.array(np.zeros(11, np.float64)))
    told = refusal(folder)
    assert "episode_000001.parquet" in told
    assert "float64" in told
    assert "float32" in told
    rewrite(path, "next.reward", pa.array(np.zeros(11, np.float32)))
    rewrite(path, "observation.state", pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(55, np.float32)), 5))
    assert "'observation.state' is float32[5]" in refusal(folder)
    rewrite(path, "observation.state", pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(44, np.float32)), 4))
    rewrite(path, "instruction", pa.array(np.zeros(11)))
    assert "'instruction' is double" in refusal(folder)


def test_action_width_that_differs_between_files(tmp_path: Path) -> None:
    folder = make_v2(tmp_path / "data", videos=False)
    rewrite(folder / "data/chunk-001/episode_000002.parquet", "action", pa.array([[0.0] * 3] * 4, pa.list_(pa.float32())))
    told = refusal(folder)
    assert "episode_000002.parquet" in told
    assert "3 values" in told


@pytest.mark.parametrize("bad", [[[0.0, np.nan]], [None], [[0.0, None]]])
def test_an_action_that_is_nan_or_null(tmp_path: Path, bad: list[Any]) -> None:
    folder = make_v2(tmp_path / "data", videos=False)
    rewrite(folder / "data/chunk-000/episode_000000.parquet", "action", pa.array([[0.0, 0.0]] * 5 + bad, pa.list_(pa.float32())))
    told = refusal(folder)
    assert "episode_000000.parquet" in told
    assert "action" in told


@pytest.mark.parametrize("bad", [[[0.0, np.nan]], [None], [[0.0, None]]])
def test_missing_actions_are_marked_where_asked(tmp_path: Path, bad: list[Any]) -> None:
    folder = make_v2(tmp_path / "data", videos=False)
    given = [[1.0, 2.0]] * 5 + bad
    rewrite(folder / "data/chunk-000/episode_000000.parquet", "action", pa.array(given, pa.list_(pa.float32())))
    first, second, *_ = lerobot.read(folder, nan_is_missing=True)
    assert first["valid.action"].tolist() == [True] * 5 + [False]
    assert np.isfinite(first["action"]).all()
    assert "valid.action" not in second
    assert "nan_is_missing=True" in refusal(folder)  # what was let through once is not let through unasked


@pytest.mark.parametrize("bad", [[np.nan, np.nan], None])
def test_an_episode_whose_actions_are_all_missing_lacks_them(tmp_path: Path, bad: Any) -> None:
    folder = make_v2(tmp_path / "data", videos=False)
    kind = pa.list_(pa.float32(), 2) if bad is None else pa.list_(pa.float32())
    rewrite(folder / "data/chunk-000/episode_000000.parquet", "action", pa.array([bad] * 6, kind))
    recordings = lerobot.read(folder, nan_is_missing=True)
    assert ["action" in episode for episode in recordings] == [False, *[True] * (len(recordings) - 1)]
    assert not any(name.startswith("valid.") for name in recordings.features)


def test_a_video_that_is_too_short(tmp_path: Path) -> None:
    folder = make_v2(tmp_path / "data")
    path = folder / f"videos/chunk-000/{CAMERAS[0]}/episode_000001.mp4"
    encode(film(1, 9), path, FPS)
    told = refusal(folder)
    assert all(part in told for part in ("episode_000001.mp4", "episode 1", "9 frames", "11"))


def test_a_video_of_another_size(tmp_path: Path) -> None:
    folder = make_v2(tmp_path / "data")
    path = folder / f"videos/chunk-000/{CAMERAS[0]}/episode_000001.mp4"
    encode(film(1, 11)[:, :16], path, FPS)
    assert "16x32" in refusal(folder)


def test_rows_that_belong_to_other_episodes(tmp_path: Path) -> None:
    folder = make_v3(tmp_path / "data", videos=False)
    path = folder / "data/chunk-000/file-000.parquet"
    rewrite(path, "episode_index", pa.array([1] * 6 + [0] * 11))
    assert "episode" in refusal(folder)
    pq.write_table(pq.read_table(path).slice(0, 15), path)
    assert "15 rows" in refusal(folder)


def test_converted_columns_are_bounded_as_frames_are_and_what_is_open_stays_readable(tmp_path, monkeypatch):
    made = [from_arrays([{"observation.state": np.full((2000, 4), i, np.float32)}], fps=10) for i in range(6)]
    folders = [recordings.save(tmp_path / f"set{i}") for i, recordings in enumerate(made)]
    cache = tmp_path / "small"
    monkeypatch.setenv("RETRODICT_CACHE", str(cache))
    monkeypatch.setenv("RETRODICT_CACHE_GB", str(3 * 2000 * 7 * 8 / 1e9))
    opened = []
    for folder in folders:
        opened.append(lerobot.read(folder))
        assert sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) <= 3 * 2000 * 7 * 8
        opened[0] = lerobot.read(folders[0])  # opened again and again, so it is not the one to go
    kept = [path for path in (cache / "columns").iterdir() if path.is_dir()]
    assert 0 < len(kept) < 6
    for i, recordings in enumerate([*opened, *map(lerobot.read, folders)]):
        assert (recordings[0]["observation.state"] == i % 6).all()
    assert not list(cache.rglob("*.partial"))
