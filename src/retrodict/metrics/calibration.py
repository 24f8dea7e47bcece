"""Is a confidence what it says? Calibration error, reliability curve, Brier score, and how well it tells right from wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from retrodict.errors import DataError

Bins = Literal["mass", "width"]


@dataclass(frozen=True)
class Reliability:
    """A reliability curve: in each bin that holds anything, how sure the answers were and how often they were right.

    Attributes:
        confidence: mean confidence (bins,).
        accuracy: share that was right (bins,).
        counts: answers in the bin (bins,).
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    counts: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: the gap between the two, weighted by the counts."""
        return float(np.average(np.abs(self.confidence - self.accuracy), weights=self.counts))


def reliability(confidence: ArrayLike, right: ArrayLike, bins: int = 15, kind: Bins = "mass") -> Reliability:
    """The reliability curve of confidences (n,) in [0, 1] against whether each answer was right (n,).

    `mass` puts equally many answers in every bin (equal confidences stay together), `width` cuts [0, 1] evenly.

    Raises DataError when there is nothing to judge, lengths differ, or a confidence lies outside [0, 1].
    """
    p, y = _checked(confidence, right)
    if kind == "width":
        place = np.minimum((p * bins).astype(int), bins - 1)
    else:
        edges = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1]))
        place = np.searchsorted(edges, p, side="left")
    counts = np.bincount(place)
    held = counts > 0
    total = counts[held]
    return Reliability(np.bincount(place, p)[held] / total, np.bincount(place, y)[held] / total, total)


def expected_calibration_error(confidence: ArrayLike, right: ArrayLike, bins: int = 15, kind: Bins = "mass") -> float:
    """Mean gap between confidence and accuracy over the bins of `reliability`, in [0, 1]."""
    return reliability(confidence, right, bins, kind).error


def brier(confidence: ArrayLike, right: ArrayLike) -> float:
    """Mean squared gap between confidence and outcome; 0 is perfect, a coin that says 0.5 has 0.25."""
    p, y = _checked(confidence, right)
    return float(np.mean((p - y) ** 2))


def auroc(confidence: ArrayLike, right: ArrayLike) -> float:
    """Probability that a right answer is surer than a wrong one (ties count half); NaN where all are right or all are wrong."""
    p, y = _checked(confidence, right)
    positive = int(y.sum())
    negative = len(y) - positive
    if not positive or not negative:
        return float("nan")
    return float((rankdata(p)[y == 1].sum() - positive * (positive + 1) / 2) / (positive * negative))


def _checked(confidence: ArrayLike, right: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    p, y = np.asarray(confidence, float).ravel(), np.asarray(right, float).ravel()
    if len(p) != len(y) or not len(p):
        raise DataError(f"calibration needs as many confidences as outcomes and at least one, got {len(p)} and {len(y)}.")
    outside = ~((p >= 0) & (p <= 1))
    if outside.any():
        raise DataError(f"confidences lie in [0, 1], got {p[outside][0]}.")
    return p, y
