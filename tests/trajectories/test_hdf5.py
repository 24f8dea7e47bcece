"""HDF5 files as D4RL and robomimic write them."""

import json
import multiprocessing
import os

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.errors import DataError
from retrodict.trajectories import ActionSpace, Box, Discrete, Window
from retrodict.trajectories.columns import ArrayColumn
from retrodict.trajectories.stores import hdf5_columns
from retrodict.trajectories.stores import open as open_recordings
from retrodict.trajectories.stores.hdf5_columns import HDF5Column, Place, column_of


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETRODICT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


# ---- D4RL -----------------------------------------------------------------------------------------------------------------


def d4rl(path, lengths=(4, 1, 6), *, packed=False, drop=(), cut_off=False, **replaced):
    """Write episodes of these lengths, the odd ones ended by a timeout; gives the arrays."""
    rng = np.random.default_rng(0)
    total, ends = sum(lengths), np.cumsum(lengths) - 1
    states = [rng.standard_normal((n + 1, 3)).astype(np.float32) for n in lengths]
    terminals, timeouts = np.zeros(total, bool), np.zeros(total, bool)
    terminals[ends[::2]], timeouts[ends[1::2]] = True, True
    if cut_off:
        terminals[-1] = timeouts[-1] = False
    arrays = {
        "observations": np.concatenate([s[:-1] for s in states]),
        "next_observations": np.concatenate([s[1:] for s in states]),
        "actions": rng.uniform(-1, 1, (total, 2)).astype(np.float32),
        "rewards": rng.standard_normal(total).astype(np.float32),
        "terminals": terminals,
        "timeouts": timeouts,
        "infos/qpos": rng.standard_normal((total, 5)),
        **replaced,
    }
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            if name not in drop:
                file.create_dataset(name, data=array, **({"compression": "gzip", "chunks": True} if packed else {}))
        file["metadata/algorithm"] = b"SAC"
        file["metadata/policy/weight"] = np.zeros((3, 3))
    return arrays


SAME = {
    "observation.state": "observations",
    "action": "actions",
    "next.reward": "rewards",
    "next.terminated": "terminals",
    "next.truncated": "timeouts",
    "privileged.qpos": "infos/qpos",
}


@pytest.mark.parametrize("packed", [True, False])
def test_d4rl_is_cut_into_episodes(tmp_path, packed):
    path = tmp_path / "hopper.hdf5"
    arrays = d4rl(path, packed=packed)
    recordings = open_recordings(path, fps=125)
    assert ([len(episode) for episode in recordings], recordings.fps) == ([4, 1, 6], 125)
    for episode, start in zip(recordings, (0, 4, 5), strict=True):
        rows = slice(start, start + len(episode))
        for feature, name in SAME.items():
            np.testing.assert_array_equal(episode[feature], arrays[name][rows])
        assert episode["next.done"].tolist() == [False] * (len(episode) - 1) + [True]
        np.testing.assert_array_equal(
            np.float32(episode.meta["final"]["observation.state"]), arrays["next_observations"][rows][-1]
        )
    assert recordings.actions == ActionSpace({"action": Box(("action_0", "action_1"))}, leads=True)
    assert recordings.meta["d4rl"]["algorithm"] == "SAC"
    assert "policy/weight (3, 3)" in " ".join(recordings.meta["guessed"])
    column = recordings[0].slices["observation.state"].column
    assert isinstance(column, HDF5Column if packed else ArrayColumn)
    assert "privileged.qpos" not in open_recordings(path, infos=False).features
    batch = next(iter(recordings.windows(Window(before=1, after=2, features=("observation.state", "action")), batch=5)))
    assert batch["action"].shape == (5, 4, 2)


def test_endings_that_are_not_said_are_found_or_admitted(tmp_path):
    path = tmp_path / "a.hdf5"
    d4rl(path, drop=("timeouts",))
    found = open_recordings(path)
    assert [len(episode) for episode in found] == [4, 1, 6]
    assert "also end where the next observation" in found.meta["guessed"][1]
    d4rl(path, drop=("timeouts", "next_observations"))
    admitted = open_recordings(path)
    assert [len(episode) for episode in admitted] == [4, 7]
    assert "some may be several in one" in " ".join(admitted.meta["guessed"])
    d4rl(path, cut_off=True)
    assert "cut off by the end of the file" in " ".join(open_recordings(path).meta["guessed"])


def test_next_observations_that_say_more_are_kept(tmp_path):
    path = tmp_path / "a.hdf5"
    arrays = d4rl(path, next_observations=np.random.default_rng(1).standard_normal((11, 3)).astype(np.float32))
    recordings = open_recordings(path)
    np.testing.assert_array_equal(recordings[0]["next.observation.state"], arrays["next_observations"][:4])
    assert "final" not in recordings[0].meta


