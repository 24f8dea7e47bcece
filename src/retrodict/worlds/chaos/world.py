"""Motions that one can only watch: systems of ordinary differential equations with known truths, recorded at any grain."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from retrodict._version import __version__
from retrodict.dynamics.ensemble import BLEW_UP, COMPLETE, GAVE_UP, Ensemble, Flow, integrate_ensemble
from retrodict.errors import DataError
from retrodict.metrics.dimension import correlation_dimension
from retrodict.metrics.lyapunov import LyapunovSpectrum, flow_lyapunov_spectrum
from retrodict.trajectories import Feature, Recordings, from_arrays
from retrodict.trajectories.cache import entry_name, frame_cache

STATE, TRUTH = "observation.state", "privileged.state"
PER_PERIOD = 100
"""Steps per period where no `dt` is asked for."""
SETTLING = 20
"""Periods that pass before a recording from a drawn start, so that it is of the attractor."""
ALONG = 120
"""Periods along which starts are drawn where there is no box."""


@dataclass(frozen=True)
class Invariants:
    """What does not depend on where a motion started.

    Attributes:
        lyapunov: the spectrum, recomputed by QR.
        kaplan_yorke: dimension from the spectrum.
        correlation: dimension from distances of points.
    """

    lyapunov: LyapunovSpectrum
    kaplan_yorke: float
    correlation: float


@dataclass(frozen=True)
class OdeWorld:
    """dx/dt = f(t, x), with parameters by name.

    Made by `ode_world`. It cannot be acted in, so it is no `World`; what it shares with one is that episode i of a seed is always
    the same.

    Attributes:
        id: the name by which `ode_world` makes it.
        rhs: the compiled flow.
        parameters: by name; numbers or arrays.
        names: of the coordinates, (d,).
        period: of its dominant oscillation, in the system's unit of time.
        start: a state on or near the attractor.
        box: low and high corner (2, d) between which starts are drawn; None draws them along the motion from `start`.
        settles: whether there is an attractor to settle on, so that a recording from a drawn start begins after a while.
        known: literature values by name, with their source in `source`.
        exact: where the solution is known: (initial (d,), times (T,)) -> (T, d).
        observe: from states (T, d) to what is observed, where coordinates grow without bound.
        observed_names: of what is observed.
    """

    id: str
    rhs: Flow
    parameters: Mapping[str, Any]
    names: tuple[str, ...]
    period: float
    start: np.ndarray
    box: np.ndarray | None = None
    settles: bool = True
    known: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    exact: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    observe: Callable[[np.ndarray], np.ndarray] | None = None
    observed_names: tuple[str, ...] = ()

    # ---- the flow -----------------------------------------------------------------------------------------------------

    @property
    def vector(self) -> np.ndarray:
        """The parameters as the flow reads them."""
        return np.concatenate([np.ravel(np.asarray(v, np.float64)) for v in self.parameters.values()] or [np.zeros(0)])

    def derivative(self, states: ArrayLike, t: float = 0.0) -> np.ndarray:
        """dx/dt of states (..., d)."""
        x = np.ascontiguousarray(states, np.float64)
        out, vector = np.empty_like(x), self.vector
        for row, slope in zip(x.reshape(-1, x.shape[-1]), out.reshape(-1, x.shape[-1]), strict=True):
            self.rhs(t, row, vector, slope)
        return out

    def jacobian(self, states: ArrayLike, t: float = 0.0) -> np.ndarray:
        """d(dx/dt)/dx (..., d, d) at states (..., d), by central differences: about ten digits."""
        x = np.asarray(states, np.float64)
        h = np.cbrt(np.finfo(float).eps) * np.maximum(np.abs(x).max(-1, keepdims=True), 1e-3)[..., None]
        steps = h * np.eye(x.shape[-1])
        apart = self.derivative(x[..., None, :] + steps, t) - self.derivative(x[..., None, :] - steps, t)
        return np.asarray(np.swapaxes(apart / (2 * h), -1, -2))

    @cached_property
    def time_dependent(self) -> bool:
        """Whether f depends on t itself, and not only on the state."""
        return not np.array_equal(self.derivative(self.start, 0.0), self.derivative(self.start, 0.37 * self.period))

    # ---- trajectories -------------------------------------------------------------------------------------------------

    def starts(self, count: int, seed: int = 0) -> np.ndarray:
        """Initial states (count, d), a function of the seed; start i is the same whatever the count."""
        draws = [np.random.default_rng((seed, i)) for i in range(count)]
        if self.box is not None:
            return np.stack([rng.uniform(*self.box) for rng in draws])
        when = np.array([rng.uniform(SETTLING, ALONG) for rng in draws]) * self.period
        order = np.argsort(when)
        path = self._whole(self.start[None], np.concatenate([[0.0], when[order]]), 1e-9, "dop853")[0, 1:]
        return path[np.argsort(order)]

    def integrate(
        self,
        initial: ArrayLike,
        times: ArrayLike,
        *,
        rtol: float = 1e-9,
        method: Literal["dop853", "lsoda"] = "dop853",
        max_steps: int = 1_000_000,
    ) -> Ensemble:
        """Trajectories from initial states (B, d) at times (T,), kept on disk by all that they depend on.

        `dop853` is compiled; `lsoda` is for stiff systems, some hundred times slower. Relative and absolute tolerance are one.
        """
        x = np.atleast_2d(np.asarray(initial, np.float64))
        t = np.asarray(times, np.float64)
        if x.shape[-1] != len(self.names):
            raise DataError(f"{self.id} has {len(self.names)} coordinates ({', '.join(self.names)}); got states {list(x.shape)}.")
        identity = (self.id, self.vector.tolist(), x.tolist(), t.tobytes(), rtol, method, max_steps, __version__)
        shape = (len(x), len(t) * x.shape[1] + 2)
        size = 8 * shape[0] * shape[1]

        def build() -> list[np.ndarray]:
            made = self._integrate(x, t, rtol, method, max_steps)
            whole = np.concatenate([made.states.reshape(len(x), -1), made.ended[:, None], made.outcome[:, None]], 1)
            return [np.ascontiguousarray(whole).view(np.uint8)]

        entry = frame_cache().file(entry_name(*identity), size, build)
        table = np.frombuffer(bytearray(os.pread(entry.fileno(), size, 0)), np.float64).reshape(shape)
        states = table[:, :-2].reshape(len(x), len(t), x.shape[1])
        return Ensemble(states, t, table[:, -2], table[:, -1].astype(np.int64))

    def _integrate(self, x: np.ndarray, t: np.ndarray, rtol: float, method: str, max_steps: int) -> Ensemble:
        if method == "dop853":
            return integrate_ensemble(self.rhs, x, t, self.vector, rtol=rtol, max_steps=max_steps)
        if method != "lsoda":
            raise DataError(f"the methods are dop853 and lsoda; got {method!r}.")
        states, ended = np.full((len(x), len(t), x.shape[1]), np.nan), np.full(len(x), t[0])
        for i, x0 in enumerate(x):
            found = solve_ivp(lambda t, y: self.derivative(y, t), (t[0], t[-1]), x0, "LSODA", t, rtol=rtol, atol=rtol)
            states[i, : found.y.shape[1]] = found.y.T
            ended[i] = t[found.y.shape[1] - 1] if found.y.shape[1] else t[0]
        whole = np.isfinite(states).all((1, 2))
        return Ensemble(states, t, ended, np.where(whole, COMPLETE, BLEW_UP))

    def record(
        self,
        n: int,
        dt: float | None = None,
        ic: ArrayLike | None = None,
        noise: float = 0.0,
        seed: int = 0,
        *,
        episodes: int = 1,
        rtol: float = 1e-9,
        method: Literal["dop853", "lsoda"] = "dop853",
        precision: Literal["float32", "float64"] = "float32",
    ) -> Recordings:
        """Recordings of n steps: `observation.state`, and with noise the clean `privileged.state` beside it.

        Args:
            n: steps of each episode.
            dt: time between steps; a hundredth of the period where not given.
            ic: initial states (d,) or (B, d), an episode each; where not given, `episodes` are drawn, and settle first.
            noise: standard deviation of Gaussian noise on what is observed, as a share of each coordinate's own.
            seed: of starts and noise.
            episodes: how many, where `ic` is not given.
            rtol: relative and absolute tolerance of the integration.
            method: `dop853`, or `lsoda` for stiff systems.
            precision: of the numbers recorded.

        Raises DataError where a number makes no sense, or a motion blows up (with its time) or is too stiff for `dop853`.
        """
        step = self.period / PER_PERIOD if dt is None else dt
        if n < 2 or episodes < 1 or not step > 0 or not noise >= 0:
            raise DataError(
                f"n starts at 2, episodes at 1, dt lies above 0, noise not below; got {n}, {episodes}, {step}, {noise}."
            )
        if precision not in ("float32", "float64"):
            raise DataError(f"numbers are recorded as float32 or float64; got {precision!r}.")
        times = np.arange(n) * step
        if ic is None:
            initial = self.starts(episodes, seed)
            if self.settles:
                initial = self._whole(initial, np.array([0, SETTLING * self.period]), rtol, method)[:, -1]
        else:
            initial = np.atleast_2d(np.asarray(ic, np.float64))
        states = self._whole(initial, times, rtol, method)
        clean = states if self.observe is None else np.stack([self.observe(path) for path in states])
        if not np.isfinite(clean).all() or (n > 2 and (np.ptp(clean, 1) == 0).all(1).any()):
            raise DataError(f"{self.id} stands still or is not finite from this start; give another ic.")
        made = []
        for i, path in enumerate(clean):
            values = {STATE: path.astype(precision)}
            if noise:
                rng = np.random.default_rng((seed, i, 1))
                values[STATE] = (path + noise * path.std(0) * rng.normal(size=path.shape)).astype(precision)
                values[TRUTH] = path.astype(precision)
            made.append(values)
        about = {"world": self.id, "parameters": {k: np.asarray(v).tolist() for k, v in self.parameters.items()}, "rtol": rtol}
        recordings = from_arrays(made, fps=1 / step, domains=[self.id] * len(made), source=self.id, meta={"recorded": about})
        named = Feature(precision, (clean.shape[-1],), list(self.observed_names or self.names))
        return replace(recordings, features=dict.fromkeys(recordings.features, named))

    def _whole(self, initial: np.ndarray, times: np.ndarray, rtol: float, method: Literal["dop853", "lsoda"]) -> np.ndarray:
        """The states, where every trajectory reaches its end."""
        made = self.integrate(initial, times, rtol=rtol, method=method)
        if made.complete.all():
            return made.states
        bad = int((~made.complete).argmax())
        where = f"{self.id}, trajectory {bad}, {method} at rtol {rtol:g}:"
        if made.outcome[bad] == GAVE_UP:
            raise DataError(f"{where} still at t = {made.ended[bad]:.6g}; it is stiff: use method='lsoda', rtol=1e-9.")
        raise DataError(f"{where} blew up at t = {made.ended[bad]:.6g}; start elsewhere (ic) or change the parameters.")

    # ---- what is known of it ------------------------------------------------------------------------------------------

    def lyapunov(self, *, orbits: int = 8, periods: int = 200, rtol: float = 1e-7, seed: int = 0) -> LyapunovSpectrum:
        """The Lyapunov spectrum, orthonormalised twenty times per period, after a transient.

        Raises DataError where f depends on time itself.
        """
        if self.time_dependent:
            raise DataError(f"{self.id} depends on time itself; write time as a coordinate (its phase) to ask for its exponents.")
        return flow_lyapunov_spectrum(
            self.rhs,
            self.starts(orbits, seed),
            self.vector,
            interval=self.period / 20,
            intervals=20 * periods,
            transient=20 * SETTLING,
            rtol=rtol,
        )

    @cached_property
    def invariants(self) -> Invariants:
        """Lyapunov spectrum and dimensions, recomputed; some seconds."""
        spectrum = self.lyapunov()
        path = np.asarray(self.record(20_000, self.period / 23.7, precision="float64")[0][STATE])  # no multiple of the period
        return Invariants(spectrum, spectrum.kaplan_yorke, correlation_dimension(path / path.std(0), theiler=50).value)


def with_parameters(id: str, own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A system's own parameters with some replaced; raises DataError for one that it does not have or of another shape."""
    for name, value in given.items():
        if name not in own:
            raise DataError(f"{id} has no parameter {name!r}; it has {', '.join(own) or 'none'}.")
        if np.shape(value) != np.shape(own[name]) or not np.isfinite(np.asarray(value, np.float64)).all():
            raise DataError(f"{id}: {name} is finite, of shape {list(np.shape(own[name]))}; got {value}.")
    return {**own, **given}
