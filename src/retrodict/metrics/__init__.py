"""How an answer is judged, and the statistics of a claim.

What is compiled (`lyapunov`, `dimension`) is imported from its own module, so that the rest starts fast.
"""

from retrodict.metrics.actions import Rightness, action_scores
from retrodict.metrics.calibration import Reliability, auroc, brier, expected_calibration_error, reliability
from retrodict.metrics.forecasts import nrmse, relative_l2, smape, valid_time
from retrodict.metrics.identifiability import decorrelation_steps, noise_share, obstacles, rest_share
from retrodict.metrics.reconstruction import prediction_error, spectrum_distance, state_space_divergence
from retrodict.metrics.series import Score
from retrodict.metrics.statistics import Estimate, interval, paired, rank_correlation

__all__ = [
    "Estimate",
    "Reliability",
    "Rightness",
    "Score",
    "action_scores",
    "auroc",
    "brier",
    "decorrelation_steps",
    "expected_calibration_error",
    "interval",
    "noise_share",
    "nrmse",
    "obstacles",
    "paired",
    "prediction_error",
    "rank_correlation",
    "relative_l2",
    "reliability",
    "rest_share",
    "smape",
    "spectrum_distance",
    "state_space_divergence",
    "valid_time",
]
