"""Deep linear dynamics: the learning curve of a linear network of any depth, before it is trained.  (Saxe et al., 2014)"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from retrodict.dynamics.linear_descent import descend
from retrodict.dynamics.mode_growth import growth, growth_time, largest_rate, slope
from retrodict.errors import DataError
from retrodict.networks import initialisers
from retrodict.roles import Analysis, Batch, Encoder, Law, Report
from retrodict.systems.batches import look_over
from retrodict.systems.contract import Card, Spec, System
from retrodict.systems.learning.linear_findings import about_run, about_samples
from retrodict.systems.learning.regression_pairs import Target, feature_of, numbers, stored_type
from retrodict.training.run import Run
from retrodict.trajectories import Recordings, TrainingRun, Window
from retrodict.trajectories.normalise import Whitener

Start = Literal["balanced", "orthogonal", "pretrained", "gaussian"]

WHITE = 1e-3
"""Largest distance from 1 at which an eigenvalue of the input's covariance still counts as 1."""
DROPPED = 1e-10
"""Modes below this part of the largest are rounding."""

LEARNED = ("left_", "strengths_", "right_", "cross_", "covariance_")


@dataclass
class DeepLinear(System, Analysis, Law, Encoder):
    """The whole learning curve of a deep linear network on the data at hand, solved exactly, and starts for which depth is free.

    Reads samples: inputs x (`observation.state`, or camera frames as numbers from 0 to 1) and targets y (`label.class` as
    centred one-hot vectors, or numbers). With whitened inputs, full-batch gradient descent on y = W_N ... W_1 x from a small,
    balanced and aligned start decouples into the modes of S31 = E[y x^T] = U diag(s) V^T, and the strength u of a mode obeys
    du/dt = rate N u^(2-2/N) (s - u) per step. As a law its state is the strengths (..., r); as an encoder it gives V^T x,
    (B, T, r).

    Attributes:
        depth: weight matrices N; 1 is a shallow network.
        width: units of every hidden layer; those of the input where 0. A layer carries no more modes than it has units.
        begin: strength u0 of every mode before training.
        rate: learning rate, 1 / tau of the paper.
        whiten: bring the inputs to mean 0 and identity covariance; refused unless they are there already where False.
        components: principal components that whitening keeps; all where 0.
        observation, target: names of the features; the state, or else the only camera, where `observation` is empty.
        left_, strengths_, right_: U (out, r), s (r,) and V (in, r), float64.
        starts_: u0 (r,) of each mode, 0 where no unit is left for it.
        cross_, covariance_: S31 and E[x x^T] of the whitened inputs.
        energy_: E[|y|^2].
    """

    card: ClassVar[Card] = Card(
        slug="deep-linear",
        title="Exact solutions to the nonlinear dynamics of learning in deep linear neural networks",
        authors="Saxe, McClelland, Ganguli",
        year=2014,
        url="https://arxiv.org/abs/1312.6120",
        reads="samples with whitened inputs and targets; training runs",
        returns="learning curves of every mode in closed form, half-times, initial weights",
        claim="Modes of a deep linear network are learned along exactly solvable sigmoids, and some starts make depth free",
    )

    depth: int = 2
    width: int = 0
    begin: float = 1e-4
    rate: float = 0.01
    whiten: bool = False
    components: int = 0
    observation: str = ""
    target: str = "label.class"

    kind = "flow"
    dt = 1.0

    spec_: Spec = field(init=False, repr=False, compare=False)
    whitener_: Whitener | None = field(init=False, repr=False, compare=False)
    target_: Target = field(init=False, repr=False, compare=False)
    left_: Tensor = field(init=False, repr=False, compare=False)
    strengths_: Tensor = field(init=False, repr=False, compare=False)
    right_: Tensor = field(init=False, repr=False, compare=False)
    cross_: Tensor = field(init=False, repr=False, compare=False)
    covariance_: Tensor = field(init=False, repr=False, compare=False)
    energy_: float = field(init=False, repr=False, compare=False)

    # ---- fitting: the modes of the data -----------------------------------------------------------------------------------

    def inputs(self, recordings: Recordings) -> tuple[str, ...]:
        if self.depth < 1 or not self.begin >= 0 or not self.rate > 0:
            raise DataError(
                f"deep-linear needs depth >= 1, begin >= 0 and rate > 0, got {self.depth}, {self.begin:g} and {self.rate:g}."
            )
        if self.width < 0 or self.components < 0:
            raise DataError(f"deep-linear needs width and components of at least 0, got {self.width} and {self.components}.")
        return (feature_of(recordings, self.observation, "deep-linear"), Target.check(recordings, self.target, "deep-linear"))

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        names = self.inputs(recordings)
        self.spec_ = Spec.of(recordings, names)
        self.target_ = Target.of(recordings, self.target)
        self.whitener_ = None
        x, y = numbers(recordings, names[0]), self.target_.numbers(recordings)
        if self.whiten:
            self.whitener_ = Whitener(x.shape[1], self.components or None, name=names[0], dtype=torch.float64)
            self.whitener_.fit(x, stored_type(recordings, names[0]))
            x = self.whitener_(x)
        self.cross_, self.covariance_, self.energy_ = y.T @ x / len(x), x.T @ x / len(x), float((y**2).sum(1).mean())
        self._refuse_coloured()
        left, strengths, right = torch.linalg.svd(self.cross_, full_matrices=False)
        kept = strengths > DROPPED * strengths[0]
        if not kept.any():
            raise DataError(f"deep-linear: {names[0]!r} and {self.target!r} do not vary together; there is nothing to learn.")
        signs = torch.sign(left.gather(0, left.abs().argmax(0, keepdim=True)))  # free, so fixed: fits repeat everywhere
        self.left_, self.strengths_, self.right_ = (left * signs)[:, kept], strengths[kept], (right * signs.T)[kept].T
        self._settle()
        bound = largest_rate(self.strengths_.cpu(), self.depth)
        if self.rate >= bound:
            raise DataError(
                f"deep-linear: at the rate {self.rate:g} gradient descent diverges; these data and depth {self.depth} allow less "
                f"than {bound:.4g}."
            )
        if (lost := len(self.strengths_) - self._carried) > 0:
            warnings.warn(
                f"deep-linear: hidden layers of width {self.width} cannot learn the last {lost} of {len(self.strengths_)} modes "
                f"(strengths {', '.join(f'{s:.3g}' for s in self.strengths_[self._carried :].tolist())}).",
                stacklevel=3,
            )

    def _settle(self) -> None:
        """Bring what was learned to the device."""
        for name in LEARNED:
            setattr(self, name, getattr(self, name).to(self.torch_device))
        if self.whitener_ is not None:
            self.whitener_.to(self.torch_device)

    def _refuse_coloured(self) -> None:
        spectrum = torch.linalg.eigvalsh(self.covariance_)
        if (spectrum - 1).abs().max() > WHITE:
            low, high = float(spectrum[0]), float(spectrum[-1])
            number = f"{high / low:.3g}" if low > 1e-12 * high else "infinity"
            raise DataError(
                f"deep-linear: the input covariance has condition number {number} (eigenvalues {low:.3g} to {high:.3g}) and "
                "the exact solution assumes the identity: set whiten=True, or train without theory by dynamics.linear_descent."
            )

    @property
    def _carried(self) -> int:
        """Modes that the hidden layers have room for."""
        return len(self.strengths_) if self.depth == 1 or not self.width else min(self.width, len(self.strengths_))

    @property
    def starts_(self) -> Tensor:
        starts = torch.full_like(self.strengths_, self.begin)
        starts[self._carried :] = 0.0
        return starts

    # ---- the theory -------------------------------------------------------------------------------------------------------

    def curve(self, steps: ArrayLike) -> np.ndarray:
        """Strengths (T, r) of the modes after `steps` (T,) of gradient descent, as the theory has them."""
        self.check_fitted()
        return growth(steps, self.strengths_.cpu(), self.starts_.cpu(), self.depth, 1 / self.rate)

    def loss(self, steps: ArrayLike) -> np.ndarray:
        """E|y - W x|^2 / 2 (T,) after `steps` (T,): what the modes still lack, and what no linear network can learn."""
        curve, strengths = self.curve(steps), self.strengths_.cpu().numpy()
        missing = ((strengths - curve) ** 2).sum(1)
        return np.asarray((missing + self.energy_ - (strengths**2).sum()) / 2)

    def half_times(self) -> np.ndarray:
        """Steps (r,) until each mode has half its strength; inf where it begins at 0 and so stays, 0 where it began beyond."""
        self.check_fitted()
        strengths, starts = self.strengths_.cpu().numpy(), self.starts_.cpu().numpy()
        took = growth_time(strengths / 2, strengths, starts, self.depth, 1 / self.rate)
        return np.where(starts >= strengths / 2, 0.0, took)

    def escape_order(self) -> np.ndarray:
        """Indices of the modes in the order in which they leave their plateau."""
        return np.argsort(self.half_times(), kind="stable")

    # ---- the network itself -----------------------------------------------------------------------------------------------

    def layers(self, kind: Start = "balanced", gain: float = 1.0) -> Sequence[Tensor]:
        """Initial weights (out, in), the first layer first: those the theory solves exactly, or a start of another kind.

        `balanced` begins at `begin` along the modes. `orthogonal` (of this gain) and `pretrained` (layer by layer, on the inputs)
        are those for which depth is free; `gaussian` (deviation gain / sqrt(fan-in)) those for which it is not.
        """
        self.check_fitted()
        generator = torch.Generator().manual_seed(self.seed)
        outputs, inputs = self.cross_.shape
        widths = [inputs, *[self.width or inputs] * (self.depth - 1), outputs]
        if kind == "balanced":
            left, right, starts = (t.cpu()[..., : self._carried] for t in (self.left_, self.right_, self.starts_))
            return initialisers.balanced_layers(left, right, widths, starts, generator)
        if kind == "pretrained":
            return initialisers.pretrained_layers(widths, self.covariance_.cpu(), generator)
        make = {"orthogonal": initialisers.orthogonal_layers, "gaussian": initialisers.gaussian_layers}[kind]
        return make(widths, gain, generator)

    def train(self, layers: Sequence[Tensor], steps: int, every: int = 1) -> TrainingRun:
        """Full-batch gradient descent from these weights, on the samples of `fit`, at `rate`; kept every so many steps.

        Raises DataError where the loss grows beyond bounds.
        """
        self.check_fitted()
        moments = (self.cross_.cpu().numpy(), self.covariance_.cpu().numpy(), self.energy_)
        done = descend([w.numpy() for w in layers], *moments, self.rate, steps, every=every)
        if not np.isfinite(done.losses[-1]):
            raise DataError(f"deep-linear: training diverged after {len(done.losses) - 1} steps; lower the rate {self.rate:g}.")
        weights = {f"{i}.weight": kept for i, kept in enumerate(done.weights)}
        return TrainingRun(done.steps, weights, {"loss": done.losses[done.steps]})

    # ---- roles ------------------------------------------------------------------------------------------------------------

    def analyse(self, subject: Any) -> Report:
        """What the theory foresees for fresh samples, or how a training run of a linear network followed it.

        Args:
            subject: Recordings like those of `fit`, or a TrainingRun whose weights are matrices that form a chain, without
                biases, trained on these (whitened) samples at `rate`. A start that is not balanced and aligned gets one strength
                u0 that is fitted to the run, and is reported as such.

        Raises DataError for another subject, samples of other features, and runs of other networks.
        """
        self.check_fitted()
        if isinstance(subject, TrainingRun):
            return about_run(self, subject)
        if isinstance(subject, Recordings):
            admitted = self.admit(subject)
            x = numbers(admitted, self.inputs(admitted)[0]).to(self.left_)
            return about_samples(self, self._whitened(x), self.target_.numbers(admitted).to(self.left_))
        raise DataError(f"deep-linear analyses Recordings or a TrainingRun, got {type(subject).__name__}.")

    @property
    def reads(self) -> Window:
        self.check_fitted()
        return Window(features=(next(iter(self.spec_.features)),))

    def encode(self, window: Batch) -> Tensor:
        self.check_fitted()
        name = next(iter(self.spec_.features))
        x = look_over(window, self.spec_, self.card, (name,))[name].to(self.torch_device)
        if self.spec_.features[name].is_visual:
            x = x.movedim(2, -1).double() / 255
        return self._whitened(x.flatten(2).double()) @ self.right_

    def _whitened(self, x: Tensor) -> Tensor:
        if x.shape[-1] != (self.whitener_.axes if self.whitener_ else self.cross_).shape[1]:
            raise DataError(f"deep-linear learned from {self.cross_.shape[1]} inputs, got {x.shape[-1]}.")
        whitened: Tensor = self.whitener_(x) if self.whitener_ is not None else x
        return whitened

    of_observations = False

    def start(self, recordings: Recordings) -> Tensor:
        """The strengths (1, r) of an untrained network, whatever the recordings."""
        self.check_fitted()
        return self.starts_[None]

    def step(self, state: Tensor) -> Tensor:
        self.check_fitted()
        return self.simulate(state.reshape(-1, state.shape[-1]), torch.tensor([self.dt]))[:, 0].reshape(state.shape)

    def derivative(self, state: Tensor) -> Tensor:
        """du/dt of strengths (..., r), per step."""
        self.check_fitted()
        return torch.as_tensor(slope(state.cpu(), self.strengths_.cpu(), self.depth, 1 / self.rate)).to(self.strengths_)

    def simulate(self, initial: Tensor, times: Tensor, actions: Tensor | None = None, domain: str | None = None) -> Tensor:
        self.check_fitted()
        count, modes = initial.shape
        targets = self.strengths_.cpu().repeat(count)
        path = growth(times.cpu(), targets, initial.double().cpu().reshape(-1), self.depth, 1 / self.rate)
        return torch.as_tensor(path.reshape(len(times), count, modes).swapaxes(0, 1).copy()).to(self.strengths_)

    def jacobian(self, state: Tensor) -> Tensor:
        """Derivative of the flow, diagonal (..., r, r)."""
        self.check_fitted()
        u, power = state.to(self.strengths_), 2 - 2 / self.depth
        bend = power * u ** (power - 1) * (self.strengths_ - u) if self.depth > 1 else 0.0
        return torch.diag_embed(self.rate * self.depth * (bend - u**power))

    def equations(self) -> tuple[str, ...]:
        """The equation of each mode, per step."""
        self.check_fitted()
        power = {1: "", 2: " u{i}"}.get(self.depth, f" u{{i}}^{2 - 2 / self.depth:.4g}")
        head = f"du{{i}}/dt = {self.depth * self.rate:.4g}{power} ({{s:.4g}} - u{{i}})"
        return tuple(head.format(i=i, s=s) for i, s in enumerate(self.strengths_.tolist(), 1))

    # ---- on disk ----------------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {name: getattr(self, name) for name in LEARNED}
        if self.whitener_ is not None:
            tensors |= {f"whitener.{name}": value for name, value in self.whitener_.state_dict().items()}
        return tensors, {"spec": self.spec_.to_json(), "target": self.target_.to_json(), "energy": self.energy_}

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        self.spec_, self.target_, self.energy_ = Spec.from_json(about["spec"]), Target.from_json(about["target"]), about["energy"]
        for name in LEARNED:
            setattr(self, name, tensors[name])
        self.whitener_ = None
        if self.whiten:
            axes = tensors["whitener.axes"]
            self.whitener_ = Whitener(axes.shape[1], len(axes), dtype=torch.float64)
            self.whitener_.load_state_dict({name: tensors[f"whitener.{name}"] for name in self.whitener_.state_dict()})
        self._settle()
