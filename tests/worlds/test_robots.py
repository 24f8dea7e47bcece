"""The worlds of bodies and robots: dm_control and Meta-World."""

from __future__ import annotations

import numpy as np
import pytest

import retrodict
from retrodict.errors import DataError
from retrodict.worlds import RandomPlayer, make, play, record, rollout
from retrodict.worlds.policies import RandomPolicy
from retrodict.worlds.remote import Local, Remote

POINT, DOOR = "dm-control/point_mass-easy", "metaworld/door-open"


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def point():
    pytest.importorskip("dm_control")
    world = make(POINT, size=(32, 32), others=1)
    yield world
    world.close()


@pytest.fixture(scope="module")
def door():
    pytest.importorskip("metaworld")
    world = make(DOOR, size=(32, 32), repeat=2, hand=0.05)
    yield world
    world.close()


@pytest.mark.parametrize("name", ["point", "door"])
def test_an_episode_is_a_function_of_its_seed_whatever_was_played_before(name, request):
    world = request.getfixturevalue(name)
    first = play(world, world.expert(1, 0.3), seed=5, max_steps=12)
    other = play(world, RandomPlayer(world.actions, 1), seed=6, max_steps=12)
    again = play(world, world.expert(1, 0.3), seed=5, max_steps=12)
    assert same(first.values, again.values)
    assert first.meta == again.meta != other.meta
    assert not same(first.values, other.values)


def test_the_point_mass_reaches_its_hidden_goal(point):
    solved = [play(point, point.expert(0), seed=s).meta["success"] for s in range(8)]
    assert np.mean(solved) >= 0.85
    played = play(point, point.expert(0), seed=3).values
    assert np.ptp(played["privileged.goal"], 0).max() == 0
    assert np.linalg.norm(played["privileged.position"][-1] - played["privileged.goal"][-1]) < 0.05
    assert np.ptp(played["privileged.others"], 0).max() > 0.05  # the other goes its own way


def test_a_goal_may_be_given_and_shown():
    pytest.importorskip("dm_control")
    hidden, shown = (make(POINT, size=(32, 32), goal=(0.2, -0.1), target=target) for target in (False, True))
    one, other = hidden.reset(seed=0), shown.reset(seed=0)
    np.testing.assert_allclose(one[1]["privileged"]["privileged.goal"], [0.2, -0.1])
    apart = np.abs(one[0]["observation.images.fixed"].astype(int) - other[0]["observation.images.fixed"]).sum(-1)
    down, across = np.argwhere(apart > 60).mean(0)
    assert across > 16 < down  # to the right and below the middle, where y is up
    hidden.close(), shown.close()
    with pytest.raises(DataError, match="within 0.29"):
        make(POINT, goal=(0.4, 0.0))


def test_the_reacher_touches_its_target():
    pytest.importorskip("dm_control")
    world = make("dm-control/reacher-easy", camera=None, privileged=False)
    assert world.features["observation.state"].shape == (6,)
    solved = [play(world, world.expert(s), seed=s, max_steps=150).meta["success"] for s in range(6)]
    assert np.mean(solved) == 1
    world.close()


def test_every_task_of_the_suite_can_be_played_and_its_body_changed():
    pytest.importorskip("dm_control")
    plain, heavy = (make("dm-control/cartpole-swingup", camera=None, scale=scale) for scale in (None, {"body_mass": 5.0}))
    one, other = (play(world, RandomPlayer(world.actions, 0), 0, 30).values["observation.state"] for world in (plain, heavy))
    np.testing.assert_array_equal(one[0], other[0])
    assert np.abs(one[-1] - other[-1]).max() > 1e-3
    with pytest.raises(DataError, match="no scripted player"):
        plain.expert()
    with pytest.raises(DataError, match="no array 'weight'"):
        make("dm-control/cartpole-swingup", camera=None, scale={"weight": 2.0})
    with pytest.raises(DataError, match="did you mean dm-control/cartpole-swingup"):
        make("dm-control/cartpol-swingup")


