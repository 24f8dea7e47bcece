"""koopman-vae: gaps, splines, priors and laws, constraints, judges, refusals."""

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline
from scipy.stats import multivariate_normal

from retrodict.errors import DataError
from retrodict.objectives.gaussians import kl_normal
from retrodict.systems.generators.koopman_vae import KoopmanVAE, _halves
from retrodict.systems.generators.koopman_vae_networks import fill_gaps
from retrodict.systems.generators.latent_priors import GRUPrior, LinearPrior
from retrodict.systems.generators.series_scores import discriminative_score, predictive_score
from retrodict.training.probes import encoded
from retrodict.trajectories import from_arrays
from retrodict.trajectories.features import STATE, VALID

SMALL = {"frames": 8, "latent": 4, "hidden": 6, "steps": 3, "batch": 16, "device": "cpu"}


def sines(n=40, steps=8, seed=0, channels=2):
    rng = np.random.default_rng(seed)
    speed, phase = rng.uniform(0.2, 0.6, (2, n, 1, channels))
    return np.sin(speed * np.arange(steps)[None, :, None] + phase).astype(np.float32)


def recorded(windows, **more):
    return from_arrays([{STATE: window} for window in windows], fps=10, **more)


def with_gaps(windows, share=0.4, seed=1):
    valid = np.random.default_rng(seed).random(windows.shape[:2]) > share
    valid[:, :2] = True
    return from_arrays(
        [{STATE: np.where(v[:, None], w, 0), VALID + STATE: v[:, None]} for w, v in zip(windows, valid, strict=True)], fps=10
    )


# ---- parts ------------------------------------------------------------------------------------------------------------


