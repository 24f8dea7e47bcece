from __future__ import annotations

import sys

import numpy as np
import pytest
from toy_worlds import ACTIONS

from retrodict.errors import DataError, MissingExtraError
from retrodict.trajectories import ActionSpace, Box, Discrete, MultiBinary
from retrodict.worlds import NullPolicy, RandomPlayer, Unplayable, ids, make, play
from retrodict.worlds.players import Noisy, sample
from retrodict.worlds.remote import Remote


def test_worlds_are_listed_without_their_packages_and_say_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    assert {"vizdoom/health-gathering", "minigrid/BabyAI-GoToLocal-v0"} <= set(ids())
    with pytest.raises(MissingExtraError, match=r'pip install "retrodict\[games\]"'):
        make("vizdoom/health-gathering")


@pytest.mark.parametrize("id", ["vizdom/health-gathering", "vizdoom/health-gatherin", "vizdoom", "health-gathering"])
def test_an_unknown_world_is_answered_with_the_known_ones(id):
    with pytest.raises(DataError, match=r"no world is called .* \(there are .*; did you mean vizdoom/health-gathering\?"):
        make(id)


def test_random_actions_fit_their_space():
    space = ActionSpace(
        {"keys": MultiBinary(("a", "b")), "way": Discrete(("x", "y", "z")), "mouse": Box(("dx",), -2, 3), "free": Box(("f",))}
    )
    drawn = sample(space, np.random.default_rng(0), 2000)
    assert drawn.shape == (2000, 5)
    assert drawn.dtype == np.float32
    assert set(drawn[:, 0]) == {0, 1}
    assert set(drawn[:, 2]) == {0, 1, 2}
    assert -2 <= drawn[:, 3].min() < -1.9
    assert 2.9 < drawn[:, 3].max() <= 3
    assert drawn[:, 4].min() < -2


def test_a_noisy_player_does_its_share_at_random_and_repeats_itself():
    class Still(RandomPlayer):
        def act(self, observation, info):
            return np.array([5.0], np.float32)

    player = Noisy(Still(ACTIONS), ACTIONS, noise=0.3, seed=4)
    first = [float(player.act({}, {})[0]) for _ in range(1000)]
    player.reset()
    assert first == [float(player.act({}, {})[0]) for _ in range(1000)]
    assert 0.25 < np.mean(np.array(first) != 5) < 0.35
    with pytest.raises(DataError, match="between 0 and 1"):
        Noisy(Still(ACTIONS), ACTIONS, noise=10, seed=0)


def test_a_space_without_a_null_action_has_no_null_policy():
    with pytest.raises(DataError, match="no null action"):
        NullPolicy(ActionSpace({"a": Box(("a",))}))


# ---- ViZDoom ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def doom():
    pytest.importorskip("vizdoom")
    world = make("vizdoom/health-gathering")
    yield world
    world.close()


def test_a_doom_episode_is_a_function_of_its_seed(doom):
    twin = make("vizdoom/health-gathering", privileged=False)
    first = play(doom, RandomPlayer(doom.actions, 1), seed=5, max_steps=60)
    other = play(doom, RandomPlayer(doom.actions, 1), seed=6, max_steps=60)
    again = play(doom, RandomPlayer(doom.actions, 1), seed=5, max_steps=60)
    elsewhere = play(twin, RandomPlayer(doom.actions, 1), seed=5, max_steps=60)
    twin.close()
    assert all(np.array_equal(first.values[name], again.values[name]) for name in first.values)
    assert all(np.array_equal(first.values[name], elsewhere.values[name]) for name in elsewhere.values)
    assert not any(name.startswith("privileged.") for name in elsewhere.values)
    screen = "observation.images.screen"
    assert not np.array_equal(first.values[screen], other.values[screen])


def test_the_action_leads_to_the_next_observation_and_turns_by_degrees_per_tic(doom):
    _, info = doom.reset(seed=3)
    for turn in (0.0, 5.0, -10.0, 30.0):
        before = info["privileged"]["privileged.position"][2]
        _, _, _, _, info = doom.step([0, 0, 0, turn])
        after = info["privileged"]["privileged.position"][2]
        assert (before - after + 180) % 360 - 180 == pytest.approx(4 * np.clip(turn, -10, 10), abs=0.1)