def test_a_door_is_opened_and_what_is_felt_is_not_what_is_hidden(door):
    played = play(door, door.expert(0, 0.1), seed=1)
    assert played.meta["success"]
    assert played.values["next.terminated"].ravel().tolist() == [False] * (len(played.values["action"]) - 1) + [True]
    np.testing.assert_array_equal(played.values["observation.state"][:, :3], played.values["privileged.hand"])
    assert np.ptp(played.values["privileged.object"], 0).max() > 0.1  # the handle moved
    assert played.values["observation.images.corner2"].shape[1:] == (32, 32, 3)


def test_noise_spares_the_gripper_and_the_hand_starts_elsewhere_each_time(door):
    calm, shaken = (play(door, door.expert(0, noise), 2, 15).values for noise in (0.0, 0.5))
    assert not np.array_equal(calm["action"][:, :3], shaken["action"][:, :3])
    assert np.isin(shaken["action"][:, 3], calm["action"][:, 3]).all()
    starts = np.stack([door.reset(seed=s)[0]["observation.state"][:3] for s in range(4)])
    assert 0.01 < np.ptp(starts, 0).max() < 0.12


def test_numbers_alone_and_another_camera_with_depth():
    pytest.importorskip("metaworld")
    numbers = make("metaworld/push", cameras=())
    assert numbers.reset(seed=0)[0]["observation.state"].shape == (39,)
    assert play(numbers, numbers.expert(0), 0).meta["success"]
    numbers.close()
    deep = make("metaworld/push", cameras=("corner",), size=(24, 24), depth=True, wobble=0.05)
    one, other = deep.reset(seed=0)[0], deep.reset(seed=1)[0]
    assert one["observation.depth.corner"].shape == (24, 24)
    assert 0.3 < one["observation.depth.corner"].min() < one["observation.depth.corner"].max() <= 10
    far = (one["observation.depth.corner"] < 5) & (other["observation.depth.corner"] < 5)
    assert np.abs(one["observation.depth.corner"] - other["observation.depth.corner"])[far].mean() > 0.005  # it stands elsewhere
    deep.close()
    with pytest.raises(DataError, match="did you mean metaworld/door-open"):
        make("metaworld/dor-open")


@pytest.mark.slow
def test_what_a_worker_plays_is_bit_for_bit_what_this_process_plays():
    pytest.importorskip("dm_control")
    played = []
    for place in (Local, Remote, Remote):
        studio = place("retrodict.worlds.recording:Studio", POINT, {"size": (32, 32), "steps": 6}, "expert", 0, 0.2, None)
        for episode in range(2):
            studio.ask("play", episode)
        played.append([studio.answer().values for _ in range(2)])
        studio.close()
    for others in played[1:]:
        for one, other in zip(played[0], others, strict=True):
            assert one.keys() == other.keys()
            assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_recording_and_evaluation_go_through_files_and_workers(tmp_path):
    pytest.importorskip("dm_control")
    how = {"noise": 0.2, "progress": False, "size": (32, 32), "steps": 6}
    here = retrodict.open(record(POINT, tmp_path / "here", 3, workers=0, **how))
    apart = retrodict.open(record(POINT, tmp_path / "apart", 3, workers=2, **how))
    for one, other in zip(here, apart, strict=True):
        for name, feature in here.features.items():
            if feature.is_visual:  # what is drawn is equal (above); its lossy video, once in many runs, is not quite
                assert np.abs(one[name].astype(float) - other[name]).mean() < 1, name
            else:
                assert np.array_equal(one[name], other[name]), name
    assert "privileged.position" in here.features
    assert here.fps == 5
    policy = RandomPolicy(here.actions)
    played = rollout(policy, POINT, [1, 2, 3], size=(32, 32), steps=6, goal=(0.1, 0.1))
    assert played.lengths.tolist() == [6, 6, 6]
    assert played.measure("distance").min() > 0
