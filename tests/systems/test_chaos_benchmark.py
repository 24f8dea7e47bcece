"""The benchmark of forecasters, on motions whose forecasts are known."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from retrodict.errors import DataError, NotFittedError
from retrodict.roles import Law
from retrodict.systems import System
from retrodict.systems.contract import Card
from retrodict.systems.laws.chaos_benchmark import MOTION, ChaosBenchmark, dominant_period, forecast
from retrodict.trajectories import from_arrays

from .toys import ToyInverse

STATE = "observation.state"


@dataclass
class Turning(System, Law):
    """Knows the motion: a turn by `angle` in every step."""

    card = Card("turning", "-", "-", 2026, "-", "-", "-", baseline=True)
    kind = "map"
    dt = 1.0
    angle: float = 2 * np.pi / 20

    def inputs(self, recordings):
        return (STATE,)

    def learn(self, recordings, world, validation, run):
        pass

    def turn(self, dtype):
        c, s = np.cos(self.angle), np.sin(self.angle)
        return torch.tensor([[c, -s], [s, c]], dtype=dtype)

    def step(self, state):
        return state @ self.turn(state.dtype).mT

    def simulate(self, initial, times, actions=None, domain=None):
        path = [initial]
        for _ in times[1:]:
            path.append(self.step(path[-1]))
        return torch.stack(path, 1)

    def jacobian(self, state):
        return self.turn(state.dtype).expand(*state.shape[:-1], 2, 2)

    def state(self):
        return {}, {}

    def restore(self, tensors, about):
        pass


def circles(length=400, rates=(0.01, 0.02, 0.03), steps=(20, 20, 20)):
    """Circles of so many steps each; never at 0, where a share of it is all rounding."""
    turns = [(np.arange(length)[:, None] + 0.3) * 2 * np.pi / n for n in steps]
    names = [f"circle {i}" for i in range(len(turns))]
    known = {name: {"period": 20.0, "lyapunov": rate} for name, rate in zip(names, rates, strict=True)}
    made = [{STATE: np.concatenate([np.cos(t), np.sin(t)], 1)} for t in turns]
    return from_arrays(made, fps=1.0, domains=names, structures={MOTION: known})


@pytest.fixture
def benchmark():
    return ChaosBenchmark(train=200, test=200, starts=5).fit(circles())


def test_who_knows_the_motion_sees_to_the_horizon(benchmark):
    report = benchmark.analyse(Turning())
    assert report.values["valid periods"] == benchmark.horizon
    assert report.values["smape"] == pytest.approx(0, abs=1e-6)
    assert report.values["d_stsp"] == pytest.approx(0, abs=1e-3)
    assert report.values["d_h"] == pytest.approx(0, abs=1e-3)
    assert report.table["valid lyapunov times"] == pytest.approx(6 * np.array([0.2, 0.4, 0.6]))


def test_who_is_off_by_a_little_fails_when_the_angles_have_parted(benchmark):
    """Standardised circles have radius sqrt(2); the root mean square over two channels of the chord 2 sqrt(2) sin(wrong / 2)."""
    wrong = 0.02
    report = benchmark.analyse(Turning(angle=2 * np.pi / 20 + wrong))
    fails = np.ceil(2 * np.arcsin(0.4 / 2) / wrong)
    assert report.values["valid periods"] == pytest.approx((fails - 1) / 20, abs=1 / 20)


def test_the_standard_of_comparison_is_the_training_part_alone(monkeypatch):
    recordings, seen = circles(), []
    values = [np.concatenate([e[STATE][:200], e[STATE][200:] + 100]) for e in recordings]
    monkeypatch.setattr(Turning, "learn", lambda self, taught, *_: seen.append(np.asarray(taught[0][STATE])))
    ChaosBenchmark(train=200, test=200, starts=5).fit(recordings.with_column(STATE, values)).analyse(Turning())
    for taught in seen:
        assert len(taught) == 200
        assert taught.mean(0) == pytest.approx([0, 0], abs=1e-9)
        assert taught.std(0) == pytest.approx([1, 1])


def test_correlations_with_chaos_are_reported_where_exponents_are_known(benchmark):
    """The circle with the largest exponent is the one that the model of the first fits worst."""
    unequal = circles(rates=(0.01, 0.02, 0.03), steps=(20, 19.5, 18.5))
    report = ChaosBenchmark(train=200, test=200, starts=5).fit(unequal).analyse(Turning())
    assert report.values["rho smape"] == pytest.approx(1)
    assert report.values["rho valid periods"] == pytest.approx(-1)
    silent = ChaosBenchmark(train=200, test=200, starts=5).fit(
        from_arrays([{STATE: e[STATE]} for e in circles()], domains=["a", "b", "c"])
    )
    assert "rho smape" not in silent.analyse(Turning()).values
    assert [task.period for task in silent.tasks_] == [20.0] * 3


def test_periods_are_those_of_the_strongest_frequency():
    t = np.arange(1000)[:, None]
    series = np.sin(2 * np.pi * t / 50) + 0.3 * np.sin(2 * np.pi * t / 7)
    assert dominant_period(series) == pytest.approx(50)


def test_a_law_starts_from_the_last_state_before(benchmark):
    series = benchmark.tasks_[0].series
    said = forecast(Turning(), series, np.array([100, 150]), 10)
    assert said == pytest.approx(np.stack([series[100:110], series[150:160]]), abs=1e-9)


def test_saving_keeps_the_tasks(benchmark, tmp_path):
    loaded = System.load(benchmark.save(tmp_path / "saved"))
    assert [t.name for t in loaded.tasks_] == [t.name for t in benchmark.tasks_]
    assert loaded.analyse(Turning()).values == benchmark.analyse(Turning()).values


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda: ChaosBenchmark().fit(circles()), "circle 0: 400 steps are too few for train=1000"),
        (lambda: ChaosBenchmark(train=200, test=120, starts=5).fit(circles()), "do not fit in test=120"),
        (lambda: ChaosBenchmark(train=1, test=120).fit(circles()), "at least 2"),
        (
            lambda: ChaosBenchmark(train=200, test=200).fit(
                circles().with_column(STATE, [e[STATE] * np.array([1, 0]) for e in circles()])
            ),
            "training part of circle 0 is constant in channel 1",
        ),
        (lambda: ChaosBenchmark(train=200, test=200, starts=5).fit(circles()).analyse(ToyInverse()), "a Law or a ForwardModel"),
        (lambda: ChaosBenchmark(train=200, test=200, starts=5).fit(circles()).analyse("nvar"), "a Law or a ForwardModel"),
    ],
)
def test_bad_input_is_named(ask, sentence):
    with pytest.raises(DataError, match=sentence):
        ask()


def test_asking_before_fit_says_so():
    with pytest.raises(NotFittedError):
        ChaosBenchmark().analyse(Turning())
