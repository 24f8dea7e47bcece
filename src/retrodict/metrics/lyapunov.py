"""Lyapunov spectra by QR: how fast nearby states part, of anything that has a step and a Jacobian (Benettin et al., 1980)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from numba.extending import is_jitted
from numpy.typing import ArrayLike

from retrodict.dynamics.ensemble import Flow
from retrodict.dynamics.tangent import grow, orthonormalise
from retrodict.errors import DataError
from retrodict.metrics.dimension import kaplan_yorke_dimension

CHUNK = 4096
"""Jacobians held at a time."""


@dataclass(frozen=True)
class LyapunovSpectrum:
    """Exponents, largest first.

    Attributes:
        per_step: (d,), in nats per step of the map.
        dt: time of a step.
        spread: (d,) standard error over the orbits, per step; NaN for a single orbit.
        diverged: the orbit left the finite numbers; all exponents are NaN then.
    """

    per_step: np.ndarray
    dt: float
    spread: np.ndarray
    diverged: bool = False

    @property
    def per_time(self) -> np.ndarray:
        """(d,), in nats per unit of time."""
        return self.per_step / self.dt

    @property
    def largest(self) -> float:
        """The largest exponent, per unit of time."""
        return float(self.per_time[0])

    @property
    def kaplan_yorke(self) -> float:
        """Kaplan-Yorke dimension."""
        return kaplan_yorke_dimension(self.per_step)


def lyapunov_spectrum(
    step: Callable[[Any], Any],
    jacobian: Callable[[Any], Any] | None,
    initial: ArrayLike | torch.Tensor,
    steps: int = 10_000,
    dt: float = 1.0,
    transient: int = 1000,
) -> LyapunovSpectrum:
    """The Lyapunov spectrum of a map z' = step(z), re-orthonormalised at every step.

    Of a flow, `step` is the state `dt` later, and `jacobian` the derivative of that (not of the flow); None finds it.

    Three kinds of callables are taken, fastest last:

    - tensors, where `initial` is one: `step` (B, d) -> (B, d) and `jacobian` (B, d) -> (B, d, d), or None for automatic
      derivatives of `step`;
    - arrays of the same shapes;
    - functions compiled by numba, of one state: `step` (d,) -> (d,) and `jacobian` (d,) -> (d, d); the loop is then compiled.

    Args:
        step, jacobian: the map and its derivative.
        initial: one state (d,) or several (B, d), whose orbits are averaged; B short orbits cost little more than one.
        steps: steps that count, per orbit.
        dt: time of a step, for exponents per unit of time.
        transient: steps before them, in which orbit and directions settle.

    Raises DataError for numbers of steps below 1, `dt` not above 0, or arrays without a Jacobian.
    """
    if steps < 1 or transient < 0 or dt <= 0:
        raise DataError(f"steps start at 1, transient at 0 and dt is above 0; got {steps}, {transient}, {dt}.")
    if jacobian is None and not isinstance(initial, torch.Tensor):
        raise DataError("without a Jacobian, give `initial` as a tensor and `step` as a function of tensors.")
    if jacobian is not None and is_jitted(step) and is_jitted(jacobian):
        states = np.atleast_2d(np.array(initial, np.float64))
        sums = np.stack([_compiled(step, jacobian, state, transient, steps) for state in states])
    elif isinstance(initial, torch.Tensor):
        slope = jacobian or torch.func.vmap(torch.func.jacrev(_single(step)))
        with torch.no_grad():
            sums = _batched(step, slope, initial.reshape(-1, initial.shape[-1]), transient, steps)
    else:
        assert jacobian is not None
        sums = _batched(step, jacobian, np.atleast_2d(np.asarray(initial, np.float64)), transient, steps)
    return _spectrum(sums / steps, dt)


def flow_lyapunov_spectrum(
    rhs: Flow,
    initial: ArrayLike,
    parameters: ArrayLike = (),
    *,
    interval: float,
    intervals: int = 1000,
    transient: int = 20,
    count: int | None = None,
    rtol: float = 1e-7,
    max_steps: int = 10_000_000,
) -> LyapunovSpectrum:
    """The Lyapunov spectrum of a compiled flow dx/dt = f(x), directions carried by the linearised flow beside the orbit.

    Args:
        rhs: a flow made by `dynamics.ensemble.flow`.
        initial: one state (d,) or several (B, d), whose orbits are averaged.
        parameters: (n,) handed to the flow.
        interval: time between orthonormalisations; a step of the result. About a period or less.
        intervals: how many count, per orbit.
        transient: intervals before them.
        count: exponents wanted, all d where not given.
        rtol: tolerance of the integration.
        max_steps: per orbit; an orbit that takes more, or blows up, makes the result `diverged`.

    Raises DataError for an interval not above 0 or counts below 1.
    """
    states = np.atleast_2d(np.array(initial, np.float64, order="C"))
    k = states.shape[1] if count is None else count
    if not interval > 0 or intervals < 1 or transient < 0 or not 1 <= k <= states.shape[1]:
        raise DataError(
            f"interval is above 0, intervals at least 1, count 1 to {states.shape[1]}; got {interval}, {intervals}, {k}."
        )
    p = np.array(parameters, np.float64, order="C")
    sums, _ = grow(rhs, states, p, interval, transient, intervals, count=k, rtol=rtol, max_steps=max_steps)
    return _spectrum(sums / intervals, interval)


def _spectrum(rates: np.ndarray, dt: float) -> LyapunovSpectrum:
    """From rates (B, k) per step."""
    if np.isnan(rates).any():  # -inf is an answer: a direction that a singular map annihilates
        nothing = np.full(rates.shape[1], np.nan)
        return LyapunovSpectrum(nothing, dt, nothing, diverged=True)
    mean = rates.mean(0)
    order = np.argsort(-mean)
    with np.errstate(invalid="ignore"):
        spread = rates.std(0, ddof=1) / np.sqrt(len(rates)) if len(rates) > 1 else np.full(len(mean), np.nan)
    return LyapunovSpectrum(mean[order], dt, spread[order])


def _single(step: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """`step` of one state (d,), for steps that insist on a batch."""
    return lambda state: step(state[None])[0]


def _batched(step: Callable[[Any], Any], jacobian: Callable[[Any], Any], states: Any, transient: int, steps: int) -> np.ndarray:
    """Sums of log growth (B, d); Jacobians come in large batches, and only the QR runs step by step (compiled)."""
    orbits, d = states.shape
    frames, sums = np.tile(np.eye(d), (orbits, 1, 1)), np.zeros((orbits, d))
    done, total = 0, transient + steps
    while done < total:
        size = min(max(CHUNK // orbits, 1), total - done)
        visited = []
        for _ in range(size):
            visited.append(states)
            states = step(states)
        flat = torch.cat(visited) if isinstance(states, torch.Tensor) else np.concatenate(visited)
        slopes = jacobian(flat)
        array = slopes.detach().cpu().double().numpy() if isinstance(slopes, torch.Tensor) else np.asarray(slopes, np.float64)
        _grow(array.reshape(size, orbits, d, d), frames, sums, max(transient - done, 0))
        done += size
    last = states.cpu().numpy() if isinstance(states, torch.Tensor) else states
    sums[~np.isfinite(last).all(1)] = np.nan
    return sums


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _grow(slopes: np.ndarray, frames: np.ndarray, sums: np.ndarray, unheeded: int) -> None:
    """Carry frames (B, d, d), a direction per row, through Jacobians (T, B, d, d); the first `unheeded` steps do not count."""
    for t in range(len(slopes)):
        for b in range(slopes.shape[1]):
            frames[b] = frames[b] @ slopes[t, b].T
            orthonormalise(frames[b], sums[b], t >= unheeded)


@numba.njit  # type: ignore[untyped-decorator]  # compiled per map: nothing to keep on disk
def _compiled(step: Any, jacobian: Any, state: np.ndarray, transient: int, steps: int) -> np.ndarray:
    d = len(state)
    frame, sums = np.eye(d), np.zeros(d)
    for t in range(transient + steps):
        frame = frame @ jacobian(state).T
        orthonormalise(frame, sums, t >= transient)
        state = step(state)
    return sums if np.isfinite(state).all() else np.full(d, np.nan)
