"""Selecting, splitting and joining recordings; what an action means."""

import dataclasses
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodict.errors import DataError
from retrodict.trajectories import ActionSpace, Box, Discrete, MuLaw, MultiBinary, from_arrays, from_samples, stores
from retrodict.trajectories.stores import lerobot

LENGTHS = (5, 3, 7, 4)


@pytest.fixture
def recordings():
    rng = np.random.default_rng(0)
    episodes = [{"observation.state": rng.normal(size=(n, 2)), "privileged.x": np.arange(n)} for n in LENGTHS]
    for episode in episodes[:2]:
        episode["action"] = np.zeros((len(episode["observation.state"]), 1), np.float32)
    return from_arrays(episodes, fps=10, domains=["a", "a", "b", "c"], tasks=["t"] * 4, source="here")


def test_a_feature_that_an_episode_lacks_is_absent(recordings):
    assert [("action" in episode) for episode in recordings] == [True, True, False, False]
    assert len(recordings.having("action")) == 2
    assert "action" not in recordings.lacking("action").features
    with pytest.raises(DataError, match=r"episode 2 of here has no feature 'action'"):
        recordings[2]["action"]


def test_identity_survives_selection(recordings):
    known = [e.identity for e in recordings]
    assert len(set(known)) == 4
    assert [e.identity for e in recordings.select([3, 1]).without("action")] == [known[3], known[1]]
    assert [e.index for e in recordings[1:]] == [1, 2, 3]
    assert [e.index for e in recordings.select(domain="a")] == [0, 1]


@given(fraction=st.floats(0.05, 0.95), seed=st.integers(0, 99), by=st.sampled_from(["episode", "domain"]))
def test_a_split_shares_no_episode_and_loses_none(fraction, seed, by):
    episodes = [{"observation.state": np.zeros((2, 1))} for _ in range(9)]
    whole = from_arrays(episodes, domains=list("aabbbcddd"))
    first, second = whole.split(fraction, seed, by=by)
    apart = {e.index for e in first}, {e.index for e in second}
    assert apart[0] | apart[1] == set(range(9))
    assert not apart[0] & apart[1]
    assert apart[0]
    assert apart[1]
    if by == "domain":
        assert not set(first.domains) & set(second.domains)


def test_hidden_truth_can_be_taken_away(recordings):
    visible = recordings.visible()
    assert "privileged.x" not in visible.features
    assert all("privileged.x" not in episode for episode in visible)
    assert "privileged.x" in recordings[0]


def test_joining_refuses_another_shape(recordings):
    other = from_arrays([{"observation.state": np.zeros((2, 3))}])
    with pytest.raises(DataError, match=r"observation\.state"):
        recordings + other
    assert len(recordings + recordings[:1]) == 5


def test_joining_keeps_whose_labels_are_whose():
    def labelled(run: dict, k: int):
        made = from_arrays([{"action": np.zeros((3, 1), np.float32), "label.action.run": np.array([[-1], [0], [0]])}])
        return dataclasses.replace(made, meta={"labelling": [run]}, structures={f"camera {k}": k})

    first, second = labelled({"model": "vpt"}, 1), labelled({"model": "uwm"}, 2)
    joined = first + second
    assert [run["model"] for run in joined.meta["labelling"]] == ["vpt", "uwm"]
    assert [episode["label.action.run"].ravel().tolist() for episode in joined] == [[-1, 0, 0], [-1, 1, 1]]
    assert joined.structures == {"camera 1": 1, "camera 2": 2}
    again = first + first
    assert (len(again.meta["labelling"]), again[1]["label.action.run"].max()) == (1, 0)
    with pytest.raises(DataError, match="camera 1"):
        first + dataclasses.replace(second, structures={"camera 1": 7})


def test_another_spelling_of_a_path_is_the_same_episode(tmp_path, monkeypatch):
    np.save(tmp_path / "series.npy", np.zeros((2, 9, 3), np.float32))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.npy").symlink_to("series.npy")
    known = [e.identity for e in stores.open("series.npy")]
    assert len(set(known)) == 2
    for spelling in (tmp_path / "series.npy", f"../{tmp_path.name}/series.npy", "link.npy"):
        assert [e.identity for e in stores.open(spelling)] == known


def test_a_saved_copy_is_the_same_episode(tmp_path, monkeypatch):
    np.save(tmp_path / "series.npy", np.zeros((3, 9, 3), np.float32))
    monkeypatch.chdir(tmp_path)
    first = stores.open("series.npy")
    first.select([2, 1]).save("copy")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # what a copy remembers must not depend on where one stands
    lerobot.read("../copy").save("again")
    assert [e.identity for e in lerobot.read("again")] == [first[i].identity for i in (2, 1)]
    assert lerobot.read("again")[0].meta["origin/source"] == str((tmp_path / "series.npy").resolve())


