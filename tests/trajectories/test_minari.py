"""Minari datasets: what the real package wrote opens here, what we write opens there, and nothing is lost on the way."""

import json
import os
import shutil

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from retrodict.errors import DataError
from retrodict.trajectories import ActionSpace, Box, Discrete, MultiBinary, from_arrays
from retrodict.trajectories.stores import minari as store
from retrodict.trajectories.stores import open as open_recordings
from retrodict.trajectories.stores.finals import restore
from retrodict.trajectories.stores.minari_writing import fills

minari = pytest.importorskip("minari", reason="the minari package is not installed (extra `interop`)")
from minari.data_collector import EpisodeBuffer  # noqa: E402

LENGTHS = (5, 1, 8)


@pytest.fixture
def root(tmp_path, monkeypatch):
    datasets = tmp_path / "datasets"
    datasets.mkdir()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    monkeypatch.setenv("RETRODICT_CACHE", str(tmp_path / "cache"))
    return datasets


def sample(space, rows, rng):
    """Values of a space, (rows, ...), in the containers that EpisodeBuffer wants."""
    if isinstance(space, spaces.Dict):
        return {key: sample(inner, rows, rng) for key, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(sample(inner, rows, rng) for inner in space.spaces)
    space.seed(int(rng.integers(1 << 30)))
    values = [space.sample() for _ in range(rows)]
    return values if isinstance(space, spaces.Text) else np.array(values, space.dtype)


def theirs(name, observation, action, data_format="hdf5", jpeg=True, infos=False):
    """A dataset that the real package wrote, and the buffers that it wrote."""
    rng = np.random.default_rng(0)
    buffers = []
    for length in LENGTHS:
        ends = np.zeros(length, bool)
        ends[-1] = True
        buffers.append(
            EpisodeBuffer(
                observations=sample(observation, length + 1, rng),
                actions=sample(action, length, rng),
                rewards=list(rng.standard_normal(length)),
                terminations=list(ends),
                truncations=[False] * length,
                infos={"qpos": rng.standard_normal((length + 1, 2)), "deep": {"won": np.zeros(length + 1)}} if infos else {},
            )
        )
    minari.create_dataset_from_buffers(
        name, buffers, observation_space=observation, action_space=action, data_format=data_format, jpeg_encoding=jpeg
    )
    return buffers


PLAIN = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-2, 2, (2,), np.float32)


@pytest.mark.parametrize("data_format", ["hdf5", "arrow", "parquet"])
def test_plain_boxes_are_read_equal(root, data_format):
    buffers = theirs("plain-v0", *PLAIN, data_format, infos=True)
    recordings = open_recordings(root / "plain-v0")
    assert [len(episode) for episode in recordings] == list(LENGTHS)
    for episode, buffer in zip(recordings, buffers, strict=True):
        np.testing.assert_array_equal(episode["observation.state"], buffer.observations[:-1])
        np.testing.assert_array_equal(
            restore(episode.meta["final"]["observation.state"], recordings.features["observation.state"]), buffer.observations[-1]
        )
        np.testing.assert_array_equal(episode["action"], buffer.actions)
        np.testing.assert_array_equal(episode["next.reward"], buffer.rewards)
        np.testing.assert_array_equal(episode["next.done"], buffer.terminations)
        np.testing.assert_array_equal(episode["privileged.qpos"], buffer.infos["qpos"][:-1])
        np.testing.assert_array_equal(episode["privileged.deep.won"], buffer.infos["deep"]["won"][:-1])
    assert recordings.actions == ActionSpace({"action": Box(("action_0", "action_1"), -2.0, 2.0)}, leads=True)
    assert recordings.features["action"].names == ["action_0", "action_1"]
    assert any("privileged" in sentence for sentence in recordings.meta["guessed"])
    assert "privileged.qpos" not in open_recordings(root / "plain-v0", infos=False).features


