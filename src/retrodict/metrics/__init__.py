"""How an answer is judged, and the statistics of a claim."""

from retrodict.metrics.actions import Rightness, action_scores
from retrodict.metrics.calibration import Reliability, auroc, brier, expected_calibration_error, reliability
from retrodict.metrics.identifiability import decorrelation_steps, noise_share, obstacles, rest_share
from retrodict.metrics.statistics import Estimate, interval, paired, rank_correlation

__all__ = [
    "Estimate",
    "Reliability",
    "Rightness",
    "action_scores",
    "auroc",
    "brier",
    "decorrelation_steps",
    "expected_calibration_error",
    "interval",
    "noise_share",
    "obstacles",
    "paired",
    "rank_correlation",
    "reliability",
    "rest_share",
]