def test_a_dataset_that_the_file_system_copied_or_moved_holds_the_same_episodes(tmp_path):
    rng = np.random.default_rng(0)

    def dataset(name):
        walks = [np.cumsum(rng.normal(size=(30, 3)), 0).astype(np.float32) for _ in range(3)]
        return from_arrays([{"observation.state": w, "action": w} for w in walks], fps=10).save(tmp_path / name)

    here, other = dataset("here"), dataset("other")
    # As others write them, and older versions of this library did: nothing in the files says where they come from.
    foreign = [convert_to_foreign(folder) for folder in (here, other)]
    known, others = ([e.identity for e in lerobot.read(folder)] for folder in foreign)
    assert not set(known) & set(others)
    shutil.copytree(foreign[0], tmp_path / "copied")
    assert [e.identity for e in lerobot.read(tmp_path / "copied")] == known
    assert [e.identity for e in lerobot.read(tmp_path / "copied").without("action")] == known
    foreign[0].rename(tmp_path / "moved")
    moved = lerobot.read(tmp_path / "moved")
    assert [e.identity for e in moved] == known
    moved.save(tmp_path / "saved")
    assert [e.identity for e in lerobot.read(tmp_path / "saved")] == known


def convert_to_foreign(folder):
    """The dataset without what this library adds to the metadata of its episodes."""
    for path in (folder / "meta/episodes").rglob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.drop_columns([name for name in table.column_names if name.startswith("origin/")]), path)
    return folder


def test_columns_are_added_per_episode(recordings):
    weighted = recordings.with_column("sample.weight", [np.ones(n, np.float32) if n > 3 else None for n in LENGTHS])
    assert [("sample.weight" in e) for e in weighted] == [True, False, True, True]
    with pytest.raises(DataError, match="has 2 steps, expected 5"):
        recordings.with_column("sample.weight", [np.ones(2)] * 4)


def test_rows_of_all_episodes_end_to_end_are_shared_out(recordings):
    rows = np.arange(sum(LENGTHS), dtype=np.float32)[:, None]
    numbered = recordings.with_rows("place", rows)
    assert [len(e["place"]) for e in numbered] == list(LENGTHS)
    np.testing.assert_array_equal(np.concatenate([e["place"] for e in numbered]), rows)
    with pytest.raises(DataError, match=f"1 rows given for {sum(LENGTHS)} steps"):
        recordings.with_rows("place", rows[:1])


def test_unequal_lengths_and_emptiness_are_refused():
    with pytest.raises(DataError, match="at least one"):
        from_arrays([])
    with pytest.raises(DataError, match="episode 1: features need one common length"):
        from_arrays([{"a": np.zeros(2)}, {"a": np.zeros(2), "b": np.zeros(3)}])
    with pytest.raises(DataError, match="'a' is .* a step in episode 0 and .* a step in episode 1; bring all"):
        from_arrays([{"a": np.zeros(2)}, {"a": np.zeros((2, 2))}])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tasks": ["a"]}, "tasks is a list with one text per episode, got 1 for 2 episodes"),
        ({"tasks": ["a", "b", "c"]}, "got 3 for 2 episodes"),
        ({"tasks": "ab"}, r"got the text 'ab'; give \['ab'\] \* 2"),
        ({"tasks": ["a", 2]}, "that of episode 1 is 2"),
        ({"domains": ["a"]}, "domains is a list with one text per episode, got 1"),
        *(
            ({"fps": fps}, f"fps is the number of steps per second, above 0.*got {fps!r}")
            for fps in (0, -1.5, np.nan, "10", True)
        ),
    ],
)
def test_texts_and_rates_that_make_no_sense_are_refused(given, said):
    with pytest.raises(DataError, match=said):
        from_arrays([{"observation.state": np.zeros((3, 1))}] * 2, **given)
    assert from_arrays([{"observation.state": np.zeros((3, 1))}], tasks=["a"], fps=np.float32(10)).fps == 10


@pytest.mark.parametrize("episodes", [{"observation.state": np.zeros((3, 1))}, [np.zeros((3, 1))], "x"])
def test_episodes_are_a_list_of_mappings(episodes):
    with pytest.raises(DataError, match="a list with a mapping of feature name"):
        from_arrays(episodes)
    with pytest.raises(DataError, match="one common length above 0"):
        from_arrays([{"observation.state": 3.0}])


def test_samples_have_no_time():
    samples = from_samples(observation__state=np.zeros((4, 2)), label__class=np.arange(4))
    assert samples.independent
    assert set(samples.features) == {"observation.state", "label.class"}


MOUSE = ActionSpace(
    {
        "keys": MultiBinary(("forward", "left")),
        "mouse": Box(("turn",), -10, 10, "degree", MuLaw(10)),
        "slot": Discrete(("sword", "axe", "none")),
    },
    mode="delta",
    frame="camera",
    leads=True,
    null=(0, 0, 0, 2),
)


@given(st.lists(st.booleans(), min_size=2, max_size=2), st.floats(-10, 10, width=32), st.integers(0, 2))
def test_an_action_survives_the_flat_encoding(keys, turn, slot):
    parts = {"keys": np.array(keys, int), "mouse": np.array([turn], np.float32), "slot": np.int64(slot)}
    back = MOUSE.decode(MOUSE.encode(parts))
    assert all(np.array_equal(back[name], parts[name]) for name in parts)
    assert MOUSE.gymnasium().contains({**back, "keys": back["keys"].astype(np.int8)})


