import dataclasses
import sys

import numpy as np
import pytest

from retrodict.dynamics.ensemble import integrate_ensemble
from retrodict.errors import DataError, MissingExtraError
from retrodict.worlds.chaos import dysts_flows, ode_world, ode_worlds
from retrodict.worlds.chaos.flows import KNOWN

STATE = "observation.state"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRODICT_CACHE", str(tmp_path / "cache"))


def test_all_named_systems_record_and_keep_their_jacobians():
    for name in ode_worlds():
        world = ode_world(name)
        recordings = world.record(50, episodes=2, precision="float64")
        assert len(recordings) == 2
        assert recordings.features[STATE].names == list(world.observed_names or world.names)
        state = world.starts(1)[0]
        slopes = world.jacobian(state)
        for i, direction in enumerate(np.eye(len(state))):
            h = 1e-6
            assert slopes[:, i] == pytest.approx(
                (world.derivative(state + h * direction) - world.derivative(state - h * direction)) / (2 * h), abs=1e-5
            )


def test_literature_values_of_the_named_systems():
    for name in ("lorenz", "roessler"):
        world = ode_world(name)
        spectrum = world.lyapunov(orbits=16, periods=400)
        assert spectrum.largest == pytest.approx(world.known["lyapunov"], rel=0.04)
        assert spectrum.kaplan_yorke == pytest.approx(world.known["kaplan_yorke"], abs=0.01)
    assert ode_world("lorenz").invariants.correlation == pytest.approx(2.05, abs=0.1)
    assert not ode_world("lorenz", rho=20.0).known  # they are not those of other parameters


def test_the_pendulum_has_its_exact_solution():
    world, times = ode_world("pendulum", stiffness=2.0), np.linspace(0, 12, 100)
    for start in ([2.0, 0.0], [-1.0, 0.8], [0.5, -1.3], [0.0, 1.0]):
        found = world.integrate(start, times, rtol=1e-11).states[0]
        assert found == pytest.approx(world.exact(np.array(start), times), abs=1e-8)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (
            "lotka-volterra",
            lambda x, p: p[2] * x[..., 0] - p[3] * np.log(x[..., 0]) + p[1] * x[..., 1] - p[0] * np.log(x[..., 1]),
        ),
        ("lamb-oseen", lambda x, p: (x**2).sum(-1)),
    ],
)
def test_what_is_conserved_is_kept(name, kept):
    world = ode_world(name)
    path = world.record(500, episodes=3, precision="float64")
    for episode in path:
        values = kept(episode[STATE], world.vector)
        assert np.ptp(values) < 1e-6 * max(1, abs(values).max())


def test_recordings_repeat_and_an_episode_does_not_depend_on_how_many_there_are():
    world = ode_world("lorenz")
    few, many = world.record(30, 0.01, seed=3, episodes=2), world.record(30, 0.01, seed=3, episodes=4)
    assert np.array_equal(few[1][STATE], many[1][STATE])
    assert not np.array_equal(few[0][STATE], world.record(30, 0.01, seed=4)[0][STATE])
    assert few.fps == pytest.approx(100)
    assert few.domains == ("lorenz",)


def test_a_phase_that_grows_for_ever_is_recorded_as_what_it_drives():
    drive = ode_world("forced-duffing").record(500, episodes=1)[0][STATE][:, 2]
    assert np.abs(drive).max() <= 1


def test_noise_is_a_share_of_the_deviation_and_the_truth_is_hidden():
    recordings = ode_world("lorenz").record(4000, 0.02, noise=0.05, precision="float64")
    noisy, clean = recordings[0][STATE], recordings[0]["privileged.state"]
    assert (noisy - clean).std(0) / clean.std(0) == pytest.approx([0.05] * 3, rel=0.06)
    assert "privileged.state" not in recordings.visible().features


def test_trajectories_come_from_the_cache_the_second_time(monkeypatch):
    world = ode_world("lorenz")
    first = world.record(100, ic=[1.0, 1.0, 1.0])
    blind = dataclasses.replace(world, rhs=None)
    assert np.array_equal(blind.record(100, ic=[1.0, 1.0, 1.0])[0][STATE], first[0][STATE])
    with pytest.raises(DataError, match="compiled flow"):
        blind.record(101, ic=[1.0, 1.0, 1.0])


