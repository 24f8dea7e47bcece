import numpy as np
import pytest
from labelling_toy import Toy, play

from retrodict.labelling.infer import infer
from retrodict.labelling.shift import portrait, shifted
from retrodict.trajectories import Window, from_arrays


def portraits(count, seed, **centre):
    rng = np.random.default_rng(seed)
    return [
        {name: rng.normal(middle, 1) for name, middle in {"mean confidence": 0, "level": 0, **centre}.items()}
        for _ in range(count)
    ]


def test_a_moved_statistic_is_named_with_its_direction():
    said = shifted(portraits(12, 0), portraits(30, 1, **{"mean confidence": -3}))
    assert said is not None
    assert "mean confidence is lower" in said
    assert "may not hold" in said


def test_false_alarms_are_as_rare_as_said():
    alarms = [shifted(portraits(8, (0, i)), portraits(30, (1, i))) is not None for i in range(300)]
    assert np.mean(alarms) <= 0.02


def test_few_episodes_keep_silent():
    assert shifted(portraits(1, 0), portraits(3, 1, level=50)) is None
    assert shifted([], portraits(3, 0)) is None


def test_a_portrait_shows_what_the_model_reads_and_nothing_else():
    recordings, _ = play(2)
    toy = Toy().fit(recordings)
    answer = next(iter(infer(toy, recordings)))
    found = portrait(recordings, answer, toy.reads)
    assert found.keys() == {"mean confidence", "level of observation.state", "spread of observation.state"}
    dark = from_arrays([{"observation.images.top": np.full((5, 8, 8, 3), 30, np.uint8)}])
    looks = portrait(dark, answer, Window(features=("observation.images.top",)))
    assert looks["brightness of observation.images.top"] == pytest.approx(30)
    assert looks["contrast of observation.images.top"] == 0
