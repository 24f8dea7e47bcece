"""Roles: what a system recovers. Each is an abstract class whose docstring is the contract.

Methods take batches: a dict of named tensors with a leading batch dimension B, as `Windows` yields them (time second, camera
frames uint8 (B, T, C, H, W)). Tensors come back on the device of the system; no gradients flow unless a method says so.
A system may play several roles; what it lacks it does not define. Nothing asks which system it is talking to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch import Tensor

from retrodict.trajectories import Recordings, Window

Batch = Mapping[str, Tensor]
"""Named tensors with a leading batch dimension."""


@dataclass(frozen=True)
class Inferred:
    """What an inverse model answers.

    Attributes:
        action: flat actions in the encoding of the recordings' `ActionSpace`, (B, T, width) for every step of the window.
        confidence: probability in [0, 1] that the action of a step is right as a whole, (B, T), before calibration.
        extras: further outputs by name, (B, T, ...): `confidence.<part>` per part of the action space, contact forces, ...
    """

    action: Tensor
    confidence: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """What a forward model answers.

    Attributes:
        values: predicted features, each (B, samples, horizon, *shape).
        space: `observation` in the units of the recordings, or `embedding` in the system's own.
        std: standard deviations of the same shapes, where the model gives them.
    """

    values: Mapping[str, Tensor]
    space: Literal["observation", "embedding"] = "observation"
    std: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Report:
    """What an analysis answers: named numbers, sentences on what they mean, and arrays to draw."""

    values: Mapping[str, float]
    findings: tuple[str, ...] = ()
    curves: Mapping[str, np.ndarray] = field(default_factory=dict)


class InverseModel(ABC):
    """Recovers the action behind a change.

    `reads` says what a window must hold (one frame, a pair, a centred window, a whole episode); it is known once fitted.
    """

    @property
    @abstractmethod
    def reads(self) -> Window:
        """The window that `infer` takes."""

    @property
    def keeps(self) -> slice:
        """Which steps of a window to keep when a recording is labelled by sliding it; the ends see least context."""
        return slice(None)

    @abstractmethod
    def infer(self, window: Batch) -> Inferred:
        """Actions at every step of the window."""


class Encoder(ABC):
    """Recovers the state behind raw observations.

    `grain` says what one code stands for: a `frame` (B, T, d), a `window`, `episode` or `domain` (B, d), a `set` (B, n, d).
    """

    grain: Literal["frame", "window", "episode", "set", "domain"] = "frame"

    @property
    @abstractmethod
    def reads(self) -> Window:
        """The window that `encode` takes."""

    @abstractmethod
    def encode(self, window: Batch) -> Tensor:
        """Codes, of the shape that `grain` says."""


class Policy(ABC):
    """Decides what to do.

    The observation is a mapping of feature name -> tensor (B, *shape) for B worlds played side by side, camera frames uint8
    (B, C, H, W); task, goal and skill are keys of it, and in a roll-out `next.reward` (B, n), what the decision before earned (0
    at the start). A policy may remember; `reset` makes it forget.
    """

    @abstractmethod
    def act(self, observation: Batch) -> Tensor:
        """Flat actions (B, width)."""

    @abstractmethod
    def reset(self, mask: Tensor | None = None) -> None:
        """Forget what was seen in the worlds where `mask` (B,) is True, in all where it is None; called before each episode."""


class ForwardModel(ABC):
    """Foresees the next observation."""

    @abstractmethod
    def predict(self, observation: Batch, actions: Tensor | None = None, horizon: int = 1, samples: int = 1) -> Prediction:
        """The next `horizon` steps after the observation; `actions` (B, horizon, width) where the model wants them."""


class Law(ABC):
    """The rule of a motion: a map z' = F(z) or a flow dz/dt = f(z).

    Attributes:
        kind: `map` or `flow`.
        dt: time between steps of the recordings it was fitted on, in their unit.
    """

    kind: Literal["map", "flow"]
    dt: float

    @abstractmethod
    def step(self, state: Tensor) -> Tensor:
        """The state (..., d) one `dt` later."""

    @abstractmethod
    def simulate(self, initial: Tensor, times: Tensor, actions: Tensor | None = None, domain: str | None = None) -> Tensor:
        """States (B, len(times), d) from `initial` (B, d)."""

    @abstractmethod
    def jacobian(self, state: Tensor) -> Tensor:
        """Derivative of `step` (map) or of the flow, (..., d, d)."""


class Generator(ABC):
    """Makes samples; some also complete what is missing (`complete(window, known)`) or say what would have been (`intervene`)."""

    @abstractmethod
    def sample(self, n: int, given: Batch | None = None) -> Batch:
        """`n` samples of the features it was fitted on, given others where it can be conditioned."""


class Curator(ABC):
    """Says which parts of a recording to trust."""

    @abstractmethod
    def weigh(self, recordings: Recordings) -> Recordings:
        """The same recordings with `sample.weight` in [0, 1] at every step."""


class Analysis(ABC):
    """Says why learning itself came out as it did."""

    @abstractmethod
    def analyse(self, subject: Any) -> Report:
        """Findings about samples, a training run, a law, or encoders by name."""
