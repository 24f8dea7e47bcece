"""How a law that was learned from a series is judged against another series of the same system."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from retrodict.claims.experiment import Check
from retrodict.errors import RetrodictError
from retrodict.metrics import interval
from retrodict.roles import Law
from retrodict.trajectories import Recordings, from_arrays
from retrodict.trajectories.features import STATE

WORST = math.inf


def recorded(series: np.ndarray, fps: float | None = None) -> Recordings:
    """One series (T, N) as recordings."""
    return from_arrays([{STATE: np.asarray(series, np.float32)}], fps=fps)


def fitted_and_judged(fit: Callable[[], Law], judge: Callable[[Any], Mapping[str, Any]]) -> dict[str, Any]:
    """What a fitted law measures; a training that ended in numbers that are not finite is a result too: the worst."""
    try:
        law = fit()
    except RetrodictError as error:
        return {"D_stsp": None, "D_H": None, "PE20": None, "exponent": None, "failed": str(error)}
    return dict(judge(law))


def over_seeds(measured: Mapping[int, Mapping[str, Any]], name: str) -> list[float]:
    """A number at each seed; where it is missing, the worst."""
    return [WORST if (value := numbers.get(name)) is None else float(value) for numbers in measured.values()]


def median(values: Sequence[float]) -> float:
    return float(np.median(values))


def median_check(name: str, values: Sequence[float], asked: str, holds: Callable[[float], bool]) -> Check:
    """A check of the median over seeds, with its interval where all values are finite."""
    value = median(values)
    ends = None
    if np.isfinite(values).all():
        estimate = interval(values, "median")
        ends = (estimate.low, estimate.high) if math.isfinite(estimate.low) else None
    return Check(name, value, ends, asked, holds(value))
