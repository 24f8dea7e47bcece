"""Time series in CSV, TSV, JSONL, Parquet and NumPy files."""

import os
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from retrodict.errors import DataError
from retrodict.trajectories import ActionSpace, Box, Discrete
from retrodict.trajectories.stores import open as open_recordings


def write(path, text):
    path.write_text(text)
    return path


def guesses(recordings):
    return " ".join(recordings.meta["guessed"])


# ---- what the columns are -----------------------------------------------------------------------------------------------


def test_a_csv_with_everything(tmp_path):
    path = write(
        tmp_path / "log.csv",
        "episode,time_ms,x,y,action_dx,action_dy,reward,done,task,note,still\n"
        "a,1000,0.5,1,0.1,0,0,false,push,hello,7\n"
        "a,1100,0.6,2,0.2,0,1,true,push,,7\n"
        "b,2000,0.7,3,0.3,1,0,false,pull,there,7\n"
        "b,2100,0.8,4,0.4,1,0,false,pull,there,7\n"
        "b,2200,0.9,5,0.5,1,5,true,pull,there,7\n",
    )
    recordings = open_recordings(path)
    a, b = recordings
    assert (recordings.fps, a.tasks, b.tasks, a.meta["episode"], b.meta["start"]) == (10.0, ("push",), ("pull",), "a", 2.0)
    assert recordings.features["observation.state"].names == ["x", "y", "still"]
    assert recordings.actions == ActionSpace({"action": Box(("action_dx", "action_dy"))})
    np.testing.assert_array_equal(b["observation.state"], [[0.7, 3, 7], [0.8, 4, 7], [0.9, 5, 7]])
    np.testing.assert_array_equal(a["action"], np.float32([[0.1, 0], [0.2, 0]]))
    np.testing.assert_allclose(b["timestamp"], [0, 0.1, 0.2])
    assert a["next.done"].tolist() == [False, True]
    assert b["next.reward"].tolist() == [0, 0, 5]
    assert a["note"].tolist() == ["hello", ""]
    for said in (
        "'time_ms' is taken for the clock, in units of 0.001 s",
        "'episode' is taken",
        "'still' is constant",
        "10 steps per second",
    ):
        assert said in guesses(recordings)


@pytest.mark.parametrize(
    ("name", "text", "state", "fps"),
    [
        ("a.tsv", "t\tx\n0\t1\n0.5\t2\n1\t3\n", [1, 2, 3], 2),
        ("a.csv", "t;x\n0;1\n0.5;2\n1;3\n", [1, 2, 3], 2),
        ("a.csv", "0.0,1\n0.5,2\n1.0,3\n", [1, 2, 3], 2),  # no header; the first column grows evenly
        ("a.csv", "0,1\n1,2\n2,3\n", [1, 2, 3], None),  # no header; the first column only counts
        ("a.csv", "step,x\n4,1\n5,2\n6,3\n", [1, 2, 3], None),
        ("a.csv", "date,x\n2024-01-01 00:00:00.000,1\n2024-01-01 00:00:00.040,2\n", [1, 2], 25),
        ("a.csv", "timestamp,x\n1700000000000,1\n1700000000500,2\n", [1, 2], 2),  # milliseconds since 1970, by their size
        ("a.csv", "\ufefftime (s),x\r\n0,1\r\n0.5,2\r\n", [1, 2], 2),
        ("a.jsonl", '{"t": 0, "x": 1}\n{"t": 0.5, "x": 2}\n', [1, 2], 2),
        ("a.csv", "time,wheel speed\n0,1\n0.5,2\n", [1, 2], 2),
        ("a.csv", "time (s);x\n0,0;1,5\n0,5;2,5\n", [1.5, 2.5], 2),  # decimal commas
        ("a.csv", "0,0;1,5\n0,5;2,5\n1,0;3\n", [1.5, 2.5, 3], 2),
        ("a.csv", "t x\n0 1\n0.5 2\n", [1, 2], 2),
        ("a.csv", "time,x\n0,1\n0.033,2\n0.067,3\n0.1,4\n", [1, 2, 3, 4], 30),
    ],
)
def test_clocks_and_dialects(tmp_path, name, text, state, fps):
    recordings = open_recordings(write(tmp_path / name, text))
    assert recordings[0]["observation.state"][:, 0].tolist() == state
    assert recordings.fps == fps
    assert ("timestamp" in recordings[0]) == (fps is not None)


