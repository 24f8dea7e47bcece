from __future__ import annotations

import numpy as np
import pytest

import retrodict
from retrodict.errors import DataError
from retrodict.trajectories.stores import lerobot
from retrodict.worlds import record
from retrodict.worlds.minigrid import ACTIONS
from retrodict.worlds.recording import Studio

WORLD = "minigrid/BabyAI-GoToLocal-v0"


def test_an_episode_is_a_function_of_the_seed_and_its_number():
    pytest.importorskip("minigrid")
    one, other = (Studio(WORLD, {}, "expert", 7, 0.3, None) for _ in range(2))
    other.play(3)
    first, again, different = one.play(1), other.play(1), one.play(2)
    assert first.meta == again.meta != different.meta
    assert all(np.array_equal(first.values[name], again.values[name]) for name in first.values)
    cut = Studio(WORLD, {}, "random", 7, 0.3, 2).play(1)
    assert cut.values["next.truncated"].tolist() == [False, True]
    assert cut.values["next.done"].tolist() == [False, True]


def test_a_recording_that_was_interrupted_becomes_what_it_would_have_been(tmp_path, monkeypatch):
    pytest.importorskip("minigrid")
    how = {"noise": 0.3, "workers": 0, "progress": False}
    whole = retrodict.open(record(WORLD, tmp_path / "whole", 5, **how))

    add, calls = lerobot.Writer.add, []

    def stop_at_third(self, *args, **kwargs):
        calls.append(self.done)
        if len(calls) == 3:
            raise KeyboardInterrupt
        add(self, *args, **kwargs)

    monkeypatch.setattr(lerobot.Writer, "add", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        record(WORLD, tmp_path / "cut", 5, **how)
    assert not (tmp_path / "cut").exists()
    resumed = retrodict.open(record(WORLD, tmp_path / "cut", 5, **how))
    assert calls == [0, 1, 2, 2, 3, 4]

    assert len(whole) == len(resumed) == 5
    assert whole.actions == resumed.actions == ACTIONS
    for left, right in zip(whole, resumed, strict=True):
        assert left.tasks == right.tasks
        assert left.meta["seed"] == right.meta["seed"]
        assert all(np.array_equal(left[name], right[name]) for name in whole.features)
        assert left["next.done"].ravel().tolist() == [False] * (left.length - 1) + [True]


@pytest.mark.slow
def test_workers_play_what_one_process_plays(tmp_path):
    pytest.importorskip("minigrid")
    here = retrodict.open(record(WORLD, tmp_path / "here", 3, workers=0, progress=False))
    there = retrodict.open(record(WORLD, tmp_path / "there", 3, workers=2, keep_privileged=False, progress=False))
    assert {name for name in here.features if name not in there.features} == {"privileged.position", "privileged.changed"}
    for left, right in zip(here, there, strict=True):
        assert all(np.array_equal(left[name], right[name]) for name in there.features)


def test_episodes_that_are_given_up_are_left_out_aloud(tmp_path):
    pytest.importorskip("minigrid")
    with pytest.warns(UserWarning, match=r"episode \d is left out: the bot made 10000 plans"):
        path = record("minigrid/BabyAI-UnlockToUnlock-v0", tmp_path / "out", 4, noise=0, workers=0, progress=False)
    assert 0 < len(retrodict.open(path)) < 4


def test_nothing_is_begun_for_a_recording_that_makes_no_sense(tmp_path):
    for wrong in ({"episodes": 0}, {"episodes": 1, "workers": -1}, {"episodes": 1, "noise": 2}, {"episodes": 1, "player": "me"}):
        with pytest.raises(DataError):
            record(WORLD, tmp_path / "out", **wrong)
    assert not list(tmp_path.iterdir())


def test_a_world_that_does_not_exist_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="did you mean"):
        record("minigrid/BabyAI-GoToLoca-v0", tmp_path / "out", 1, workers=0)
    assert not list(tmp_path.iterdir())