NESTED = spaces.Dict(
    {
        "observation": spaces.Box(-1, 1, (4,), np.float64),
        "desired_goal": spaces.Box(-1, 1, (2,), np.float64),
        "sensors": spaces.Dict({"touch": spaces.MultiBinary(3), "mode": spaces.Discrete(5, start=2)}),
        "pair": spaces.Tuple((spaces.Box(0, 9, (2, 2), np.int32), spaces.MultiDiscrete([3, 4]))),
        "mission": spaces.Text(12),
    }
)


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_dicts_and_tuples_become_features(root, data_format):
    buffers = theirs("nested-v0", NESTED, spaces.Discrete(4, start=1), data_format)
    recordings = open_recordings(root / "nested-v0")
    assert recordings.actions == ActionSpace({"action": Discrete(("1", "2", "3", "4"))}, leads=True)
    for episode, buffer in zip(recordings, buffers, strict=True):
        o = buffer.observations
        np.testing.assert_array_equal(episode["observation.state"], o["observation"][:-1])
        np.testing.assert_array_equal(episode["observation.desired_goal"], o["desired_goal"][:-1])
        np.testing.assert_array_equal(episode["observation.sensors.touch"], o["sensors"]["touch"][:-1])
        np.testing.assert_array_equal(episode["observation.sensors.mode"], o["sensors"]["mode"][:-1])
        np.testing.assert_array_equal(episode["observation.pair.0"], o["pair"][0][:-1])
        np.testing.assert_array_equal(episode["observation.pair.1"], o["pair"][1][:-1])
        assert episode["observation.mission"].tolist() == o["mission"][:-1]
        assert set(episode.tasks) == set(o["mission"][:-1])
        np.testing.assert_array_equal(episode["action"][:, 0], buffer.actions - 1)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (spaces.MultiBinary(3), {"action": MultiBinary(("action_0", "action_1", "action_2"))}),
        (spaces.MultiDiscrete([2, 3]), {"action_0": Discrete(("0", "1")), "action_1": Discrete(("0", "1", "2"))}),
        (
            spaces.Box(np.float32([-1, 0]), np.float32([1, np.inf])),
            {"action_0": Box(("action_0",), -1.0, 1.0), "action_1": Box(("action_1",), 0.0, None)},
        ),
        (
            spaces.Dict({"arm": spaces.Box(-1, 1, (2,)), "grip": spaces.Discrete(2)}),
            {"arm": Box(("arm_0", "arm_1"), -1.0, 1.0), "grip": Discrete(("0", "1"))},
        ),
    ],
)
def test_action_spaces(root, space, expected):
    theirs("acts-v0", PLAIN[0], space)
    recordings = open_recordings(root / "acts-v0")
    assert dict(recordings.actions.parts) == expected
    assert recordings[0]["action"].shape == (LENGTHS[0], recordings.actions.width)
    back = store.write(recordings, root / "again-v0")
    for mine, original in zip(minari.load_dataset("again-v0").iterate_episodes(), minari.load_dataset("acts-v0"), strict=True):
        for key in space.spaces if isinstance(space, spaces.Dict) else [None]:
            a, b = (mine.actions, original.actions) if key is None else (mine.actions[key], original.actions[key])
            np.testing.assert_array_equal(a, b)
    assert minari.load_dataset("again-v0").action_space == space
    assert open_recordings(back).actions == recordings.actions


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize("shape", [(32, 40, 3), (3, 32, 40), (32, 40)])
@pytest.mark.parametrize("jpeg", [True, False])
def test_frames_are_recognised_and_come_as_height_width_channels(root, data_format, shape, jpeg):
    theirs("frames-v0", spaces.Box(0, 255, shape, np.uint8), PLAIN[1], data_format, jpeg)
    recordings = open_recordings(root / "frames-v0")
    feature = recordings.features["observation.images.main"]
    assert feature.is_visual
    assert feature.shape == (32, 40, 1 if len(shape) == 2 else 3)
    for episode, true in zip(recordings, minari.load_dataset("frames-v0"), strict=True):
        frames = np.moveaxis(true.observations, 1, -1) if shape[0] == 3 else true.observations.reshape(-1, *feature.shape)
        np.testing.assert_array_equal(episode["observation.images.main"], frames[:-1])
        np.testing.assert_array_equal(restore(episode.meta["final"]["observation.images.main"], feature), frames[-1])


def test_small_grids_of_bytes_are_no_frames(root):
    theirs("grid-v0", spaces.Dict({"image": spaces.Box(0, 255, (7, 7, 3), np.uint8)}), spaces.Discrete(3))
    assert open_recordings(root / "grid-v0").features["observation.image"].dtype == "uint8"


