import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retrodict.errors import DataError
from retrodict.metrics import auroc, brier, expected_calibration_error, reliability


@pytest.mark.parametrize("kind", ["mass", "width"])
def test_honest_confidences_have_almost_no_error_and_boastful_ones_have_theirs(kind):
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, 50_000)
    assert expected_calibration_error(p, rng.uniform(size=p.size) < p, kind=kind) < 0.02
    boast = np.full(1000, 0.9)
    assert expected_calibration_error(boast, np.arange(1000) % 2, kind=kind) == pytest.approx(0.4)


@given(hnp.arrays(float, st.integers(1, 60), elements=st.floats(0, 1)), st.integers(1, 20), st.sampled_from(["mass", "width"]))
def test_every_answer_is_in_one_bin(p, bins, kind):
    right = np.arange(len(p)) % 3 == 0
    curve = reliability(p, right, bins, kind)
    assert curve.counts.sum() == len(p)
    assert (curve.counts > 0).all()
    assert np.average(curve.accuracy, weights=curve.counts) == pytest.approx(right.mean())
    assert np.average(curve.confidence, weights=curve.counts) == pytest.approx(p.mean())


def test_equal_mass_bins_hold_equally_many():
    counts = reliability(np.linspace(0, 1, 100) ** 4, np.ones(100), bins=10).counts
    assert counts.tolist() == [10] * 10


def test_auroc_counts_pairs_in_the_right_order():
    p, y = np.array([0.9, 0.8, 0.8, 0.1]), np.array([1, 1, 0, 0])
    assert auroc(p, y) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert np.isnan(auroc(p, np.ones(4)))
    assert brier([1, 0.5], [1, 0]) == pytest.approx(0.125)


def test_refusals():
    with pytest.raises(DataError, match=r"got 1\.2"):
        brier([1.2], [1])
    with pytest.raises(DataError, match="got nan"):
        brier([np.nan], [1])
    with pytest.raises(DataError, match="got 2 and 3"):
        auroc([0.1, 0.2], [1, 0, 1])