def test_what_a_player_sees_and_what_he_does_not(doom):
    observation, info = doom.reset(seed=0)
    assert doom.observation_space.contains(observation)
    assert observation["observation.images.screen"].std() > 5
    assert info["privileged"].keys() == doom.privileged.keys()
    kinds = info["privileged"]["privileged.objects"][:, 0]
    assert set(kinds) <= {0, 1, 2}
    assert (kinds > 0).any()
    assert doom.actions.leads
    assert doom.fps == 35 / 4


def test_rewards_and_ends():
    pytest.importorskip("vizdoom")
    world = make("vizdoom/health-gathering", reward="medikits", size=(48, 64), tics=900)
    played = play(world, world.expert(seed=1, noise=0.0), seed=1)
    assert played.values["observation.images.screen"].shape[1:] == (48, 64, 3)
    rose = np.diff(played.values["observation.state"][:, 0]) > 0
    assert np.array_equal(played.values["next.reward"][:-1] > 0, rose)
    assert rose.sum() >= 3
    assert played.meta["measures/medikits"] == played.values["next.reward"].sum()
    assert played.values["next.truncated"][-1]
    assert not played.values["next.terminated"].any()
    world.close()
    dying = make("vizdoom/health-gathering-hard")
    still = play(dying, RandomPlayer(ActionSpace({"none": Box(tuple("abcd"), 0, 0)})), seed=0)
    dying.close()
    assert still.values["next.terminated"][-1]
    assert not still.values["next.truncated"].any()
    assert still.meta["measures/tics"] == still.values["next.reward"].sum() < 600


def test_what_doom_refuses(doom):
    with pytest.raises(DataError, match=r"takes 4 finite numbers \(forward, left, right, turn\)"):
        doom.step([1, 0, 0])
    with pytest.raises(DataError, match="survival and medikits"):
        make("vizdoom/health-gathering", reward="frags")


# ---- MiniGrid ---------------------------------------------------------------------------------------------------------


def test_the_bot_solves_its_task_and_says_which_actions_had_an_effect(capsys):
    pytest.importorskip("minigrid")
    world = make("minigrid/BabyAI-GoToLocal-v0")
    for seed in range(5):
        played = play(world, world.expert(seed, noise=0.2), seed)
        assert played.meta["success"]
        assert played.values["next.terminated"][-1]
        frames = played.values["observation.images.screen"]
        assert frames.shape[1:] == (56, 56, 3)
        seen = (frames[1:] != frames[:-1]).any((1, 2, 3))
        assert np.array_equal(played.values["privileged.changed"][1:, 0], seen)
        assert played.task.startswith("go to")
    assert capsys.readouterr().out == ""
    whole = make("minigrid/BabyAI-GoToLocal-v0", view="full", privileged=False)
    assert whole.reset(seed=0)[0]["observation.images.screen"].shape == (64, 64, 3)


def test_a_bot_that_plans_in_circles_gives_up():
    pytest.importorskip("minigrid")
    world = make("minigrid/BabyAI-UnlockToUnlock-v0")
    outcomes = []
    for seed in range(3):
        try:
            outcomes.append(play(world, world.expert(seed), seed).meta["success"])
        except Unplayable as error:
            outcomes.append(str(error))
    assert any("found none that leads on" in str(outcome) for outcome in outcomes)
    with pytest.raises(DataError, match="no scripted player"):
        make("minigrid/MiniGrid-FourRooms-v0").expert()


# ---- other processes --------------------------------------------------------------------------------------------------


def test_an_object_in_another_process_answers_in_order_and_raises_as_here():
    with Remote("fractions:Fraction", 3, 4) as fraction:
        fraction.ask("limit_denominator", 2)
        fraction.ask("__truediv__", 0)
        fraction.ask("as_integer_ratio")
        assert fraction.answer() == 1
        with pytest.raises(ZeroDivisionError):
            fraction.answer()
        assert fraction.answer() == (3, 4)
