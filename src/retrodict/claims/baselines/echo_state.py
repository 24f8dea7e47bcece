"""An echo-state network: a random reservoir that is not trained, and a linear readout that is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from retrodict.dynamics.reservoir import drive, random_reservoir, run_freely
from retrodict.errors import DataError
from retrodict.roles import Law
from retrodict.systems.contract import Card, System
from retrodict.training.run import Run
from retrodict.trajectories import Recordings
from retrodict.trajectories.features import STATE
from retrodict.trajectories.normalise import Normaliser

MEMORIES = 2000
"""Reservoir states kept from training, among which one is looked up for an observation to start from."""


@dataclass
class EchoState(System, Law):
    """A reservoir driven by a series learns by ridge regression what comes next, then is fed what it says.  (Jaeger, 2001)

    r' = (1 - leak) r + leak tanh(W r + V x + b), where x = C r + c is what is seen. Its states are those of the reservoir; behind
    an observation it takes the one, of those met in training, after which the observation came that is most like it.

    Attributes:
        units: of the reservoir.
        radius: spectral radius of W.
        degree: connections into a unit.
        scale, bias: largest weight of an input, and largest bias.
        leak: share of a state that is new in each step.
        ridge: penalty of the readout, relative to the mean square of the states.
        washout: first steps of each episode, which are not learned from.
    """

    card: ClassVar[Card] = Card(
        slug="echo-state",
        title="The echo state approach to analysing and training recurrent neural networks",
        authors="Jaeger",
        year=2001,
        reads="one or several series of states at equal spacing",
        returns="a map of a reservoir whose readout continues the series",
        claim="a random recurrent network needs only its readout trained to forecast chaos",
        baseline=True,
    )
    kind: ClassVar[Literal["map"]] = "map"  # type: ignore[misc]

    units: int = 500
    radius: float = 0.9
    degree: int = 10
    scale: float = 0.5
    bias: float = 0.5
    leak: float = 1.0
    ridge: float = 1e-7
    washout: int = 200

    reservoir_: dict[str, np.ndarray] = field(init=False, repr=False, compare=False)
    normal_: Normaliser = field(init=False, repr=False, compare=False)
    dt_: float = field(init=False, repr=False, compare=False)

    def inputs(self, recordings: Recordings) -> tuple[str, ...]:
        return (STATE,)

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        runs = [np.asarray(episode[STATE], np.float64).reshape(episode.length, -1) for episode in recordings]
        washout = min(self.washout, max(len(series) for series in runs) // 2)
        self.normal_ = Normaliser((runs[0].shape[1],), constant="error", name=STATE, dtype=torch.float64)
        self.normal_.fit(np.concatenate(runs))
        columns, weights, inputs, bias = random_reservoir(
            self.units,
            runs[0].shape[1],
            radius=self.radius,
            degree=self.degree,
            scale=self.scale,
            bias=self.bias,
            seed=self.seed,
        )
        self.reservoir_ = {"columns": columns, "weights": weights, "inputs": inputs, "bias": bias}
        rows, wanted = [], []
        for series in runs:
            x = self.normal_(torch.from_numpy(series)).numpy()
            states = drive(np.zeros(self.units), x, columns, weights, inputs, bias, self.leak)
            rows.append(states[washout:])
            wanted.append(x[washout:])
        begins = np.cumsum([0, *map(len, rows[:-1])])
        states, seen = np.concatenate(rows), np.concatenate(wanted)  # states after the observation beside them
        ahead = np.concatenate([np.arange(len(part) - 1) + begin for part, begin in zip(rows, begins, strict=True)])
        if not len(ahead):
            raise DataError(f"echo-state: no series is longer than the {washout} steps that are washed out.")
        features = np.concatenate([states[ahead], np.ones((len(ahead), 1))], 1)
        gram = features.T @ features
        gram[np.diag_indices(self.units)] += self.ridge * np.trace(gram) / len(gram)
        self.reservoir_["readout"] = np.linalg.solve(gram, features.T @ seen[ahead + 1])
        kept = ahead[np.linspace(0, len(ahead) - 1, MEMORIES).astype(int)]
        self.reservoir_ |= {"memories": states[kept], "observations": seen[kept + 1]}
        self.dt_ = 1 / recordings.fps if recordings.fps else 1.0

    # ---- how it answers -----------------------------------------------------------------------------------------------

    @property
    def dt(self) -> float:  # type: ignore[override]
        self.check_fitted()
        return self.dt_

    def embed(self, observation: Tensor) -> Tensor:
        self.check_fitted()
        x = self.normal_(self._form(observation, self._part("observations").shape[1]).double())
        nearest = torch.cdist(x.reshape(-1, x.shape[-1]), self._part("observations")).argmin(1)
        return self._part("memories")[nearest].reshape(*x.shape[:-1], -1)

    def observe(self, state: Tensor) -> Tensor:
        self.check_fitted()
        return self.normal_.inverse(self._read(self._form(state, self.units).double()))

    def step(self, state: Tensor) -> Tensor:
        self.check_fitted()
        r = self._form(state, self.units).double()
        return (1 - self.leak) * r + self.leak * torch.tanh(self._total(r))

    def jacobian(self, state: Tensor) -> Tensor:
        self.check_fitted()
        r = self._form(state, self.units).double()
        inner = torch.zeros(self.units, self.units, dtype=torch.float64)
        inner.scatter_(1, self._part("columns"), self._part("weights"))
        inner += self._part("inputs") @ self._part("readout")[:-1].T
        slope = 1 - torch.tanh(self._total(r)) ** 2
        return (1 - self.leak) * torch.eye(self.units, dtype=torch.float64) + self.leak * slope[..., None] * inner

    def simulate(self, initial: Tensor, times: Tensor, actions: Tensor | None = None, domain: str | None = None) -> Tensor:
        r = self.embed(initial)
        rows = (torch.as_tensor(times, dtype=torch.float64) / self.dt).round().long()
        made = self.reservoir_
        fixed = made["columns"], made["weights"], made["inputs"], made["bias"]
        said = run_freely(r.numpy(), max(int(rows.max()), 1), *fixed, self.leak, made["readout"])
        path = torch.cat([self._read(r)[None], torch.from_numpy(said)])
        return self.normal_.inverse(path[rows].transpose(0, 1)).to(initial)

    def _part(self, name: str) -> Tensor:
        return torch.from_numpy(self.reservoir_[name])

    def _read(self, r: Tensor) -> Tensor:
        readout = self._part("readout")
        return r @ readout[:-1] + readout[-1]

    def _total(self, r: Tensor) -> Tensor:
        passed = (r[..., self._part("columns")] * self._part("weights")).sum(-1)
        return passed + self._read(r) @ self._part("inputs").T + self._part("bias")

    def _form(self, value: Tensor, width: int) -> Tensor:
        if value.shape[-1] != width or not value.is_floating_point():
            raise DataError(
                f"echo-state was given {value.dtype} of shape {list(value.shape)}; floats (..., {width}) are expected."
            )
        return value.detach().cpu()

    # ---- on disk ------------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {name: torch.from_numpy(array) for name, array in self.reservoir_.items()}
        return {**tensors, **{f"normal.{k}": v for k, v in self.normal_.state_dict().items()}}, {"dt": self.dt_}

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        normal = {name.removeprefix("normal."): value for name, value in tensors.items() if name.startswith("normal.")}
        self.normal_ = Normaliser(tuple(normal["offset"].shape), constant="error", name=STATE, dtype=torch.float64)
        self.normal_.load_state_dict(normal)
        names = ("columns", "weights", "inputs", "bias", "readout", "memories", "observations")
        self.reservoir_ = {name: tensors[name].numpy() for name in names}
        self.dt_ = about["dt"]
