"""Normalisers against NumPy on the same numbers."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from retrodict.errors import DataError, NotFittedError
from retrodict.trajectories.normalise import Normaliser, Whitener, standardised


def sample(seed: int = 0, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(3, 2, shape or (200, 4)) * [1, 10, 0.1, 1000]


@pytest.mark.parametrize("ddof", [0, 1])
def test_standard_agrees_with_numpy_and_inverts(ddof):
    x = sample()
    normaliser = Normaliser((4,), ddof=ddof, dtype=torch.float64).fit(x)
    assert torch.allclose(normaliser(torch.from_numpy(x)), torch.from_numpy((x - x.mean(0)) / x.std(0, ddof=ddof)))
    assert torch.allclose(normaliser.inverse(normaliser(torch.from_numpy(x))), torch.from_numpy(x))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0)])
def test_range_reaches_both_ends(low, high):
    x = torch.from_numpy(sample())
    y = Normaliser((4,), "range", low=low, high=high, dtype=torch.float64).fit(x)(x)
    assert torch.allclose(y.amin(0), torch.tensor(low, dtype=y.dtype))
    assert torch.allclose(y.amax(0), torch.tensor(high, dtype=y.dtype))


@settings(max_examples=40)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.sampled_from(["standard", "range"]), st.sampled_from([0, 1]))
def test_updates_in_pieces_equal_one_fit(sizes, kind, ddof):
    x = sample(1, sum(sizes) + 2, 4)
    pieces = np.split(x, np.cumsum([sizes[0] + 2, *sizes[1:]])[:-1])
    whole = Normaliser((4,), kind, ddof=ddof, dtype=torch.float64).fit(x)
    running = Normaliser((4,), kind, ddof=ddof, dtype=torch.float64)
    for piece in pieces:
        if len(piece) < 2 and not running.fitted:
            return
        running.update(piece)
    assert torch.allclose(running.offset, whole.offset)
    assert torch.allclose(running.scale, whole.scale)


def test_masked_values_do_not_count_even_where_they_are_not_finite():
    x = sample(2, 5, 6, 4)
    mask = np.random.default_rng(0).random((5, 6)) < 0.5
    kept = x[mask]
    x[~mask] = np.nan
    for kind in ("standard", "range"):
        fitted = Normaliser((4,), kind, dtype=torch.float64).fit(x, mask)
        expected = Normaliser((4,), kind, dtype=torch.float64).fit(kept)
        assert torch.allclose(fitted.offset, expected.offset)
        assert torch.allclose(fitted.scale, expected.scale)
    with pytest.raises(DataError, match="not finite"):
        Normaliser((4,)).fit(x)
    with pytest.raises(DataError, match="nothing to take statistics of"):
        Normaliser((4,)).fit(x, np.zeros((5, 6), bool))


def test_shared_and_per_channel_statistics_and_weights():
    x = sample(3, 7, 4)
    shared = Normaliser((), dtype=torch.float64).fit(x)
    assert shared.offset == pytest.approx(x.mean())
    assert shared.scale == pytest.approx(x.std())
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 9), np.uint8)
    channels = Normaliser((3, 1, 1)).fit(images)
    assert np.allclose(channels.scale[:, 0, 0], images.std((0, 2, 3)))
    assert channels(torch.from_numpy(images)).dtype == torch.float32
    mass = np.array([1.0, 0.0, 3.0, 0.0])
    weighed = Normaliser((), dtype=torch.float64).fit(x, weights=mass)
    assert weighed.offset == pytest.approx(np.average(x, weights=np.broadcast_to(mass, x.shape)))


def test_given_and_box_take_no_data():
    assert Normaliser.given(2.0, 4.0)(torch.tensor(10.0)) == 2
    box = Normaliser.box(np.array([0.0, -2.0]), np.array([1.0, 2.0]))
    assert box(torch.tensor([[0.0, -2.0], [1.0, 2.0], [0.5, 0.0]])).tolist() == [[-1, -1], [1, 1], [0, 0]]
    with pytest.raises(DataError, match="scale is not 0"):
        Normaliser.given([1.0, 1.0], [1.0, 0.0])


def test_statistics_of_a_dataset_file_serve():
    x = sample()
    stats = {"mean": x.mean(0), "std": x.std(0), "min": x.min(0), "max": x.max(0), "count": [len(x)]}
    for kind in ("standard", "range"):
        for ddof in (0, 1):
            from_file = Normaliser((4,), kind, ddof=ddof, dtype=torch.float64).fit(
                {k: np.asarray(v).tolist() for k, v in stats.items()}
            )
            fitted = Normaliser((4,), kind, ddof=ddof, dtype=torch.float64).fit(x)
            assert torch.allclose(from_file.scale, fitted.scale)
            assert torch.allclose(from_file.offset, fitted.offset)
    with pytest.raises(DataError, match="lack 'std'"):
        Normaliser((4,)).fit({"mean": [0, 0, 0, 0]})
    with pytest.raises(DataError, match="shape"):
        Normaliser((3,)).fit(stats)


@pytest.mark.parametrize("kind", ["standard", "range"])
def test_a_constant_entry_is_scaled_by_one_or_refused(kind):
    x = sample()
    x[:, 2] = 0.1
    with pytest.warns(UserWarning, match=r"at \[2\] never change"):
        normaliser = Normaliser((4,), kind, name="action").fit(x)
    assert normaliser.scale[2] == 1
    y = normaliser(torch.from_numpy(x).float())
    assert torch.allclose(y[:, 2], torch.tensor(0.0), atol=1e-6)
    with pytest.raises(DataError, match="action"):
        Normaliser((4,), kind, constant="error", name="action").fit(x)


def test_it_is_saved_with_a_model_and_refuses_to_work_unfitted():
    fitted = Normaliser((4,)).fit(sample())
    loaded = Normaliser((4,))
    with pytest.raises(NotFittedError):
        loaded(torch.zeros(4))
    loaded.load_state_dict(fitted.state_dict())
    x = torch.from_numpy(sample(5)).float()
    assert torch.equal(loaded(x), fitted(x))
    assert not list(fitted.parameters())
    with pytest.raises(DataError, match="do not fit"):
        Normaliser((4,)).fit(np.zeros((5, 3)))


def test_whitened_data_has_identity_covariance_and_too_small_a_rank_is_refused():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 6)) + 5
    whitener = Whitener(6, 3, dtype=torch.float64).fit(x)
    y = whitener(torch.from_numpy(x))
    assert torch.allclose(y.T @ y / 300, torch.eye(3, dtype=y.dtype), atol=1e-9)
    assert torch.allclose(y.mean(0), torch.zeros(3, dtype=y.dtype), atol=1e-9)
    assert torch.allclose(whitener.inverse(y), torch.from_numpy(x))
    with pytest.raises(DataError, match="rank 3 .*, 6 components"):
        Whitener(6).fit(x)
    with pytest.raises(NotFittedError):
        Whitener(6)(torch.zeros(6))


def test_a_batch_is_standardised_by_itself_with_its_gradient():
    x = torch.randn(4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    mask = torch.rand(4, 5, generator=torch.Generator().manual_seed(1)) < 0.7
    y = standardised(x, mask)
    assert torch.allclose(y[mask].mean(0), torch.zeros(3, dtype=y.dtype), atol=1e-9)
    assert torch.allclose(y[mask].std(0, correction=0), torch.ones(3, dtype=y.dtype), atol=1e-6)
    assert (y[~mask] == 0).all()
    (gradient,) = torch.autograd.grad((standardised(x) ** 4).sum(), x)
    assert torch.allclose(gradient.sum((0, 1)), torch.zeros(3, dtype=y.dtype), atol=1e-7)  # moving all rows alike changes nothing
    assert gradient.abs().sum() > 0