def test_an_uneven_clock_is_kept_without_a_rate(tmp_path):
    recordings = open_recordings(write(tmp_path / "a.csv", "time,x\n0,1\n0.1,2\n0.7,3\n"))
    assert recordings.fps is None
    assert recordings[0]["timestamp"].tolist() == [0, 0.1, 0.7]
    assert "uneven" in guesses(recordings)


def test_what_is_said_is_not_guessed(tmp_path):
    path = write(tmp_path / "a.csv", "t,u,group\n5,1,0\n6,2,1\n5,3,0\n")
    recordings = open_recordings(path, time="none", episode="group", action_columns=["u"], fps=4)
    assert [len(episode) for episode in recordings] == [2, 1]
    assert (recordings.fps, recordings.features["observation.state"].names) == (4, ["t"])
    assert recordings[0]["action"][:, 0].tolist() == [1, 3]
    late = write(tmp_path / "b.csv", "stamp_ms,x\n0,1\n500,2\n1000,3\n")
    assert open_recordings(late, time="stamp_ms").fps == 2
    since = write(tmp_path / "c.csv", "when,x\n1700000000000,1\n1700000000500,2\n")
    assert open_recordings(since, time="when").fps == 2
    with pytest.raises(DataError, match="has no column 'v'; it has t, u, group"):
        open_recordings(path, action_columns=["v"])
    with pytest.raises(DataError, match="no option 'colour'; it has time, episode, action_columns, leave_out, actions, fps"):
        open_recordings(path, colour="red")


def test_actions_that_are_choices(tmp_path):
    texts = open_recordings(write(tmp_path / "a.csv", "x,action\n1,left\n2,right\n3,left\n"))
    assert texts.actions == ActionSpace({"action": Discrete(("left", "right"))})
    assert texts[0]["action"][:, 0].tolist() == [0, 1, 0]
    numbers = open_recordings(write(tmp_path / "b.csv", "x,action\n1,0\n2,2\n"))
    assert numbers.actions == ActionSpace({"action": Discrete(("0", "1", "2"))})
    assert "taken for choices" in guesses(numbers)


def test_an_empty_choice_is_a_gap_and_no_choice(tmp_path):
    path = write(tmp_path / "a.csv", "x,action\n1,left\n2,\n3,right\n")
    with pytest.raises(DataError, match=r"line 3: 'action' is empty"):
        open_recordings(path)
    recordings = open_recordings(path, nan_is_missing=True)
    assert recordings.actions == ActionSpace({"action": Discrete(("left", "right"))})
    assert recordings[0]["valid.action"].tolist() == [True, False, True]
    assert recordings[0]["action"][:, 0].tolist() == [0, 0, 1]


def test_an_episode_without_actions_lacks_them(tmp_path):
    recordings = open_recordings(write(tmp_path / "a.csv", "episode,x,action_u\n0,1,0.5\n0,2,0.6\n1,3,\n1,4,\n"))
    assert [("action" in episode) for episode in recordings] == [True, False]


def test_a_folder_of_tables_and_vectors_in_parquet(tmp_path):
    for i, n in enumerate((3, 5)):
        table = {"t": np.arange(n) / 50, "pose": [[i, j, 0.5] for j in range(n)], "action": [[0.1 * j, 0.0] for j in range(n)]}
        pyarrow.parquet.write_table(pa.table(table), tmp_path / f"run{i}.parquet")
    (tmp_path / "README.md").write_text("notes")
    recordings = open_recordings(tmp_path)
    assert [len(episode) for episode in recordings] == [3, 5]
    assert recordings.fps == 50
    assert recordings.features["observation.state"].names == ["pose_0", "pose_1", "pose_2"]
    assert recordings.actions.width == 2
    assert recordings[1].source.endswith("run1.parquet")
    pyarrow.parquet.write_table(pa.table({"t": [0.0], "pose": [[1, 2, 3]]}), tmp_path / "run2.parquet")
    with pytest.raises(
        DataError,
        match=r"run0.parquet and .*run2.parquet differ in column 'action' \(the first has numbers there, the second lacks",
    ):
        open_recordings(tmp_path)


