from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from toy_worlds import ACTIONS, Corridor

from retrodict.errors import DataError
from retrodict.roles import Policy
from retrodict.worlds import NullPolicy, RandomPolicy, Vector, rollout, success


class Counting(Policy):
    """Pushes by a tenth of the steps since its last reset: wrong as soon as a reset is missed or given to the wrong world."""

    def __init__(self) -> None:
        self.seen: torch.Tensor | None = None

    def act(self, observation):
        state = observation["observation.state"]
        assert state.shape == (len(state), 1)
        assert observation["observation.images.eye"].shape == (len(state), 3, 4, 6)
        assert observation["observation.images.eye"].dtype == torch.uint8
        if self.seen is None:
            self.seen = torch.zeros(len(state))
        self.seen = self.seen + 1
        return self.seen[:, None] / 10

    def reset(self, mask=None):
        self.seen = None if mask is None else torch.where(mask, 0.0, self.seen)


def vector(n: int, length: int = 5, threads: int | None = None) -> Vector:
    return Vector([lambda: Corridor(length)] * n, threads)


@pytest.mark.parametrize("places", [1, 2, 3, 7])
def test_every_seed_is_the_same_episode_however_many_are_played_at_once(places):
    with vector(places) as worlds:
        played = rollout(Counting(), worlds, [3, 0, 1, 10, 2])
    assert list(played.seeds) == [3, 0, 1, 10, 2]
    assert list(played.lengths) == [5, 5, 5, 1, 5]
    np.testing.assert_allclose(played.returns, [1.5, 1.5, 1.5, 0.1, 1.5], rtol=1e-6)
    np.testing.assert_allclose(played.measure("way"), played.returns, rtol=1e-5)
    assert [episode.terminated for episode in played] == [False, False, False, True, False]
    assert list(success(played)) == [False, False, False, True, False]
    assert list(success(played, lambda episode: episode.length == 5)) == [True, True, True, False, True]


def test_episodes_are_cut_off_and_filmed():
    with vector(2) as worlds:
        played = rollout(Counting(), worlds, [4, 5, 6], max_steps=2, record_frames=2)
    assert list(played.lengths) == [2, 2, 2]
    assert played[0].frames is not None
    assert played[0].frames.shape == (2, 4, 6, 3)
    assert played[1].frames is not None
    assert played[2].frames is None
    assert played[1].frames[0, 0, 0].tolist() == [0, 5, 5]
    assert played[1].frames[1, 0, 0].tolist() == [1, 5, 5]
    assert len(played[1:]) == 2


def test_the_policy_is_told_what_is_to_be_done_in_each_world():
    class Hearing(NullPolicy):
        def act(self, observation):
            heard.append(observation["task"])
            return super().act(observation)

    for told, expected in ((None, ["go", "go"]), ("stay", ["stay", "stay"])):
        heard: list[list[str]] = []
        with vector(2) as worlds:
            rollout(Hearing(ACTIONS), worlds, [1, 2], task=told)
        assert heard == [expected] * 5


def test_a_standing_world_is_played_and_left_open():
    world = Corridor()
    assert list(rollout(NullPolicy(ACTIONS), world, [1, 2]).returns) == [0, 0]
    assert not world.closed


def test_a_world_by_name_is_made_and_closed(monkeypatch):
    made = []

    def make(id, **options):
        made.append((Corridor(options["length"]), id, options))
        return made[-1][0]

    monkeypatch.setattr(sys.modules["retrodict.worlds.rollouts"], "make", make)
    played = rollout(RandomPolicy(ACTIONS), "toys/corridor", [1, 2, 3], parallel=2, length=4)
    assert list(played.lengths) == [4, 4, 4]
    assert [(id, options) for _, id, options in made] == [("toys/corridor", {"privileged": False, "length": 4})] * 2
    assert all(world.closed for world, _, _ in made)


def test_the_last_observation_of_an_episode_is_given_and_the_ended_world_waits():
    with vector(2, length=2) as worlds:
        worlds.reset([0, 10])
        step = worlds.step(torch.tensor([[0.5], [0.5]]))
        assert step.terminated.tolist() == [False, True]
        assert step.observation["observation.state"].tolist() == [[0.5], [10.5]]
        step = worlds.step(torch.tensor([[0.5], [0.5]]))
        assert step.truncated.tolist() == [True, False]
        assert step.terminated.tolist() == [False, True]
        assert step.reward.tolist() == [[0.5], [0.0]]
        assert worlds.reset([7], [1])["observation.state"].tolist() == [[1.0], [7.0]]


def test_an_error_in_one_world_reaches_the_caller_and_all_are_closed():
    worlds = vector(3, threads=2)
    inner = list(worlds._worlds.values())
    worlds.reset([0, 1, 2])
    with worlds, pytest.raises(DataError, match="toys/corridor takes 1 finite numbers"):
        worlds.step(torch.tensor([[0.0], [float("nan")], [0.0]]))
    assert all(world.closed for world in inner)


def test_worlds_that_cannot_be_played_side_by_side():
    class Other(Corridor):
        def __init__(self) -> None:
            super().__init__()
            self.features = {}

    with pytest.raises(DataError, match="same features"):
        Vector([Corridor, Other])
    with pytest.raises(DataError, match="at least one"):
        Vector([])


def test_questions_that_make_no_sense():
    with vector(1) as worlds:
        with pytest.raises(DataError, match="no seeds"):
            rollout(NullPolicy(ACTIONS), worlds, [])
        with pytest.raises(DataError, match="1 worlds are played, 2 actions"):
            worlds.step(torch.zeros(2, 1))
        played = rollout(NullPolicy(ACTIONS), worlds, [1])
        with pytest.raises(DataError, match="no measure 'joy'; it has way"):
            played.measure("joy")
        with pytest.raises(DataError, match="options are for worlds given by name"):
            rollout(NullPolicy(ACTIONS), worlds, [1], length=3)
