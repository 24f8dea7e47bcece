"""Gymnasium's worlds, who plays them, and the search that finds runners of every quality."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from retrodict.errors import DataError
from retrodict.trajectories.features import STATE
from retrodict.trajectories.stores import lerobot
from retrodict.worlds import RandomPolicy, ids, make, play, record, rollout
from retrodict.worlds.gymnasium_players import Linear
from retrodict.worlds.random_search import LinearPolicy, Snapshots, _merged, search

pytest.importorskip("mujoco")
pytest.importorskip("gymnasium_robotics")


SEARCH = """
import sys
from pathlib import Path
from retrodict.worlds.random_search import search
search("HalfCheetah-v5", Path(sys.argv[1]), steps=9_000, directions=2, top=1)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return search(
        "Swimmer-v5", tmp_path_factory.mktemp("search") / "swimmer.npz", steps=12_000, every=1, directions=2, top=1, trials=1
    )


# ---- worlds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "states", "motors"), [("HalfCheetah-v5", 17, 6), ("Hopper-v5", 11, 3), ("PointMaze_UMaze-v3", 6, 2)]
)
def test_a_world_is_the_environment_with_our_names(name, states, motors):
    assert f"gymnasium/{name}" in ids()
    world = make(f"gymnasium/{name}")
    observation, info = world.reset(seed=3)
    assert observation[STATE].shape == world.features[STATE].shape == (states,)
    assert world.actions.width == motors
    assert info["privileged"]["privileged.qpos"].dtype == np.float64
    again, _ = world.reset(seed=3)
    np.testing.assert_array_equal(again[STATE], observation[STATE])
    beyond, _, _, _, _ = world.step(np.full(motors, 7.0))
    world.reset(seed=3)
    most, _, _, _, _ = world.step(np.ones(motors))
    np.testing.assert_array_equal(beyond[STATE], most[STATE])
    world.close()


def test_a_fall_terminates_and_a_time_limit_truncates(found):
    hopper = make("gymnasium/Hopper-v5", privileged=False)
    falling = play(hopper, Linear(LinearPolicy(np.zeros((3, 11)), np.zeros(11), np.ones(11)), hopper.actions), seed=0)
    assert falling.values["next.terminated"][-1]
    assert not falling.values["next.truncated"].any()
    hopper.close()
    swimmer = make("gymnasium/Swimmer-v5", snapshots=found, privileged=False)
    swum = play(swimmer, swimmer.expert(), seed=0, max_steps=20)
    assert swum.values["next.truncated"][-1]
    assert not swum.values["next.terminated"].any()
    assert len(swum.meta["final"][STATE]) == 8
    swimmer.close()


def test_another_body_and_what_is_refused():
    light = make("gymnasium/Hopper-v5", privileged=False, healthy_reward=0.0)
    light.reset(seed=0)
    assert light.step(np.zeros(3))[1] < 0.5
    light.close()
    with pytest.raises(DataError, match=r"no world is called 'gymnasium/Hoper-v5'"):
        make("gymnasium/Hoper-v5")
    with pytest.raises(DataError, match="between 0 and 1"):
        make("gymnasium/Hopper-v5", quality=2.0)
    with pytest.raises(DataError, match="continuous actions"):
        make("gymnasium/CartPole-v1")
    pendulum = make("gymnasium/Pendulum-v1")
    with pytest.raises(DataError, match="has no player"):
        pendulum.expert()


def test_recorded_and_evaluated_by_name(tmp_path):
    record("gymnasium/PointMaze_UMaze-v3", tmp_path / "maze", 2, seed=1, noise=0.0, max_steps=30, workers=0, progress=False)
    recordings = lerobot.read(tmp_path / "maze")
    assert recordings.actions.parts["motors"].low == -1
    assert np.asarray(recordings[0]["next.truncated"])[-1]
    assert len(recordings[0].meta["final"][STATE]) == 6
    tried = rollout(RandomPolicy(recordings.actions), "gymnasium/PointMaze_UMaze-v3", range(3), max_steps=10)
    assert tried.lengths.tolist() == [10, 10, 10]


# ---- players ----------------------------------------------------------------------------------------------------------