def test_a_table_without_a_column_of_episodes_is_cut_where_they_end(tmp_path):
    path = write(tmp_path / "log.csv", "t,x,action,done\n0,1,.5,0\n1,2,.5,1\n0,3,.5,0\n1,4,.5,0\n2,5,.5,1\n0,6,.5,0\n")
    recordings = open_recordings(path)
    assert [episode["observation.state"][:, 0].tolist() for episode in recordings] == [[1, 2], [3, 4, 5], [6]]
    assert [episode["timestamp"].tolist() for episode in recordings] == [[0, 1], [0, 1, 2], [0]]
    assert [episode.meta["episode"] for episode in recordings] == [0, 1, 2]
    assert "next.done say where its 3 episodes end" in guesses(recordings)
    assert "cut off by the end of the file" in guesses(recordings)
    assert len(open_recordings(path, leave_out=("done",), time="none")) == 1


def test_a_column_that_is_no_flag_ends_no_episode(tmp_path):
    path = write(tmp_path / "log.csv", "t,x,timeout\n0,1,30\n1,2,30\n2,3,60\n")
    recordings = open_recordings(path)
    assert (len(recordings), recordings[0]["next.truncated"].tolist()) == (1, [30, 30, 60])
    assert "the file is one" in guesses(recordings)


def test_a_folder_of_tables_is_cut_where_each_says(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.csv", "x,terminated,truncated\n1,0,0\n2,0,1\n3,0,0\n4,1,0\n")
    recordings = open_recordings(tmp_path)
    assert [len(episode) for episode in recordings] == [2, 2, 2, 2]
    assert "2 files hold 4" in guesses(recordings)


# ---- gaps and damage ----------------------------------------------------------------------------------------------------


def test_gaps_are_refused_or_marked(tmp_path):
    path = write(tmp_path / "a.csv", "t,x,y\n0,1,5\n1,,6\n2,3,\n3,4,8\n")
    with pytest.raises(DataError, match=r"a.csv, line 3: 'x' is empty or NaN; mend it, or open with nan_is_missing=True"):
        open_recordings(path)
    episode = open_recordings(path, nan_is_missing=True)[0]
    assert episode["valid.observation.state"].tolist() == [True, False, False, True]
    np.testing.assert_array_equal(episode["observation.state"], [[1, 5], [1, 6], [3, 6], [4, 8]])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "", "cannot be read as CSV"),
        ("a.csv", "x,y\n", "has no rows"),
        ("a.csv", "x,y\n1,2\n3\n", "cannot be read as CSV: CSV parse error: Expected 2 columns, got 1"),
        ("a.csv", "x,x\n1,2\n", "has the column 'x' twice"),
        ("a.csv", "x\n" + "1\n" * 30 + "oops\n", "line 32: 'x' holds 'oops' where the other rows hold numbers"),
        ("a.csv", "t,x\n0,1\n2,2\n1,3\n", "line 4: the clock 't' runs backwards"),
        ("a.csv", "t,x\n0,1\n,2\n", "line 3: the clock 't' has no value"),
        ("a.csv", "x\n1\ninf\n", "line 3: 'x' is infinite"),
        ("a.csv", "episode,x\n1,1\n,2\n", "line 3: 'episode' is empty"),
        ("a.csv", "reward,rewards\n1,1\n", "'reward' and 'rewards' both mean 'next.reward'"),
        ("a.jsonl", '{"x": 1}\n{"x":', "cannot be read as JSONL"),
        ("a.jsonl", '{"x": [1, 2]}\n{"x": [1]}\n', "line 2: 'x' has 1 entries and 2 in the first row"),
        ("a.parquet", "PAR1 not really", "cannot be read as PARQUET"),
    ],
)
def test_bad_tables_are_named(tmp_path, name, text, said):
    with pytest.raises(DataError) as caught:
        open_recordings(write(tmp_path / name, text))
    assert said in str(caught.value)
    assert name in str(caught.value)


