"""How a sparse law was chosen, how sure one may be of its terms, and why none is returned where none can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrodict.dynamics.derivatives import LocalPolynomial
from retrodict.dynamics.polynomial_flow import PolynomialFlow
from retrodict.roles import Panel, Report

STARTS, RUNS = 120, 20
"""Moments from which forecasts start, and the longest runs that are simulated whole."""

NEAR = 10
"""Standard deviations within which a simulation counts as near the data."""

SAID = 6
"""Doubtful terms that are named; a picture shows them all."""

SPARE = 5
"""Steps that a held-out run must have beside the window of the derivative."""


@dataclass(frozen=True)
class Candidate:
    """One way to read the equations, held against runs that they were not read from.

    Attributes:
        window, degree: of the local polynomial by which states and speeds were taken.
        threshold: share of a coordinate's speed below which a term was dropped.
        terms: how many are left.
        error: of forecasts of held-out runs, in standard deviations; infinite where one blows up.
        bounded: whether simulations from the first states of the runs stay near the data for as long as was recorded.
    """

    window: int
    degree: int
    threshold: float
    terms: int
    error: float
    bounded: bool


def sparsest(tried: Sequence[Candidate], slack: float) -> int | None:
    """Position of the candidate with the fewest terms, among those that stay near the data and whose error is at most `slack`
    times that of the best of them; None where none stays, or none has terms.
    """
    usable = [i for i, c in enumerate(tried) if c.bounded and c.terms]
    if not usable:
        return None
    best = min(tried[i].error for i in usable)
    near = sorted((tried[i].terms, tried[i].error, i) for i in usable if tried[i].error <= slack * best)
    alike = [i for terms, error, i in near if (terms, error) == near[0][:2]]  # thresholds between which nothing changes
    return alike[len(alike) // 2]


def divided(
    runs: Sequence[np.ndarray], apart: Sequence[np.ndarray], share: float, shortest: int, seed: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Runs to read equations from and runs to judge them by, each of at least `shortest` steps; none where there are none.

    Where none stand `apart`, a share of several runs is held out, or two stretches of a single one: where a motion dies away, one
    judges its beginning and one its end.
    """
    learning, held = [run for run in runs if len(run) >= shortest], list(apart)
    if not held and len(learning) > 1:
        order = np.random.default_rng(seed).permutation(len(learning))
        aside = max(1, round(share * len(learning)))
        learning, held = [learning[i] for i in order[aside:]], [learning[i] for i in order[:aside]]
    elif not held and learning:
        (run,) = learning
        cuts = [round(at * len(run)) for at in (0.25, 0.25 + share / 2, 0.75, 0.75 + share / 2)]
        parts = np.split(run, cuts)
        learning, held = parts[::2], parts[1::2]
    return [run for run in learning if len(run) >= shortest], [run for run in held if len(run) >= shortest]


