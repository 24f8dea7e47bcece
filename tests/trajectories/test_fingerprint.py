"""The fingerprint of recordings: others when anything in them changed, the same wherever they lie; work begun is bound to it."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodict.errors import DataError
from retrodict.trajectories import Recordings, from_arrays, stores
from retrodict.trajectories.fingerprint import fingerprint
from retrodict.trajectories.stores import lerobot
from retrodict.trajectories.video import encode

LENGTHS = (40, 300)


def walks() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {
            "observation.state": rng.normal(size=(n, 3)),
            "observation.images.top": rng.integers(0, 255, (n, 8, 8, 3), dtype=np.uint8),
            "said": np.array([f"word {i}" for i in range(n)], object),
        }
        for n in LENGTHS
    ]


@given(number=st.integers(0, 1), name=st.sampled_from(sorted(walks()[0])), place=st.floats(0, 1, exclude_max=True))
def test_it_changes_with_any_single_value(number, name, place):
    episodes = walks()
    values = episodes[number][name].reshape(-1)
    at = int(place * len(values))
    values[at] = "another" if values.dtype == object else values[at] + 1
    assert fingerprint(from_arrays(episodes)) != fingerprint(from_arrays(walks()))


def test_it_is_of_the_named_features_alone_and_of_the_order_of_episodes():
    known, episodes = fingerprint(from_arrays(walks()), ["observation.state"]), walks()
    episodes[1]["said"][5] = "another"
    assert fingerprint(from_arrays(episodes), ["observation.state"]) == known
    assert fingerprint(from_arrays(episodes[::-1]), ["observation.state"]) != known
    assert fingerprint(from_arrays(episodes)[:1], ["observation.state"]) != known


def test_a_copy_of_the_files_is_the_same_and_a_copy_in_which_one_value_was_mended_is_not(tmp_path):
    from_arrays(walks(), fps=10).save(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "copied")
    known = fingerprint(lerobot.read(tmp_path / "here"))
    assert fingerprint(lerobot.read(tmp_path / "copied")) == known
    mended = walks()
    mended[1]["observation.state"][77, 1] += 1e-9
    from_arrays(mended, fps=10).save(tmp_path / "mended")
    assert fingerprint(lerobot.read(tmp_path / "mended")) != known


def film(folder, brightness: int) -> Recordings:
    folder.mkdir(parents=True)
    encode(np.full((20, 32, 32, 3), brightness, np.uint8), folder / "film.mp4", 10)
    return stores.open(folder / "film.mp4")


def test_a_video_is_known_by_its_file(tmp_path):
    dark = film(tmp_path / "a", 40)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert fingerprint(stores.open(tmp_path / "b/film.mp4")) == fingerprint(dark)
    assert fingerprint(film(tmp_path / "c", 200)) != fingerprint(dark)


def test_a_save_that_was_cut_short_does_not_go_on_with_other_data(tmp_path, monkeypatch):
    added = lerobot.Writer.add

    def killed(self, values, **about):
        if self.done:
            raise KeyboardInterrupt
        added(self, values, **about)

    with monkeypatch.context() as patched:
        patched.setattr(lerobot.Writer, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            from_arrays(walks(), fps=10).save(tmp_path / "data")
    mended = walks()
    mended[0]["observation.state"][7, 2] = 0
    with pytest.raises(DataError, match="other recordings or settings"):
        from_arrays(mended, fps=10).save(tmp_path / "data")
    from_arrays(walks(), fps=10).save(tmp_path / "data")
    np.testing.assert_array_equal(lerobot.read(tmp_path / "data")[0]["observation.state"], walks()[0]["observation.state"])