def test_a_truncated_parquet_file(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"x": np.arange(1000.0)}), path)
    os.truncate(path, path.stat().st_size - 20)
    with pytest.raises(DataError, match=r"a.parquet cannot be read"):
        open_recordings(path)


# ---- NumPy --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "episodes", "width"), [((7,), 1, 1), ((7, 3), 1, 3), ((4, 7, 3), 4, 3)])
def test_one_array(tmp_path, shape, episodes, width):
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    recordings = open_recordings(tmp_path / "a.npy", fps=100)
    assert (len(recordings), recordings.fps) == (episodes, 100)
    read = np.concatenate([episode["observation.state"] for episode in recordings])
    np.testing.assert_array_equal(read, values.reshape(-1, width))


def test_several_arrays_by_name(tmp_path):
    rng = np.random.default_rng(0)
    state, action = rng.standard_normal((6, 3)), rng.standard_normal((6, 2)).astype(np.float32)
    np.savez(tmp_path / "a.npz", state=state, action=action, force=state * 2, reward=np.arange(6.0), time=np.arange(6) / 20,
             episode=[0, 0, 0, 0, 1, 1])  # fmt: skip
    recordings = open_recordings(tmp_path / "a.npz")
    assert ([len(episode) for episode in recordings], recordings.fps, recordings.actions.width) == ([4, 2], 20, 2)
    np.testing.assert_array_equal(recordings[1]["observation.state"], state[4:])
    np.testing.assert_array_equal(recordings[1]["observation.force"], state[4:] * 2)
    np.testing.assert_array_equal(recordings[1]["action"], action[4:])
    assert recordings[1]["timestamp"].tolist() == [0, pytest.approx(0.05)]


def test_an_array_is_a_clock_only_if_its_whole_name_says_so_and_has_the_unit_it_says(tmp_path):
    np.savez(tmp_path / "a.npz", theta=np.arange(4.0), torque=np.arange(4.0), time_ms=np.arange(4) * 50)
    recordings = open_recordings(tmp_path / "a.npz")
    assert recordings.fps == 20
    assert {"observation.theta", "observation.torque"} <= set(recordings.features)
    assert "'time_ms' is taken for the clock, in units of 0.001 s" in guesses(recordings)


@pytest.mark.parametrize("drop", [(), ("timeouts",), ("timeouts", "next_observations"), ("actions", "infos/qpos")])
def test_arrays_of_d4rl_are_read_as_they_are_in_hdf5(tmp_path, drop):
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(12, 3)).astype(np.float32)
    arrays = {
        "observations": seen[:-1],
        "next_observations": seen[1:].copy(),
        "actions": rng.uniform(-1, 1, (11, 2)),
        "rewards": rng.normal(size=11),
        "terminals": np.arange(11) == 4,
        "timeouts": np.arange(11) == 7,
        "infos/qpos": rng.normal(size=(11, 5)),
    }
    arrays["next_observations"][[4, 7]] += 1
    arrays = {name: array for name, array in arrays.items() if name not in drop}
    np.savez(tmp_path / "a.npz", **arrays)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for name, array in arrays.items():
            file[name] = array
    here, there = open_recordings(tmp_path / "a.npz"), open_recordings(tmp_path / "a.hdf5")
    assert [len(episode) for episode in here] == [len(episode) for episode in there]
    assert (here.features, here.actions) == (there.features, there.actions)
    assert [s.replace("npz", "hdf5") for s in here.meta["guessed"]] == there.meta["guessed"]
    for mine, theirs in zip(here, there, strict=True):
        assert mine.meta == theirs.meta
        for name in here.features:
            np.testing.assert_array_equal(mine[name], theirs[name])


