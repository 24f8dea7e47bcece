"""From one kind of file to another."""

import json

import numpy as np
import pytest

from retrodict.errors import DataError
from retrodict.trajectories import from_arrays
from retrodict.trajectories.stores import convert
from retrodict.trajectories.stores import minari as minari_store
from retrodict.trajectories.stores import open as open_recordings

CSV = "episode,t,x,y,action_u,action_v,reward\n" + "".join(
    f"{e},{k / 20},{k + e},{-k},{k / 8},{e / 4},{k == 5}\n" for e in range(3) for k in range(6 + e)
)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("RETRODICT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def source(tmp_path):
    (tmp_path / "log.csv").write_text(CSV)
    return tmp_path / "log.csv"


@pytest.mark.parametrize(("format", "name"), [("lerobot", "out"), ("minari", "out-v0")])
def test_values_and_origin_survive(tmp_path, source, format, name):
    shown = []
    said = convert(source, tmp_path / name, format, show=shown.append)
    assert said == shown
    assert any("'t' is taken for the clock" in sentence for sentence in said)
    before, after = open_recordings(source), open_recordings(tmp_path / name)
    assert after.meta["origin"] == {"path": str(source), "format": "tables", "guessed": before.meta["guessed"]}
    assert (after.fps, after.actions, len(after)) == (before.fps, before.actions, len(before))
    assert after.features["observation.state"].names == ["x", "y"]
    for a, b in zip(before, after, strict=True):
        for feature in ("observation.state", "action", "next.reward"):
            np.testing.assert_array_equal(a[feature], b[feature])
            assert a[feature].dtype == b[feature].dtype
        np.testing.assert_allclose(a["timestamp"], b["timestamp"], atol=1e-6)


def test_from_minari_over_lerobot_and_back(tmp_path):
    rng = np.random.default_rng(0)
    recordings = from_arrays(
        [
            {
                "observation.state": rng.standard_normal((n, 3)).astype(np.float32),
                "action": rng.standard_normal((n, 2)).astype(np.float32),
                "next.reward": rng.standard_normal(n).astype(np.float32),
                "next.terminated": np.arange(n) == n - 1,
                "next.truncated": np.zeros(n, bool),
            }
            for n in (4, 7)
        ],
        fps=10,
        tasks=["a", "b"],
    )
    minari_store.write(recordings, tmp_path / "first-v0")
    convert(tmp_path / "first-v0", tmp_path / "middle", "lerobot")
    convert(tmp_path / "middle", tmp_path / "last-v0", "minari")
    first, last = open_recordings(tmp_path / "first-v0"), open_recordings(tmp_path / "last-v0")
    for a, b in zip(first, last, strict=True):
        assert a.tasks == b.tasks
        for feature in recordings.features:
            np.testing.assert_array_equal(a[feature], b[feature])


def test_the_final_observation_survives_lerobot(tmp_path):
    final = {"observation.state": [7.0]}
    recordings = from_arrays([{"observation.state": np.zeros((3, 1), np.float32), "action": np.zeros((3, 1), np.float32)}], fps=5)
    episode = recordings[0]
    kept = recordings.of([type(episode)(0, 3, episode.slices, ("t",), meta={"final": final})])
    minari_store.write(kept, tmp_path / "first-v0")
    convert(tmp_path / "first-v0", tmp_path / "middle")
    assert open_recordings(tmp_path / "middle")[0].meta["final"] == final
    convert(tmp_path / "middle", tmp_path / "last-v0", "minari")
    assert open_recordings(tmp_path / "last-v0")[0].meta["final"] == final


@pytest.mark.parametrize(("format", "name"), [("lerobot", "out"), ("minari", "out-v0")])
def test_bad_input_writes_and_overwrites_nothing(tmp_path, source, format, name):
    convert(source, tmp_path / name, format)
    before = {path: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()}
    (tmp_path / "bad.csv").write_text(CSV + "9,0,nan,1,0,0,0\n")
    with pytest.raises(DataError, match="'x' is empty or NaN"):
        convert(tmp_path / "bad.csv", tmp_path / name, format)
    with pytest.raises(DataError, match="'x' is empty or NaN"):
        convert(tmp_path / "bad.csv", tmp_path / f"new{name}", format)
    assert before == {path: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()}
    assert not (tmp_path / f"new{name}").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "log.csv", name]


def test_nothing_is_written_when_a_guess_is_refused(tmp_path, source):
    def refuse(sentence):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out", show=refuse)
    assert not (tmp_path / "out").exists()


def test_what_minari_demands_is_said_before(tmp_path, source):
    said = convert(source, tmp_path / "out-v0", "minari")
    assert any("no next.terminated" in sentence for sentence in said)
    assert "no next.terminated" in json.loads((tmp_path / "out-v0" / "data" / "metadata.json").read_text())["description"]


def test_arguments_that_make_no_sense(tmp_path, source):
    with pytest.raises(DataError, match="no format is called 'zarr'; recordings are written as lerobot or minari"):
        convert(source, tmp_path / "out", "zarr")
    with pytest.raises(DataError, match="is the source itself"):
        convert(source, source)
