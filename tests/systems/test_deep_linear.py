"""Deep linear dynamics: the theory against training, its starts, and what it refuses."""

import warnings

import numpy as np
import pytest
import torch

import retrodict as rd
from retrodict.errors import DataError
from retrodict.trajectories import TrainingRun
from retrodict.worlds.image_sets import image_set


@pytest.fixture(scope="module")
def digits():
    return image_set("digits")


@pytest.fixture(scope="module")
def theory(digits):
    return rd.DeepLinear(whiten=True, components=30, width=16, rate=0.05).fit(digits)


def test_the_modes_of_the_digits_are_those_measured_before(theory):
    expected = [0.296, 0.284, 0.282, 0.272, 0.256, 0.246, 0.223, 0.193, 0.181]
    assert theory.strengths_.numpy() == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_training_follows_the_theory_in_strength_and_loss(digits, depth):
    theory = rd.DeepLinear(whiten=True, components=30, depth=depth, begin=1e-3, rate=0.02 / depth).fit(digits)
    steps = int(2 * theory.half_times().max())
    run = theory.train(theory.layers(), steps, every=max(steps // 50, 1))
    report = theory.analyse(run)
    assert report.values["begin is fitted"] == 0
    assert report.values["largest error of a strength"] < 0.02
    assert run.metrics["loss"] == pytest.approx(theory.loss(run.steps), rel=5e-3)
    assert report.table["half-time"] == pytest.approx(report.table["foreseen half-time"], rel=0.02)


def test_a_random_start_is_fitted_and_said_to_be(theory):
    generator = torch.Generator().manual_seed(0)
    small = [1e-3 * torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in [(16, 30), (10, 16)]]
    report = theory.analyse(theory.train(small, 2000, every=10))
    assert report.values["begin is fitted"] == 1
    assert report.values["correlation of half-time and 1/strength"] > 0.95
    assert report.values["longest rise over half-time"] < 0.55
    assert "fitted" in report.findings[0]


def test_half_times_and_order_are_those_of_the_curve(theory):
    halves = theory.half_times()
    for mode, half in enumerate(halves):
        assert theory.curve(half)[0, mode] == pytest.approx(float(theory.strengths_[mode]) / 2, rel=1e-9)
    assert theory.escape_order().tolist() == list(range(9))


def test_orthogonal_and_pretrained_starts_learn_in_a_time_that_gaussian_ones_do_not(digits):
    def final(kind, rate=1 / 16):
        theory = rd.DeepLinear(whiten=True, components=30, depth=16, rate=rate).fit(digits)
        return theory.train(theory.layers(kind), 300, every=300).metrics["loss"][-1] - theory.loss([1e9])[0]

    assert final("orthogonal") < 1e-3
    assert final("pretrained") < 1e-3
    assert final("gaussian", 0.1 / 16) > 0.02
    with pytest.raises(DataError, match="diverged"):
        final("gaussian")


def test_a_code_is_the_projection_on_the_modes(theory, digits):
    batch = digits.windows(theory.reads, 1797, order="sequence").at(0)
    code = theory.encode(batch)
    assert code.shape == (1797, 1, 9)
    assert (code[:, 0].T @ code[:, 0] / 1797).numpy() == pytest.approx(np.eye(9), abs=1e-9)
    y = theory.target_.numbers(digits)
    assert (theory.left_.T @ y.T @ code[:, 0] / 1797).numpy() == pytest.approx(np.diag(theory.strengths_), abs=1e-9)


def test_as_a_law_it_steps_along_its_own_curve(theory, digits):
    start = theory.start(digits)
    path = theory.simulate(start, torch.tensor([0.0, 500.0, 501.0]))[0]
    assert path.numpy() == pytest.approx(theory.curve([0, 500, 501]), abs=1e-12)
    assert theory.step(path[1]).numpy() == pytest.approx(path[2].numpy(), abs=1e-10)
    slope = torch.func.jacrev(lambda u: theory.rate * 2 * u * (theory.strengths_ - u))(path[1])
    assert theory.jacobian(path[1]).numpy() == pytest.approx(slope.numpy(), abs=1e-12)
    assert theory.derivative(path[1]).numpy() == pytest.approx((0.1 * path[1] * (theory.strengths_ - path[1])).numpy(), abs=1e-12)
    assert theory.equations()[0] == "du1/dt = 0.1 u1 (0.296 - u1)"


def test_fresh_samples_are_judged_by_the_modes(digits):
    train, test = digits.split(0.5, seed=0)
    report = rd.DeepLinear(whiten=True, components=20).fit(train).analyse(test)
    assert 0 < report.values["largest change of a mode"] < 0.5
    assert report.values["modes"] == 9
    assert len(report.plot().axes) == 2


# ---- what it refuses -----------------------------------------------------------------------------------------------------


def samples(x, **more):
    return rd.from_samples(observation__state=x, **more)


RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 4))
CLASSES = RNG.integers(0, 3, (200, 1))


def test_inputs_that_are_not_white_are_refused_and_not_whitened_behind_ones_back():
    with pytest.raises(DataError, match=r"condition number .* whiten=True"):
        rd.DeepLinear().fit(samples(X * [1, 2, 3, 4], label__class=CLASSES))
    white = X - X.mean(0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T, ddof=0))).T
    assert rd.DeepLinear().fit(samples(white, label__class=CLASSES)).is_fitted


