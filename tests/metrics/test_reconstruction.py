import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from retrodict.errors import DataError
from retrodict.metrics import prediction_error, spectrum_distance, state_space_divergence


@pytest.fixture(scope="module")
def cloud():
    return np.random.default_rng(0).normal(size=(20_000, 2))


def published_bins(x, y, k, a=1e-5):
    """The definition, written out with dense histograms."""
    reach = 0.1 * x.std(0, ddof=1)
    ranges = list(zip(x.min(0) - reach, x.max(0) + reach, strict=True))
    h, g = (np.histogramdd(s, bins=k, range=ranges)[0] for s in (x, y))
    p, q = ((c + a) / (c.sum() + a * k ** x.shape[1]) for c in (h, g))
    return (p * np.log(p / q)).sum()


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_binned_divergence_is_the_published_formula(dims):
    rng = np.random.default_rng(dims)
    x, y = rng.normal(size=(500, dims)), 3 * rng.normal(size=(400, dims))
    score = state_space_divergence(x, y, bins=10)
    assert score.value == pytest.approx(published_bins(x, y, 10), rel=1e-9)
    assert score.dropped > 0


def test_a_series_does_not_diverge_from_itself(cloud):
    assert state_space_divergence(cloud, cloud).value == 0
    assert state_space_divergence(cloud[:5000], cloud[4999::-1], "gmm").value == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("shift", [0.5, 1.0])
def test_shifted_gaussians_have_their_analytic_divergence(shift):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100_000, 1)), rng.normal(size=(100_000, 1)) + shift
    assert state_space_divergence(x, y).value == pytest.approx(shift**2 / 2, rel=0.1)
    # A Gaussian on every point widens both: N(0, 1 + s2) against N(shift, 1 + s2).
    mixed = state_space_divergence(x, y, "gmm", scale=1.0, samples=5000, limit=4000)
    assert mixed.value == pytest.approx(shift**2 / 2 / 2, rel=0.1)


def test_the_legacy_mixture_agrees_where_nothing_underflows_and_counts_what_does(cloud):
    near = state_space_divergence(cloud[:2000], cloud[2000:4000] + 0.3, "gmm")
    legacy = state_space_divergence(cloud[:2000], cloud[2000:4000] + 0.3, "gmm", legacy=True)
    assert legacy.dropped == 0
    assert legacy.value == pytest.approx(near.value, abs=1e-5)
    far = cloud[:2000] + 30
    assert state_space_divergence(cloud[:2000], far, "gmm", legacy=True).dropped == 1000
    assert np.isnan(state_space_divergence(cloud[:2000], far, "gmm", legacy=True).value)
    assert state_space_divergence(cloud[:2000], far, "gmm").value > 100


def test_the_mixture_serves_many_channels_and_bins_refuse_them():
    x = np.random.default_rng(0).normal(size=(500, 6))
    with pytest.raises(DataError, match="method='gmm'"):
        state_space_divergence(x, x)
    assert state_space_divergence(x, x, "gmm").value == pytest.approx(0, abs=1e-9)


def test_divergence_is_a_result_not_an_error(cloud):
    x, broken = cloud[:1000], np.full((1000, 2), np.inf)
    for score in (
        state_space_divergence(x, broken),
        state_space_divergence(x, broken, "gmm"),
        state_space_divergence(x, x + 1e6),
        spectrum_distance(x, broken),
        spectrum_distance(x, np.ones_like(x)),
        prediction_error(lambda z: z * 1e300, x),
    ):
        assert score.diverged
        assert np.isnan(float(score))


def test_spectrum_distance_is_the_published_formula():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 1000, 2)).cumsum(1)
    distances = []
    for a, b in zip(x.T, y.T, strict=True):
        p, q = (np.abs(np.fft.rfft((s - s.mean()) / s.std(ddof=1))) ** 2 for s in (a, b))
        p, q = (gaussian_filter1d(s, 20) for s in (p, q))
        distances.append(np.sqrt(max(0, 1 - np.sqrt(p / p.sum() * q / q.sum()).sum())))
    score = spectrum_distance(x, y)
    assert score.value == pytest.approx(np.mean(distances), rel=1e-9)
    assert score.settings == {"sigma": 20.0, "length": 1000}


def test_spectra_know_neither_phase_nor_scale_but_tell_tones_apart():
    t = np.arange(4000)[:, None]
    wave = np.sin(2 * np.pi * t / 50)
    assert spectrum_distance(wave, 7 * np.cos(2 * np.pi * t / 50) + 3).value == pytest.approx(0, abs=0.01)
    assert spectrum_distance(wave, np.sin(2 * np.pi * t / 5), sigma=2).value == pytest.approx(1, abs=0.01)


def test_prediction_error_counts_the_last_step_alone():
    x = np.arange(30.0)[:, None] * [1, 2]
    assert prediction_error(lambda z: z + np.array([1, 2]), x, 20).value == 0
    assert prediction_error(lambda z: z, x, 4).value == np.mean([4**2, 8**2])
    hidden = prediction_error(lambda z: z + 1, x[:, :1], 3, encode=lambda x: x + 10, observe=lambda z: z - 10)
    assert hidden.value == 0
    assert hidden.settings == {"n": 3, "starts": 27}


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda x: state_space_divergence(x[:, 0], x), "shape"),
        (lambda x: state_space_divergence(np.where(x > 2, np.nan, x), x), "row .* column"),
        (lambda x: state_space_divergence(x * [1, 0], x), "constant in channel 1"),
        (lambda x: state_space_divergence(x, x[:, :1]), "like the true one"),
        (lambda x: state_space_divergence(x, x, "kde"), "bins and gmm"),
        (lambda x: spectrum_distance(x, x[1:]), "equal lengths"),
        (lambda x: prediction_error(lambda z: z, x[:10], 10), "longer than n"),
    ],
)
def test_bad_input_is_named(cloud, ask, sentence):
    with pytest.raises(DataError, match=sentence):
        ask(cloud[:1000])
