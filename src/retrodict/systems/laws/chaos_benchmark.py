"""A benchmark of forecasters on chaotic systems: how far they see, how well they keep the attractor, how chaos limits both."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from retrodict.errors import DataError
from retrodict.metrics import rank_correlation, smape, spectrum_distance, state_space_divergence, valid_time
from retrodict.metrics.series import recorded
from retrodict.roles import Analysis, ForwardModel, Law, Report
from retrodict.systems.contract import Card, System
from retrodict.training.run import Run
from retrodict.trajectories import Recordings, from_arrays
from retrodict.trajectories.features import STATE

MOTION = "motion"
"""The structure in which recordings say of each domain what is known: `period` in steps, `lyapunov` per step."""


@dataclass(frozen=True)
class Task:
    """One system to be forecast.

    Attributes:
        name: its domain.
        series: (train + test, d), as recorded.
        period: steps of its dominant oscillation.
        lyapunov: its largest exponent per step; NaN where nobody said.
    """

    name: str
    series: np.ndarray
    period: float
    lyapunov: float


@dataclass
class ChaosBenchmark(System, Analysis):
    """Scores a forecaster on many recorded systems, each learned by itself.  (Gilpin, 2021)

    Fitting takes one system per episode: its first steps are what a forecaster may learn from, the rest is what it is judged by.
    `analyse` fits a fresh copy of a Law or ForwardModel to each system and lets it run from several starts. Everything is
    standardised by the training part alone. Periods and exponents stand in `recordings.structures["motion"]` by domain; a period
    that is not said is that of the strongest frequency.

    Attributes:
        train, test: steps of each system that are learned from and judged by (1000-1200 and 200 in the paper, at 100 or 15 steps
            per period; here the test part is longer, so that forecasts of 6 periods at 60 steps have room).
        starts: forecasts per system.
        horizon: their length, in periods, and so the longest valid time.
        short: length over which the percentage error is taken, in periods.
        threshold: normalised error at which a forecast ceases to be valid.
        bins: per axis, for the attractor's distance; few, as the test part is short.
        sigma: smoothing of spectra, in frequency bins.
    """

    card: ClassVar[Card] = Card(
        slug="dysts",
        title="Chaos as an interpretable benchmark for forecasting and data-driven modelling",
        authors="Gilpin",
        year=2021,
        url="https://arxiv.org/abs/2110.05266",
        reads="recordings of many systems, one per episode; a Law or ForwardModel to judge",
        returns="errors, valid times and attractor distances per system, and how they go with the degree of chaos",
        claim="forecasting error grows with the degree of chaos, across systems and methods",
    )

    train: int = 1000
    test: int = 500
    starts: int = 10
    horizon: float = 6.0
    short: float = 0.5
    threshold: float = 0.4
    bins: int = 8
    sigma: float = 5.0

    tasks_: tuple[Task, ...] = field(init=False, repr=False, compare=False)

    # ---- the systems --------------------------------------------------------------------------------------------------

    def inputs(self, recordings: Recordings) -> tuple[str, ...]:
        return (STATE,)

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        if min(self.train, self.test, self.starts) < 2 or min(self.horizon, self.short, self.threshold) <= 0:
            raise DataError("dysts: train, test and starts are at least 2; horizon, short and threshold lie above 0.")
        said: Mapping[str, Mapping[str, float]] = recordings.structures.get(MOTION, {})
        tasks = []
        for episode in recordings:
            name = episode.domain or str(episode)
            if episode.length < self.train + self.test:
                raise DataError(
                    f"{name}: {episode.length} steps are too few for train={self.train} and test={self.test}; record more, or "
                    "make the parts smaller."
                )
            series = np.asarray(episode[STATE][: self.train + self.test])
            learned = recorded(series.reshape(len(series), -1)[: self.train], f"the training part of {name}")
            known = said.get(name, {})
            period = float(known.get("period", dominant_period(learned)))
            if self.steps(period) + self.starts > self.test:
                raise DataError(
                    f"{name}: forecasts of {self.steps(period)} steps ({self.horizon:g} periods) from {self.starts} starts do "
                    f"not fit in test={self.test}; lower horizon, or judge by more steps."
                )
            tasks.append(Task(name, series.reshape(len(series), -1), period, float(known.get("lyapunov", np.nan))))
        self.tasks_ = tuple(tasks)

    def steps(self, period: float) -> int:
        """Steps of a forecast of a system with this period."""
        return max(round(self.horizon * period), 1)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        about = [{"name": t.name, "period": t.period, "lyapunov": t.lyapunov} for t in self.tasks_]
        return {f"series.{i}": torch.from_numpy(np.array(t.series)) for i, t in enumerate(self.tasks_)}, {"tasks": about}

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        self.tasks_ = tuple(Task(series=tensors[f"series.{i}"].numpy(), **entry) for i, entry in enumerate(about["tasks"]))

    # ---- the judgement ------------------------------------------------------------------------------------------------

    def example(self, recordings: Recordings) -> Any:
        """None: it judges laws, not recordings."""
        return None

    def analyse(self, subject: Any) -> Report:
        """Judge a Law or ForwardModel; a fresh copy is fitted to every system, so that it need not be fitted.

        `values` are medians over systems, and where exponents are known Spearman's correlations with exponent times period (with
        90 % bootstrap intervals); `table` holds numbers per system, in the order of `tasks_`.

        Raises NotFittedError before `fit`; DataError for a subject that forecasts nothing, or that a system cannot be taught.
        """
        self.check_fitted()
        if not isinstance(subject, System) or not isinstance(subject, (Law, ForwardModel)):
            raise DataError(f"dysts judges a Law or a ForwardModel, got {type(subject).__name__}.")
        rows = [self._judge(dataclasses.replace(subject), task) for task in self.tasks_]
        curves = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        curves["chaos"] = np.array([task.lyapunov * task.period for task in self.tasks_])
        curves["valid lyapunov times"] = curves["valid periods"] * curves["chaos"]
        values = {name: float(np.nanmedian(curve)) for name, curve in curves.items() if np.isfinite(curve).any()}
        values["diverged"] = float(np.mean(curves["diverged"]))
        findings = [
            f"{subject.card.slug} sees {values['valid periods']:.3g} periods ahead (median of {len(rows)} systems, at most "
            f"{self.horizon:g}); its error over {self.short:g} periods is {values['smape']:.3g} of 200."
        ]
        if np.isfinite(curves["chaos"]).sum() >= 3:
            for name in ("valid periods", "smape"):
                if np.ptp(curves[name]) == 0:  # all at the horizon, say: there is no order to compare
                    continue
                found = rank_correlation(curves[name], curves["chaos"], level=0.9, seed=self.seed)
                values |= {f"rho {name}": found.value, f"rho {name} low": found.low, f"rho {name} high": found.high}
                findings.append(f"Its {name} goes with the degree of chaos by Spearman's {found}.")
        return Report(values, tuple(findings), curves)

    def _judge(self, subject: Any, task: Task) -> dict[str, float]:
        """What a forecaster does on one system."""
        learned = np.asarray(task.series[: self.train], np.float64)
        centre, size = learned.mean(0), learned.std(0)
        period, series = task.period, ((task.series - centre) / size).astype(task.series.dtype)
        subject.fit(from_arrays([{STATE: series[: self.train]}], fps=1.0, domains=[task.name], source=task.name))
        steps, short = self.steps(period), max(round(self.short * period), 1)
        starts = np.linspace(self.train, self.train + self.test - steps, self.starts).astype(int)
        true = np.stack([series[start : start + steps] for start in starts]).astype(np.float64)
        said = forecast(subject, series, starts, steps)
        run = forecast(subject, series, starts[:1], self.test)[0]
        rest = np.asarray(series[self.train : self.train + self.test], np.float64)
        ones = np.ones(series.shape[1])
        scores = {
            "smape": float(np.median([smape(p[:short], x[:short]) for p, x in zip(said, true, strict=True)])),
            "valid periods": float(
                np.median(valid_time(said, true, self.threshold, scale=ones, unit=1 / period, cap=self.horizon))
            ),
            "diverged": float(not np.isfinite(run).all()),
            "d_h": spectrum_distance(rest, run, self.sigma).value,
        }
        method: Any = "bins" if series.shape[1] <= 5 else "gmm"
        return scores | {"d_stsp": state_space_divergence(rest, run, method, bins=self.bins, seed=self.seed).value}


def forecast(subject: Any, series: np.ndarray, starts: np.ndarray, horizon: int) -> np.ndarray:
    """What a fitted Law or ForwardModel says of the `horizon` steps from each start on, (S, horizon, d) float64.

    It sees what came before a start: a Law the last state, a ForwardModel the window that it reads.
    """
    if isinstance(subject, ForwardModel):
        length = len(subject.reads) if hasattr(subject, "reads") else 1
        if starts.min() < length:
            raise DataError(f"{starts.min()} steps came before the first start, and {length} are read; learn from more.")
        history = torch.from_numpy(np.stack([series[start - length : start] for start in starts]))
        window = {STATE: history, "mask": torch.ones(history.shape[:2], dtype=torch.bool)}
        said = subject.predict(window, horizon=horizon).values[STATE][:, 0]
    else:
        last = torch.from_numpy(np.stack([series[start - 1] for start in starts]))
        said = subject.simulate(last, torch.arange(horizon + 1) * subject.dt)[:, 1:]
    return np.asarray(said.detach().cpu(), np.float64)


def dominant_period(series: np.ndarray) -> float:
    """Steps of the strongest oscillation of a series (T, d), all channels together; at most half its length."""
    power = (np.abs(np.fft.rfft((series - series.mean(0)) / series.std(0), axis=0)) ** 2).sum(1)
    return len(series) / max(int(power[2:].argmax()) + 2, 2)