@dataclass(frozen=True)
class Judge:
    """What was recorded, to hold a right-hand side against.

    Attributes:
        runs: whole runs (T, d), which a simulation should not leave.
        held: runs that nothing is learned from.
        dt: time of a step.
        horizon: steps of a forecast.
        edge: steps at both ends of a run at which the widest derivative is not known.
    """

    runs: Sequence[np.ndarray]
    held: Sequence[np.ndarray]
    dt: float
    horizon: int
    edge: int

    def error(self, flow: PolynomialFlow, derivative: LocalPolynomial) -> float:
        """Root mean square of forecasts from the states that a derivative reads, in standard deviations of the recording."""
        starts, truth = self._forecasts(derivative)
        times = self.dt * np.arange(self.horizon + 1)
        paths = flow.simulate(starts, times, rtol=1e-6, max_steps=20 * self.horizon + 1000)[:, 1:]
        return self._size(paths - truth)

    def still(self, derivative: LocalPolynomial) -> float:
        """The same of the forecast that nothing moves."""
        starts, truth = self._forecasts(derivative)
        return self._size(starts[:, None] - truth)

    def bounded(self, flow: PolynomialFlow, derivative: LocalPolynomial) -> bool:
        """Whether the flow, begun with the first state that a derivative reads of each run, stays near the data as long as it."""
        everything = np.concatenate(self.runs)
        centre, reach = everything.mean(0), NEAR * everything.std(0)
        for run in sorted(self.runs, key=len)[-RUNS:]:
            if len(run) < derivative.window:
                continue
            states, _ = derivative(run, self.dt)
            path = flow.simulate(states[:1], self.dt * np.arange(len(states)), rtol=1e-6, max_steps=50 * len(run) + 1000)[0]
            if not (np.abs(path - centre) <= reach).all():
                return False
        return True

    def _forecasts(self, derivative: LocalPolynomial) -> tuple[np.ndarray, np.ndarray]:
        """States to start from (S, d), and what was recorded after them (S, horizon, d)."""
        starts, truth = [], []
        for run in self.held:
            last = len(run) - 1 - max(self.horizon, self.edge)
            if last < self.edge:
                continue
            at = np.unique(np.linspace(self.edge, last, max(1, STARTS // len(self.held))).astype(int))
            states, _ = derivative(run, self.dt)
            starts.append(states[at - derivative.window // 2])
            truth.append(run[at[:, None] + np.arange(1, self.horizon + 1)])
        return np.concatenate(starts), np.concatenate(truth)

    def _size(self, wrong: np.ndarray) -> float:
        scale = np.concatenate(self.runs).std(0)
        with np.errstate(over="ignore", invalid="ignore"):
            size = float(np.sqrt(np.mean((wrong / scale) ** 2)))
        return size if np.isfinite(size) else np.inf


@dataclass(frozen=True)
class Verdict:
    """What stands behind a law that was returned.

    Attributes:
        candidates: everything that was tried.
        chosen: position of the one whose derivative and threshold were taken.
        error: held-out error of the law itself, whose terms the ensemble agreed on.
        still: that of the forecast that nothing moves.
        horizon: steps of a forecast.
        inclusion: share of the ensemble that found a term, (F, d).
        spread: standard deviation of each coefficient over the ensemble, (F, d), in units of the recording.
    """

    candidates: tuple[Candidate, ...]
    chosen: int
    error: float
    still: float
    horizon: int
    inclusion: np.ndarray
    spread: np.ndarray

    def report(self, terms: Sequence[str], names: Sequence[str], coefficients: np.ndarray) -> Report:
        """The verdict on a law with these coefficients (F, d), in sentences, as a table of what was tried, and drawn."""
        kept = coefficients != 0
        shaky = float((self.spread[kept] / np.abs(coefficients[kept])).max())
        pick = self.candidates[self.chosen]
        doubtful = [
            f"{terms[k]} in d{names[i]}/dt ({self.inclusion[k, i]:.0%}, {'kept' if kept[k, i] else 'dropped'})"
            for k, i in np.argwhere((self.inclusion > 0.1) & (self.inclusion < 0.9))
        ]
        if len(doubtful) > SAID:
            doubtful[SAID:] = [f"{len(doubtful) - SAID} more"]
        way = "met exactly" if pick.window == pick.degree + 1 else "smoothed"
        findings = (
            f"Derivatives are those of polynomials of degree {pick.degree} over {pick.window} steps ({way}), and terms below "
            f"{pick.threshold:.2g} of the speed are dropped: of {len(self.candidates)} combinations, the fewest terms among "
            "those whose forecasts of held-out runs are nearly as good as the best.",
            f"Forecasts of held-out runs {self.horizon} steps ahead are wrong by {self.error:.2g} standard deviations, by "
            f"{self.still:.2g} if nothing moved.",
            f"In doubt: {'; '.join(doubtful)}." if doubtful else "The ensemble is of one mind about every term.",
            f"Over the ensemble, no coefficient varies by more than {shaky:.2g} of itself (standard deviation).",
        )
        values = {
            "held-out error, standard deviations": self.error,
            "the same if nothing moved": self.still,
            "steps ahead": self.horizon,
            "terms": int(kept.sum()),
            "largest spread of a coefficient, share of it": shaky,
            "least inclusion of a term that is kept": float(self.inclusion[kept].min()),
            "largest inclusion of a term that is not": float(self.inclusion[~kept].max(initial=0.0)),
        }
        table = {
            "window": np.array([c.window for c in self.candidates]),
            "degree": np.array([c.degree for c in self.candidates]),
            "threshold": np.array([c.threshold for c in self.candidates]),
            "terms": np.array([c.terms for c in self.candidates]),
            "held-out error": np.array([c.error for c in self.candidates]),
            "stays near the data": np.array(["yes" if c.bounded else "no" for c in self.candidates]),
            "chosen": np.array(["chosen" if i == self.chosen else "" for i in range(len(self.candidates))]),
        }
        return Report(values, findings, table, (self._inclusions(terms, names), self._errors()))

    def _inclusions(self, terms: Sequence[str], names: Sequence[str]) -> Panel:
        step = 0.6 / len(names)
        x = np.arange(len(terms))
        marks = {
            f"d{name}/dt": (x + step * (i - (len(names) - 1) / 2), self.inclusion[:, i])  # side by side, so that none is hidden
            for i, name in enumerate(names)
        }
        return Panel("term", "inclusion probability", marks=marks, names=tuple(terms))

    def _errors(self) -> Panel:
        lines = {}
        for way in dict.fromkeys((c.window, c.degree) for c in self.candidates):
            of = [c for c in self.candidates if (c.window, c.degree) == way and np.isfinite(c.error)]
            if of:
                name = f"window {way[0]}, degree {way[1]}"
                lines[name] = (np.array([c.threshold for c in of]), np.array([c.error for c in of]))
        pick = self.candidates[self.chosen]
        marks = {"chosen": (np.array([pick.threshold]), np.array([pick.error]))}
        return Panel("threshold, share of the speed", "held-out error, standard deviations", lines, marks, "xy")
