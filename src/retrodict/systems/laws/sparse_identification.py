"""SINDy: the few terms of a differential equation, with how sure one may be of each, or the reason why none can be told."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from retrodict.dynamics.derivatives import LocalPolynomial
from retrodict.dynamics.libraries import Monomials
from retrodict.dynamics.polynomial_flow import PolynomialFlow, polynomial
from retrodict.dynamics.sparse_regression import Ensemble, dependent, normal_equations, refitted, stlsq_of
from retrodict.errors import DataError, NotIdentifiableError
from retrodict.metrics.identifiability import decorrelation_steps, obstacles
from retrodict.roles import Law, Report
from retrodict.systems.contract import Card, System
from retrodict.systems.laws.sparse_verdict import SPARE, Candidate, Judge, Verdict, divided, sparsest
from retrodict.systems.series import channel_names, refuse_uneven
from retrodict.training.run import Run
from retrodict.trajectories import Recordings
from retrodict.trajectories.features import STATE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from retrodict.metrics.lyapunov import LyapunovSpectrum

DIGITS = 6
"""Of a coefficient: what is printed is what is simulated."""

EXCERPT = 2000
"""Steps of the data that a law keeps, to be drawn beside."""

LARGEST_LIBRARY = 1000
MOVING = 0.01
"""Standard deviations by which held-out runs must move, so that there is something to foresee."""

TRUSTED = 0.5
"""A law is returned where its held-out error is at most this share of that of standing still."""


@dataclass
class SINDy(System, Law):
    """Sparse identification of a polynomial flow, dx/dt = Theta(x) Xi with few coefficients Xi.  (Brunton et al., 2016)

    Reads `observation.state` (T, N) at equal spacing. States and speeds are those of local polynomials; coefficients that
    contribute less than a threshold to a coordinate's speed are set to zero again and again. How derivatives are taken, and the
    threshold, are chosen by forecasts of held-out runs: of those that are nearly as good as the best and stay near the data, the
    one with the fewest terms. An ensemble over blocks of the data says how probable each term is (Fasel et al., 2022), and what
    it agrees on is fitted again to all runs. Where several episodes were recorded a share of them is held out, else two stretches
    of the only one.

    A law whose simulation leaves the data, that foresees hardly better than standing still, or whose terms the recording cannot
    tell apart, is not returned: `fit` raises NotIdentifiableError with the reason and what to do.

    Attributes:
        degree: highest degree of the monomials.
        derivatives: (window, degree) of the local polynomials to choose from, windows odd; (9, 8) is the central difference of
            eighth order, a window much wider than the degree smooths noise.
        thresholds: to choose from, as shares of the root mean square speed of a coordinate.
        ridge: of the regression, whose monomials are of size one.
        slack: how much larger than the best the held-out error of a law with fewer terms may be.
        members: size of the ensemble.
        inclusion: share of the ensemble that must have found a term for it to stay.
        holdout: share of the episodes, or of the only one, by which is chosen.
    """

    card: ClassVar[Card] = Card(
        slug="sindy",
        title="Discovering governing equations from data by sparse identification of nonlinear dynamical systems",
        authors="Brunton, Proctor, Kutz",
        year=2016,
        url="https://doi.org/10.1073/pnas.1517384113",
        reads="one or several series of states at equal spacing",
        returns="a polynomial differential equation with the probability of each term, or why there is none to be told",
        claim="sparse regression finds the few terms of the equations behind measurements",
        baseline=True,
    )
    kind: ClassVar[Literal["flow"]] = "flow"  # type: ignore[misc]

    degree: int = 2
    derivatives: tuple[tuple[int, int], ...] = ((9, 8), (9, 4), (17, 4), (33, 4))
    thresholds: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1)
    ridge: float = 1e-10
    slack: float = 1.25
    members: int = 50
    inclusion: float = 0.8
    holdout: float = 0.25

    flow_: PolynomialFlow = field(init=False, repr=False, compare=False)
    verdict_: Verdict = field(init=False, repr=False, compare=False)
    scale_: np.ndarray = field(init=False, repr=False, compare=False)
    names_: tuple[str, ...] = field(init=False, repr=False, compare=False)
    excerpt_: np.ndarray = field(init=False, repr=False, compare=False)
    dt_: float = field(init=False, repr=False, compare=False)

    # ---- how it is found ----------------------------------------------------------------------------------------------

    def inputs(self, recordings: Recordings) -> tuple[str, ...]:
        return (STATE,)

    def admit(self, recordings: Recordings) -> Recordings:
        usable = super().admit(recordings)
        refuse_uneven(usable, self.card.slug)
        terms = len(self.library.exponents(usable.features[STATE].shape[0]))
        if not self.derivatives or not self.thresholds or not 0 < self.holdout < 0.5 or self.slack < 1:
            raise DataError(
                "sindy: derivatives and thresholds to choose from, holdout in (0, 0.5) and slack from 1 on are needed."
            )
        if terms > LARGEST_LIBRARY:
            raise DataError(
                f"sindy: {usable.features[STATE].shape[0]} channels have {terms:,} monomials up to degree {self.degree}, more "
                f"than {LARGEST_LIBRARY:,}; lower degree, or leave channels out."
            )
        return usable

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        self.names_ = channel_names(recordings.features[STATE])
        self.dt_ = 1 / recordings.fps if recordings.fps else 1.0
        runs = [np.asarray(episode[STATE], np.float64) for episode in recordings]
        self.excerpt_ = max(runs, key=len)[:EXCERPT]
        everything = np.concatenate(runs)
        if (np.ptp(everything, axis=0) == 0).any():
            raise self._refusal(obstacles(runs, self.names_)[0])
        apart = [np.asarray(episode[STATE], np.float64) for episode in validation or ()]
        learning, held, ways = self._divided(runs, apart)
        self.scale_ = np.sqrt(np.mean(everything**2, 0))
        slow = decorrelation_steps(max(runs, key=len))
        horizon = min(max(slow, 3), max(map(len, held)) - ways[-1].window)
        judge = Judge([*runs, *apart], held, self.dt_, horizon, ways[-1].window // 2)

        tried = self._tried(learning, ways, judge)
        chosen = sparsest(tried, self.slack)
        if chosen is None:
            seen = f"every law of degree {self.degree} that was tried runs away or is empty"
            raise self._refusal(self._why(runs, ways[0]), seen)
        pick = tried[chosen]
        way = LocalPolynomial(pick.window, pick.degree)

        theta, speed = self._regression(learning, way)
        block = max(1, min(slow, len(theta) // 20))
        ensemble = Ensemble(self.members, bag=1.0, block=block)
        found = ensemble.fit(theta, speed, pick.threshold * _units(theta, speed), self.ridge, seed=self.seed)
        support = found.inclusion >= self.inclusion
        error = judge.error(self._flow(refitted(*normal_equations(theta, speed), support)), way)
        still = judge.still(way)
        theta, speed = self._regression(runs, way)
        self.flow_ = self._flow(refitted(*normal_equations(theta, speed), support))
        bounded = judge.bounded(self.flow_, way)
        if not (support.any() and bounded and error <= TRUSTED * still and still > MOVING):
            away = "" if bounded else " and runs away when simulated"
            raise self._refusal(
                self._why(runs, way),
                f"the best law of degree {self.degree} foresees {judge.horizon} held-out steps with an error of {error:.2g} "
                f"standard deviations ({still:.2g} if nothing moved){away}",
            )
        repeated = dependent(theta)
        if (repeated & support.any(1)).any():
            raise self._refusal(self._alike(repeated))
        spread = self._flow(found.coefficients.std(0)).coefficients
        self.verdict_ = Verdict(tried, chosen, error, still, judge.horizon, found.inclusion, spread)

    def _divided(
        self, runs: list[np.ndarray], apart: list[np.ndarray]
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[LocalPolynomial]]:
        """Runs to read the equations from, runs to judge them by, and the derivatives that fit in, widest last."""
        ways = sorted((LocalPolynomial(*way) for way in self.derivatives), key=lambda way: way.window)
        shortest = ways[0].window + SPARE
        learning, held = divided(runs, apart, self.holdout, shortest, self.seed)
        unknown = len(self.library.exponents(len(self.names_)))
        if not held or sum(len(run) - ways[0].window for run in learning) < 2 * unknown:
            raise self._refusal(
                f"it is too short: {sum(map(len, runs)):,} steps in {len(runs)} runs, where stretches of {shortest} steps are "
                f"held out and {unknown} terms are to be told apart by the rest; record longer or more often."
            )
        room = min(max(map(len, learning)), max(map(len, held))) - SPARE
        return learning, held, [way for way in ways if way.window <= room]

    def _tried(self, learning: list[np.ndarray], ways: list[LocalPolynomial], judge: Judge) -> tuple[Candidate, ...]:
        """Every derivative with every threshold, judged."""
        tried = []
        for way in ways:
            theta, speed = self._regression(learning, way)
            cuts = np.array(self.thresholds)[:, None, None] * _units(theta, speed)
            seen: dict[bytes, tuple[float, bool]] = {}
            for threshold, found in zip(
                self.thresholds, stlsq_of(*normal_equations(theta, speed), cuts, self.ridge), strict=True
            ):
                kept = found != 0
                if (key := kept.tobytes()) not in seen:
                    law = self._flow(found)
                    error = judge.error(law, way)
                    seen[key] = error, np.isfinite(error) and judge.bounded(law, way)
                tried.append(Candidate(way.window, way.degree, threshold, int(kept.sum()), *seen[key]))
        return tuple(tried)

    def _regression(self, runs: list[np.ndarray], way: LocalPolynomial) -> tuple[np.ndarray, np.ndarray]:
        """Library (n, F) and speeds (n, N) per step, of states in units of `scale_`."""
        read = [way(run / self.scale_, 1.0) for run in runs if len(run) >= way.window]
        states, speeds = (np.concatenate(part) for part in zip(*read, strict=True))
        return self.library.transform(states), speeds

    def _flow(self, scaled: np.ndarray) -> PolynomialFlow:
        """The law in units of the recording, its coefficients rounded to what is printed."""
        powers = self.library.exponents(len(self.names_))
        coefficients = scaled * self.scale_ / np.prod(self.scale_**powers, 1)[:, None] / self.dt_
        rounded = np.array([float(f"{c:.{DIGITS}g}") for c in coefficients.ravel()]).reshape(coefficients.shape)
        return PolynomialFlow(powers, rounded, self.scale_)

    def _why(self, runs: list[np.ndarray], way: LocalPolynomial) -> str:
        """What in the recording stands against a law."""
        if found := obstacles(runs, self.names_):
            return found[0]
        repeated = dependent(self._regression(runs, way)[0])
        if repeated.any():
            return self._alike(repeated)
        return "other states than those recorded may matter, or the law is no such polynomial: record those, or raise degree."

    def _alike(self, repeated: np.ndarray) -> str:
        named = ", ".join(np.array(self.terms)[repeated][:6])
        return (
            f"in all that was recorded, the terms {named} are combinations of each other and cannot be told apart: there is no "
            "transient, or a channel repeats others; record motion that starts elsewhere, or leave that channel out."
        )

    def _refusal(self, why: str, seen: str = "") -> NotIdentifiableError:
        return NotIdentifiableError(f"no law is identifiable from this recording: {seen}{'; ' if seen else ''}{why}")

    # ---- how it answers -----------------------------------------------------------------------------------------------

    @property
    def dt(self) -> float:  # type: ignore[override]
        self.check_fitted()
        return self.dt_

    @property
    def library(self) -> Monomials:
        """The functions Theta that a right-hand side is made of."""
        return Monomials(self.degree)

    @property
    def terms(self) -> tuple[str, ...]:
        """What the functions are called."""
        return self.library.names(self.names_)

    @property
    def coefficients(self) -> np.ndarray:
        """Xi (F, N), in units of the recording: what is printed and simulated."""
        self.check_fitted()
        return self.flow_.coefficients

    def derivative(self, state: Tensor) -> Tensor:
        """dx/dt (..., N) at states, in units of the recording."""
        x = self._form(state)
        return torch.from_numpy(self.flow_.derivative(x.double().numpy())).to(state)

    def jacobian(self, state: Tensor) -> Tensor:
        """Derivatives (..., N, N) of dx/dt by the states."""
        x = self._form(state)
        return torch.from_numpy(self.flow_.jacobian(x.double().numpy())).to(state)

    def step(self, state: Tensor) -> Tensor:
        flat = self._form(state).reshape(-1, state.shape[-1])
        return self.simulate(flat, torch.tensor([self.dt_]))[:, 0].reshape(state.shape)

    def simulate(self, initial: Tensor, times: Tensor, actions: Tensor | None = None, domain: str | None = None) -> Tensor:
        """Observations (B, len(times), N) at ascending `times` from 0 on; NaN from a blow-up on.

        Raises DataError where times do not ascend, and where actions or a domain are given.
        """
        x = self._form(initial)
        if actions is not None or domain is not None:
            raise DataError("sindy knows neither actions nor domains; leave them out.")
        clock = torch.as_tensor(times, dtype=torch.float64).cpu().numpy()
        if clock.ndim != 1 or not len(clock) or clock[0] < 0:
            raise DataError("sindy: times are ascending, from 0 on.")
        later = clock if clock[0] == 0 else np.concatenate([[0.0], clock])
        path = self.flow_.simulate(x.double().numpy(), later)[:, -len(clock) :]
        return torch.from_numpy(path).to(initial)

    def equations(self) -> tuple[str, ...]:
        """One line for each coordinate, its largest terms at the size of the recording first."""
        self.check_fitted()
        size = np.prod(self.flow_.scale**self.flow_.exponents, 1)
        lines = []
        for name, row in zip(self.names_, self.flow_.coefficients.T, strict=True):
            order = sorted(np.flatnonzero(row), key=lambda k: -abs(row[k] * size[k]))
            said = " ".join(f"{'-' if row[k] < 0 else '+'} {_written(abs(row[k]), self.terms[k])}" for k in order)
            lines.append(f"d{name}/dt = {said.removeprefix('+ ') or '0'}")
        return tuple(lines)

    def evidence(self) -> Report:
        """The verdict: what was tried, what was chosen, and how probable each term is."""
        self.check_fitted()
        return self.verdict_.report(self.terms, self.names_, self.coefficients)

    def lyapunov(self, intervals: int = 1000) -> LyapunovSpectrum:
        """The Lyapunov spectrum of the flow along a run from the data; intervals are as long as the forecasts of the verdict."""
        from retrodict.metrics.lyapunov import flow_lyapunov_spectrum  # compiled: slow to import

        self.check_fitted()
        interval = self.verdict_.horizon * self.dt_
        start = self.excerpt_[:1] / self.flow_.scale
        return flow_lyapunov_spectrum(polynomial, start, self.flow_.parameters, interval=interval, intervals=intervals)

    def plot(self) -> Figure:
        """The attractor beside the data, a stretch of both in time, and their power spectra."""
        from retrodict.systems.portraits import portrait  # matplotlib is slow to import

        self.check_fitted()
        path = self.flow_.simulate(self.excerpt_[:1], self.dt_ * np.arange(len(self.excerpt_)))[0]
        return portrait(self.excerpt_, path, self.dt_, self.names_)

    def _form(self, value: Tensor) -> Tensor:
        self.check_fitted()
        width = len(self.names_)
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim < 1 or value.shape[-1] != width:
            seen = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise DataError(f"sindy was given {seen}; floating-point states (..., {width}) are expected.")
        return value.detach().cpu()

    # ---- on disk ------------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        verdict = self.verdict_
        arrays = {
            "coefficients": self.flow_.coefficients,
            "scale": self.flow_.scale,
            "excerpt": self.excerpt_,
            "inclusion": verdict.inclusion,
            "spread": verdict.spread,
            "candidates": np.array([astuple(candidate) for candidate in verdict.candidates], np.float64),
        }
        about = {"chosen": verdict.chosen, "error": verdict.error, "still": verdict.still, "horizon": verdict.horizon}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}, {
            "names": list(self.names_),
            "dt": self.dt_,
            "verdict": about,
        }

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        self.names_, self.dt_ = tuple(about["names"]), about["dt"]
        self.scale_, self.excerpt_ = tensors["scale"].numpy(), tensors["excerpt"].numpy()
        powers = self.library.exponents(len(self.names_))
        self.flow_ = PolynomialFlow(powers, tensors["coefficients"].numpy(), self.scale_)
        candidates = tuple(
            Candidate(int(window), int(degree), threshold, int(terms), error, bool(bounded))
            for window, degree, threshold, terms, error, bounded in tensors["candidates"].tolist()
        )
        self.verdict_ = Verdict(
            candidates, inclusion=tensors["inclusion"].numpy(), spread=tensors["spread"].numpy(), **about["verdict"]
        )


def _written(coefficient: float, term: str) -> str:
    """`2.5 x y`, with 1 left out where it is a factor."""
    if term == "1":
        return f"{coefficient:.{DIGITS}g}"
    return term if coefficient == 1 else f"{coefficient:.{DIGITS}g} {term}"


def _units(theta: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Coefficients (F, N) with which each function would make up the whole of a speed."""
    return np.asarray(np.sqrt(np.mean(speed**2, 0)) / np.sqrt(np.mean(theta**2, 0))[:, None])