def test_arrays_by_other_names_end_where_they_say(tmp_path):
    np.savez(tmp_path / "a.npz", state=np.arange(6.0)[:, None], next_state=np.arange(6.0)[:, None] + 1, done=[0, 0, 1, 0, 1, 0])
    recordings = open_recordings(tmp_path / "a.npz")
    assert [len(episode) for episode in recordings] == [3, 2, 1]
    assert recordings[1]["next.observation.state"].ravel().tolist() == [4, 5]
    assert "the last episode is cut off by the end of the file" in guesses(recordings)
    assert "next.done say where its 3 episodes end" in guesses(recordings)


def test_arrays_of_several_episodes_each_are_several_episodes(tmp_path):
    state, action = np.arange(24.0).reshape(2, 4, 3), np.linspace(0, 1, 16).reshape(2, 4, 2)
    np.savez(tmp_path / "a.npz", state=state, action=action, reward=np.ones((2, 4)), t=np.arange(8).reshape(2, 4) / 10)
    recordings = open_recordings(tmp_path / "a.npz")
    assert ([len(episode) for episode in recordings], recordings.fps) == ([4, 4], 10)
    np.testing.assert_array_equal(recordings[1]["observation.state"], state[1])
    np.testing.assert_array_equal(recordings[1]["action"], np.float32(action[1]))
    assert recordings[1]["next.reward"].tolist() == [1, 1, 1, 1]
    assert "'action' (2, 4, 2) is read as (E, T, N), 2 episodes of 4 steps" in guesses(recordings)
    np.savez(tmp_path / "b.npz", state=state.reshape(8, 3), action=action)
    with pytest.raises(DataError, match=r"'action' \(2, 4, 2\) is \(E, T, N\), 2 episodes of 4 steps, and 'state' has the shape"):
        open_recordings(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", state=state, action=np.arange(2.0) / 2)
    assert open_recordings(tmp_path / "c.npz").features["observation.state"].shape == (4, 3)  # a matrix for each of two steps
    np.savez(tmp_path / "d.npz", x=state)
    with pytest.raises(DataError, match="arrays called state, action, reward, ... may also be"):
        open_recordings(tmp_path / "d.npz")


def test_what_is_left_out_is_not_read(tmp_path):
    (tmp_path / "a.csv").write_text("t,x,k,l,m,action\n0,1,2,3,,0.5\n0.1,2,2,3,4,0.25\n")
    with pytest.raises(DataError, match="'m' is empty"):
        open_recordings(tmp_path / "a.csv")
    recordings = open_recordings(tmp_path / "a.csv", leave_out=["m"])
    assert recordings.features["observation.state"].names == ["x", "k", "l"]
    assert [s for s in recordings.meta["guessed"] if "constant" in s] == ["'k', 'l' are constant and kept."]
    with pytest.raises(DataError, match="no column 'q' to leave out; it has t, x, k, l, m, action"):
        open_recordings(tmp_path / "a.csv", leave_out=["q"])
    np.savez(tmp_path / "a.npz", state=np.zeros((4, 2)), other=np.zeros(3))
    assert open_recordings(tmp_path / "a.npz", leave_out=("other",)).steps == 4
    with pytest.raises(DataError, match="no array 'q' to leave out; it has state, other"):
        open_recordings(tmp_path / "a.npz", leave_out=("q",))


def test_clips_by_name(tmp_path):
    clips = {"walk_1": np.ones((5, 4)), "walk_2": np.zeros((3, 4))}
    np.savez(tmp_path / "a.npz", parent=np.arange(4), offset=np.ones((4, 3)), **clips)
    recordings = open_recordings(tmp_path / "a.npz")
    assert [(len(e), e.meta["clip"]) for e in recordings] == [(5, "walk_1"), (3, "walk_2")]
    assert recordings.structures["parent"] == [0, 1, 2, 3]


def test_bad_arrays(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "empty.npy", np.zeros((0, 3)))
    np.save(tmp_path / "holes.npy", np.array([[0.0, 1.0], [2.0, np.nan]]))
    np.savez(tmp_path / "ragged.npz", state=np.zeros((4, 1)), action=np.zeros((5, 1)))
    np.save(tmp_path / "cut.npy", np.zeros((50, 3)))
    os.truncate(tmp_path / "cut.npy", 400)
    (tmp_path / "no.npz").write_bytes(b"PK\x03\x04 nothing")
    for name, said in {
        "objects.npy": "cannot be read as NPY",
        "empty.npy": "holds float64 of shape (0, 3)",
        "holes.npy": "'observation.state' of episode 0 is NaN or infinite in row 1 at entry 1",
        "ragged.npz": "one common length above 0",
        "cut.npy": "cannot be read as NPY",
        "no.npz": "cannot be read as NPZ",
    }.items():
        with pytest.raises(DataError) as caught:
            open_recordings(tmp_path / name)
        assert said in str(caught.value), name
        assert name in str(caught.value)
    marked = open_recordings(tmp_path / "holes.npy", nan_is_missing=True)[0]
    assert marked["valid.observation.state"].tolist() == [True, False]
    assert np.isfinite(marked["observation.state"]).all()


# ---- round trips of random ragged episodes --------------------------------------------------------------------------------

lengths = st.lists(st.integers(1, 9), min_size=1, max_size=5)
numbers = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=40)
@given(
    data=st.data(),
    lengths=lengths,
    widths=st.tuples(st.integers(1, 4), st.integers(0, 3)),
    kind=st.sampled_from(["csv", "tsv", "jsonl", "parquet"]),
)
def test_random_ragged_tables_come_back(tmp_path_factory, data, lengths, widths, kind):
    n, k = widths
    rows = sum(lengths)
    state = data.draw(npst.arrays(np.float64, (rows, n), elements=numbers))
    action = data.draw(npst.arrays(np.float32, (rows, k), elements=st.floats(-10, 10, width=16)))
    order = np.array(data.draw(st.permutations(range(rows))))  # rows of episodes may be mixed
    order = order if data.draw(st.booleans()) else np.arange(rows)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    table = {"episode": [f"e{i}" for i in episode[order]]}
    table |= {f"x{i}": state[order, i] for i in range(n)} | {f"action_{i}": action[order, i].astype(float) for i in range(k)}
    path = save(tmp_path_factory.mktemp("t") / f"a.{kind}", pa.table(table))
    recordings = open_recordings(path, time="none")
    seen = {e.meta["episode"]: e for e in recordings}
    assert len(seen) == len(lengths)
    for i in range(len(lengths)):
        mine = order[episode[order] == i]
        np.testing.assert_array_equal(seen[f"e{i}"]["observation.state"], state[mine])
        if k:
            np.testing.assert_array_equal(seen[f"e{i}"]["action"], action[mine])


def save(path: Path, table: pa.Table) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    elif path.suffix == ".jsonl":
        import json

        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        lines = [
            table.column_names,
            *([repr(v) if isinstance(v, float) else v for v in row.values()] for row in table.to_pylist()),
        ]
        path.write_text("".join(("\t" if path.suffix == ".tsv" else ",").join(line) + "\n" for line in lines))
    return path


# ---- real recordings ------------------------------------------------------------------------------------------------------


def test_real_recordings_open(published):
    assert open_recordings(published / "al-rnn" / "ECG.npy")[0]["observation.state"].shape == (10000, 5)
    assert open_recordings(published / "gtf" / "EEG_train.npy").features["observation.state"].shape == (64,)
    mocap = open_recordings(published / "cmu-mocap" / "test.npz", fps=60)
    assert {"walking_1", "running_1"} <= {episode.meta["clip"] for episode in mocap}
    assert len(mocap.structures["parent"]) == 38
    cloth = open_recordings(published / "ild" / "hang_cloth_expert.npz")
    assert (cloth[0]["action"].shape, cloth[0]["observation.state"].shape) == ((80, 8), (80, 1736))