def test_kl_agrees_with_torch():
    a, b = (torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    normal = torch.distributions.Normal
    both = torch.distributions.kl_divergence(normal(a[0], (a[1] / 2).exp()), normal(b[0], (b[1] / 2).exp()))
    torch.testing.assert_close(kl_normal(a[0], a[1], b[0], b[1]), both.sum(-1))
    torch.testing.assert_close(kl_normal(a[0], a[1], b[0], b[1], dims=2), both.sum((-1, -2)))
    unit = torch.distributions.kl_divergence(normal(a[0], (a[1] / 2).exp()), normal(0.0, 1.0))
    torch.testing.assert_close(kl_normal(a[0], a[1]), unit.sum(-1))


def test_gaps_are_filled_by_the_spline_of_scipy():
    x = torch.from_numpy(sines(3, 12)).double()
    seen = torch.rand(3, 12, generator=torch.Generator().manual_seed(0)) > 0.4
    seen[:, 0] = seen[:, -1] = True
    filled = fill_gaps(x, seen)
    steps = np.arange(12)
    for i in range(3):
        theirs = CubicSpline(steps[seen[i]], x[i][seen[i]], bc_type="natural")
        np.testing.assert_allclose(filled[i], theirs(steps), atol=1e-10)
    torch.testing.assert_close(fill_gaps(x, torch.ones_like(seen)), x)


def test_beyond_what_was_seen_values_stay():
    seen = torch.zeros(2, 8, dtype=torch.bool)
    seen[0, 3:5] = True
    filled = fill_gaps(torch.from_numpy(sines(2)), seen)
    torch.testing.assert_close(filled[0, :3], filled[0, 3:4].expand(3, -1))
    assert filled[1].abs().max() == 0


@pytest.mark.parametrize("prior", [GRUPrior(3, 5), LinearPrior(3)])
def test_a_prior_foretells_what_it_draws(prior):
    torch.manual_seed(0)
    z, mean, logvar = prior.paths(6, 7)
    again = prior.following(z)
    torch.testing.assert_close(again[0], mean)
    torch.testing.assert_close(again[1], logvar.expand_as(mean))


def test_the_linear_prior_has_the_density_of_its_law():
    torch.manual_seed(0)
    prior = LinearPrior(2).double()
    z = torch.randn(1, 2, 2, dtype=torch.float64)
    mean, logvar = prior.following(z)
    ours = torch.distributions.Normal(mean, (logvar / 2).exp()).log_prob(z).sum().item()
    a = prior.operator.detach().numpy()
    first, noise = np.diag(np.exp(prior.first_logvar.detach().numpy())), np.diag(np.exp(prior.logvar.detach().numpy()))
    covariance = np.block([[first, first @ a], [a.T @ first, a.T @ first @ a + noise]])
    centre = np.concatenate([prior.first.detach().numpy(), prior.first.detach().numpy() @ a])
    assert ours == pytest.approx(multivariate_normal(centre, covariance).logpdf(z.flatten().numpy()))


# ---- the system -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", ["gru", "linear", "independent"])
@pytest.mark.parametrize("irregular", [False, True])
def test_every_prior_samples_encodes_and_obeys_a_law(prior, irregular):
    data = with_gaps(sines()) if irregular else recorded(sines())
    model = KoopmanVAE(**SMALL, prior=prior, irregular=irregular, decoder="gru" if irregular else "pointwise").fit(data)
    made = model.sample(5, length=12)[STATE]
    assert made.shape == (5, 12, 2)
    low, high = sines().min((0, 1)), sines().max((0, 1))
    assert (made >= torch.from_numpy(low) - 1e-5).all()
    assert (made <= torch.from_numpy(high) + 1e-5).all()
    assert model.sample(3, mode="linear")[STATE].shape == (3, 8, 2)
    codes = model.encode(data.windows(model.reads, 4).at(0))
    assert codes.shape == (4, 8, 4)
    path = model.simulate(codes[:, 0], torch.tensor([0.0, 0.1, 0.2]))
    torch.testing.assert_close(path[:, 2], model.step(model.step(codes[:, 0])))
    torch.testing.assert_close(model.jacobian(codes[:1, 0])[0] @ codes[0, 0], model.step(codes[0, 0]))
    assert len(model.equations()) >= 2
    assert model.linearity() <= 1


def test_a_penalty_that_is_normalised_is_felt():
    settings = {**SMALL, "steps": 150, "learning_rate": 1e-2}
    free = KoopmanVAE(**settings, w_pred=0).fit(recorded(sines()))
    bound = KoopmanVAE(**settings, w_pred=10, penalty="normalised").fit(recorded(sines()))
    assert bound.linearity() > free.linearity() + 0.1


def test_eigenvalues_are_drawn_to_the_circle():
    settings = {**SMALL, "steps": 150, "learning_rate": 1e-2, "prior": "linear"}
    off = [
        (KoopmanVAE(**settings, unit_modes=k, w_eig=10).fit(recorded(sines())).eigenvalues().abs()[:2] - 1).abs().max()
        for k in (0, 2)
    ]
    assert off[1] < 0.02 < off[0]


def test_gaps_are_not_learned_from_and_are_filled():
    windows = sines(60)
    spoiled = with_gaps(windows)
    model = KoopmanVAE(**{**SMALL, "steps": 120, "learning_rate": 2e-2}, irregular=True).fit(spoiled)
    other = spoiled.with_column(STATE, [np.where(np.asarray(e[VALID + STATE]), e[STATE], 77).astype(np.float32) for e in spoiled])
    again = KoopmanVAE(**{**SMALL, "steps": 120, "learning_rate": 2e-2}, irregular=True).fit(other)
    torch.testing.assert_close(model.net_.state_dict(), again.net_.state_dict())
    fresh = torch.from_numpy(sines(30, seed=5))
    known = torch.rand(30, 8, generator=torch.Generator().manual_seed(0)) > 0.4
    known[:, 0] = known[:, -1] = True
    filled = model.complete({STATE: torch.where(known[..., None], fresh, torch.nan)}, known)[STATE]
    torch.testing.assert_close(filled[known], fresh[known])
    assert (filled - fresh)[~known].abs().mean() < 0.7 * (fresh.mean((0, 1)) - fresh)[~known].abs().mean()


def test_an_uneven_clock_is_read_by_time():
    kept = np.array([0, 1, 2, 4, 5, 7, 8, 9, 11, 12, 13, 14])
    series = sines(1, 15)[0]
    uneven = from_arrays([{STATE: series[kept], "timestamp": kept / 10.0}])
    with pytest.raises(DataError, match="uneven clock"):
        KoopmanVAE(**SMALL).fit(uneven)
    with pytest.raises(DataError, match="begins at step 0 lacks some"):
        KoopmanVAE(**SMALL, every=0.1).fit(uneven)
    model = KoopmanVAE(**SMALL, irregular=True, every=0.1).fit(uneven)
    batch = uneven.windows(model.reads, 1, order="sequence").at(0)
    assert batch["mask"][0].tolist() == [True, True, True, False, True, True, False, True]
    assert model.encode(batch).shape == (1, 8, 4)


def test_windows_of_which_too_little_was_seen_are_left_out():
    series = np.concatenate(sines(4))
    series[5:20] = np.nan
    holed = from_arrays([{STATE: series}], fps=10)
    model = KoopmanVAE(**SMALL, irregular=True).fit(holed)
    read = torch.cat([batch["mask"] & batch[STATE].isfinite().all(-1) for batch in model._windows(holed, "sequence")])
    assert len(read) == 4 * 8 - 7 - 10, "those that begin at rows 4 to 13 hold one step or none"
    assert (read.sum(1) >= 2).all()
    assert len(model._apart(holed)[0]) == 3, "of the four windows that share no step, the second begins among what is missing"


def test_an_uneven_clock_without_gaps_is_read_as_a_regular_series():
    jittered = np.arange(40) / 10 + np.random.default_rng(0).uniform(-0.02, 0.02, 40)
    even = from_arrays([{STATE: np.concatenate(sines(5)), "timestamp": jittered}])
    model = KoopmanVAE(**SMALL, every=0.1).fit(even)
    assert model.encode(even.windows(model.reads, 4, order="sequence").at(0)).shape == (4, 8, 4)


def test_codes_are_certified_on_windows_put_aside():
    model = KoopmanVAE(**{**SMALL, "steps": 60}).fit(recorded(sines(120)))
    values, bounds = model.certify(recorded(sines(120, seed=3)))
    assert len(values) == len(bounds)
    assert bounds.min() < 1e-6  # the constant function
    assert bounds.max() > 0.05


def test_windows_that_are_put_aside_share_no_step_with_the_others():
    model = KoopmanVAE(**SMALL).fit(recorded(sines(40)))
    long = from_arrays([{STATE: np.concatenate(sines(9, seed=i))} for i in range(2)], fps=10)
    _, episodes = model._apart(long)
    assert episodes.tolist() == [0] * 9 + [1] * 9, "windows one after the other"
    first, second = _halves(episodes, 0)
    assert set(first.tolist()) == {0, 1, 2, 3, 9, 10, 11, 12}
    assert set(first.tolist()) | set(second.tolist()) == set(range(18))
    many = torch.arange(10).repeat_interleave(3)
    first, second = _halves(many, 0)
    assert not set(many[first].tolist()) & set(many[second].tolist())
    assert len(first) == len(second) == 15
    with pytest.raises(DataError, match="only 1"):
        _halves(torch.zeros(1, dtype=torch.long), 0)


def test_the_code_of_a_step_is_read_among_the_steps_around_it():
    model = KoopmanVAE(**SMALL).fit(recorded(sines(40)))
    series = from_arrays([{STATE: np.concatenate(sines(3, seed=1))}], fps=10)
    found = encoded(model, series, (STATE,))
    assert found.codes.shape == (len(series[0]) - 7, 4)
    window = series.windows(model.reads, 1, order="sequence").at(5)
    np.testing.assert_allclose(found.codes[5], model.encode(window)[0, 0].cpu(), atol=1e-6)


# ---- judges -----------------------------------------------------------------------------------------------------------


def test_judges_tell_noise_from_series_and_not_series_from_series():
    real, same = (torch.from_numpy(sines(300, seed=i)) for i in (0, 1))
    noise = torch.rand(300, 8, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    few = {"hidden": 8, "judges": 2, "steps": 300}
    assert discriminative_score(real, noise, **few).mean > 0.4
    assert discriminative_score(real, same, **few).mean < 0.15
    assert predictive_score(real, same, **few).mean < predictive_score(real, noise, **few).mean
    assert discriminative_score(real, same, **few).values.tolist() == discriminative_score(real, same, **few).values.tolist()


def test_judges_refuse_what_they_cannot_compare():
    with pytest.raises(DataError, match="one: at least 2"):
        predictive_score(torch.zeros(9, 8, 1), torch.zeros(9, 8, 1))
    with pytest.raises(DataError, match="of one shape"):
        discriminative_score(torch.zeros(9, 8, 2), torch.zeros(9, 7, 2))


# ---- bad input --------------------------------------------------------------------------------------------------------


def series_with(**more):
    return from_arrays([{STATE: sines(1, 20)[0], **more}], fps=None if "timestamp" in more else 10)


def spoiled():
    windows = sines(3)
    windows[1, 2] = np.nan
    return recorded(windows)


@pytest.mark.parametrize(
    ("settings", "recordings", "sentence"),
    [
        ({}, lambda: recorded(sines() * [1, 0]), r"\[1\] never change"),
        ({}, spoiled, "not finite at step 2"),
        ({}, lambda: with_gaps(sines()), "set irregular=True"),
        ({}, lambda: from_arrays([{STATE: sines(1)[0]}, {STATE: sines(1, 5)[0]}], fps=10), "set irregular=True"),
        ({"irregular": True}, lambda: from_arrays([{STATE: np.full((8, 2), np.nan, "f4")}] * 2, fps=10), "observed step"),
        ({}, lambda: series_with(timestamp=np.array([*range(10), *range(10)], float)), "time stamps do not increase at step 10"),
        ({"frames": 2}, lambda: recorded(sines()), "undetermined"),
        ({"batch": 1, "latent": 16}, lambda: recorded(sines()), "a batch of 3"),
    ],
)
def test_bad_input_is_answered_in_a_sentence(settings, recordings, sentence):
    with pytest.raises(DataError, match=sentence):
        KoopmanVAE(**{**SMALL, **settings}).fit(recordings())


def test_windows_that_do_not_fit_are_refused():
    regular = KoopmanVAE(**SMALL).fit(recorded(sines()))
    with pytest.raises(DataError, match="missing steps"):
        regular.encode({STATE: torch.full((2, 8, 2), torch.nan)})
    with pytest.raises(DataError, match="irregular=True"):
        regular.complete({STATE: torch.zeros(2, 8, 2)}, torch.ones(2, 8, dtype=torch.bool))
    with pytest.raises(DataError, match="from nothing"):
        regular.sample(2, given={STATE: torch.zeros(2, 8, 2)})
    with pytest.raises(DataError, match="multiples of it"):
        regular.simulate(torch.zeros(1, 4), torch.tensor([0.05]))
    gappy = KoopmanVAE(**SMALL, irregular=True).fit(with_gaps(sines()))
    with pytest.raises(DataError, match="fewer than 2 observed"):
        gappy.encode({STATE: torch.full((2, 8, 2), torch.nan)})
    with pytest.raises(DataError, match="windows of 8 steps"):
        gappy.encode({STATE: torch.zeros(2, 6, 2)})


def test_collapse_and_growth_are_warned_of():
    with pytest.warns(UserWarning, match="lower w_kl"):
        model = KoopmanVAE(**SMALL, w_kl=1e4).fit(recorded(sines()))
    rng = np.random.default_rng(0)  # a profile in common, which a decoder without latent reproduces
    common = [np.sin(rng.uniform(0.3, 0.4) * np.arange(8) + rng.uniform(0.2, 0.4))[:, None] for _ in range(40)]
    with pytest.warns(UserWarning, match="lower w_kl"):
        KoopmanVAE(**{**SMALL, "steps": 200, "learning_rate": 1e-2}, w_kl=1e3).fit(recorded(common))
    model.net_.operator.copy_(1.2 * torch.eye(4))
    with pytest.warns(UserWarning, match=r"modulus 1\.20"):
        model.sample(2, length=50)
