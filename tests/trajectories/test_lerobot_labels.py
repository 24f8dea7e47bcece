"""Labels in every emit mode: what is said of them, no video encoded anew, no step lost or doubled, carried on when stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodict.errors import DataError
from retrodict.trajectories import ActionSpace, Discrete, Recordings, from_arrays
from retrodict.trajectories.episodes import runs_of
from retrodict.trajectories.features import CONFIDENCE, INFERRED, RECORDED, RUN, SOURCE, WEIGHT
from retrodict.trajectories.stores import lerobot
from retrodict.trajectories.stores.lerobot import EpisodeLabels, LabelWriter, write_labelled
from retrodict.trajectories.stores.lerobot.labels import FROM_EPISODE, FROM_FRAME

FPS = 10
LENGTHS = (6, 9, 4)
SPACE = ActionSpace({"move": Discrete(("stay", "left", "right"))})
KEPT = (np.ones(6, bool), np.array([1, 1, 0, 0, 1, 1, 1, 0, 1], bool), np.zeros(4, bool))
CAMERA = "observation.images.front"
MODEL = {"model": "vpt", "hash": "abc", "settings": {"window": 16}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRODICT_CACHE", str(tmp_path / "cache"))


def film(number: int, length: int) -> np.ndarray:
    return np.stack([np.full((32, 32, 3), 60 * number + 12 * t, np.uint8) for t in range(length)])


def recordings() -> Recordings:
    """The first episode carries actions, the others do not."""
    made = []
    for i, length in enumerate(LENGTHS):
        values: dict[str, np.ndarray] = {
            CAMERA: film(i, length),
            "observation.state": np.arange(length * 2, dtype=np.float32).reshape(length, 2) + 100 * i,
            "sample.weight": np.full(length, 0.5, np.float32),
            "event.text": np.array([f"{i}.{t}" for t in range(length)], object),
        }
        if i == 0:
            values["action"] = np.ones((length, 1), np.float32)
        made.append(values)
    given = from_arrays(made, fps=FPS, actions=SPACE, tasks=["fetch"] * 3, meta={"robot_type": "doomguy"})
    return replace(given, features={n: replace(f, dtype="video") if f.is_visual else f for n, f in given.features.items()})


def labels_of(number: int) -> EpisodeLabels:
    length = LENGTHS[number]
    return EpisodeLabels(
        action=np.full((length, 1), number + 1.0),
        confidence=np.linspace(0, 1, length),
        source=np.full(length, RECORDED if number == 0 else INFERRED),
        weight=KEPT[number].astype(float),
    )


def labels(rest: Recordings) -> Iterator[EpisodeLabels]:
    return (labels_of(episode.index) for episode in rest)


@pytest.fixture
def source(tmp_path: Path) -> Recordings:
    return lerobot.read(recordings().save(tmp_path / "source"))


def inodes(folder: Path) -> set[int]:
    return {path.stat().st_ino for path in (folder / "videos").rglob("*.mp4")}


@pytest.mark.parametrize("emit", ["split", "weight", "all"])
def test_videos_are_linked_and_one_full_action_column_is_written(tmp_path: Path, source: Recordings, emit: str) -> None:
    folder = write_labelled(source, labels, tmp_path / "out", emit, run=MODEL)  # type: ignore[arg-type]

    assert inodes(folder) == inodes(tmp_path / "source")
    declared = json.loads((folder / "meta/info.json").read_text())["features"]
    assert [name for name in declared if name.startswith("action")] == ["action"]
    assert declared["action"]["names"] == ["move"]
    assert not (folder / "partial").exists()
    for path in (folder / "data").rglob("*.parquet"):
        for name, column in zip((table := pq.read_table(path)).column_names, table.columns, strict=True):
            assert column.null_count == 0, name
    found = lerobot.read(folder)
    assert found.meta["labelling"] == [{**MODEL, "emit": emit}]
    assert found.meta["robot_type"] == "doomguy"
    assert found.actions == SPACE


@pytest.mark.parametrize("emit", ["weight", "all"])
def test_all_rows_are_written(tmp_path: Path, source: Recordings, emit: str) -> None:
    found = lerobot.read(write_labelled(source, labels, tmp_path / "out", emit, run=MODEL))  # type: ignore[arg-type]

    assert [episode.length for episode in found] == list(LENGTHS)
    for number, episode in enumerate(found):
        np.testing.assert_array_equal(episode["action"], labels_of(number).action)
        np.testing.assert_allclose(episode[CONFIDENCE], labels_of(number).confidence, rtol=1e-6)
        np.testing.assert_array_equal(episode[SOURCE], labels_of(number).source)
        np.testing.assert_array_equal(episode[RUN], -1 if number == 0 else 0)
        np.testing.assert_array_equal(episode["observation.state"], source[number]["observation.state"])
        np.testing.assert_array_equal(episode[CAMERA], source[number][CAMERA])
        np.testing.assert_array_equal(episode[WEIGHT], 0.5 * KEPT[number] if emit == "weight" else np.full(LENGTHS[number], 0.5))


def test_split_makes_an_episode_of_each_run_of_kept_steps(tmp_path: Path, source: Recordings) -> None:
    found = lerobot.read(write_labelled(source, labels, tmp_path / "out", "split", run=MODEL))

    assert [episode.length for episode in found] == [6, 2, 3, 1]
    assert [(e[FROM_EPISODE][0], e[FROM_FRAME][0]) for e in found] == [(0, 0), (1, 0), (1, 4), (1, 8)]
    assert [(e.meta["origin/from_frame"], e.meta["origin/to_frame"]) for e in found] == [(0, 6), (0, 2), (4, 7), (8, 9)]
    for episode in found:
        origin, frames = int(episode[FROM_EPISODE][0]), episode[FROM_FRAME]
        assert episode.meta["origin/episode_index"] == origin
        np.testing.assert_array_equal(episode[CAMERA], source[origin][CAMERA][frames])
        np.testing.assert_array_equal(episode["event.text"], [f"{origin}.{t}" for t in frames])
        np.testing.assert_allclose(episode["timestamp"], np.arange(episode.length) / FPS, rtol=1e-6)
        assert episode.tasks == ("fetch",)


@given(st.lists(st.booleans(), max_size=30))
def test_runs_cover_the_kept_steps_and_nothing_else(kept: list[bool]) -> None:
    covered = np.zeros(len(kept), int)
    for start, stop in runs_of(np.array(kept, bool)):
        assert start < stop
        covered[start:stop] += 1
        assert start == 0 or not kept[start - 1]
        assert stop == len(kept) or not kept[stop]
    np.testing.assert_array_equal(covered, np.array(kept, int))


def test_recordings_that_are_no_dataset_are_written_once(tmp_path: Path) -> None:
    found = lerobot.read(write_labelled(recordings(), labels, tmp_path / "out", "split", run=MODEL))
    assert [episode.length for episode in found] == [6, 2, 3, 1]
    np.testing.assert_allclose(found[2][CAMERA].astype(int), film(1, 9)[4:7], atol=4)


def test_videos_of_old_versions_are_linked(tmp_path: Path) -> None:
    from test_lerobot_read import LENGTHS as lengths
    from test_lerobot_read import make_v2

    source = lerobot.read(make_v2(tmp_path / "source", actions=False))
    kept = [np.arange(length) != 2 for length in lengths]

    def some(rest: Recordings) -> Iterator[EpisodeLabels]:
        for episode in rest:
            where = kept[episode.index].astype(float)
            yield EpisodeLabels(np.zeros((episode.length, 1)), where, np.full(episode.length, INFERRED), where)

    folder = write_labelled(source, some, tmp_path / "out", run=MODEL, actions=SPACE)
    found = lerobot.read(folder)
    assert inodes(folder) == inodes(tmp_path / "source")
    assert [episode.length for episode in found] == [2, 3, 2, 8, 2, 1]
    for episode in found:
        origin = int(episode[FROM_EPISODE][0])
        for camera in ("observation.images.front", "observation.images.wrist"):
            np.testing.assert_array_equal(episode[camera], source[origin][camera][episode[FROM_FRAME]])


def test_a_second_run_keeps_the_first_and_the_first_origin(tmp_path: Path, source: Recordings) -> None:
    once = lerobot.read(write_labelled(source, labels, tmp_path / "once", "split", run=MODEL))

    def again(rest: Recordings) -> Iterator[EpisodeLabels]:
        for episode in rest:
            sources = np.where(np.arange(episode.length) == 0, INFERRED, episode[SOURCE])
            yield EpisodeLabels(episode["action"], np.ones(episode.length), sources)

    twice = lerobot.read(write_labelled(once, again, tmp_path / "twice", "split", run={"model": "second"}))
    assert [run["model"] for run in twice.meta["labelling"]] == ["vpt", "second"]
    assert twice[2][RUN].tolist() == [0, 0, 0], "what the first run said is still its own"
    assert twice[0][RUN].tolist() == [1, -1, -1, -1, -1, -1]
    assert [(e[FROM_EPISODE][0], e[FROM_FRAME][0]) for e in twice] == [(0, 0), (1, 0), (1, 4), (1, 8)]
    assert twice[2].meta["origin/from_frame"] == 4


def test_stopped_labelling_carries_on_without_asking_again(tmp_path: Path, source: Recordings) -> None:
    asked: list[int] = []

    def stopping(rest: Recordings) -> Iterator[EpisodeLabels]:
        for episode in rest:
            asked.append(episode.index)
            if len(asked) == 3:
                raise KeyboardInterrupt
            yield labels_of(episode.index)

    with pytest.raises(KeyboardInterrupt):
        write_labelled(source, stopping, tmp_path / "out", run=MODEL)
    assert not (tmp_path / "out").exists()
    write_labelled(source, stopping, tmp_path / "out", run=MODEL)
    assert asked == [0, 1, 2, 2]
    assert [episode.length for episode in lerobot.read(tmp_path / "out")] == [6, 2, 3, 1]


def test_labels_that_do_not_fit_are_refused(tmp_path: Path, source: Recordings) -> None:
    good = labels_of(0)
    bad = {
        "shape": replace(good, action=np.zeros((6, 2))),
        "NaN": replace(good, action=np.full((6, 1), np.nan)),
        "confidence": replace(good, confidence=np.full(6, 1.5)),
        "weight": replace(good, weight=np.full(6, np.nan)),
        "source": replace(good, source=np.full(6, 7)),
    }
    for told, given_labels in bad.items():
        with pytest.raises(DataError, match=told), LabelWriter(source, tmp_path / "out", run=MODEL) as writer:
            writer.add(given_labels)
    with pytest.raises(DataError, match="2 of 3 episodes"), LabelWriter(source, tmp_path / "out", run=MODEL) as writer:
        writer.add(good)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="action space"):
        LabelWriter(replace(source, actions=None), tmp_path / "out", run=MODEL)


def test_when_all_labels_are_withheld_nothing_is_written(tmp_path: Path, source: Recordings) -> None:
    def none(rest: Recordings) -> Iterator[EpisodeLabels]:
        return (replace(labels_of(episode.index), weight=np.zeros(episode.length)) for episode in rest)

    with pytest.raises(DataError, match="no episodes"):
        write_labelled(source, none, tmp_path / "out", run=MODEL)
    assert not (tmp_path / "out").exists()