def test_better_players_are_longer_at_the_goal():
    earned = []
    for quality in (1.0, 0.02, 0.0):
        world = make("gymnasium/PointMaze_UMaze-v3", quality=quality, tremble=0.1, privileged=False)
        earned.append(np.mean([play(world, world.expert(seed), seed).values["next.reward"].sum() for seed in range(4)]))
        world.close()
    assert earned[0] > 150
    assert earned[0] > earned[1] > earned[2]


@pytest.mark.parametrize(("name", "share"), [("FetchReach-v4", 1.0), ("FetchPush-v4", 0.7)])
def test_the_arm_does_its_task(name, share):
    world = make(f"gymnasium/{name}", privileged=False)
    solved = [play(world, world.expert(seed), seed).meta["success"] for seed in range(6)]
    world.close()
    assert np.mean(solved) >= share


def test_hands_tremble_as_much_as_they_are_told():
    space = make("gymnasium/Swimmer-v5", privileged=False).actions
    still = LinearPolicy(np.zeros((2, 8)), np.zeros(8), np.ones(8))
    seen = {STATE: np.zeros(8, np.float32)}
    player = Linear(still, space, 0.2, seed=0)
    off = np.stack([player.act(seen, {}) for _ in range(3000)])
    assert off.std() == pytest.approx(0.2, rel=0.05)
    player.reset()
    np.testing.assert_array_equal(player.act(seen, {}), off[0])


# ---- the search -------------------------------------------------------------------------------------------------------


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(found, tmp_path):
    options = {"every": 1, "directions": 2, "top": 1, "trials": 1}
    search("Swimmer-v5", tmp_path / "s.npz", steps=4_000, **options)
    again = search("Swimmer-v5", tmp_path / "s.npz", steps=12_000, **options)
    np.testing.assert_allclose(again.weights, found.weights, rtol=1e-9)
    np.testing.assert_array_equal(again.steps, found.steps)
    with pytest.raises(DataError, match="needs"):
        search("Hopper-v5", tmp_path / "s.npz", steps=1)
    with pytest.raises(DataError, match="holds no policies"):
        Snapshots.load(tmp_path / "nothing.npz")


def test_the_same_policies_are_found_with_the_kernels_of_another_processor(tmp_path):
    """numpy's OpenBLAS takes those that it is told to; their sums differ in the last digit."""
    found = []
    for kernels in ("Sandybridge", "Haswell"):
        path = tmp_path / f"{kernels}.npz"
        subprocess.run([sys.executable, "-c", SEARCH, path], check=True, env={**os.environ, "OPENBLAS_CORETYPE": kernels})
        found.append(Snapshots.load(path))
    np.testing.assert_array_equal(found[0].weights, found[1].weights)


def test_a_search_gets_better(tmp_path):
    found = search("InvertedPendulum-v5", tmp_path / "p.npz", steps=4_000, every=1, seed=1, step_size=0.1, noise=0.1, trials=2)
    assert found.returns[-1] > found.returns[0] + 100


def test_policies_are_tried_with_trembling_hands(tmp_path):
    options = {"every": 1, "seed": 1, "step_size": 0.1, "noise": 0.1, "trials": 4}
    shaken, again, still = (
        search("InvertedPendulum-v5", tmp_path / f"{name}.npz", steps=4_000, tremble=tremble, **options)
        for name, tremble in (("shaken", 0.5), ("again", 0.5), ("still", 0.0))
    )
    np.testing.assert_array_equal(shaken.returns, again.returns)
    assert shaken.returns[-1] < still.returns[-1] / 2


def test_moments_are_those_of_all_states():
    rng = np.random.default_rng(0)
    pieces = [rng.normal(i, 1 + i, (20 + i, 3)) for i in range(3)]
    moments, count = np.stack([np.zeros(3), np.ones(3)]), 0
    for piece in pieces:
        moments, count = _merged(moments, count, piece), count + len(piece)
    everything = np.concatenate(pieces)
    np.testing.assert_allclose(moments, [everything.mean(0), everything.var(0)])


def test_quality_picks_by_return():
    one = np.zeros((3, 1, 1))
    found = Snapshots(
        np.arange(3.0).reshape(3, 1, 1), one[:, 0], one[:, 0] + 1, np.arange(3), np.array([0.0, 100.0, 40.0]), np.arange(3)
    )
    assert [float(found.at(q).weights[0, 0]) for q in (0, 0.5, 1)] == [0, 2, 1]
