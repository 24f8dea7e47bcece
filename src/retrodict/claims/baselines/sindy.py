"""Sparse identification of polynomial laws by PySINDy; how to derive and where to cut are chosen on held-out steps."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from scipy.signal import savgol_filter
from torch import Tensor

from retrodict.dynamics.ode import odeint
from retrodict.errors import DataError, require
from retrodict.roles import Law
from retrodict.systems.contract import Card, System
from retrodict.training.run import Run
from retrodict.trajectories import Recordings
from retrodict.trajectories.features import STATE


def exponents(d: int, degree: int) -> np.ndarray:
    """Powers (F, d) of all monomials of d coordinates up to a degree, the constant first."""
    powers: np.ndarray = np.indices((degree + 1,) * d).reshape(d, -1).T
    powers = powers[powers.sum(1) <= degree]
    return np.asarray(powers[np.lexsort([*-powers.T[::-1], powers.sum(1)])])


def monomials(states: Any, powers: np.ndarray) -> Any:
    """Their values (..., F) at states (..., d), arrays or tensors."""
    if torch.is_tensor(states):
        return torch.prod(states[..., None, :] ** torch.from_numpy(powers).to(states.device), -1)
    return np.prod(states[..., None, :] ** powers, -1)


def polynomial_law(derivative: Callable[[np.ndarray], np.ndarray], points: np.ndarray, degree: int = 2) -> np.ndarray | None:
    """The coefficients (d, F) of a vector field that is a polynomial of at most this degree, None of one that is not.

    It is asked at points (n, d), n well above F.
    """
    size = np.abs(points).max(0)
    powers = exponents(points.shape[1], degree)
    library, slopes = monomials(points / size, powers), derivative(points)
    scaled, *_ = np.linalg.lstsq(library, slopes, rcond=None)
    scale = np.abs(slopes).max(0)
    if (np.abs(library @ scaled - slopes) > 1e-8 * scale).any():
        return None
    scaled[np.abs(scaled) < 1e-7 * scale] = 0
    return np.asarray((scaled / monomials(size, powers)[:, None]).T)


def same_law(found: np.ndarray, true: np.ndarray, tolerance: float = 0.05) -> bool:
    """Whether two laws have the same terms, with coefficients (d, F) that differ by at most this share."""
    return bool(((found != 0) == (true != 0)).all() and (np.abs(found - true) <= tolerance * np.abs(true)).all())


@dataclass
class SparseIdentification(System, Law):
    """dx/dt as a sparse polynomial of x: least squares whose small coefficients are set to zero again and again.  (Brunton, 2016)

    Coordinates are divided by their deviation and time by the step, so that one set of thresholds serves all systems; no mean is
    taken away, which would change the terms. How derivatives are taken, and the threshold, are chosen by short forecasts of the
    last part of every episode: of those that are nearly as good as the best, the one with fewest terms. Then all is fitted again.

    Attributes:
        degree: of the polynomials.
        thresholds: candidates, as shares of the largest coefficient of each equation (in units of deviation per step).
        smoothings: candidates for taking derivatives: 0 for differences of eighth order, else the window of a Savitzky-Golay
            filter of fourth order in steps.
        ridge: of the least squares.
        held: share of each episode by which is chosen.
        horizon: steps of the forecasts.
        slack: how much worse than the best a forecast may be that is still chosen for its few terms.
        coefficients_: (d, F); `powers_` (F, d) says of which monomials.
        chosen_: what was chosen, and the error of the forecasts in deviations.
    """

    card: ClassVar[Card] = Card(
        slug="sindy",
        title="Discovering governing equations from data by sparse identification of nonlinear dynamical systems",
        authors="Brunton, Proctor, Kutz",
        year=2016,
        reads="series of states at equal spacing",
        returns="a flow whose equations can be read",
        claim="sparse regression finds the equations behind clean measurements",
        baseline=True,
    )
    kind: ClassVar[Literal["flow"]] = "flow"  # type: ignore[misc]

    degree: int = 2
    thresholds: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1)
    smoothings: tuple[int, ...] = (0, 9, 17)
    ridge: float = 1e-10
    held: float = 0.25
    horizon: int = 10
    slack: float = 1.25

    coefficients_: np.ndarray = field(init=False, repr=False, compare=False)
    powers_: np.ndarray = field(init=False, repr=False, compare=False)
    chosen_: dict[str, float] = field(init=False, repr=False, compare=False)
    dt_: float = field(init=False, repr=False, compare=False)

    def inputs(self, recordings: Recordings) -> tuple[str, ...]:
        return (STATE,)

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        runs = [np.asarray(e[STATE], np.float64).reshape(e.length, -1) for e in recordings]
        shortest = 4 * (self.horizon + max(self.smoothings) + 10)
        if min(map(len, runs)) < shortest:
            raise DataError(f"sindy needs episodes of at least {shortest} steps, got one of {min(map(len, runs))}.")
        size = np.concatenate(runs).std(0)
        if (size == 0).any():
            raise DataError(f"sindy: coordinate {int((size == 0).argmax())} never changes; leave it out.")
        scaled = [x / size for x in runs]
        self.powers_ = exponents(len(size), self.degree)
        cuts = [round(len(x) * (1 - self.held)) for x in scaled]
        tried = []
        for smoothing in self.smoothings:
            for threshold in self.thresholds:
                found = self._fit([x[:cut] for x, cut in zip(scaled, cuts, strict=True)], smoothing, threshold)
                error = self._error(found, [x[cut:] for x, cut in zip(scaled, cuts, strict=True)])
                tried.append((error, np.count_nonzero(found), smoothing, threshold))
        bound = min(tried)[0] * self.slack
        error, _, smoothing, threshold = min((t for t in tried if t[0] <= bound), key=lambda t: (t[1], t[0]))
        self.chosen_ = {"smoothing": smoothing, "threshold": threshold, "error": error}
        self.dt_ = 1 / recordings.fps if recordings.fps else 1.0
        unscaled = self._fit(scaled, smoothing, threshold) / monomials(size, self.powers_) * size[:, None]
        self.coefficients_ = unscaled / self.dt_

    def _fit(self, runs: list[np.ndarray], smoothing: int, threshold: float) -> np.ndarray:
        """Coefficients (d, F) in scaled units per step."""
        pysindy = require("pysindy", extra="chaos")
        edge = max(smoothing, 8) // 2  # derivatives at the ends are one-sided, and worse
        if smoothing:
            states = [savgol_filter(x, smoothing, 4, axis=0) for x in runs]
            slopes = [savgol_filter(x, smoothing, 4, deriv=1, axis=0)[edge:-edge] for x in runs]
        else:
            states, difference = runs, pysindy.FiniteDifference(order=8)
            slopes = [difference(x, 1.0)[edge:-edge] for x in runs]
        library = monomials(np.concatenate([x[edge:-edge] for x in states]), self.powers_)
        wanted = np.concatenate(slopes)
        found = np.zeros((wanted.shape[1], library.shape[1]))
        for i, slope in enumerate(wanted.T):
            plain, *_ = np.linalg.lstsq(library, slope, rcond=None)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that all coefficients are cut is an answer
                optimiser = pysindy.STLSQ(threshold=threshold * np.abs(plain).max(), alpha=self.ridge)
                optimiser.fit(library, slope[:, None])
            found[i] = optimiser.coef_[0]
        return found

    def _error(self, coefficients: np.ndarray, runs: list[np.ndarray]) -> float:
        """Root mean square of forecasts after `horizon` steps, in deviations; infinite where they diverge."""
        start = torch.from_numpy(np.concatenate([x[: -self.horizon : 3] for x in runs]))
        wanted = np.concatenate([x[self.horizon :: 3][: len(x[: -self.horizon : 3])] for x in runs])
        weights = torch.from_numpy(coefficients.T.copy())
        times = [0.0, float(self.horizon)]
        said = odeint(lambda t, x: monomials(x, self.powers_) @ weights, start, times, substeps=2 * self.horizon)[-1].numpy()
        error = float(np.sqrt(np.mean((said - wanted) ** 2)))
        return error if np.isfinite(error) else np.inf

    # ---- as a law -----------------------------------------------------------------------------------------------------

    @property
    def dt(self) -> float:  # type: ignore[override]
        return self.dt_

    def derivative(self, state: Tensor) -> Tensor:
        """dx/dt (..., d), in units of the recordings."""
        self.check_fitted()
        slope: Tensor = monomials(state, self.powers_) @ torch.from_numpy(self.coefficients_.T.copy()).to(state)
        return slope

    def step(self, state: Tensor) -> Tensor:
        return self.simulate(state.reshape(-1, state.shape[-1]), torch.tensor([0.0, self.dt]))[:, -1].reshape(state.shape)

    def simulate(self, initial: Tensor, times: Tensor, actions: Tensor | None = None, domain: str | None = None) -> Tensor:
        gap = float(times.diff().max()) if len(times) > 1 else self.dt_
        substeps = max(4, round(4 * gap / self.dt_))
        path: Tensor = odeint(lambda t, x: self.derivative(x), initial, times.to(initial), substeps=substeps)
        return path.movedim(0, 1)

    def jacobian(self, state: Tensor) -> Tensor:
        flat = state.reshape(-1, state.shape[-1])
        slopes: Tensor = torch.func.vmap(torch.func.jacrev(self.derivative))(flat)
        return slopes.reshape(*state.shape, state.shape[-1])

    def equations(self) -> tuple[str, ...]:
        """One line per coordinate, of the coefficients that simulate."""
        self.check_fitted()
        names = ["".join(f" x{i}" + (f"^{p}" if p > 1 else "") for i, p in enumerate(row) if p) for row in self.powers_]
        lines = []
        for i, row in enumerate(self.coefficients_):
            terms = [f"{value:+.4g}{name}" for value, name in zip(row, names, strict=True) if value]
            lines.append(f"dx{i}/dt = {' '.join(terms) or '0'}")
        return tuple(lines)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {"coefficients": torch.from_numpy(self.coefficients_), "powers": torch.from_numpy(self.powers_)}
        return tensors, {"chosen": self.chosen_, "dt": self.dt_}

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        self.coefficients_, self.powers_ = tensors["coefficients"].numpy(), tensors["powers"].numpy()
        self.chosen_, self.dt_ = about["chosen"], about["dt"]
