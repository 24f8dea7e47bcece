"""What an action means, said where recordings are opened."""

import gymnasium
import h5py
import numpy as np
import pytest

from retrodict.errors import DataError
from retrodict.trajectories import ActionSpace, Box, Discrete, from_arrays
from retrodict.trajectories.stores import convert, minari
from retrodict.trajectories.stores import open as open_recordings
from retrodict.trajectories.stores.stating import stated_space


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("RETRODICT_CACHE", str(tmp_path_factory.mktemp("cache")))


ACTIONS = np.linspace(-0.9, 0.9, 16, dtype=np.float32).reshape(8, 2)
STATES = np.arange(16, dtype=np.float32).reshape(8, 2)


def d4rl(folder, actions=ACTIONS):
    with h5py.File(folder / "a.hdf5", "w") as file:
        file["observations"], file["actions"] = STATES, actions
        file["terminals"] = np.array([0, 0, 0, 1] * 2, bool)
        file["timeouts"] = np.zeros(8, bool)
    return folder / "a.hdf5"


def robomimic(folder):
    with h5py.File(folder / "a.hdf5", "w") as file:
        for i in range(2):
            group = file.create_group(f"data/demo_{i}")
            group["actions"], group["obs/x"] = ACTIONS[4 * i : 4 * i + 4], STATES[4 * i : 4 * i + 4]
    return folder / "a.hdf5"


def npz(folder):
    np.savez(folder / "a.npz", action=ACTIONS, state=STATES, episode=np.repeat([0, 1], 4))
    return folder / "a.npz"


def csv(folder):
    rows = [f"{e},{x},{y},{u},{v}" for e, (x, y), (u, v) in zip(np.repeat([0, 1], 4), STATES, ACTIONS, strict=True)]
    (folder / "a.csv").write_text("episode,x,y,action_u,action_v\n" + "\n".join(rows) + "\n")
    return folder / "a.csv"


def episodes():
    return from_arrays([{"observation.state": STATES[i : i + 4], "action": ACTIONS[i : i + 4]} for i in (0, 4)], fps=5)


def lerobot(folder):
    return episodes().save(folder / "dataset")


def a_minari_dataset(folder):
    return minari.write(episodes(), folder / "a-v0")


@pytest.mark.parametrize("make", [d4rl, robomimic, npz, csv, lerobot, a_minari_dataset])
def test_every_store_takes_what_an_action_means_and_holds_the_data_against_it(tmp_path, make):
    path = make(tmp_path)
    unsaid = open_recordings(path).actions
    assert all(part.span is None for part in unsaid.parts.values())
    wide = gymnasium.spaces.Box(np.array([-1, -2], np.float32), np.array([1, 2], np.float32))
    for given, ranges in (((-1, 1), [(-1, 1)] * 2), ((-1, 1, -2, 2), [(-1, 1), (-2, 2)]), (wide, [(-1, 1), (-2, 2)])):
        stated = open_recordings(path, actions=given)
        assert [(p.low, p.high) for p in stated.actions.parts.values() for _ in p.names] == ranges
        assert (stated.actions.names, stated.actions.leads) == (unsaid.names, unsaid.leads)
        assert not [sentence for sentence in stated.meta["guessed"] if "range" in sentence]
    with pytest.raises(
        DataError, match=r"episode 1 of .*: at step 2 .* of the action is 0.66, outside its range from -1.0 to 0.6, as is stated"
    ):
        open_recordings(path, actions=(-1, 0.6))
    with pytest.raises(DataError, match="the stated actions have 3 numbers .* those recorded have 2"):
        open_recordings(path, actions=ActionSpace({"arm": Box(("x", "y", "z"), -1, 1)}))
    with pytest.raises(DataError, match="for all 2 numbers of an action or for each in turn; got 3 numbers"):
        open_recordings(path, actions=(-1, 1, 2))


def test_nothing_is_stated_of_actions_that_are_not_there(tmp_path):
    np.savez(tmp_path / "a.npz", state=STATES)
    with pytest.raises(DataError, match="no episode of .*a.npz carries actions"):
        open_recordings(tmp_path / "a.npz", actions=(-1, 1))


def test_a_stated_range_goes_along_into_a_converted_dataset(tmp_path):
    convert(d4rl(tmp_path), tmp_path / "out", actions=(-1, 1))
    assert open_recordings(tmp_path / "out").actions == ActionSpace({"action": Box(("action_0", "action_1"), -1, 1)}, leads=True)


def test_whole_numbers_are_what_they_are_stated_to_be(tmp_path):
    path = d4rl(tmp_path, np.arange(8) % 4)
    assert open_recordings(path).actions.parts["action"].n == 4
    assert open_recordings(path, actions=gymnasium.spaces.Discrete(6)).actions.parts["action_0"].n == 6
    assert open_recordings(path, actions=(0, 3)).actions.parts["action"] == Box(("action_0",), 0, 3)
    with pytest.raises(DataError, match=r"at step 3 .action_0. of the action is 3, outside the whole numbers from 0 to 2"):
        open_recordings(path, actions=gymnasium.spaces.Discrete(3))


def test_texts_are_counted_as_the_stated_choices(tmp_path):
    (tmp_path / "a.csv").write_text("x,action\n1,left\n2,right\n3,left\n")
    space = ActionSpace({"turn": Discrete(("stay", "right", "left"))})
    recordings = open_recordings(tmp_path / "a.csv", actions=space)
    assert (recordings.actions, recordings[0]["action"].ravel().tolist()) == (space, [2, 1, 2])
    with pytest.raises(DataError, match="holds 'left', which is none of the stated choices up, down"):
        open_recordings(tmp_path / "a.csv", actions=ActionSpace({"turn": Discrete(("up", "down"))}))
    with pytest.raises(DataError, match=r"are texts \(left, right\), and a box is stated"):
        open_recordings(tmp_path / "a.csv", actions=gymnasium.spaces.Box(-1, 1, (1,)))


def test_a_space_of_several_parts_is_taken_in_its_own_order():
    both = gymnasium.spaces.Dict({"b": gymnasium.spaces.Discrete(3), "a": gymnasium.spaces.Box(0, 1, (2,))})
    space = stated_space(both, ActionSpace({"action": Box(("p", "q", "r"))}))
    assert space.parts == {"a": Box(("a_0", "a_1"), 0, 1), "b": Discrete(("0", "1", "2"))}
    with pytest.raises(DataError, match="is a discrete, which has no range"):
        stated_space((0, 1), space)
    with pytest.raises(DataError, match="is no space of actions here"):
        stated_space(gymnasium.spaces.Sequence(gymnasium.spaces.Discrete(2)), space)
