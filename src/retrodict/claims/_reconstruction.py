"""How a law that was learned from a series is judged against another series of the same system."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from retrodict.claims.experiment import Check
from retrodict.errors import RetrodictError
from retrodict.metrics import interval, prediction_error, spectrum_distance, state_space_divergence
from retrodict.metrics.lyapunov import lyapunov_spectrum
from retrodict.roles import Law
from retrodict.trajectories import Recordings, from_arrays
from retrodict.trajectories.features import STATE

Numbers = dict[str, float | None]
"""What was measured; None where a run diverged."""

WORST = math.inf


def recorded(series: np.ndarray, fps: float | None = None) -> Recordings:
    """One series (T, N) as recordings."""
    return from_arrays([{STATE: np.asarray(series, np.float32)}], fps=fps)


def free_run(law: Law, test: np.ndarray) -> np.ndarray:
    """A run as long as the test series (T, N) from its first state, after a transient a quarter as long."""
    start, length = torch.from_numpy(np.asarray(test[:1], np.float64)), len(test)
    times = law.dt * torch.arange(length // 4, length // 4 + length, dtype=torch.float64)
    run: np.ndarray = law.simulate(start, times)[0].cpu().numpy()
    return run


def judged(
    law: Law,
    test: np.ndarray,
    *,
    method: Literal["bins", "gmm"] = "bins",
    bins: int = 30,
    scale: float = 1.0,
    sigma: float = 20.0,
    exponents: bool = True,
) -> Numbers:
    """D_stsp, D_H, the error after 20 steps, and the largest Lyapunov exponent per unit of time and per step."""
    run = free_run(law, test)
    found: Numbers = {
        "D_stsp": finite(state_space_divergence(test, run, method, bins=bins, scale=scale).value),
        "D_H": finite(spectrum_distance(test, run, sigma).value),
        "PE20": finite(
            prediction_error(
                lambda z: law.step(torch.from_numpy(z)).cpu().numpy(),
                test,
                20,
                encode=lambda x: law.embed(torch.from_numpy(x)).cpu().numpy(),
                observe=lambda z: law.observe(torch.from_numpy(z)).cpu().numpy(),
            ).value
        ),
    }
    if exponents:
        start = law.embed(torch.from_numpy(np.asarray(test[:1], np.float64)))
        spectrum = lyapunov_spectrum(law.step, law.jacobian, start, 20_000, law.dt, 1000)
        found |= {"exponent": finite(spectrum.largest), "exponent per step": finite(float(spectrum.per_step[0]))}
    return found


def fitted_and_judged(fit: Callable[[], Law], judge: Callable[[Any], Mapping[str, Any]]) -> dict[str, Any]:
    """What a fitted law measures; a training that ended in numbers that are not finite is a result too: the worst."""
    try:
        law = fit()
    except RetrodictError as error:
        return {"D_stsp": None, "D_H": None, "PE20": None, "exponent": None, "failed": str(error)}
    return dict(judge(law))


def finite(value: float) -> float | None:
    """The number, or None where it is not finite: JSON knows no other way."""
    return float(value) if math.isfinite(value) else None


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