def test_too_small_a_rank_is_named():
    flat = np.hstack([X, X[:, :1]])
    with pytest.raises(DataError, match="rank 4"):
        rd.DeepLinear(whiten=True).fit(samples(flat, label__class=CLASSES))
    with pytest.raises(DataError, match="rank"):
        rd.DeepLinear(whiten=True).fit(samples(X[:3], label__class=CLASSES[:3]))


def test_components_made_of_rounding_are_not_whitened():
    flat = (np.hstack([X, X[:, :1] + X[:, 1:2]]) + 100).astype(np.float32)
    with pytest.raises(DataError, match="rank 4"):
        rd.DeepLinear(whiten=True).fit(samples(flat, label__class=CLASSES))
    assert rd.DeepLinear(whiten=True, components=4).fit(samples(flat, label__class=CLASSES)).is_fitted
    small = (X * [1, 1, 1, 1e-4]).astype(np.float32)
    assert rd.DeepLinear(whiten=True).fit(samples(small, label__class=CLASSES)).is_fitted, "small is not rounding"


def test_modes_that_are_rounding_are_dropped():
    y = np.hstack([X[:, :1], X[:, :1]]) - X[:, :1].mean()
    theory = rd.DeepLinear(whiten=True, target="label.value").fit(samples(X, label__value=y))
    assert len(theory.strengths_) == 1


def test_nothing_to_learn_is_said():
    with pytest.raises(DataError, match="nothing to learn"):
        rd.DeepLinear(whiten=True, target="label.value").fit(samples(X, label__value=np.zeros((200, 2))))


def test_narrow_layers_are_warned_of_and_leave_their_modes_at_zero(digits):
    with pytest.warns(UserWarning, match="width 5 cannot learn the last 4 of 9 modes"):
        theory = rd.DeepLinear(whiten=True, components=30, width=5, rate=0.05).fit(digits)
    assert np.isinf(theory.half_times()[5:]).all()
    run = theory.train(theory.layers(), 1000, every=50)
    assert theory.analyse(run).values["largest error of a strength"] < 0.03


def test_a_rate_that_diverges_is_refused_with_its_bound(digits):
    with pytest.raises(DataError, match=r"allow less than 3\.379"):
        rd.DeepLinear(whiten=True, components=30, rate=3.5).fit(digits)


def test_targets_that_are_not_centred_are_warned_of():
    with pytest.warns(UserWarning, match="not centred"):
        rd.DeepLinear(whiten=True, target="label.value").fit(samples(X, label__value=X[:, :2] + 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rd.DeepLinear(whiten=True).fit(samples(X, label__class=CLASSES))


def test_starts_at_zero_and_beyond_the_target_are_allowed(digits):
    never = rd.DeepLinear(whiten=True, components=30, begin=0.0).fit(digits)
    assert np.isinf(never.half_times()).all()
    assert "never learned" in " ".join(never.analyse(digits).findings)
    above = rd.DeepLinear(whiten=True, components=30, begin=1.0).fit(digits)
    assert np.isfinite(above.curve([0, 10, 1e5])).all()
    assert above.curve([1e5])[0] == pytest.approx(above.strengths_.numpy())
    assert (above.half_times() == 0).all()
    assert "never learned" not in " ".join(above.analyse(digits).findings)


def test_classes_that_the_fit_did_not_see_are_named(digits, theory):
    with pytest.raises(DataError, match=r"is 9; the fit saw the classes 0, 1, 2"):
        rd.DeepLinear(whiten=True, components=20).fit(image_set("digits", classes=range(9))).analyse(digits)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (TrainingRun(np.arange(2), {"bias": np.ones((2, 10))}), "biases"),
        (TrainingRun(np.arange(2), {"w": np.ones((2, 10, 7))}), "do not lead from 30 inputs"),
        (TrainingRun(np.arange(2)), "do not lead"),
    ],
)
def test_runs_of_other_networks_are_refused(theory, run, said):
    with pytest.raises(DataError, match=said):
        theory.analyse(run)


def test_hyperparameters_out_of_range_are_refused(digits):
    with pytest.raises(DataError, match="depth >= 1"):
        rd.DeepLinear(depth=0, whiten=True).fit(digits)
    with pytest.raises(DataError, match="components of at least 0, got 0 and -1"):
        rd.DeepLinear(whiten=True, components=-1).fit(digits)


def test_what_it_learned_survives_saving(theory, tmp_path):
    loaded = rd.load(theory.save(tmp_path / "theory"))
    assert (loaded.curve(np.arange(50)) == theory.curve(np.arange(50))).all()


def test_a_run_is_held_against_the_theory_of_its_own_depth(digits):
    three = rd.DeepLinear(whiten=True, components=30, width=16, depth=3, rate=0.02).fit(digits)
    generator = torch.Generator().manual_seed(0)
    shapes = [(16, 30), (16, 16), (10, 16)]
    small = [0.1 * torch.randn(*shape, dtype=torch.float64, generator=generator) / 4 for shape in shapes]
    run = three.train(small, 4000, every=40)
    two = rd.DeepLinear(whiten=True, components=30, width=16, depth=2, rate=0.02).fit(digits)
    assert two.analyse(run).values["begin"] == pytest.approx(three.analyse(run).values["begin"])
