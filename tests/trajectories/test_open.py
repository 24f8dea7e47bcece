"""The door to all stores."""

import json

import h5py
import numpy as np
import pytest

import retrodict
from retrodict.errors import DataError
from retrodict.trajectories import from_arrays
from retrodict.trajectories.stores import minari
from retrodict.trajectories.stores import open as open_recordings
from retrodict.trajectories.video import encode


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("RETRODICT_CACHE", str(tmp_path_factory.mktemp("cache")))


def a_csv(path):
    (path / "log.csv").write_text("t,x,action_u\n0,1,0.5\n0.1,2,0.25\n")
    return path / "log.csv"


def a_folder_of_tables(path):
    a_csv(path)
    return path


def an_array(path):
    np.save(path / "a.npy", np.zeros((4, 2)))
    return path / "a.npy"


def a_d4rl_file(path):
    with h5py.File(path / "a.hdf5", "w") as file:
        file["observations"], file["actions"] = np.zeros((4, 2), np.float32), np.zeros((4, 2), np.float32)
        file["terminals"] = np.array([0, 1, 0, 1], bool)
    return path / "a.hdf5"


def a_folder_of_videos(path):
    encode((np.zeros((32, 32, 3), np.uint8) for _ in range(4)), path / "a.mp4", 10)
    (path / "notes.md").write_text("a note")
    return path


def a_minari_dataset(path):
    return minari.write(
        from_arrays([{"observation.state": np.zeros((3, 2)), "action": np.zeros((3, 1), np.float32)}]), path / "a-v0"
    )


def a_lerobot_dataset(path):
    return from_arrays([{"observation.state": np.zeros((3, 2), np.float32)}], fps=10).save(path / "dataset")


KINDS = {
    "tables": (a_csv, a_folder_of_tables),
    "arrays": (an_array,),
    "hdf5": (a_d4rl_file,),
    "videos": (a_folder_of_videos,),
    "minari": (a_minari_dataset,),
    "lerobot": (a_lerobot_dataset,),
}


@pytest.mark.parametrize(("kind", "make"), [(kind, make) for kind, makes in KINDS.items() for make in makes])
def test_every_kind_is_known_and_says_where_it_comes_from(tmp_path, kind, make):
    path = make(tmp_path)
    for given in (path, str(path)):
        recordings = retrodict.open(given)
        assert recordings.meta["origin"]["format"] == kind
        assert recordings.meta["origin"]["path"] == str(path)
        assert isinstance(recordings.meta["guessed"], list)
        assert recordings.steps > 0
        assert all(episode.source for episode in recordings)
        json.dumps(recordings.meta["origin"])
    with pytest.raises(DataError, match="no option 'colour'"):
        open_recordings(path, colour="red")


def test_a_folder_that_is_not_read_says_what_stands_in_the_way(tmp_path):
    logs, arrays = tmp_path / "logs", tmp_path / "arrays"
    logs.mkdir()
    arrays.mkdir()
    a_csv(logs)
    (logs / "notes.txt").write_text("a note")
    assert open_recordings(logs).steps == 2
    (logs / "setup.json").write_text("{}")
    (logs / "raw").mkdir()
    with pytest.raises(
        DataError, match=r"logs holds tables \(log.csv\) and beside them raw/, setup.json; they are read together"
    ):
        open_recordings(logs)
    an_array(arrays)
    with pytest.raises(DataError, match=r"arrays holds a.npy, and such files are not read together; name one of them"):
        open_recordings(arrays)


def test_what_is_not_known_is_described(tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist"):
        open_recordings(tmp_path / "nowhere")
    with pytest.raises(
        DataError, match=r"\(an empty folder\); can be opened: a LeRobot.*; a Minari dataset folder; .*time series"
    ):
        open_recordings(tmp_path)
    (tmp_path / "notes.doc").write_text("hello")
    with pytest.raises(DataError, match=r"a file of 5 bytes that ends in \.doc"):
        open_recordings(tmp_path / "notes.doc")
    (tmp_path / "folder").mkdir()
    for i in range(12):
        (tmp_path / f"{i:02}.doc").write_text("x")
    with pytest.raises(DataError, match=r"a folder with 00.doc, 01.doc, .* and 6 more"):
        open_recordings(tmp_path)
