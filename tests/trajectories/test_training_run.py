"""A training run as a recording."""

import numpy as np
import pytest

import retrodict as rd
from retrodict.errors import DataError
from retrodict.trajectories import TrainingRun

RUN = TrainingRun(
    np.array([0, 10, 30]),
    {"0.weight": np.arange(18, dtype=np.float64).reshape(3, 2, 3), "0.bias": np.ones((3, 2), np.float32)},
    {"loss": np.array([3.0, 2.0, 1.0]), "strengths": np.ones((3, 4))},
)


def test_weights_can_be_rewound_to_and_lie_on_a_line_in_between():
    assert RUN.at(10)["0.weight"] == pytest.approx(RUN.weights["0.weight"][1])
    assert RUN.at(25)["0.weight"] == pytest.approx(0.25 * RUN.weights["0.weight"][1] + 0.75 * RUN.weights["0.weight"][2])
    for step in (-1, 31):
        with pytest.raises(DataError, match="from step 0 to 30"):
            RUN.at(step)


def test_it_opens_as_a_time_series_and_comes_back_whole(tmp_path):
    path = RUN.save(tmp_path / "run")
    recordings = rd.open(path)
    assert len(recordings) == 1
    assert recordings[0]["observation.metrics.loss"].reshape(-1).tolist() == [3.0, 2.0, 1.0]
    for again in (TrainingRun.load(path), TrainingRun.of(RUN.recordings())):
        assert again.steps.tolist() == [0, 10, 30]
        assert list(again.weights) == list(RUN.weights)
        for name, values in {**RUN.weights, **RUN.metrics}.items():
            found = {**again.weights, **again.metrics}[name]
            assert found.dtype == values.dtype
            assert (found == values).all()


def test_what_is_no_run_is_refused():
    with pytest.raises(DataError, match="steps"):
        TrainingRun(np.array([3, 3]))
    with pytest.raises(DataError, match="2 values of 'loss'"):
        TrainingRun(np.array([0, 1, 2]), {}, {"loss": np.ones(2)})
    with pytest.raises(DataError, match="no training run"):
        TrainingRun.of(rd.from_arrays([{"observation.state": np.ones((3, 2))}]))
