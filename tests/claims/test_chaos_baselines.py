"""The forecasters, polynomial laws and the rest of what the chaos benchmark is run with."""

import numpy as np
import pytest
import torch

from retrodict.claims.baselines.forecasters import Climatology, LinearAutoregression, Nvar, Persistence, ReservoirForecaster
from retrodict.claims.baselines.polynomial_laws import polynomial_law, same_law
from retrodict.claims.baselines.segments import SegmentTraining, steps_saved
from retrodict.claims.baselines.series_features import accuracy, encoders, features, surrogates
from retrodict.errors import DataError
from retrodict.systems import System
from retrodict.trajectories import from_arrays
from retrodict.worlds.chaos import ode_world

STATE = "observation.state"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRODICT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def lorenz():
    return ode_world("lorenz").record(1500, 0.0125, ic=[1.0, 2.0, 20.0], precision="float64")


def asked(system, series, start, horizon):
    window = {STATE: torch.from_numpy(series[None, start - len(system.reads) : start])}
    return system.predict(window, horizon=horizon).values[STATE][0, 0].numpy()


def test_persistence_and_climatology_are_what_they_say(lorenz):
    series = lorenz[0][STATE]
    assert asked(Persistence().fit(lorenz), series, 700, 3) == pytest.approx(np.tile(series[699], (3, 1)))
    assert asked(Climatology().fit(lorenz), series, 700, 3) == pytest.approx(np.tile(series.mean(0), (3, 1)))


def test_a_linear_motion_is_continued_by_linear_autoregression():
    t = np.arange(500)[:, None]
    wave = np.concatenate([np.sin(t / 7), np.cos(t / 7) + 0.5 * np.sin(t / 3)], 1)
    system = LinearAutoregression(ridge=1e-12).fit(from_arrays([{STATE: wave[:400]}]))
    assert asked(system, wave, 420, 40) == pytest.approx(wave[420:460], abs=1e-3)


@pytest.mark.parametrize(("kind", "steps"), [(Nvar, 60), (ReservoirForecaster, 40)])
def test_the_nonlinear_ones_foresee_a_period_of_lorenz_and_the_linear_one_does_not(lorenz, kind, steps):
    series = lorenz[0][STATE]
    teach = from_arrays([{STATE: series[:1200]}])
    errors = {
        system: np.abs(asked(system().fit(teach), series, 1300, steps) - series[1300 : 1300 + steps]).max() / series.std()
        for system in (kind, LinearAutoregression)
    }
    assert errors[kind] < 0.2 < errors[LinearAutoregression]


def test_forecasters_survive_saving_and_refuse_what_they_cannot_read(lorenz, tmp_path):
    for system in (Persistence(), Nvar(), ReservoirForecaster(units=50, washout=20, seed=3)):
        fitted = system.fit(lorenz)
        loaded = System.load(fitted.save(tmp_path / system.card.slug))
        series = lorenz[0][STATE]
        assert np.array_equal(asked(loaded, series, 500, 5), asked(fitted, series, 500, 5))
        with pytest.raises(DataError, match="reads finite"):
            fitted.predict({STATE: torch.zeros(1, 99, 3)})
        with pytest.raises(DataError, match="reads finite"):
            fitted.predict({})
    with pytest.raises(DataError, match="never changes"):
        Nvar().fit(from_arrays([{STATE: np.ones((50, 2))}]))


# ---- equations --------------------------------------------------------------------------------------------------------


def test_the_law_of_lorenz_is_written_in_monomials():
    true = polynomial_law(ode_world("lorenz").derivative, np.random.default_rng(0).uniform(-20, 20, (100, 3)))
    wanted = np.zeros((10, 3))  # 1, x, y, z, xx, xy, xz, yy, yz, zz
    wanted[[1, 2], 0] = -10, 10
    wanted[[1, 2, 6], 1] = 28, -1, -1
    wanted[[3, 5], 2] = -8 / 3, 1
    assert true == pytest.approx(wanted)


def test_what_is_no_polynomial_has_no_polynomial_law():
    world = ode_world("pendulum")
    assert polynomial_law(world.derivative, np.random.default_rng(0).uniform(-2, 2, (100, 2))) is None


def test_laws_are_the_same_where_terms_and_values_are():
    true = np.array([[0.0, 2.0], [1.0, 0.0]])
    assert same_law(true * 1.04, true)
    assert not same_law(true * 1.06, true)
    assert not same_law(true + 1e-9, true)


# ---- sampling and transfer --------------------------------------------------------------------------------------------


def test_segments_teach_and_repeat_under_a_seed():
    training = SegmentTraining(epochs=4, steps=60)
    world = ode_world("lorenz")
    curve = training.run(world, True, 0)
    assert curve[-1] < 0.5 * curve[0]
    assert np.array_equal(curve, training.run(world, True, 0))


def test_steps_saved_are_counted_on_smoothed_curves():
    down = np.linspace(1, 0, 32)
    assert steps_saved(down, down) == 1
    assert steps_saved(np.minimum(down, 2 * down - 1), down) == pytest.approx(0.5, abs=0.06)
    assert steps_saved(down + 1, down) == np.inf


def test_surrogates_have_the_wanted_period():
    t = np.arange(1500)
    pieces = surrogates([np.sin(2 * np.pi * t / 60), t % 60 > 30], 60, 25, 100, 12, seed=0)
    power = np.abs(np.fft.rfft(pieces, axis=1)) ** 2
    assert (power.argmax(1) == 4).all()


def test_the_encoder_looks_back_only_and_learning_lowers_its_loss():
    pieces = surrogates([np.sin(2 * np.pi * np.arange(1500) / 60)], 60, 20, 60, 100, seed=0)
    drawn, learned = encoders(pieces, 20, seed=0, steps=80)
    series = torch.from_numpy(pieces.astype(np.float32))
    assert float(learned.loss(series, 20).detach()) < 0.3 * float(drawn.loss(series, 20).detach())
    changed = series.clone()
    changed[:, 20:] += 1
    assert torch.equal(drawn.channels(series)[:, :, :20], drawn.channels(changed)[:, :, :20])
    assert features(learned, pieces).shape == (100, 24)


def test_accuracy_is_that_of_a_linear_boundary():
    x = np.random.default_rng(0).normal(size=(200, 5))
    y = x[:, 0] > 0
    assert accuracy(x[:100], y[:100], x[100:], y[100:]) > 0.9