def test_choices_and_frames(tmp_path):
    path = tmp_path / "a.h5"
    frames = np.random.default_rng(0).integers(0, 255, (11, 3, 40, 36), dtype=np.uint8)
    d4rl(path, observations=frames, actions=np.arange(11) % 4, drop=("next_observations",), packed=True)
    recordings = open_recordings(path)
    assert recordings.actions == ActionSpace({"action": Discrete(("0", "1", "2", "3"))}, leads=True)
    assert recordings[1]["action"].tolist() == [[0.0]]
    np.testing.assert_array_equal(recordings[2]["observation.images.main"], np.moveaxis(frames[5:], 1, -1))
    window = Window(features=("observation.images.main",), image_size=(20, 18))
    assert next(iter(recordings.windows(window, batch=3)))["observation.images.main"].shape == (3, 1, 3, 20, 18)
    assert recordings.features["observation.images.main"].shape == (40, 36, 3)


# ---- robomimic ------------------------------------------------------------------------------------------------------------


def robomimic(path, lengths=(5, 3, 4)):
    rng = np.random.default_rng(0)
    demos = {}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
        for i, n in zip((0, 2, 10), lengths, strict=True):
            obs = {
                "robot0_eef_pos": rng.standard_normal((n + 1, 3)),
                "agentview_image": rng.integers(0, 255, (n + 1, 32, 32, 3), dtype=np.uint8),
            }
            demo = {
                "actions": rng.uniform(-1, 1, (n, 7)),
                "rewards": np.zeros(n),
                "dones": np.arange(n) == n - 1,
                "states": rng.standard_normal((n, 9)),
            }
            demos[f"demo_{i}"] = {"obs": obs, **demo}
            group = data.create_group(f"demo_{i}")
            for name, array in demo.items():
                group.create_dataset(name, data=array)
            for name, array in obs.items():
                group.create_dataset(f"obs/{name}", data=array[:-1], compression="gzip")
                group.create_dataset(f"next_obs/{name}", data=array[1:], compression="gzip")
        file["mask/train"] = np.array([b"demo_0", b"demo_10"])
    return demos


def test_robomimic(tmp_path):
    path = tmp_path / "lift.hdf5"
    demos = robomimic(path)
    recordings = open_recordings(path)
    assert [episode.index for episode in recordings] == [0, 2, 10]
    assert (recordings.fps, recordings.domains) == (20, ("Lift",))
    for episode in recordings:
        demo = demos[episode.meta["demo"]]
        np.testing.assert_array_equal(episode["observation.robot0_eef_pos"], demo["obs"]["robot0_eef_pos"][:-1])
        np.testing.assert_array_equal(episode["observation.images.agentview"], demo["obs"]["agentview_image"][:-1])
        np.testing.assert_array_equal(episode["action"], demo["actions"].astype(np.float32))
        np.testing.assert_array_equal(episode["next.done"], demo["dones"])
        np.testing.assert_array_equal(episode["privileged.states"], demo["states"])
        assert episode.meta["final"]["observation.robot0_eef_pos"] == demo["obs"]["robot0_eef_pos"][-1].tolist()
    assert [episode.meta["masks"] for episode in recordings] == [["train"], [], ["train"]]


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("rewards", np.zeros(9), "'rewards' has 9 rows and 'actions' 3"),
        ("actions", np.zeros((3, 6)), "6 numbers and 7 in demo_0"),
        (
            "obs/agentview_image",
            np.zeros((3, 48, 48, 3), np.uint8),
            "is image[48, 48, 3] and image[32, 32, 3] in earlier demonstrations",
        ),
        ("states", np.full((3, 9), np.nan), "'states' is NaN or infinite in row 0"),
    ],
)
def test_bad_demonstrations_are_named(tmp_path, name, array, said):
    path = tmp_path / "lift.hdf5"
    robomimic(path)
    with h5py.File(path, "a") as file:
        del file[f"data/demo_2/{name}"]
        file[f"data/demo_2/{name}"] = array
    with pytest.raises(DataError) as caught:
        open_recordings(path)
    assert said in str(caught.value)
    assert "lift.hdf5" in str(caught.value)


# ---- what is missing -------------------------------------------------------------------------------------------------------