@pytest.mark.parametrize(
    "observation", [PLAIN[0], NESTED, spaces.Dict({"cam": spaces.Box(0, 255, (32, 32, 3), np.uint8), "x": PLAIN[0]})]
)
@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_round_trip_through_us_loses_nothing(root, observation, data_format):
    theirs("source-v0", observation, PLAIN[1], data_format, infos=True)
    recordings = open_recordings(root / "source-v0", fps=25)
    store.write(recordings, root / "copy-v3")
    before, after = minari.load_dataset("source-v0"), minari.load_dataset("copy-v3")
    assert after.observation_space == before.observation_space
    assert after.action_space == before.action_space
    assert after.total_steps == before.total_steps
    for a, b in zip(before.iterate_episodes(), after.iterate_episodes(), strict=True):
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            for x, y in zip(flat(getattr(a, name)), flat(getattr(b, name)), strict=True):
                np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
        np.testing.assert_array_equal(b.infos["qpos"], a.infos["qpos"])
    again = open_recordings(root / "copy-v3")
    assert again.fps == 25
    assert again.features == recordings.features
    assert [e.identity for e in again] == [e.identity for e in recordings]
    for a, b in zip(recordings, again, strict=True):
        assert set(a) == set(b)
        assert a.tasks == b.tasks
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def flat(value):
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in flat(value[key])]
    return [leaf for inner in value for leaf in flat(inner)] if isinstance(value, tuple) else [value]


def ours(rng, lengths=(4, 6), rewards=True):
    actions = ActionSpace({"move": Box(("dx", "dy"), -1.0, 1.0, unit="m"), "jump": MultiBinary(("space",))}, mode="delta")
    episodes = [
        {
            "observation.state": rng.standard_normal((n, 3)).astype(np.float32),
            "observation.images.front": rng.integers(0, 255, (n, 40, 36, 3), dtype=np.uint8),
            "action": np.concatenate([rng.uniform(-1, 1, (n, 2)), rng.integers(0, 2, (n, 1))], 1).astype(np.float32),
            "label.phase": rng.integers(0, 3, n),
            "timestamp": np.cumsum(rng.uniform(0.1, 0.2, n)),
            **({"next.reward": rng.standard_normal(n)} if rewards else {}),
        }
        for n in lengths
    ]
    return from_arrays(
        episodes, actions=actions, tasks=["push", "pull"], domains=["a", "b"], source="mine", structures={"skeleton": [0, 1]}
    )


