"""Turn a confidence into the probability that the label is right, learned on labelled episodes that taught the model nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from retrodict.errors import DataError
from retrodict.metrics import auroc, brier, expected_calibration_error

Kind = Literal["none", "platt", "isotonic"]

#: A free-form curve is tried only where it has this many labels and episodes to be drawn through.
ENOUGH_STEPS, ENOUGH_EPISODES = 1000, 8
#: Episodes are dealt into this many folds, where there are as many.
FOLDS = 5
#: Confidences closer to 0 or 1 than this are taken as this close.
CLOSEST = 1e-6


@dataclass(frozen=True)
class Calibrator:
    """A non-decreasing map from the model's confidence to the probability that the label is right.

    Attributes:
        kind: `platt` (logistic in the logit: slope and shift), `isotonic` (piecewise linear through the centres of pooled
            blocks), or `none` (nothing to learn from: confidences stay as they are).
        parameters: slope and shift, or the knots `x` (logits) and `y`.
    """

    kind: Kind = "none"
    parameters: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def __call__(self, confidence: np.ndarray) -> np.ndarray:
        """Calibrated confidences, same shape, float32."""
        if self.kind == "none":
            return np.asarray(confidence, np.float32)
        x = _logit(confidence)
        if self.kind == "platt":
            slope, shift = self.parameters["slope_and_shift"]
            return np.asarray(expit(slope * x + shift), np.float32)
        return np.asarray(np.interp(x, self.parameters["x"], self.parameters["y"]), np.float32)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "parameters": {name: [float(v) for v in values] for name, values in self.parameters.items()}}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Calibrator:
        return cls(entry["kind"], dict(entry["parameters"]))


@dataclass(frozen=True)
class Calibration:
    """A calibrator and what is known of it.

    `before` and `after` hold {ece, brier} (and `before` auroc), judged on episodes that the calibrator of their fold was not
    fitted on; the calibrator itself is fitted on all.

    Attributes:
        calibrator: the map.
        episodes, steps: how much it was fitted on.
        accuracy: share of the held-out labels that are right.
        before, after: scores of the confidences as given and as calibrated.
    """

    calibrator: Calibrator
    episodes: int
    steps: int
    accuracy: float
    before: Mapping[str, float]
    after: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "calibrator": self.calibrator.to_json()}


def calibrate(confidence: Sequence[np.ndarray], right: Sequence[np.ndarray], seed: int = 0) -> Calibration:
    """Fit a calibrator on held-out episodes: for each, confidences (T,) and whether the labels were right (T,).

    Platt's two parameters are the choice for little data; the isotonic curve is taken where there are at least `ENOUGH_STEPS`
    labels from `ENOUGH_EPISODES` episodes and it has the smaller cross-fitted Brier score by more than one standard error
    over episodes.

    Raises DataError when there is no episode.
    """
    if not confidence or not sum(map(len, confidence)):
        raise DataError("no held-out labelled episode to calibrate on; at least one is needed.")
    c, r = np.concatenate(confidence).astype(float), np.concatenate(right).astype(float)
    episode = np.repeat(np.arange(len(confidence)), [len(x) for x in confidence])
    judged = np.empty(len(c))
    for train, test in _folds(episode, seed):
        judged[test] = fit(_choose(c[train], r[train], episode[train], seed), c[train], r[train])(c[test])
    return Calibration(
        calibrator=fit(_choose(c, r, episode, seed), c, r),
        episodes=len(confidence),
        steps=len(c),
        accuracy=float(r.mean()),
        before={"ece": expected_calibration_error(c, r), "brier": brier(c, r), "auroc": auroc(c, r)},
        after={"ece": expected_calibration_error(judged, r), "brier": brier(judged, r)},
    )


def fit(kind: Kind, confidence: np.ndarray, right: np.ndarray) -> Calibrator:
    """A calibrator of one kind on confidences (n,) and outcomes (n,)."""
    x = _logit(confidence)
    if kind == "platt":
        return Calibrator("platt", {"slope_and_shift": _platt(x, right)})
    from sklearn.isotonic import IsotonicRegression  # takes half as long to import as torch

    level = IsotonicRegression(out_of_bounds="clip").fit_transform(x, right)
    _, block = np.unique(level, return_inverse=True)
    counts = np.bincount(block)
    # A block that is all right or all wrong is no certainty: one right and one wrong label are added to the outermost ones.
    y = np.bincount(block, right) / counts
    for end in {0, len(y) - 1}:
        y[end] = (y[end] * counts[end] + 1) / (counts[end] + 2)
    return Calibrator("isotonic", {"x": (np.bincount(block, x) / counts).tolist(), "y": np.maximum.accumulate(y).tolist()})


def _platt(x: np.ndarray, right: np.ndarray) -> list[float]:
    """Slope (at least 0) and shift by maximum likelihood on Platt's smoothed targets, which keep them finite without errors."""
    positive = right.sum()
    negative = len(right) - positive
    target = np.where(right == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        z = theta[0] * x + theta[1]
        off = expit(z) - target
        return float(np.mean(np.logaddexp(0, z) - target * z)), np.array([np.mean(off * x), np.mean(off)])

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)])
    return [float(v) for v in found.x]


def _choose(confidence: np.ndarray, right: np.ndarray, episode: np.ndarray, seed: int) -> Kind:
    if len(right) < ENOUGH_STEPS or len(np.unique(episode)) < ENOUGH_EPISODES:
        return "platt"
    gain = np.empty(len(right))
    for train, test in _folds(episode, seed):
        off = [fit(kind, confidence[train], right[train])(confidence[test]) - right[test] for kind in ("platt", "isotonic")]
        gain[test] = off[0] ** 2 - off[1] ** 2
    _, place = np.unique(episode, return_inverse=True)
    sums = np.bincount(place, gain)
    return "isotonic" if sums.sum() > np.sqrt(len(sums)) * sums.std(ddof=1) else "platt"


def _folds(episode: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Train and test masks: folds of whole episodes, or of halves of the only one."""
    ids = np.unique(episode)
    if len(ids) == 1:
        first = np.arange(len(episode)) < len(episode) // 2
        return [(first, ~first), (~first, first)] if first.any() else [(~first, ~first)]
    deal = dict(zip(np.random.default_rng(seed).permutation(ids).tolist(), np.arange(len(ids)) % FOLDS, strict=True))
    fold = np.array([deal[e] for e in episode.tolist()])
    return [(fold != k, fold == k) for k in range(min(FOLDS, len(ids)))]


def _logit(confidence: np.ndarray) -> np.ndarray:
    return np.asarray(logit(np.clip(np.asarray(confidence, float), CLOSEST, 1 - CLOSEST)))