def test_demonstrations_without_actions_are_episodes_without_them(tmp_path):
    path = tmp_path / "lift.hdf5"
    robomimic(path)
    with h5py.File(path, "a") as file:
        del file["data/demo_2/actions"], file["data/demo_2/rewards"], file["data/demo_10/actions"]
    recordings = open_recordings(path)
    assert [("action" in episode, len(episode)) for episode in recordings] == [(True, 5), (False, 3), (False, 4)]
    assert recordings.actions.width == 7
    assert "2 of 3 demonstrations have no actions (demo_2 is the first)" in " ".join(recordings.meta["guessed"])
    with h5py.File(path, "a") as file:
        del file["data/demo_0/actions"]
    bare = open_recordings(path)
    assert (bare.actions, "action" in bare.features, len(bare)) == (None, False, 3)


def test_a_file_without_actions_is_recordings_without_them(tmp_path):
    path = tmp_path / "a.hdf5"
    d4rl(path, drop=("actions",))
    recordings = open_recordings(path)
    assert ([len(episode) for episode in recordings], recordings.actions) == ([4, 1, 6], None)
    assert "action" not in recordings.features


@pytest.mark.parametrize("packed", [True, False])
def test_missing_actions_are_marked_where_they_are_said_to_be_missing(tmp_path, packed):
    path = tmp_path / "a.hdf5"
    actions = np.arange(22, dtype=np.float32).reshape(11, 2)
    actions[2], actions[4], actions[8, 1] = np.nan, np.nan, np.nan
    arrays = d4rl(path, packed=packed, actions=actions)
    with pytest.raises(DataError, match=r"'actions' is NaN or infinite in row 2 .*nan_is_missing=True, .* --nan-is-missing"):
        open_recordings(path)
    recordings = open_recordings(path, nan_is_missing=True)
    assert ["action" in episode for episode in recordings] == [True, False, True]  # the second has only the one
    assert recordings[0]["valid.action"].tolist() == [True, True, False, True]
    assert recordings[0]["action"][2].tolist() == actions[1].tolist()
    assert recordings[2]["valid.action"].tolist() == [True, True, True, False, True, True]
    assert recordings.features["valid.action"].dtype == "bool"
    np.testing.assert_array_equal(recordings[2]["observation.state"], arrays["observations"][5:])
    assert open_recordings(recordings.save(tmp_path / "out"))[0]["valid.action"].tolist() == [True, True, False, True]
    d4rl(tmp_path / "b.hdf5", packed=packed, actions=np.full((11, 2), np.inf))
    with pytest.raises(DataError, match="'actions' is NaN or infinite in row 0"):
        open_recordings(tmp_path / "b.hdf5", nan_is_missing=True)


def test_gaps_in_demonstrations_and_in_what_is_seen_are_marked(tmp_path):
    path = tmp_path / "lift.hdf5"
    demos = robomimic(path)
    with h5py.File(path, "a") as file:
        file["data/demo_0/actions"][1, 3] = np.nan
        file["data/demo_2/actions"][:] = np.nan
        file["data/demo_10/obs/robot0_eef_pos"][0] = np.nan
    recordings = open_recordings(path, nan_is_missing=True)
    assert ["action" in episode for episode in recordings] == [True, False, True]
    assert recordings[0]["valid.action"].tolist() == [True, False, True, True, True]
    assert recordings[2]["valid.observation.robot0_eef_pos"].tolist() == [False, True, True, True]
    assert "valid.action" not in recordings[2]
    np.testing.assert_array_equal(recordings[2]["action"], np.float32(demos["demo_10"]["actions"]))
    path = tmp_path / "other" / "lift.hdf5"
    path.parent.mkdir()
    robomimic(path)
    with h5py.File(path, "a") as file:
        file["data/demo_0/actions"][:, 3] = np.nan
    with pytest.raises(
        DataError, match=r"episode 0 of .*lift.hdf5: entry 3 is empty or NaN throughout an episode that has the rest"
    ):
        open_recordings(path, nan_is_missing=True)


def test_what_is_missing_in_both_continues_an_episode(tmp_path):
    path = tmp_path / "a.hdf5"
    arrays = d4rl(path, drop=("timeouts",))
    with h5py.File(path, "a") as file:
        file["observations"][2, 0] = file["next_observations"][1, 0] = np.nan
        file["next_observations"][3] = np.nan
    recordings = open_recordings(path, nan_is_missing=True)
    assert [len(episode) for episode in recordings] == [4, 1, 6]
    assert recordings[0]["valid.observation.state"].tolist() == [True, True, False, True]
    assert "final" not in recordings[0].meta
    assert recordings[1].meta["final"]["observation.state"] == arrays["next_observations"][4].tolist()


# ---- damage ---------------------------------------------------------------------------------------------------------------