@pytest.mark.parametrize("rewards", [True, False])
def test_what_we_write_opens_in_minari_and_comes_back_whole(root, rewards):
    recordings = ours(np.random.default_rng(1), rewards=rewards)
    store.write(recordings, root / "space" / "mine-v0", dataset_id="space/mine-v0")
    dataset = minari.load_dataset("space/mine-v0")
    assert "space/mine-v0" in minari.list_local_datasets()
    assert (dataset.total_episodes, dataset.total_steps) == (2, 10)
    for true, seen in zip(recordings, dataset.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(seen.observations["images.front"][:-1], true["observation.images.front"])
        np.testing.assert_array_equal(seen.observations["state"][:-1], true["observation.state"])
        np.testing.assert_array_equal(seen.actions["move"], true["action"][:, :2])
        np.testing.assert_array_equal(seen.actions["jump"][:, 0], true["action"][:, 2])
        assert seen.truncations.tolist() == [False] * (len(true) - 1) + [True]
        assert dataset.observation_space.contains({key: value[0] for key, value in seen.observations.items()})
    assert len(fills(recordings)) == (3 if rewards else 4)
    again = open_recordings(root / "space" / "mine-v0")
    assert (again.features, again.actions, again.structures) == (recordings.features, recordings.actions, recordings.structures)
    for a, b in zip(recordings, again, strict=True):
        assert (set(a), a.tasks, a.domain, a.identity) == (set(b), b.tasks, b.domain, b.identity)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_a_real_environment_is_named_as_domain(root):
    env = gymnasium.make("CartPole-v1")
    buffer = EpisodeBuffer(
        observations=np.zeros((3, 4), np.float32),
        actions=np.zeros(2, np.int64),
        rewards=[1, 1],
        terminations=[0, 1],
        truncations=[0, 0],
    )
    minari.create_dataset_from_buffers("cart-v0", [buffer], env=env)
    recordings = open_recordings(root / "cart-v0")
    assert recordings.domains == ("CartPole-v1",)
    store.write(recordings, root / "cart-v1")
    assert minari.load_dataset("cart-v1").recover_environment().spec.id == "CartPole-v1"


def test_endings_follow_done_where_nothing_else_is_known(root):
    episode = {
        "observation.state": np.zeros((3, 1), np.float32),
        "action": np.zeros((3, 1), np.float32),
        "next.done": np.array([0, 0, 1], bool),
    }
    recordings = from_arrays([episode])
    store.write(recordings, root / "done-v0")
    seen = next(minari.load_dataset("done-v0").iterate_episodes())
    assert seen.terminations.tolist() == [False, False, True]
    assert not seen.truncations.any()
    assert set(open_recordings(root / "done-v0")[0]) == {"observation.state", "action", "next.done"}


# ---- bad input ----------------------------------------------------------------------------------------------------------


def test_refused_on_writing(root):
    good = ours(np.random.default_rng(2))
    with pytest.raises(DataError, match="call the folder plain-v0"):
        store.write(good, root / "plain")
    with pytest.raises(DataError, match=r"episode 1.*has no 'action'"):
        store.write(
            from_arrays(
                [{"observation.state": np.zeros((2, 1)), "action": np.zeros((2, 1))}, {"observation.state": np.zeros((2, 1))}]
            ),
            root / "a-v0",
        )
    with pytest.raises(DataError, match="differs in shape"):
        store.write(
            from_arrays([{"observation.points": np.zeros((2, n, 3)), "action": np.zeros((2, 1))} for n in (4, 5)]), root / "a-v0"
        )
    holed = from_arrays([{"observation.state": np.array([[0.0], [np.nan]]), "action": np.zeros((2, 1))}])
    with pytest.raises(DataError, match=r"episode 0 of memory: 'observation.state' is NaN or infinite in row 1"):
        store.write(holed, root / "a-v0")
    assert list(root.iterdir()) == []


def test_nothing_of_others_is_overwritten(root):
    theirs("plain-v0", *PLAIN)
    with pytest.raises(DataError, match="was not written here"):
        store.write(ours(np.random.default_rng(3)), root / "plain-v0")
    assert minari.load_dataset("plain-v0").total_episodes == len(LENGTHS)
    store.write(ours(np.random.default_rng(3)), root / "mine-v0")
    store.write(ours(np.random.default_rng(4), lengths=(2, 2)), root / "mine-v0")  # what was written here is replaced
    assert open_recordings(root / "mine-v0").steps == 4


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_damage_is_named(root, data_format):
    theirs("plain-v0", *PLAIN, data_format)
    data = root / "plain-v0" / "data"

    def after(change):
        broken = root / "broken-v0"
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(root / "plain-v0", broken)
        change(broken / "data")
        with pytest.raises(DataError) as caught:
            open_recordings(broken)
        assert "broken-v0" in str(caught.value)
        return str(caught.value)

    def edit(**changes):
        def change(folder):
            about = json.loads((folder / "metadata.json").read_text()) | changes
            (folder / "metadata.json").write_text(json.dumps({k: v for k, v in about.items() if v is not None}))

        return change

    first = data / ("main_data.hdf5" if data_format == "hdf5" else "0/part-0.arrow")
    relative = first.relative_to(data)
    assert "damaged" in after(lambda folder: os.truncate(folder / relative, first.stat().st_size // 2))
    assert "damaged" in after(lambda folder: (folder / "metadata.json").write_text("{"))
    assert after(lambda folder: (folder / relative).unlink())
    assert "does not say action_space" in after(edit(action_space=None))
    assert "'cloud'" in after(edit(data_format="cloud"))
    assert "no episodes" in after(edit(total_episodes=0))
    assert after(edit(total_episodes=9))
    assert "(5,) is expected" in after(
        edit(observation_space=json.dumps({"type": "Box", "dtype": "float32", "shape": [5], "low": [0] * 5, "high": [1] * 5}))
    )
    assert "type 'Graph'" in after(edit(action_space=json.dumps({"type": "Graph"})))


@pytest.mark.parametrize("kind", ["hdf5", "arrow"])
def test_nan_is_refused_or_marked(root, kind):
    buffer = EpisodeBuffer(
        observations=np.array([[0, 1, 0], [0, np.nan, 0], [0, 0, np.nan]], np.float32),
        actions=np.zeros((2, 2), np.float32),
        rewards=[0.0, 0.0],
        terminations=[0, 1],
        truncations=[0, 0],
    )
    spaces = {"observation_space": PLAIN[0], "action_space": PLAIN[1]}
    minari.create_dataset_from_buffers("nan-v0", [buffer], **spaces, data_format=kind)
    with pytest.raises(DataError, match=r"observations is NaN or infinite in row 1 at entry 1.*nan_is_missing=True"):
        open_recordings(root / "nan-v0")
    (episode,) = open_recordings(root / "nan-v0", nan_is_missing=True)
    assert episode["valid.observation.state"].tolist() == [True, False]
    assert episode["observation.state"].tolist() == [[0, 1, 0], [0, 1, 0]]
    assert "final" not in episode.meta
