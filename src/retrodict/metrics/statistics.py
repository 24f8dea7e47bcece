"""The statistics of a claim: an estimate always comes with its interval, its count, and what was dropped to get it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from retrodict.errors import DataError

RESAMPLES = 5000


@dataclass(frozen=True)
class Estimate:
    """A number and how sure one may be of it.

    Attributes:
        value: the estimate.
        low, high: ends of its confidence interval; NaN where `n` is too small for one.
        n: values (pairs) that went in.
        dropped: values (pairs) left out because they were not finite.
        spread: for `mean` kinds the standard error, for `median` the median absolute deviation, None for the others.
        p: for paired comparisons, the p-value against no difference (one-sided, `a` greater, for `sign`).
    """

    value: float
    low: float
    high: float
    n: int
    dropped: int = 0
    spread: float | None = None
    p: float | None = None

    def __str__(self) -> str:
        text = f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] (n={self.n}"
        if self.dropped:
            text += f", {self.dropped} of {self.n + self.dropped} dropped as not finite"
        return text + ")"


def interval(
    values: ArrayLike,
    kind: Literal["t", "bootstrap", "median", "wilson"] = "t",
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """An estimate of `values` (n,) with a confidence interval.

    Args:
        values: one number per seed, episode or trial; those that are not finite are dropped and counted.
        kind: `t` (mean, normal theory), `bootstrap` (mean, BCa), `median` (with MAD; the interval is BCa), or `wilson` (share of
            successes among 0/1 values).
        level: confidence level.
        seed: seed of the resampling.

    Raises DataError when no finite value is left, or when `wilson` meets values other than 0 and 1.
    """
    x, dropped = _finite(values)
    n = len(x)
    if kind == "wilson":
        if not np.isin(x, (0, 1)).all():
            raise DataError(f"a Wilson interval is of 0/1 outcomes, got values such as {x[~np.isin(x, (0, 1))][0]}.")
        low, high = stats.binomtest(int(x.sum()), n).proportion_ci(level, method="wilson")
        return Estimate(float(x.mean()), float(low), float(high), n, dropped)
    if kind == "median":
        low, high = _bootstrap((x,), np.median, level, seed)
        return Estimate(float(np.median(x)), low, high, n, dropped, spread=float(stats.median_abs_deviation(x)))
    error = float(stats.sem(x)) if n > 1 else float("nan")
    if kind == "t":
        half = float(stats.t.ppf((1 + level) / 2, n - 1)) * error if n > 1 else float("nan")
        return Estimate(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half, n, dropped, spread=error)
    low, high = _bootstrap((x,), np.mean, level, seed)
    return Estimate(float(x.mean()), low, high, n, dropped, spread=error)


def paired(
    a: ArrayLike,
    b: ArrayLike,
    kind: Literal["bootstrap", "t", "sign"] = "bootstrap",
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """The mean of `a - b` over pairs (same seed, same start) with interval and p-value; pairs that are not finite are dropped.

    `bootstrap` resamples pairs (BCa interval; p is the two-sided share of resampled means on the far side of zero, never below
    the 2^(1 - n) that the signs of n pairs can tell, and NaN for one pair), `t` is the paired t-test (two-sided), `sign` counts
    how often `a` exceeds `b`, ties left out: its value is that share with a Wilson interval and its p is one-sided.

    Raises DataError when the lengths differ or no pair is left.
    """
    first, second = np.asarray(a, float).ravel(), np.asarray(b, float).ravel()
    if len(first) != len(second):
        raise DataError(f"pairs are needed, got {len(first)} and {len(second)} values.")
    d, dropped = _finite(first - second)
    n = len(d)
    if kind == "sign":
        wins, decided = int((d > 0).sum()), int((d != 0).sum())
        if not decided:
            return Estimate(0.5, 0.0, 1.0, 0, dropped, p=1.0)
        test = stats.binomtest(wins, decided, alternative="greater")
        low, high = stats.binomtest(wins, decided).proportion_ci(level, method="wilson")
        return Estimate(wins / decided, float(low), float(high), decided, dropped, p=float(test.pvalue))
    if kind == "t":
        estimate = interval(d, "t", level)
        # Equal differences leave no spread to test against: they are then as good as certain, or there is none.
        p = float(stats.ttest_1samp(d, 0).pvalue) if n > 1 and np.ptp(d) > 0 else float("nan" if n < 2 else not d.any())
    else:
        estimate = interval(d, "bootstrap", level, seed)
        means = np.random.default_rng(seed).choice(d, (RESAMPLES, n)).mean(1)
        share = 2 * (1 + min((means <= 0).sum(), (means >= 0).sum())) / (1 + RESAMPLES)
        p = min(1.0, max(share, 2.0 ** (1 - n))) if n > 1 else float("nan")
    return Estimate(estimate.value, estimate.low, estimate.high, n, dropped, estimate.spread, float(p))


def rank_correlation(
    a: ArrayLike, b: ArrayLike, kind: Literal["spearman", "weighted"] = "spearman", level: float = 0.95, seed: int = 0
) -> Estimate:
    """Agreement in order of `a` and `b` (n,): Spearman's rho or the weighted tau (the top ranks count most), bootstrap interval.

    Raises DataError when the lengths differ or fewer than three pairs are finite.
    """
    first, second = np.asarray(a, float).ravel(), np.asarray(b, float).ravel()
    if len(first) != len(second):
        raise DataError(f"pairs are needed, got {len(first)} and {len(second)} values.")
    finite = np.isfinite(first) & np.isfinite(second)
    x, y = first[finite], second[finite]
    if len(x) < 3:
        raise DataError(f"a rank correlation needs at least 3 finite pairs, got {len(x)}.")
    measure = stats.spearmanr if kind == "spearman" else stats.weightedtau

    def statistic(x: np.ndarray, y: np.ndarray) -> float:
        return float(measure(x, y).statistic)

    low, high = _bootstrap((x, y), statistic, level, seed, resamples=1000, vectorized=False)
    p = float(stats.spearmanr(x, y).pvalue) if kind == "spearman" else None
    return Estimate(statistic(x, y), low, high, len(x), int((~finite).sum()), p=p)


def _finite(values: ArrayLike) -> tuple[np.ndarray, int]:
    x = np.asarray(values, float).ravel()
    kept = x[np.isfinite(x)]
    if not len(kept):
        raise DataError(f"no finite value among {len(x)}; nothing to estimate.")
    return kept, len(x) - len(kept)


def _bootstrap(
    samples: tuple[np.ndarray, ...],
    statistic: Callable[..., Any],
    level: float,
    seed: int,
    *,
    resamples: int = RESAMPLES,
    vectorized: bool | None = None,
) -> tuple[float, float]:
    if len(samples[0]) < 2:
        return float("nan"), float("nan")
    if all(np.ptp(s) == 0 for s in samples):  # nothing varies: BCa would divide by zero
        value = float(statistic(*samples))
        return value, value
    options = {"paired": len(samples) > 1, "vectorized": vectorized, "n_resamples": resamples, "confidence_level": level}
    with warnings.catch_warnings():  # a resample may be constant, or BCa degenerate: the percentile interval is then taken
        warnings.simplefilter("ignore")
        for method in ("BCa", "percentile"):
            drawn = stats.bootstrap(samples, statistic, method=method, rng=np.random.default_rng(seed), **options)
            low, high = float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)
            if np.isfinite(low) and np.isfinite(high):
                return low, high
        defined = drawn.bootstrap_distribution[np.isfinite(drawn.bootstrap_distribution)]
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]) if len(defined) else (np.nan, np.nan)
    return float(low), float(high)