def test_bad_files_are_named(tmp_path):
    def refused(path):
        with pytest.raises(DataError) as caught:
            open_recordings(path)
        assert path.name in str(caught.value)
        return str(caught.value)

    path = tmp_path / "a.hdf5"
    d4rl(path)
    os.truncate(path, path.stat().st_size // 2)
    assert "damaged, cut off or no HDF5 file" in refused(path)
    path.write_bytes(b"")
    assert "damaged, cut off or no HDF5 file" in refused(path)
    d4rl(path, rewards=np.zeros(9))
    assert "'rewards' has 9 rows and 'actions' 11" in refused(path)
    d4rl(path, actions=np.full((11, 2), np.nan))
    assert "'actions' is NaN or infinite in row 0 at entry 0" in refused(path)
    d4rl(path, drop=("observations",))
    assert "holds actions, infos, metadata, next_observations" in refused(path)
    d4rl(path, actions=np.arange(11) - 3)
    assert "whole numbers down to -3" in refused(path)


def test_damage_found_while_reading_is_named(tmp_path):
    path = tmp_path / "a.hdf5"
    frames = np.random.default_rng(0).integers(0, 255, (11, 40, 36, 3), dtype=np.uint8)
    d4rl(path, observations=frames, drop=("next_observations",), packed=True)
    with h5py.File(path) as file:
        chunk = file["observations"].id.get_chunk_info(0)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\0" * chunk.size)
    with pytest.raises(DataError, match=r"a.hdf5, 'observations': it is damaged"):
        open_recordings(path)[0]["observation.images.main"]


# ---- columns ----------------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(lengths=st.lists(st.integers(1, 8), min_size=1, max_size=6), packed=st.booleans(), data=st.data())
def test_random_ragged_episodes_come_back(tmp_path_factory, lengths, packed, data):
    path = tmp_path_factory.mktemp("h") / "a.hdf5"
    arrays = d4rl(path, tuple(lengths), packed=packed)
    recordings = open_recordings(path)
    assert [len(episode) for episode in recordings] == lengths
    starts = np.cumsum([0, *lengths])
    for episode, start in zip(recordings, starts, strict=False):
        steps = np.array(data.draw(st.lists(st.integers(0, len(episode) - 1), max_size=12)), int)
        np.testing.assert_array_equal(episode.read("observation.state", steps), arrays["observations"][start + steps])
        out = np.empty((len(steps), 2), np.float32)
        where = episode.slices["action"]
        assert where.column.take(steps + where.start, out=out) is out
        np.testing.assert_array_equal(out, arrays["actions"][start + steps])


def test_rows_of_several_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_columns, "BLOCK_BYTES", 24 * 7)
    values = np.arange(3000.0).reshape(1000, 3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(10, 3))
    with h5py.File(tmp_path / "a.h5") as file:
        column = column_of(file["x"])
    rows = np.array([900, 3, 900, 0, 511])
    np.testing.assert_array_equal(column.take(rows), values[rows])
    np.testing.assert_array_equal(column.take(rows, out=np.empty((5, 3))), values[rows])
    assert column.take(np.array([], int)).shape == (0, 3)
    with pytest.raises(DataError, match="rows 5 to 1000 were asked for, it has 1000"):
        column.take(np.array([5, 1000]))


def test_a_file_that_was_replaced_is_not_mixed_up_with_the_old_one(tmp_path):
    path, other = tmp_path / "a.hdf5", tmp_path / "b.hdf5"
    d4rl(path, packed=True)
    old = open_recordings(path)
    before = old[0]["observation.state"]
    arrays = d4rl(other, packed=True, observations=np.ones((11, 3), np.float32), drop=("next_observations",))
    os.utime(other, ns=(1, 1))
    other.replace(path)
    np.testing.assert_array_equal(open_recordings(path)[0]["observation.state"], arrays["observations"][:4])
    np.testing.assert_array_equal(old[0]["observation.state"], before)
    with pytest.raises(DataError, match="was changed since it was opened"):
        HDF5Column(Place(str(path), 2, "/actions"), 11, (2,), "<f4").take(np.arange(2))


def _child(column, queue):
    queue.put(column.take(np.arange(100)).sum())


def test_columns_are_read_in_forked_and_spawned_processes(tmp_path):
    values = np.random.default_rng(0).standard_normal((100, 3))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(7, 3), compression="gzip")
    with h5py.File(tmp_path / "a.h5") as file:
        column = column_of(file["x"])
    assert isinstance(column, HDF5Column)
    column.take(np.arange(100))  # the handle is open before the fork
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_child, args=(column, queue)) for _ in range(3)]
    for child in children:
        child.start()
    sums = [queue.get(timeout=20) for _ in children]
    for child in children:
        child.join()
    assert sums == [values.sum()] * 3