def test_an_action_lies_outside_its_range_by_more_than_rounding():
    parts = {
        "arm": Box(("x", "y"), -2.0, 2.0),
        "lift": Box(("z",), 0.0),
        "mouse": Box(("turn",), -10, 10, quantiser=MuLaw(10)),
        "free": Box(("f",)),
        "keys": MultiBinary(("k",)),
    }
    space = ActionSpace(parts)
    inside = np.array([-2.0001, 2.0001, 1e9, 99, -1e9, 1], np.float32)
    assert not space.beyond(inside).any()
    assert space.beyond(np.array([[-2.001, 2.001, -0.1, 0, 0, 0], [0, 0, 0, 0, 0, 0]])).tolist() == [
        [True] * 3 + [False] * 3,
        [False] * 6,
    ]
    with pytest.raises(DataError, match="6 numbers, got 2"):
        space.beyond(np.zeros((3, 2)))


def test_an_action_space_survives_json():
    import json

    assert ActionSpace.from_json(json.loads(json.dumps(MOUSE.to_json()))) == MOUSE
    assert MOUSE.names == ("forward", "left", "turn", "slot")


@given(st.sampled_from([3, 11, 21, 101]), st.floats(0.5, 100), st.floats(0.1, 255))
def test_every_mu_law_bin_round_trips(bins, limit, mu):
    quantiser = MuLaw(limit, bins, mu)
    index = np.arange(bins)
    assert np.array_equal(quantiser.encode(quantiser.decode(index)), index)
    assert quantiser.encode(np.array(0.0)) == bins // 2


def test_independent_samples_are_split_by_row():
    samples = from_samples(observation__state=np.arange(40, dtype=np.float32).reshape(20, 2), label__class=np.arange(20))
    learn, held = samples.split(0.25, seed=3)
    assert (learn.steps, held.steps) == (15, 5)
    assert learn.independent
    assert held.independent
    rows = np.concatenate([learn[0]["label.class"], held[0]["label.class"]])
    assert sorted(rows.tolist()) == list(range(20))
    np.testing.assert_array_equal(held[0]["observation.state"][:, 0], 2 * held[0]["label.class"])


def test_a_volume_of_bytes_is_not_taken_for_camera_frames():
    assert from_samples(observation__grid=np.zeros((4, 5, 5, 7), np.uint8)).features["observation.grid"].dtype == "uint8"


def test_stretches_without_gaps_are_episodes_that_know_where_they_come_from():
    there = np.array([True, True, False, True, True, True])
    episode = {"observation.state": np.arange(6.0)[:, None], "timestamp": np.arange(6) / 10, "valid.observation.state": there}
    whole = from_arrays(
        [{**episode, "action": np.zeros((6, 1))}, {"observation.state": np.ones((3, 1)), "action": np.zeros((3, 1))}]
    )
    final = dataclasses.replace(whole[0], meta={"final": {"observation.state": [6.0]}})
    pieces = whole.of([final, whole[1]]).unbroken("observation.state")
    assert [piece["observation.state"].ravel().tolist() for piece in pieces] == [[0, 1], [3, 4, 5], [1, 1, 1]]
    assert pieces[1]["timestamp"].tolist() == pytest.approx([0, 0.1, 0.2])
    assert {piece.identity for piece in pieces} == {episode.identity for episode in whole}
    assert (pieces[1].meta["origin/from_frame"], pieces[1].meta["origin/to_frame"]) == (3, 6)
    assert ["final" in piece.meta for piece in pieces] == [False, True, False], "it was seen after the last step only"
    assert "valid.observation.state" not in pieces.features
    nothing = whole[:1].with_column("valid.observation.state", [np.zeros(6, bool)])
    with pytest.raises(DataError, match="missing at every one of 6 steps"):
        nothing.unbroken("observation.state")


def test_actions_of_several_widths_are_no_one_action(tmp_path):
    values = [{"observation.state": np.zeros((4, n)), "action": np.zeros((4, n))} for n in (3, 3, 2)]
    said = r"'action' is float64 of shape \(3,\) a step in episode 0 and float64 of shape \(2,\) a step in episode 2"
    with pytest.raises(DataError, match=said):
        from_arrays(values)


@given(kept=st.lists(st.booleans(), min_size=1, max_size=12), again=st.integers(0, 3))
def test_a_piece_of_a_piece_names_the_frames_of_the_whole(kept, again):
    values = np.arange(float(len(kept)))[:, None]
    whole = from_arrays([{"observation.state": values, "valid.observation.state": np.array(kept)}])
    if not any(kept):
        return
    for piece in whole.unbroken("observation.state"):
        part = piece.part(min(again, piece.length - 1), piece.length)
        first = part.meta.get("origin/from_frame", 0)
        assert part["observation.state"].ravel().tolist() == list(range(first, first + part.length))
