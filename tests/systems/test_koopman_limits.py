"""koopman-limits: certificates, refusals, the law, the verdict and the adversary."""

import warnings

import numpy as np
import pytest
import torch

from retrodict.errors import DataError
from retrodict.systems import System
from retrodict.systems.laws.koopman_limits import KoopmanLimits
from retrodict.systems.laws.koopman_pairs import NEXT
from retrodict.systems.laws.koopman_verdict import adversary, fooled, hausdorff
from retrodict.trajectories import from_arrays, from_samples
from retrodict.trajectories.features import STATE

TURN = 0.9 * np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
TRUE = 0.9 * np.exp(0.4j)
LINEAR = {"dictionary": "monomials", "degree": (1,)}


def spirals(count=40, steps=12, seed=0, noise=0.0, source="spirals", **about):
    """Trajectories of a linear map whose eigenvalues are 0.9 exp(±0.4i)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 2))
    path = [x]
    for _ in range(steps - 1):
        path.append(path[-1] @ TURN.T + noise * rng.normal(size=x.shape))
    return from_arrays([{STATE: e} for e in np.stack(path, 1)], fps=10, source=source, **about)


def loose(x, y, **more):
    return from_samples(observation__state=x, next__observation__state=y, **more)


def midpoints(count=512):
    return (np.arange(count)[:, None] + 0.5) / count


# ---- spectra ----------------------------------------------------------------------------------------------------------


def test_a_linear_law_is_certified_forecast_and_printed():
    law = KoopmanLimits(**LINEAR).fit(spirals())
    found = law.spectrum(eps=0.1)
    assert found.kept.sum() == 3
    assert (found.eigenvalues - 1).abs().min() < 1e-8
    assert (found.eigenvalues - TRUE).abs().min() < 1e-8
    assert (found.values - TRUE).abs().min() <= found.certificate + 1e-9
    x = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
    torch.testing.assert_close(law.step(x)[0], torch.from_numpy(TURN) @ x[0])
    torch.testing.assert_close(law.jacobian(x)[0], torch.from_numpy(TURN))
    path = law.simulate(x, torch.tensor([0.0, 0.3, 0.1]))
    torch.testing.assert_close(path[0, 1], torch.linalg.matrix_power(torch.from_numpy(TURN), 3) @ x[0])
    torch.testing.assert_close(path[0, 0], x[0])
    assert any("(0.829+0.3505i)" in line for line in law.equations())
    g = law.eigenfunctions(torch.stack([x[0], law.step(x)[0]]))
    values, _, _ = law.eigenpairs()
    torch.testing.assert_close(g[1], values * g[0])
    with pytest.raises(DataError, match="multiples of it"):
        law.simulate(x, torch.tensor([0.05]))


@pytest.mark.parametrize(
    ("settings", "off"),
    [
        ({"dictionary": "rbf", "functions": 60}, 0.7),
        ({"dictionary": "fourier", "degree": (2,)}, 1.5),  # a spiral is not periodic
        ({"dictionary": "fourier", "degree": (2, 1)}, 1.5),
        ({"dictionary": "legendre", "degree": (3,)}, 1e-8),
        ({"method": "rkhs", "functions": 100}, 0.5),
        ({"method": "measure-preserving", **LINEAR}, 1.0),  # an isometry cannot decay
        ({**LINEAR, "delays": 3, "coordinates": (0,)}, 1.0),  # of the other coordinate it knows the past only
    ],
)
@pytest.mark.filterwarnings("ignore:the dictionary")
def test_every_dictionary_and_method_forecasts_and_survives_saving(settings, off, tmp_path):
    law = KoopmanLimits(**settings).fit(spirals())
    some = [np.asarray(episode[STATE])[4 : 4 + law.delays].reshape(1, -1) for episode in spirals(9, seed=9)]
    state = torch.from_numpy(np.concatenate(some))
    after = law.step(state)
    assert after.dtype == torch.float64
    true = state[:, -2:] @ torch.from_numpy(TURN).T
    assert (after[:, -2:] - true).norm() <= off * (state[:, -2:] - true).norm()
    again = System.load(law.save(tmp_path / "law"), device="cpu")
    torch.testing.assert_close(again.step(state), after)
    torch.testing.assert_close(again.spectrum(spacing=0.2).errors, law.spectrum(spacing=0.2).errors)
    assert torch.isfinite(law.jacobian(state)).all()
    begun = law.simulate(law.start(spirals(3, seed=9)), torch.tensor([0.0, law.dt]))
    expected = np.stack([np.asarray(episode[STATE])[law.delays - 1] for episode in spirals(3, seed=9)])
    np.testing.assert_allclose(begun[:, 0], expected)
    assert law.of_observations == (law.delays == 1)


def test_quadrature_weights_sum_to_one_over_what_is_fitted_and_held_out_together():
    x = np.random.default_rng(0).normal(size=(200, 2))
    weights = np.exp(-(x**2).sum(1))
    law = KoopmanLimits(**LINEAR).fit(loose(x, x @ TURN.T, sample__weight=(weights / weights.sum())[:, None]))
    values, _, residuals = law.eigenpairs()
    assert min(abs(values - TRUE)) < 1e-9
    assert residuals.max() < 0.1
    with pytest.raises(DataError, match="sum to 2"):
        KoopmanLimits(**LINEAR).fit(loose(x, x @ TURN.T, sample__weight=(2 * weights / weights.sum())[:, None]))


def test_held_out_residuals_see_what_training_ones_hide():
    law = KoopmanLimits(functions=25).fit(spirals(count=10, steps=6, noise=0.3))
    values, vectors = law.galerkin_.eigenpairs()
    _, _, certified = law.eigenpairs()
    assert law.galerkin_.residuals(values, vectors).median() < 0.5 * certified.median()


def test_kernel_functions_need_no_holding_out():
    x = np.random.default_rng(0).uniform(-1, 1, (150, 1))
    law = KoopmanLimits(method="rkhs", functions=150).fit(loose(x, 0.5 * x))
    values, _, residuals = law.eigenpairs()
    assert law.held_ is None
    assert (values[:, None] - torch.tensor([1.0, 0.5, 0.25])).abs().min(0)[0].max() < 0.02
    assert residuals.min() < 0.05
    assert "kernel" in law.limits().certificate


def test_the_measure_of_a_rotation_sits_at_its_angles():
    x = 2 * np.pi * midpoints()
    circle = lambda a: np.concatenate([np.cos(a), np.sin(a)], 1)  # noqa: E731
    law = KoopmanLimits(**LINEAR, certificate="exact", measure_preserving=True).fit(loose(circle(x), circle(x + 1)))
    angles = torch.linspace(-3, 3, 601)
    density = law.measure(0, angles, width=0.05)
    assert abs(abs(float(angles[density.argmax()])) - 1) < 0.02
    assert float(density.sum() * 0.01) == pytest.approx(0.5, abs=0.02)  # |x|^2 = 1/2


def test_quadrature_bounds_are_honest_and_shrink():
    bounds = []
    for count in (20_000, 200_000):
        x = midpoints(count)
        law = KoopmanLimits(
            dictionary="fourier", degree=(3,), domain=((0.0, 1.0),), certificate="quadrature", modulus=(2.0, 1.0)
        ).fit(loose(x, 2 * x % 1))
        bounds.append(law.pseudospectrum(torch.tensor([0.5], dtype=torch.complex128)).item())
    assert 0.5 < bounds[1] < bounds[0] < 0.6
    assert law.limits().limits == 2


# ---- the verdict ------------------------------------------------------------------------------------------------------


def test_the_verdict_counts_limits():
    x = midpoints()
    known = {"dictionary": "fourier", "degree": (2,), "domain": ((0.0, 1.0),), "certificate": "exact"}
    shift = loose(x, (x + 0.3) % 1)
    assert KoopmanLimits(**known).fit(shift).limits().limits == 3
    assert KoopmanLimits(**known, measure_preserving=True).fit(shift).limits().limits == 2
    both = KoopmanLimits(**known, measure_preserving=True, modulus=(1.0, 1.0)).fit(shift).limits()
    assert (both.limits, both.verified) == (1, True)
    assert "one limit suffices" in both.sentences()[0]


def test_analysis_judges_on_fresh_recordings():
    taught = spirals()
    law = KoopmanLimits(**LINEAR).fit(taught)
    report = law.analyse(spirals(seed=5))
    assert report.values["largest residual"] < 1e-8
    assert "3 of 3" in report.findings[0]
    with pytest.raises(DataError, match="hold-out"):
        law.analyse(taught)
    with pytest.raises(DataError, match="hold-out"):
        law.residuals(taught)
    with pytest.raises(DataError, match="analyses Recordings"):
        law.analyse(3)


def test_the_adversary_fools_every_estimator():
    rng = np.random.default_rng(0)
    r, theta = rng.uniform(0, 1, 60), rng.uniform(0, 6, 60)
    points = np.stack([r * np.cos(theta), r * np.sin(theta)], 1)

    def edmd(x, y):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return KoopmanLimits(functions=20, certificate="exact").fit(loose(x, y)).eigenpairs()[0].numpy()

    first, second, same = fooled(edmd, points)
    assert same
    assert max(first, second) >= 1
    foe = adversary(points, slope=2.0)
    assert foe.slope <= 2 + 1e-9
    inside = np.linspace(foe.low, foe.high, 9)[1:-1]
    circle = np.stack([inside, 0 * inside], 1)
    moved = adversary(points).twist(circle)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), inside)  # area and radius are kept
    assert np.abs(moved - circle).max() > 0.1
    with pytest.raises(DataError, match="unit disc"):
        adversary(2 * np.ones((1, 2)))


def test_hausdorff_of_nothing_is_infinite():
    assert hausdorff(np.zeros(0), np.ones(1)) == np.inf
    assert hausdorff(np.array([0, 1]), np.array([0])) == 1


def test_the_picture_is_drawn():
    figure = KoopmanLimits(**LINEAR).fit(spirals()).plot(spacing=0.2)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert any("kept" in label for label in labels)


# ---- bad input --------------------------------------------------------------------------------------------------------


def test_pairs_never_cross_from_one_trajectory_into_the_next():
    joined = np.concatenate([np.asarray(e[STATE]) for e in spirals(2)])
    clock = np.concatenate([np.arange(12), np.arange(12)]) / 10
    for name, values in (("timestamp", clock), ("frame_index", (clock * 10).astype(int))):
        with pytest.raises(DataError, match="trajectory boundary at row 11: pair crosses episodes"):
            KoopmanLimits(**LINEAR).fit(from_arrays([{STATE: joined, name: values}], fps=10))


def test_interpolation_without_holding_out_is_refused():
    x = np.random.default_rng(0).uniform(-1, 1, (60, 1))
    with pytest.raises(DataError, match="'holdout'"):
        KoopmanLimits(functions=30, certificate="exact").fit(loose(x, x**2))
    KoopmanLimits(functions=30).fit(loose(x, x**2))


def test_weights_are_quadrature_weights():
    x, w = midpoints(), np.full((512, 1), 1 / 512)
    kind = {"dictionary": "legendre", "degree": (3,), "domain": ((0.0, 1.0),), "certificate": "exact"}
    KoopmanLimits(**kind).fit(loose(x, x / 2, sample__weight=w))
    with pytest.raises(DataError, match=r"sum to 2; they should sum to 1"):
        KoopmanLimits(**kind).fit(loose(x, x / 2, sample__weight=2 * w))
    negative = w.copy()
    negative[3] *= -1
    with pytest.raises(DataError, match="not negative"):
        KoopmanLimits(**kind).fit(loose(x, x / 2, sample__weight=negative))
    with pytest.warns(UserWarning, match="sampling measure"):
        KoopmanLimits(**kind).fit(loose(x**3, x**3 / 2))


def test_dependent_functions_are_named():
    twice = np.random.default_rng(0).normal(size=(300, 1)) @ np.ones((1, 2))
    with pytest.warns(UserWarning, match="rank 2 at a cutoff of 1e-10"):
        KoopmanLimits(**LINEAR).fit(loose(twice, twice / 2))


def test_a_measure_that_is_not_preserved_is_refused():
    with pytest.raises(DataError, match="measure_preserving contradicts the data"):
        KoopmanLimits(**LINEAR, measure_preserving=True).fit(spirals())


def test_noise_asks_for_two_successors():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 1))
    one = 0.5 * x + 0.8 * rng.normal(size=x.shape)
    two = 0.5 * x + 0.8 * rng.normal(size=x.shape)
    with pytest.raises(DataError, match="bias \\+ variance"):
        KoopmanLimits(**LINEAR, stochastic=True).fit(loose(x, one))
    law = KoopmanLimits(**LINEAR, stochastic=True).fit(loose(x, np.stack([one, two], 1)))
    _, _, residuals = law.eigenpairs()
    plain = KoopmanLimits(**LINEAR).fit(loose(x, one)).eigenpairs()[2]
    assert residuals.max() < 0.3 < 0.7 < plain.max()
    with pytest.raises(DataError, match=r"\(2, d\)"):
        KoopmanLimits(**LINEAR).fit(loose(x, np.stack([one, two, two], 1)))


def test_single_precision_is_cast_with_a_warning():
    with pytest.warns(UserWarning, match="cast to double"):
        law = KoopmanLimits(**LINEAR).fit(loose(np.arange(60, dtype=np.float32)[:, None], np.ones((60, 1))))
    assert law.galerkin_.basis.dtype == torch.float64


@pytest.mark.parametrize(
    ("settings", "recordings", "sentence"),
    [
        ({}, lambda: from_samples(observation__state=np.ones((9, 2))), NEXT),
        ({**LINEAR, "delays": 2}, lambda: loose(midpoints(), midpoints()), "hold no past"),
        ({**LINEAR, "domain": ((0.0, 1.0),)}, spirals, "one \\(low, high\\) for each of 2"),
        ({"dictionary": "fourier", "degree": (1, 2, 3)}, spirals, "one degree or 2"),
        ({"certificate": "quadrature", "functions": 9}, spirals, "needs modulus"),
        ({"functions": 500}, spirals, "as many different states"),
        ({"method": "rkhs"}, lambda: loose(midpoints(), midpoints(), sample__weight=midpoints()), "sum to"),
        ({**LINEAR, "delays": 20}, spirals, "20 delays"),
    ],
)
def test_bad_input_is_answered_in_a_sentence(settings, recordings, sentence):
    with pytest.raises(DataError, match=sentence):
        KoopmanLimits(**settings).fit(recordings())


def test_gaps_break_pairs():
    x = np.cumprod(np.full((30, 1), 0.9), 0)
    valid = np.ones((30, 1), bool)
    x[7], valid[7] = 99.0, False
    law = KoopmanLimits(**LINEAR, holdout=0.4).fit(from_arrays([{STATE: x, f"valid.{STATE}": valid}], fps=1))
    assert (law.eigenpairs()[0] - 0.9).abs().min() < 1e-8
