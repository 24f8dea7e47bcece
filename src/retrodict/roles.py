"""Roles: what a system recovers. Each is an abstract class whose docstring is the contract.

Methods take batches: a dict of named tensors with a leading batch dimension B, as `Windows` yields them (time second, camera
frames uint8 (B, T, C, H, W)). Tensors come back on the device of the system; no gradients flow unless a method says so.
A system may play several roles; what it lacks it does not define. Nothing asks which system it is talking to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from retrodict.trajectories import Recordings, Window
from retrodict.trajectories.features import STATE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
        values: predicted features, each (B, samples, horizon, *shape); where not every step is foreseen, (B, samples, horizon //
            every, *shape).
        space: `observation` in the units of the recordings, or `embedding` in the system's own.
        std: standard deviations of the same shapes, where the model gives them.
        every: steps from one of the values to the next, and from the observation to the first.
    """

    values: Mapping[str, Tensor]
    space: Literal["observation", "embedding"] = "observation"
    std: Mapping[str, Tensor] | None = None
    every: int = 1


@dataclass(frozen=True)
class Panel:
    """One picture of a report: what a theory foresees as lines, what was seen as marks.

    A line and the marks of one name belong together and share a colour.

    Attributes:
        x, y: what the axes show, with units.
        lines: name -> (x (n,), y (n,)).
        marks: name -> (x (n,), y (n,)).
        logarithmic: axes drawn on a logarithmic scale: any of the letters `x` and `y`.
        names: what stands at x = 0, 1, 2, ..., where x counts things.
    """

    x: str
    y: str
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    marks: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    logarithmic: Literal["", "x", "y", "xy"] = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What an analysis answers.

    Attributes:
        values: numbers about the subject as a whole, by name.
        findings: what they mean, one sentence each, the most important first.
        table: numbers (or names) about each of its parts (modes, nodes, eigenvalues, encoders): column name -> (n,) for n parts.
        panels: what there is to draw.
    """

    values: Mapping[str, float]
    findings: tuple[str, ...] = ()
    table: Mapping[str, np.ndarray] = field(default_factory=dict)
    panels: tuple[Panel, ...] = ()

    def __str__(self) -> str:
        width = max((len(name) for name in self.values), default=0)
        return "\n".join([*self.findings, *(f"  {name:<{width}}  {value:.4g}" for name, value in self.values.items())])

    def plot(self) -> Figure:
        """The panels, one below the other; an empty figure where there is nothing to draw."""
        from matplotlib.figure import Figure  # drawing is the exception, and its import takes long

        figure = Figure(figsize=(6.4, 3.2 * max(len(self.panels), 1)), layout="constrained")
        for panel, axes in zip(self.panels, figure.subplots(max(len(self.panels), 1), squeeze=False)[:, 0], strict=False):
            colours = {name: f"C{i % 10}" for i, name in enumerate({**panel.lines, **panel.marks})}
            for name, (along, up) in panel.marks.items():
                label = None if name in panel.lines else name
                axes.plot(along, up, "o", color=colours[name], markersize=3, alpha=0.6, label=label)
            for name, (along, up) in panel.lines.items():
                axes.plot(along, up, color=colours[name], linewidth=1.4, label=name)
            scales = {f"{axis}scale": "log" for axis in panel.logarithmic}
            axes.set(xlabel=panel.x, ylabel=panel.y, **scales)
            if panel.names:
                axes.set_xticks(range(len(panel.names)), panel.names, rotation=60 if len(panel.names) > 12 else 0, fontsize=8)
            if len(colours) > 1:
                axes.legend(frameon=False, fontsize=8)
        return figure


class InverseModel(ABC):
    """Recovers the action behind a change.

    `reads` says what a window must hold (one frame, a pair, a centred window, a whole episode); it is known once fitted.
    """

    @property
    @abstractmethod
    def reads(self) -> Window:
        """The window that `infer` takes."""

    @property
    def latent_width(self) -> int:
        """Width of the codes of its own that stand in the place of actions, once fitted; 0 where actions are the recordings'."""
        return 0

    @property
    def keeps(self) -> slice:
        """Which steps of a window to keep when a recording is labelled by sliding it; the ends see least context."""
        return slice(None)

    @abstractmethod
    def infer(self, window: Batch) -> Inferred:
        """Actions at every step of the window."""


