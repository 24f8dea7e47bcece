"""GTF and AL-RNN: they learn a law, say what it is, and what they say is what they simulate."""

import warnings

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from retrodict.dynamics.plrnn import AlmostLinear
from retrodict.errors import DataError
from retrodict.metrics.free_runs import attractor_distance
from retrodict.systems.laws.al_rnn import ALRNN
from retrodict.systems.laws.gtf import GTF
from retrodict.trajectories import from_arrays
from retrodict.trajectories.features import STATE, VALID

FPS = 20.0
TIME = np.arange(0, 100, 1 / FPS)
SERIES = np.stack([3 + 2 * np.sin(TIME), np.cos(TIME) - 5, np.sin(2 * TIME)], 1).astype(np.float32)
DATA = from_arrays([{STATE: SERIES[:1200]}, {STATE: SERIES[1200:]}], fps=FPS)

SETTINGS = {
    "gtf": lambda: GTF(hidden=8, sequence=20, steps=40),
    "gtf, more states": lambda: GTF(hidden=8, latent=5, sequence=20, steps=40),
    "gtf, linear readout": lambda: GTF(hidden=8, latent=4, readout="linear", sequence=20, steps=40),
    "gtf, adaptive": lambda: GTF(hidden=8, teacher="adaptive", sequence=20, steps=40),
    "gtf, sparse, not clipped": lambda: GTF(hidden=8, teacher="sparse", clipped=False, every=5, sequence=20, steps=40),
    "al-rnn": lambda: ALRNN(latent=6, every=5, sequence=20, steps=40),
    "al-rnn, linear": lambda: ALRNN(latent=6, rectified=0, every=5, sequence=20, steps=40, sparsity=1e-4),
}


@pytest.fixture(scope="module")
def fitted():
    return {name: make().fit(DATA) for name, make in SETTINGS.items()}


@pytest.fixture(scope="module")
def circle():
    """A law that has learned to go round."""
    settings = {"every": 5, "sequence": 40, "noise": 0.01, "learning_rate": 5e-3, "steps": 3000}
    return ALRNN(latent=6, rectified=1, seed=1, **settings).fit(DATA)


def test_a_run_that_is_simulated_is_the_one_that_was_recorded(circle):
    times = torch.arange(0, 200) * circle.dt
    path = circle.simulate(torch.from_numpy(SERIES[None, 0]), times)[0].numpy()
    np.testing.assert_allclose(path[0], SERIES[0], atol=1e-5)
    assert np.abs(path - SERIES[:200]).max() < 0.6
    assert circle.dt == pytest.approx(0.05)


def test_a_rotation_neither_grows_nor_is_chaotic(circle):
    spectrum = circle.lyapunov(steps=2000)
    assert -0.3 < spectrum.largest < 0.1
    assert len(spectrum.per_time) == 6


@pytest.mark.parametrize("name", SETTINGS)
def test_state_and_observation_lead_to_each_other(fitted, name):
    law, x = fitted[name], torch.from_numpy(SERIES[:10]).double()
    torch.testing.assert_close(law.observe(law.embed(x)), x)


@pytest.mark.parametrize("name", SETTINGS)
def test_simulation_is_the_step_again_and_again(fitted, name):
    law, x = fitted[name], torch.from_numpy(SERIES[:3]).double()
    z, seen = law.embed(x), []
    for _ in range(30):
        z = law.step(z)
        seen.append(law.observe(z))
    path = law.simulate(x, law.dt * torch.tensor([0, 1, 2, 7, 30], dtype=torch.float64))
    backwards = law.simulate(x, law.dt * torch.tensor([30, 7, 2, 1, 0], dtype=torch.float64))
    torch.testing.assert_close(backwards.flip(1), path)
    torch.testing.assert_close(path[:, 0], x)
    torch.testing.assert_close(path[:, 1:], torch.stack([seen[0], seen[1], seen[6], seen[29]], 1))


@pytest.mark.parametrize("name", SETTINGS)
def test_the_jacobian_is_the_derivative_of_the_step(fitted, name):
    law = fitted[name]
    z = law.embed(torch.from_numpy(SERIES[:8]).double())
    torch.testing.assert_close(law.jacobian(z), torch.func.vmap(torch.func.jacrev(law.law().step))(z))


