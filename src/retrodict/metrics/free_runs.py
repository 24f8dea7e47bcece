"""Free runs: a law goes on by itself from where a recorded series begins, and what it makes is held against the series."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch

from retrodict.metrics.lyapunov import LyapunovSpectrum, lyapunov_spectrum
from retrodict.metrics.reconstruction import MOST_BINNED, prediction_error, spectrum_distance, state_space_divergence
from retrodict.roles import Law

BINS, SHORT_BINS, SHORT = 30, 8, 5000
"""Cells per axis; and those of a series of fewer steps than the last number."""

Numbers = dict[str, float | None]
"""What was measured; None where a run diverged."""


def free_run(law: Law, test: np.ndarray) -> np.ndarray:
    """A run as long as the test series (T, N) from its first state, after a transient a quarter as long."""
    start, length = torch.from_numpy(np.asarray(test[:1], np.float64)), len(test)
    times = law.dt * torch.arange(length // 4, length // 4 + length, dtype=torch.float64)
    run: np.ndarray = law.simulate(start, times)[0].cpu().numpy()
    return run


def attractor_distance(test: np.ndarray, run: np.ndarray) -> float:
    """D_stsp of a run from a series, both (T, N), as suits the series: in cells, coarse where it is short, else by Gaussians."""
    if test.shape[1] > MOST_BINNED:
        return state_space_divergence(test, run, "gmm").value
    return state_space_divergence(test, run, "bins", bins=SHORT_BINS if len(test) < SHORT else BINS).value


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
    """D_stsp, D_H, the error after 20 steps, and the largest Lyapunov exponent per unit of time and per step.

    A flow says its exponents itself, by `lyapunov()`.
    """
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
        if law.kind == "flow":  # whose Jacobian is not that of its step
            spectrum: LyapunovSpectrum = law.lyapunov()  # type: ignore[attr-defined]
        else:
            start = law.embed(torch.from_numpy(np.asarray(test[:1], np.float64)))
            spectrum = lyapunov_spectrum(law.step, law.jacobian, start, 20_000, law.dt, 1000)
        found |= {"exponent": finite(spectrum.largest), "exponent per step": finite(spectrum.largest * law.dt)}
    return found


def finite(value: float) -> float | None:
    """The number, or None where it is not finite: JSON knows no other way."""
    return float(value) if math.isfinite(value) else None
