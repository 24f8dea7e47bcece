import numpy as np
import pytest
from scipy import stats

from retrodict.errors import DataError
from retrodict.metrics import interval, paired, rank_correlation


def test_t_interval_is_the_textbook_one_and_counts_what_it_drops():
    x = np.array([1.0, 2.0, 3.0, 4.0, np.nan, np.inf])
    estimate = interval(x, "t")
    low, high = stats.t.interval(0.95, 3, loc=2.5, scale=stats.sem(x[:4]))
    assert (estimate.value, estimate.n, estimate.dropped) == (2.5, 4, 2)
    assert (estimate.low, estimate.high) == pytest.approx((low, high))
    assert "2 of 6 dropped" in str(estimate)


def test_wilson_interval_against_its_formula():
    n, k, z = 20, 18, stats.norm.ppf(0.975)
    centre = (k / n + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(k / n * (1 - k / n) / n + z * z / (4 * n * n))
    estimate = interval([1] * k + [0] * (n - k), "wilson")
    assert (estimate.low, estimate.high) == pytest.approx((centre - half, centre + half))


def test_median_resists_an_outlier_and_comes_with_its_mad():
    estimate = interval([1, 2, 3, 4, 1000], "median")
    assert (estimate.value, estimate.spread) == (3, 1)
    assert estimate.low <= 3 <= estimate.high


@pytest.mark.parametrize("kind", ["t", "bootstrap", "median"])
def test_intervals_cover_as_often_as_they_say(kind):
    rng = np.random.default_rng(0)
    trials = [interval(rng.normal(5, 2, 25), kind, level=0.8, seed=i) for i in range(100)]
    assert 0.68 <= np.mean([e.low <= 5 <= e.high for e in trials]) <= 0.92


def test_one_value_has_no_interval():
    estimate = interval([3.0], "bootstrap")
    assert (estimate.value, estimate.n) == (3.0, 1)
    assert np.isnan([estimate.low, estimate.high]).all()


@pytest.mark.parametrize("kind", ["bootstrap", "t", "sign"])
def test_paired_finds_a_small_steady_difference_under_large_common_noise(kind):
    rng = np.random.default_rng(1)
    common = rng.normal(0, 100, 40)
    a, b = common + 1 + rng.normal(0, 0.5, 40), common
    estimate = paired(a, b, kind)
    assert estimate.p < 0.01
    assert estimate.low > (0.5 if kind == "sign" else 0)
    assert paired(b, a, "sign").p > 0.99


def test_few_pairs_cannot_be_as_good_as_certain():
    assert np.isnan(paired([1.0], [0.0]).p)
    assert paired([1.0, 1.1, 0.9], [0.0, 0.0, 0.0]).p == 0.25  # 2 of the 8 ways in which three signs may fall


def test_paired_drops_pairs_not_values_and_leaves_ties_out_of_the_sign_test():
    assert paired([1, np.nan, 3], [0, 1, np.inf], "t").dropped == 2
    assert paired([1, 1, 2], [1, 1, 0], "sign").n == 1
    assert paired([1, 1], [1, 1], "sign").p == 1
    assert paired([1, 1, 1], [1, 1, 1], "bootstrap").p == 1


def test_rank_correlation_sees_order_only():
    x = np.arange(12.0)
    assert rank_correlation(x, np.exp(x)).value == pytest.approx(1)
    noisy = rank_correlation(x, x + np.random.default_rng(0).normal(0, 4, 12))
    assert noisy.low <= noisy.value <= noisy.high <= 1
    assert rank_correlation([1, 2, 3, np.nan], [3, 2, 1, 0], "weighted").value == pytest.approx(-1)


def test_bad_input_is_refused_in_one_sentence():
    with pytest.raises(DataError, match="no finite value"):
        interval([np.nan])
    with pytest.raises(DataError, match="0/1 outcomes"):
        interval([0, 1, 0.5], "wilson")
    with pytest.raises(DataError, match="3 and 2"):
        paired([1, 2, 3], [1, 2])
    with pytest.raises(DataError, match="at least 3"):
        rank_correlation([1, 2], [1, 2])