@pytest.mark.parametrize("name", [name for name in SETTINGS if name.startswith("gtf")])
def test_what_gtf_prints_is_what_it_simulates(fitted, name):
    law = fitted[name]
    z = law.embed(torch.from_numpy(SERIES[:1]).double())
    for _ in range(3):
        after, seen = evaluated(law.equations()[1:], z[0])
        np.testing.assert_allclose(seen, law.observe(z)[0], rtol=1e-5, atol=1e-5)
        z = law.step(z)
        np.testing.assert_allclose(after, z[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["al-rnn", "al-rnn, linear"])
def test_what_al_rnn_prints_is_what_it_simulates(fitted, name):
    law = fitted[name]
    regions, code = {}, None
    lines = law.equations()
    for line in lines[1:]:
        if line.startswith("region"):
            code = int(line.split()[1])
            regions[code] = [entry for entry in lines if entry.startswith("x")]
        elif code is not None:
            regions[code].append(line)
    z = law._orbit(5)
    codes = law._codes(law.law().bits(z)).tolist()
    assert set(codes) <= set(regions)
    for state, code in zip(z, codes, strict=True):
        after, seen = evaluated(regions[code], state)
        np.testing.assert_allclose(after, law.step(state), rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(seen, law.observe(state), rtol=1e-5, atol=1e-5)


def evaluated(lines, state):
    """The next state and what is seen of this one, by the lines that were printed."""
    values = {f"z{i + 1}": float(value) for i, value in enumerate(state)}
    after, seen = [], []
    for line in lines:
        name, right = line.split(" = ")
        value = eval(right, {"relu": lambda u: max(u, 0.0)}, values)
        if name.startswith("u"):
            values[name] = value
        (after if name.endswith("'") else seen if name.startswith("x") else []).append(value)
    return np.array(after), np.array(seen)


def test_a_law_has_its_normalisation_and_its_settings_with_it_when_loaded(fitted, tmp_path):
    law = fitted["gtf, linear readout"]
    loaded = GTF.load(law.save(tmp_path / "law"))
    assert loaded.equations() == law.equations()
    assert np.array_equal(loaded.net_.normal.offset, law.net_.normal.offset)
    np.testing.assert_allclose(law.net_.normal.offset, SERIES.mean(0), rtol=1e-4)


def test_free_runs_start_from_the_data_and_repeat_under_a_seed(fitted):
    law = fitted["gtf"]
    torch.manual_seed(0)
    first = law.sample(3, length=50)[STATE]
    torch.manual_seed(0)
    assert torch.equal(first, law.sample(3, length=50)[STATE])
    assert first.shape == (3, 50, 3)
    given = law.sample(2, {STATE: torch.from_numpy(SERIES[:2])}, length=4)[STATE]
    torch.testing.assert_close(given[:, 1], law.simulate(torch.from_numpy(SERIES[:2]), torch.tensor([2 * law.dt]))[:, 0])
    with pytest.raises(DataError, match="asked for 3 runs"):
        law.sample(3, {STATE: torch.from_numpy(SERIES[:2])})


def test_fixed_points_and_cycles_are_what_they_say(fitted):
    for law in fitted.values():
        for period in (1, 2):
            for cycle in law.cycles(period):
                torch.testing.assert_close(law.step(cycle.states), cycle.states.roll(-1, 0), rtol=1e-6, atol=1e-8)
    law = fitted["al-rnn"]
    every = law.fixed_points("all")
    for point in law.fixed_points():
        assert any(torch.allclose(point.states, other.states) for other in every)


def test_a_law_is_drawn(fitted, circle):
    assert isinstance(fitted["gtf"].plot(), Figure)
    figure = circle.plot()
    assert [ax.get_title() for ax in figure.axes] == ["attractor", "course", "spectrum", "regions"]
    figure.canvas.draw()


# ---- forcing ------------------------------------------------------------------------------------------------------------


def test_adaptive_forcing_falls_from_one_and_is_resumed(fitted):
    alpha = float(fitted["gtf, adaptive"].net_.alpha)
    assert 0.99 < alpha < 1.0
    more = GTF(hidden=8, teacher="adaptive", sequence=20, steps=80).fit(DATA)
    assert float(more.net_.alpha) < alpha


def test_where_alpha_is_one_every_step_starts_from_the_data():
    law = GTF(hidden=8, alpha=1.0, sequence=20, steps=4, shrinkage=0.0).fit(DATA)
    batch = DATA.windows(law.window(law.spec_), 4).at(0)
    z = law.embed(batch[STATE].double())
    errors = (law.net_.normal(law.observe(law.step(z[:, :-1]))) - law.net_.normal(batch[STATE][:, 1:])).square().mean()
    assert law.loss(law.net_, batch)["prediction"].item() == pytest.approx(errors.item(), rel=1e-4)


# ---- symbols ------------------------------------------------------------------------------------------------------------


def test_the_weights_kept_are_those_whose_free_run_fills_space_as_the_held_out_series_does():
    held = SERIES[1200:]

    def distance(law):
        times = law.dt * torch.arange(len(held), 5 * len(held))
        return attractor_distance(held, law.simulate(torch.from_numpy(held[:1]).double(), times)[0].numpy())

    settings = {"hidden": 8, "sequence": 20, "steps": 60}
    last = GTF(**settings).fit(DATA)
    best = GTF(**settings, evaluate_every=20).fit(DATA, validation=from_arrays([{STATE: held}], fps=FPS))
    assert best.trained_.best == pytest.approx(distance(best), rel=1e-2)
    assert distance(best) <= distance(last)


def test_symbols_are_the_regions_in_which_the_states_of_the_data_lie(circle):
    symbols = circle.symbols(SERIES[:300])
    assert symbols.shape == (300,)
    assert set(symbols.tolist()) <= {0, 1}
    window = DATA.windows(circle.reads, 4, order="sequence").at(10)
    codes = circle.encode(window)
    assert codes.shape == (4, circle.sequence, 1)
    assert not codes.is_floating_point()
    graph = circle.graph(5000)
    assert graph.occupancy.sum() == pytest.approx(1)
    assert circle.flipping() in (0, 1)


def test_bits_and_codes_are_inverse(fitted):
    law = fitted["al-rnn"]
    codes = torch.arange(4)
    assert torch.equal(law._codes(law._bits(codes)), codes)


def test_a_linear_law_has_one_region(fitted):
    law = fitted["al-rnn, linear"]
    assert law.graph(500).codes.tolist() == [0]
    assert len(law.fixed_points()) == 1


def test_a_law_that_diverges_is_said_to_and_raises_nowhere(fitted, tmp_path):
    law = ALRNN.load(fitted["al-rnn"].save(tmp_path / "law"))
    with torch.no_grad():
        law.net_.law.a.fill_(3.0)
    path = law.simulate(torch.from_numpy(SERIES[:1]), law.dt * torch.arange(2000, dtype=torch.float64))
    assert not torch.isfinite(path).all()
    assert law.lyapunov(steps=3000).diverged
    law.plot()
    law.fixed_points()
    with pytest.raises(DataError, match="diverges"):
        law.graph(2000)


# ---- what is refused ----------------------------------------------------------------------------------------------------

GAPS = from_arrays([{STATE: SERIES, VALID + STATE: np.arange(len(SERIES)) != 17}], fps=FPS)
CLOCK = from_arrays([{STATE: SERIES, "timestamp": np.sort(np.random.default_rng(0).uniform(0, 1, len(SERIES)))}])
STILL = from_arrays([{STATE: np.concatenate([SERIES, np.ones((len(SERIES), 1), np.float32)], 1)}], fps=FPS)


@pytest.mark.parametrize(
    ("law", "data", "sentence"),
    [
        (GTF(sequence=5000), DATA, "at least 5001; the longest has 1200"),
        (GTF(latent=2), DATA, 'readout="linear"'),
        (GTF(alpha=1.5), DATA, "alpha lies in"),
        (GTF(teacher="sparse", every=0), DATA, "every and hidden are at least 1"),
        (GTF(teacher="sparse", every=500), DATA, "no forcing ever happens"),
        (GTF(steps=4), GAPS, "is missing at step 17"),
        (GTF(steps=4), CLOCK, "no even clock"),
        (GTF(steps=4), STILL, "never change"),
        (ALRNN(rectified=21), DATA, "of 20 entries, 21 cannot be rectified"),
        (ALRNN(rectified=-1), DATA, "cannot be rectified"),
        (ALRNN(latent=2, rectified=1), DATA, "must contain the 3 observed channels"),
        (ALRNN(every=201), DATA, "no forcing ever happens"),
        (ALRNN(noise=-1), DATA, "noise at least 0"),
    ],
)
def test_what_cannot_be_learned_from_is_said_in_one_sentence(law, data, sentence):
    with pytest.raises(DataError, match=sentence) as raised:
        law.fit(data)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda law: law.simulate(torch.zeros(2, 4), torch.arange(3.0)), r"\(\.\.\., 3\) are expected"),
        (lambda law: law.simulate(torch.zeros(2, 3), torch.tensor([0.01])), "a step of 0.05"),
        (lambda law: law.simulate(torch.zeros(2, 3), torch.tensor([-0.05, 0.1])), "from 0 on"),
        (lambda law: law.simulate(torch.zeros(2, 3), torch.tensor([0.0]), actions=torch.zeros(1)), "neither actions"),
        (lambda law: law.step(torch.zeros(3)), r"states \(\.\.\., 6\)"),
        (lambda law: law.symbols(np.zeros((5, 2))), "learned from 3 channels"),
        (lambda law: law.cycles(0), "at least 1"),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_sentence(fitted, ask, sentence):
    with pytest.raises(DataError, match=sentence):
        ask(fitted["al-rnn"])


def test_too_many_regions_are_not_looked_at_one_by_one(fitted):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        law = ALRNN(latent=20, rectified=13, every=5, sequence=20, steps=4).fit(DATA)
    with pytest.raises(DataError, match=r"2\^13 regions"):
        law.fixed_points("all")
    assert isinstance(law.law(), AlmostLinear)


def test_rectified_channels_are_warned_of():
    with pytest.warns(UserWarning, match="some of the 3 that are seen"):
        ALRNN(latent=5, rectified=4, every=5, sequence=20, steps=4).fit(DATA)


def test_noise_that_hides_the_law_is_warned_of():
    noisy = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    with pytest.warns(UserWarning, match="too noisy"):
        GTF(hidden=4, sequence=20, steps=4).fit(from_arrays([{STATE: noisy}], fps=FPS))
