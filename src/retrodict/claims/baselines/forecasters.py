"""Simple forecasters of series: what a law has to be better than."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from retrodict.errors import DataError
from retrodict.roles import Batch, ForwardModel, Prediction
from retrodict.systems.contract import Card, System
from retrodict.training.run import Run
from retrodict.trajectories import Recordings, Window
from retrodict.trajectories.features import STATE


def _card(slug: str, title: str, authors: str, year: int, returns: str, claim: str) -> Card:
    return Card(slug, title, authors, year, "series of states at equal spacing", returns, claim, baseline=True)


@dataclass
class Forecaster(System, ForwardModel):
    """Base: reads a stretch of standardised states, and says the next ones.

    Attributes:
        learned_: arrays by name; `centre` and `size` standardise.
    """

    learned_: dict[str, np.ndarray] = field(init=False, repr=False, compare=False)

    @property
    @abstractmethod
    def memory(self) -> int:
        """Steps that it reads."""

    @abstractmethod
    def teach(self, runs: list[np.ndarray]) -> dict[str, np.ndarray]:
        """What is learned of standardised series (T, d)."""

    @abstractmethod
    def continued(self, history: np.ndarray, horizon: int) -> np.ndarray:
        """Standardised states (S, horizon, d) after a history (S, memory, d)."""

    @property
    def reads(self) -> Window:
        return Window(before=self.memory - 1, features=(STATE,))

    def inputs(self, recordings: Recordings) -> tuple[str, ...]:
        return (STATE,)

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        runs = [np.asarray(e[STATE], np.float64).reshape(e.length, -1) for e in recordings if e.length > self.memory]
        if not runs:
            raise DataError(f"{self.card.slug} needs an episode of more than {self.memory} steps; the longest has fewer.")
        together = np.concatenate(runs)
        centre, size = together.mean(0), together.std(0)
        if (size == 0).any():
            raise DataError(f"{self.card.slug}: coordinate {int((size == 0).argmax())} never changes; leave it out.")
        learned = self.teach([(x - centre) / size for x in runs])
        self.learned_ = {"centre": centre, "size": size, **learned}

    def predict(self, observation: Batch, actions: Tensor | None = None, horizon: int = 1, samples: int = 1) -> Prediction:
        self.check_fitted()
        states, d = observation.get(STATE), len(self.learned_["centre"])
        if states is None or states.ndim != 3 or states.shape[1:] != (self.memory, d) or not states.isfinite().all():
            form = None if states is None else list(states.shape)
            raise DataError(f"{self.card.slug} reads finite {STATE} (B, {self.memory}, {d}), got {form}.")
        history = (states.detach().cpu().double().numpy() - self.learned_["centre"]) / self.learned_["size"]
        with np.errstate(all="ignore"):
            said = self.continued(history, horizon) * self.learned_["size"] + self.learned_["centre"]
        values = torch.from_numpy(said).to(states)[:, None].expand(-1, samples, -1, -1)
        return Prediction({STATE: values})

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in self.learned_.items()}, {}

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        self.learned_ = {name: tensor.numpy() for name, tensor in tensors.items()}


@dataclass
class Persistence(Forecaster):
    """Nothing changes."""

    card: ClassVar[Card] = _card(
        "persistence", "Persistence", "folklore", 1950, "the last state, again and again", "hard to beat far ahead"
    )
    memory: ClassVar[int] = 1  # type: ignore[misc, assignment]

    def teach(self, runs: list[np.ndarray]) -> dict[str, np.ndarray]:
        return {}

    def continued(self, history: np.ndarray, horizon: int) -> np.ndarray:
        return history[:, -1:].repeat(horizon, 1)


@dataclass
class Climatology(Forecaster):
    """The mean of what was seen, always."""

    card: ClassVar[Card] = _card("climatology", "Climatology", "folklore", 1950, "the mean state", "the best that is never right")
    memory: ClassVar[int] = 1  # type: ignore[misc, assignment]

    def teach(self, runs: list[np.ndarray]) -> dict[str, np.ndarray]:
        return {}

    def continued(self, history: np.ndarray, horizon: int) -> np.ndarray:
        return np.zeros((len(history), horizon, history.shape[2]))


@dataclass
class DelayRegression(Forecaster):
    """The next change as a polynomial of the last states, by ridge regression.

    Attributes:
        delays: states that it reads.
        degree: 1, or 2 for all products of two.
        ridge: penalty per sample.
        clip: bound of standardised states in a free run, so that it does not overflow.
    """

    delays: int = 4
    degree: ClassVar[int] = 1
    ridge: float = 1e-6
    clip: float = 10.0

    @property
    def memory(self) -> int:
        return self.delays

    def teach(self, runs: list[np.ndarray]) -> dict[str, np.ndarray]:
        inputs, changes = [], []
        for x in runs:
            stretches = np.lib.stride_tricks.sliding_window_view(x, self.delays, axis=0)[:-1]  # (T - delays, d, delays)
            inputs.append(self.features(stretches.swapaxes(1, 2)))
            changes.append(np.diff(x, axis=0)[self.delays - 1 :])
        features, change = np.concatenate(inputs), np.concatenate(changes)
        gram = features.T @ features
        gram[np.diag_indices(len(gram))] += self.ridge * len(features)
        return {"weights": np.linalg.solve(gram, features.T @ change)}

    def features(self, history: np.ndarray) -> np.ndarray:
        """One, the states (S, delays, d), and where the degree is 2 their products: (S, F)."""
        linear = history.reshape(len(history), -1)
        parts = [np.ones((len(linear), 1)), linear]
        if self.degree == 2:
            first, second = np.triu_indices(linear.shape[1])
            parts.append(linear[:, first] * linear[:, second])
        return np.concatenate(parts, 1)

    def continued(self, history: np.ndarray, horizon: int) -> np.ndarray:
        weights, said = self.learned_["weights"], []
        for _ in range(horizon):
            after = np.clip(history[:, -1] + self.features(history) @ weights, -self.clip, self.clip)
            history = np.concatenate([history[:, 1:], after[:, None]], 1)
            said.append(after)
        return np.stack(said, 1)


@dataclass
class LinearAutoregression(DelayRegression):
    """The next change as a linear function of the last states."""

    card: ClassVar[Card] = _card(
        "linear-autoregression", "Linear autoregression", "Yule", 1927, "a linear continuation", "enough for what is linear"
    )


@dataclass
class Nvar(DelayRegression):
    """The next change as a quadratic function of the last states: a next-generation reservoir.  (Gauthier et al., 2021)"""

    card: ClassVar[Card] = _card(
        "nvar",
        "Next generation reservoir computing",
        "Gauthier, Bollt, Griffith, Barbosa",
        2021,
        "a continuation",
        "as a reservoir",
    )
    degree: ClassVar[int] = 2


@dataclass
class ReservoirForecaster(Forecaster):
    """A random network driven by the last states, with a linear readout of the next change that is trained.  (Jaeger, 2001)

    Attributes:
        units: of the reservoir.
        radius: spectral radius of its weights.
        scale: largest weight of an input.
        leak: share of its state that is new in each step.
        ridge: penalty per sample.
        washout: steps that bring the reservoir into its state.
        clip: bound of standardised states in a free run.
    """

    card: ClassVar[Card] = _card(
        "reservoir-forecaster", "The echo state approach", "Jaeger", 2001, "a continuation", "only the readout need be trained"
    )

    units: int = 300
    radius: float = 0.9
    scale: float = 0.5
    leak: float = 0.5
    ridge: float = 1e-8
    washout: int = 100
    clip: float = 10.0

    @property
    def memory(self) -> int:
        return self.washout

    def teach(self, runs: list[np.ndarray]) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self.seed)
        d = runs[0].shape[1]
        weights = rng.normal(size=(self.units, self.units))
        weights *= self.radius / np.abs(np.linalg.eigvals(weights)).max()
        self.learned_ = {
            "weights": weights,
            "inputs": rng.uniform(-self.scale, self.scale, (d, self.units)),
            "bias": rng.uniform(-0.5, 0.5, self.units),
        }
        rows, changes = [], []
        for x in runs:
            state, states = np.zeros((1, self.units)), []
            for seen in x[:-1]:
                state = self.driven(state, seen[None])
                states.append(state[0])
            rows.append(self.features(np.array(states), x[:-1])[self.washout - 1 :])
            changes.append(np.diff(x, axis=0)[self.washout - 1 :])
        features, change = np.concatenate(rows), np.concatenate(changes)
        gram = features.T @ features
        gram[np.diag_indices(len(gram))] += self.ridge * len(features)
        return {**self.learned_, "readout": np.linalg.solve(gram, features.T @ change)}

    def driven(self, state: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """The reservoir's states (S, units) after it saw (S, d)."""
        new = np.tanh(state @ self.learned_["weights"] + seen @ self.learned_["inputs"] + self.learned_["bias"])
        return np.asarray((1 - self.leak) * state + self.leak * new)

    def features(self, state: np.ndarray, seen: np.ndarray) -> np.ndarray:
        return np.concatenate([np.ones((len(state), 1)), seen, state], 1)

    def continued(self, history: np.ndarray, horizon: int) -> np.ndarray:
        state, said = np.zeros((len(history), self.units)), []
        for seen in history.swapaxes(0, 1):
            state = self.driven(state, seen)
        last = history[:, -1]
        for _ in range(horizon):
            last = np.clip(last + self.features(state, last) @ self.learned_["readout"], -self.clip, self.clip)
            state = self.driven(state, last)
            said.append(last)
        return np.stack(said, 1)