def test_stiff_systems_are_named_and_lsoda_serves_them():
    world = ode_world("lotka-volterra", alpha=1e5, delta=1e5)
    with pytest.raises(DataError, match=r"lotka-volterra, trajectory 0, dop853 at rtol 1e-09: still at t = .*method='lsoda'"):
        world.record(20, 1e4, ic=[3.0, 1.0])
    mild = ode_world("lorenz")
    stiff = mild.record(20, 0.01, ic=[1.0, 1, 1], method="lsoda", precision="float64")[0][STATE]
    assert stiff == pytest.approx(mild.record(20, 0.01, ic=[1.0, 1, 1], precision="float64")[0][STATE], abs=1e-5)


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda: ode_world("lorentz"), "did you mean lorenz"),
        (lambda: ode_world("lorenz", roh=1.0), "has no parameter 'roh'; it has sigma, rho, beta"),
        (lambda: ode_world("lorenz", rho=[1.0]), "of shape"),
        (lambda: ode_world("lorenz").record(1), "n starts at 2"),
        (lambda: ode_world("lorenz").record(10, ic=[1.0, 2.0]), "3 coordinates"),
        (lambda: ode_world("lorenz").record(10, ic=[0.0, 0.0, 0.0]), "stands still"),
        (lambda: ode_world("lorenz").record(10, precision="half"), "float32 or float64"),
        (lambda: ode_world("lorenz").record(10, method="radau"), "dop853 and lsoda"),
        (lambda: ode_world("duffing", beta=-1.0, alpha=1.0).record(900, ic=[3.0, 1.0]), r"blew up at t = 0\.\d+"),
    ],
)
def test_bad_input_is_named(ask, sentence):
    with pytest.raises(DataError, match=sentence):
        ask()


# ---- the package dysts ----------------------------------------------------------------------------------------------------


@pytest.fixture
def package():
    return pytest.importorskip("dysts.flows", reason='dysts is not installed: pip install "retrodict[chaos]"')


@pytest.mark.parametrize("name", ["Lorenz", "MultiChua", "Lorenz96", "InteriorSquirmer", "Hopfield", "Colpitts", "MacArthur"])
def test_compiled_right_hand_sides_are_those_of_the_package(package, name):
    """One of each kind: plain, calling its own methods, on arrays, with array parameters, with what numba must be taught."""
    world, model = ode_world(f"dysts/{name}"), getattr(package, name)()
    rng = np.random.default_rng(0)
    for t in (0.0, 1.3):
        x = world.start * (1 + 0.1 * rng.normal(size=len(world.start)))
        assert world.derivative(x, t) == pytest.approx(np.asarray(model.rhs(x.copy(), t), float), rel=1e-10, abs=1e-12)


def test_the_counts_of_the_package(package):
    assert len(ode_worlds(dysts=True)) == 129  # of 135; six are delay equations
    assert len(ode_worlds(dysts=True, dimension=3, autonomous=True, bounded=True)) == 89


def test_parameters_reach_a_system_of_the_package(package):
    world = ode_world("chaos/dysts/Lorenz", rho=60.0)
    assert world.derivative([1.0, 0, 0])[1] == 60
    assert ode_world("dysts/Lorenz").derivative([1.0, 0, 0])[1] == 28


def test_unbounded_coordinates_are_recorded_as_the_package_bounds_them(package):
    recordings = ode_world("dysts/ForcedVanDerPol").record(300)
    assert np.abs(recordings[0][STATE]).max() < 20
    assert recordings[0][STATE].shape == (300, 3)


def test_trajectories_agree_with_the_package(package):
    world, model = ode_world("dysts/Halvorsen"), package.Halvorsen()
    times, theirs = model.make_trajectory(60, pts_per_period=50, method="DOP853", rtol=1e-10, atol=1e-10, return_times=True)
    assert integrate_ensemble(world.rhs, world.start, times, world.vector, rtol=1e-10).states[0] == pytest.approx(
        theirs, abs=1e-6
    )


def test_what_is_no_autonomous_equation_is_said_to_be_none(package):
    with pytest.raises(DataError, match="delay equation"):
        ode_world("dysts/MackeyGlass")
    with pytest.raises(DataError, match="did you mean dysts/Halvorsen"):
        ode_world("dysts/Halvorson")
    with pytest.raises(DataError, match="depends on time itself"):
        ode_world("dysts/Torus").lyapunov()


def test_without_the_package_the_extra_is_named(monkeypatch):
    dysts_flows._package.cache_clear()
    dysts_flows._classes.cache_clear()
    monkeypatch.setitem(sys.modules, "dysts.flows", None)  # importing it then raises ImportError
    with pytest.raises(MissingExtraError, match=r"retrodict\[chaos\]"):
        ode_world("dysts/Lorenz")


def test_literature_values_stand_only_where_their_source_does():
    assert all(row.source for row in KNOWN.values() if row.known)