class Encoder(ABC):
    """Recovers the state behind raw observations.

    `grain` says what one code stands for: a `frame` by itself, or a `step` among those around it (B, T, d), a `window`, `episode`
    or `domain` (B, d), a `set` (B, n, d).
    """

    grain: Literal["frame", "step", "window", "episode", "set", "domain"] = "frame"

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
    (B, C, H, W); task, goal and skill are keys of it. In a roll-out it has `task`, a text for each world, and `next.reward`
    (B, n), what the decision before earned (0 at the start). A policy may remember; `reset` makes it forget.
    """

    @abstractmethod
    def act(self, observation: Batch) -> Tensor:
        """Flat actions (B, width)."""

    @abstractmethod
    def reset(self, mask: Tensor | None = None) -> None:
        """Forget what was seen in the worlds where `mask` (B,) is True, in all where it is None; called before each episode."""


class ForwardModel(ABC):
    """Foresees the next observation."""

    @property
    def latent_width(self) -> int:
        """Width of the codes of its own that stand in the place of actions, once fitted; 0 where actions are the recordings'."""
        return 0

    @abstractmethod
    def predict(self, observation: Batch, actions: Tensor | None = None, horizon: int = 1, samples: int = 1) -> Prediction:
        """The next `horizon` steps after the observation; `actions` (B, horizon, width) where the model wants them."""


class Law(ABC):
    """The rule of a motion: a map z' = F(z) or a flow dz/dt = f(z).

    States z may be other than what was recorded (hidden entries, standardised units): `embed` and `observe` lead there and back.
    Where there is more to read off a law, it is called `equations() -> tuple[str, ...]`, `plot() -> Figure`, `fixed_points()`,
    `cycles(period)`, `lyapunov()`, and `evidence() -> Report`: what it was chosen from, and how sure one may be of its parts.

    Attributes:
        kind: `map` or `flow`.
        dt: time between steps of the recordings it was fitted on, in their unit.
        of_observations: False for a law of something made of several observations (codes, modes, delays), which `start` makes and
            which stands wherever observations are said.
    """

    kind: Literal["map", "flow"]
    dt: float
    of_observations: bool = True

    def embed(self, observation: Tensor) -> Tensor:
        """A state (..., d) behind `observation.state` (..., n): the same thing, where the law is one of observations."""
        return observation

    def observe(self, state: Tensor) -> Tensor:
        """What is seen, (..., n), of states (..., d), in units of the recordings."""
        return state

    def start(self, recordings: Recordings) -> Tensor:
        """What E episodes begin with, (E, n): `observation.state`, unless `of_observations` is False."""
        return torch.from_numpy(np.stack([episode.read(STATE, np.array([0]))[0] for episode in recordings]))

    @abstractmethod
    def step(self, state: Tensor) -> Tensor:
        """The state (..., d) one `dt` later."""

    @abstractmethod
    def simulate(self, initial: Tensor, times: Tensor, actions: Tensor | None = None, domain: str | None = None) -> Tensor:
        """What is seen at `times`, (B, len(times), n), from observations `initial` (B, n) on."""

    @abstractmethod
    def jacobian(self, state: Tensor) -> Tensor:
        """Derivative of `step` (map) or of the flow, (..., d, d)."""


class Generator(ABC):
    """Makes samples; some also complete what is missing (`complete(window, known)`) or say what would have been (`intervene`)."""

    @property
    def asks(self) -> Window | None:
        """The window that `given` must be, once fitted, one for each sample; None where samples can be had without."""
        return None

    @abstractmethod
    def sample(self, n: int, given: Batch | None = None) -> Batch:
        """`n` samples of the features it was fitted on, given others where it can be conditioned."""


class Curator(ABC):
    """Says which parts of a recording to trust."""

    @abstractmethod
    def weigh(self, recordings: Recordings) -> Recordings:
        """The same recordings with `sample.weight` in [0, 1] at every step."""


class Analysis(ABC):
    """Says why learning itself came out as it did.

    What it takes (recordings, a `TrainingRun`, a law, encoders by name), its `analyse` says.
    """

    def example(self, recordings: Recordings) -> Any:
        """Something it can be asked about, by who knows nothing of it: fresh recordings; None where it judges something else."""
        return recordings

    @abstractmethod
    def analyse(self, subject: Any) -> Report:
        """Findings about recordings, and whatever else this analysis takes; raises DataError for any other subject."""
