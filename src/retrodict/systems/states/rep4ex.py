"""Rep4Ex: a code in which actions act linearly, and what would come of actions never tried.  (Saengkyongam et al., 2024)"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from retrodict.errors import DataError
from retrodict.metrics.linearity import linearity_test
from retrodict.networks.conv import ConvEncoder, ConvLayer
from retrodict.networks.decoder import ConvDecoder
from retrodict.networks.mlp import MLP
from retrodict.objectives.moments import FourierFeatures, linear_residual, median_distance, moment_restriction, shape_moments
from retrodict.roles import Batch, Encoder, ForwardModel, Generator, Prediction
from retrodict.systems.contract import Card, Spec
from retrodict.systems.gradient import GradientSystem
from retrodict.systems.states.control_function import ControlFunction, Effect, refuse_collinear
from retrodict.training.optimisers import Optimiser
from retrodict.training.run import Run
from retrodict.training.schedules import schedule
from retrodict.training.stage import Stage
from retrodict.trajectories import Box, Recordings, Span, Window, Windows
from retrodict.trajectories.features import ACTION, STATE, cameras
from retrodict.trajectories.normalise import Normaliser, standardised

OUTCOME = "label.outcome"
BANDWIDTHS = (0.25, 0.5, 1.0)
"""Of the kernels over actions, in median distances between actions. Wide ones alone do not see what is bent at the corners."""
WAVES = 200
"""Random features of each kernel over actions."""
FAINT, THIN = 0.8, 0.2
"""Overlap below which a prediction is warned of, and below which it is withheld."""
UNEXPLAINED = 0.05
"""Share of the observation's variance that a code may leave unexplained before it is told."""


@dataclass
class Rep4Ex(GradientSystem, Encoder, ForwardModel, Generator):
    """Codes identified up to an affine map by one constraint, E[code | action] linear in the action, and effects beyond the data.

    Reads one-step trials: `action` (k,), what was observed after it (`observation.state`, or a camera) and, where there is one,
    `label.outcome` (1,). Assumes Z = M0 A + V, X = g(Z), Y = l(Z) + U with actions chosen independently of V and U, which no
    data can confirm; U may depend on V. `encode` gives (B, 1, latent); `predict` and `intervene` say what would have been
    observed had another action been taken, `predict_outcome` what any action brings on the average.

    Attributes:
        latent: dimensions of the code, at most those of the action.
        constraint: weight of the linearity constraint at the end of training; it rises there from a thousandth of it. The smaller
            the batch, the noisier the constraint, and the less of it can be borne.
        code_steps, code_batch: optimiser steps, and windows in each, of the autoencoder that is learned first, without the
            constraint, which would keep whatever fold the code still has. Many steps unfold it; the constraint asks large
            batches.
        shape: up to which degree moments of the code's residual must not depend on the action either, since V does not: 1 asks
            for the mean only, which is the published constraint; 2 and 3 are our addition.
        confounded: whether the outcome may depend on V beside Z; learns psi(v) beside nu(z).
        observation: the feature that is encoded; the state, or else the only camera, where empty.
        delay: steps from an action to the observation that it led to: 0 in tables of trials, 1 in trajectories.
        width, layers: hidden units and hidden layers of encoder and decoder of numbers.
        image_size: (height, width), multiples of 4, to which camera frames are brought; None keeps theirs.
        outcome_steps: optimiser steps of nu and psi.
        control_: alpha, M, the residuals v and the outcome model.
    """

    card: ClassVar[Card] = Card(
        slug="rep4ex",
        title="Identifying representations for intervention extrapolation",
        authors="Saengkyongam, Rosenfeld, Ravikumar, Pfister, Peters",
        year=2024,
        url="https://arxiv.org/abs/2310.04295",
        reads="trials of a continuous action, an observation and an outcome",
        returns="codes in which actions act linearly, outcomes and observations under other actions",
        claim="A code whose mean is linear in the action is affine in the true state and foretells actions never tried",
    )
    gaps: ClassVar[tuple[str, ...]] = (OUTCOME,)

    mixes: ClassVar[bool] = False  # a linear law is solved for

    latent: int = 2
    constraint: float = 1000.0
    code_steps: int = 4000
    code_batch: int = 512
    shape: Literal[1, 2, 3] = 1
    confounded: bool = True
    observation: str = ""
    delay: int = 0
    width: int = 64
    layers: int = 2
    image_size: tuple[int, int] | None = None
    outcome_steps: int = 2000
    steps: int = field(default=2400, kw_only=True)
    batch: int = field(default=4096, kw_only=True)
    learning_rate: float = field(default=3e-3, kw_only=True)

    control_: ControlFunction = field(init=False, repr=False, compare=False)
    _code_reader: Windows | None = field(default=None, init=False, repr=False, compare=False)

    # ---- what it reads ----------------------------------------------------------------------------------------------------

    def window(self, spec: Spec) -> Window:
        name = self._observed(spec)
        actions = spec.actions
        if actions is None or not all(isinstance(part, Box) for part in actions.parts.values()):
            raise DataError(
                "rep4ex extrapolates along continuous actions; these are choices or buttons (or missing), which have no beyond: "
                "a policy or an inverse model learns from them as they are."
            )
        if self.latent > actions.width:
            raise DataError(
                f"the action has fewer dimensions than the latent ({actions.width} and {self.latent}): at most {actions.width} "
                f"latent dimensions can be identified; set latent to {actions.width} or less."
            )
        if OUTCOME in spec.features and not spec.features[OUTCOME].is_numeric:
            raise DataError(f"rep4ex: {OUTCOME!r} holds {spec.features[OUTCOME].dtype}; numbers are expected.")
        spans = {name: Span(offset=self.delay), ACTION: None, OUTCOME: None}
        return Window(features=spans, optional=(OUTCOME,), edge="drop", image_size=self.image_size)

    @property
    def reads(self) -> Window:
        self.check_fitted()
        name = self._observed(self.spec_)
        return Window(features={name: Span(offset=self.delay), ACTION: None}, edge="drop", image_size=self.image_size)

    def _observed(self, spec: Spec) -> str:
        if self.observation:
            return self.observation
        seen = [STATE] if STATE in spec.features else list(cameras(spec.features))
        if len(seen) != 1:
            raise DataError(f"rep4ex reads {STATE!r} or one camera, found {', '.join(seen) or 'neither'}; set observation.")
        return seen[0]

    @property
    def _name(self) -> str:
        """The feature that is encoded; raises NotFittedError before it is known."""
        if not hasattr(self, "spec_"):
            self.check_fitted()
        return self._observed(self.spec_)

    # ---- the network and its loss -----------------------------------------------------------------------------------------

    def build(self, spec: Spec) -> nn.Module:
        feature = spec.features[self._observed(spec)]
        assert spec.actions is not None
        if OUTCOME in spec.features and int(np.prod(spec.features[OUTCOME].shape)) != 1:
            raise DataError(f"rep4ex foretells one number; {OUTCOME!r} has {list(spec.features[OUTCOME].shape)}: keep one.")
        if feature.is_visual:
            height, width = self.image_size or feature.shape[:2]
            if height % 4 or width % 4:
                raise DataError(f"rep4ex halves images twice; {height}x{width} does not divide by 4, so set image_size.")
            channels = feature.shape[2]
            strided = [ConvLayer(8, stride=2), ConvLayer(16, stride=2)]
            encoder: nn.Module = ConvEncoder(
                strided, channels, (height, width), readout="linear", width=self.latent, activation="silu"
            )
            decoder: nn.Module = ConvDecoder(self.latent, (16, height // 4, width // 4), (8, channels), activation="silu")
            normal = Normaliser((), name=self._observed(spec))
        else:
            size, hidden = int(np.prod(feature.shape)), [self.width] * self.layers
            encoder = MLP([size, *hidden, self.latent], activation="silu")
            decoder = MLP([self.latent, *hidden, size], activation="silu")
            normal = Normaliser((size,), name=self._observed(spec))
        waves = FourierFeatures(spec.actions.width, BANDWIDTHS, WAVES)
        net = nn.ModuleDict({"normal": normal, "encoder": encoder, "decoder": decoder, "waves": waves})
        net.register_buffer("far", torch.ones(()))
        return net

    def prepare(self, recordings: Recordings) -> None:
        name = self._name
        actions = torch.cat([torch.from_numpy(np.asarray(episode[ACTION], np.float32)) for episode in recordings])
        refuse_collinear(actions)
        self.net_.far.fill_(median_distance(actions))
        for episode in recordings:
            values = torch.from_numpy(np.asarray(episode[name]))
            self.net_["normal"].update(values if self.spec_.features[name].is_visual else values.flatten(1))
        self._code_reader = recordings.windows(self.window(self.spec_), self.code_batch, seed=self.seed)

    def stages(self, net: Any) -> tuple[Stage, ...]:
        code = Stage(
            self.code_steps,
            lambda net, batch, step: {"reconstruction": self._reconstruction(net, batch)[0]},
            (Optimiser(rate=self.learning_rate, weight_decay=self.weight_decay),),
            clip=self.clip,
            batches=self._code_reader,
            name="code",
        )
        return (code, *super().stages(net))

    def loss(self, net: Any, batch: Batch) -> Mapping[str, Tensor]:
        reconstruction, code = self._reconstruction(net, batch)
        if not self.constraint:
            return {"reconstruction": reconstruction}
        action = batch[ACTION][:, 0]
        rest = linear_residual(standardised(code), action)  # standardised, or the restriction is met by shrinking the code
        if self.shape > 1:
            rest = torch.cat([rest, shape_moments(rest, self.shape) / 5], 1)
        weight = schedule("exponential", self.constraint / 1000, self.constraint, self.steps)(self.now)
        restriction = weight * moment_restriction(rest, net["waves"](action / net.far))
        return {"reconstruction": reconstruction, "linearity": restriction}

    def _reconstruction(self, net: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean squared error of what the code gives back, and the code (B, latent)."""
        x = self._normal(net, batch[self._name])
        code = net["encoder"](x)
        return (net["decoder"](code) - x).square().mean(), code

    def _normal(self, net: Any, x: Tensor) -> Tensor:
        """Observations (B, 1, ...) as (B, ...) of mean 0 and deviation 1."""
        x = x[:, -1]
        out: Tensor = net["normal"](x.float() if self.spec_.features[self._name].is_visual else x.flatten(1))
        return out

    # ---- after training: how actions act, and what comes of them --------------------------------------------------------------

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        super().learn(recordings, world, validation, run)
        self._code_reader = None
        trials = self._trials(recordings)
        if OUTCOME in self.spec_.features and OUTCOME not in trials:
            warnings.warn(
                f"rep4ex: some trials lack {OUTCOME!r}, so none is foretold; leave these trials out to learn from the others.",
                stacklevel=3,
            )
        self.control_ = ControlFunction.fit(
            trials["code"],
            trials[ACTION],
            trials.get(OUTCOME),
            confounded=self.confounded,
            seed=self.seed,
            steps=self.outcome_steps,
        )
        if (left := float(trials["error"].mean())) > UNEXPLAINED:
            warnings.warn(
                f"rep4ex: a code of {self.latent} leaves {left:.0%} of the observation unexplained: it is noisy, or needs more "
                "latent dimensions or steps; what is identified is identified up to that.",
                stacklevel=3,
            )
        strengths, chance = self.control_.strengths(), 1 / (len(trials["code"]) * float(trials[ACTION].var(0).mean())) ** 0.5
        if strengths[-1] < 3 * chance and strengths[0] > 15 * chance:
            raise DataError(
                f"rep4ex: actions do not reach all {self.latent} dimensions of the code (singular values of their effect, in "
                f"deviations of what else moves it: {', '.join(f'{s:.3g}' for s in strengths.tolist())}); set a smaller latent, "
                f"or a smaller constraint where {self.constraint:g} is more than batches of {self.batch} bear."
            )

    @torch.no_grad()
    def _trials(self, recordings: Recordings) -> dict[str, Tensor]:
        """Code, action, outcome and error of reconstruction of every trial."""
        name, found = self._name, dict[str, list[Tensor]]()
        outcomes = OUTCOME in self.spec_.features
        windows = recordings.windows(self.window(self.spec_), 4096, order="sequence")
        for batch in windows:
            x = self._normal(self.net_, batch[name].to(self.torch_device))
            code = self.net_["encoder"](x)
            found.setdefault("code", []).append(code)
            found.setdefault("error", []).append((self.net_["decoder"](code) - x).square().flatten(1).mean(1))
            found.setdefault(ACTION, []).append(batch[ACTION][:, 0].to(code))
            if outcomes:
                there = batch.get(f"mask.{OUTCOME}", torch.ones(len(code), 1, dtype=torch.bool))[:, 0]
                outcomes = bool(there.all())  # one model of all trials: where some lack the outcome there is none
                found.setdefault(OUTCOME, []).append(batch[OUTCOME].reshape(len(code), -1)[:, 0].to(code))
        made = {key: torch.cat(values) for key, values in found.items()}
        return made if outcomes else {key: values for key, values in made.items() if key != OUTCOME}

    def predict_outcome(self, actions: Tensor | np.ndarray, force: bool = False) -> Effect:
        """E[Y | do(A = a)] of actions (m, k), tried or not, with the share of the codes they lead to that were seen in training.

        Warns where that overlap is below 0.8; below 0.2 the outcome is NaN unless `force`.
        Raises DataError where no outcome was recorded, and for actions of another width.
        """
        self.check_fitted()
        asked = torch.as_tensor(actions, dtype=torch.float32)
        if asked.ndim != 2 or asked.shape[1] != len(self.control_.matrix) or not torch.isfinite(asked).all():
            raise DataError(f"rep4ex: finite actions (m, {len(self.control_.matrix)}) are expected, got {list(asked.shape)}.")
        outcome, overlap = self.control_.effect(asked)
        return Effect(_withheld(outcome, overlap, force), overlap)

    def linearity(self, recordings: Recordings) -> float:
        """p-value of E[code | action] being linear on recordings that did not teach it; small where the constraint is not met."""
        self.check_fitted()
        trials = self._trials(self.admit(recordings))
        return linearity_test(trials["code"].cpu(), trials[ACTION].cpu(), float(self.net_.far), seed=self.seed)

    # ---- roles --------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, window: Batch) -> Tensor:
        name = self._name
        code: Tensor = self.net_["encoder"](self._normal(self.net_, self.checked(window, (name,))[name]))
        return code[:, None]

    @torch.no_grad()
    def predict(self, observation: Batch, actions: Tensor | None = None, horizon: int = 1, samples: int = 1) -> Prediction:
        """What would have been observed had other actions been taken in the trials given, for each of `horizon` actions.

        A trial is one step, so nothing is rolled on; what was given must hold the action that was taken. Answers are certain, so
        all samples are alike. Without `actions` the trial itself is given back, as its code has it.
        """
        name = self._name
        given = self.checked(observation, (name, ACTION))
        code, taken = self.net_["encoder"](self._normal(self.net_, given[name])), given[ACTION][:, -1].to(self.torch_device)
        others = taken[:, None].expand(-1, horizon, -1) if actions is None else actions.to(code)
        if others.shape[:2] != (len(code), horizon) or others.shape[2] != taken.shape[1]:
            wanted = [len(code), horizon, taken.shape[1]]
            raise DataError(f"rep4ex: actions {wanted} are expected, got {list(others.shape)}.")
        seen = self._decoded(code[:, None] + (others - taken[:, None]) @ self.control_.matrix)
        return Prediction({name: seen[:, None].expand(-1, samples, *seen.shape[1:])})

    def intervene(self, window: Batch, do: Mapping[str, Tensor]) -> Batch:
        """The trials (B, 1, ...) under other actions, `do={"action": (B, k)}`: observation, action, outcome where learned.

        Outcomes are withheld (NaN) as in `predict_outcome`, with the same warning.
        """
        if set(do) != {ACTION}:
            raise DataError(f"rep4ex intervenes on {ACTION!r} only, got {', '.join(do) or 'nothing'}.")
        name = self._name
        action = torch.as_tensor(do[ACTION], dtype=torch.float32)[:, None].to(self.torch_device)
        seen = self.predict(window, action).values[name][:, 0]
        return {name: seen, ACTION: action, **self._outcome(window, action)}

    @torch.no_grad()
    def _outcome(self, window: Batch, action: Tensor) -> dict[str, Tensor]:
        if self.control_.additive is None:
            return {}
        before = self.encode(window)[:, 0]
        taken = window[ACTION][:, -1].to(before)
        rest = before - self.control_.alpha - taken @ self.control_.matrix
        code = before + (action[:, 0] - taken) @ self.control_.matrix
        outcome = self.control_.additive.expected(code, rest)
        return {OUTCOME: _withheld(outcome, self.control_.overlap(action[:, 0]))[:, None, None]}

    @torch.no_grad()
    def sample(self, n: int, given: Batch | None = None) -> Batch:
        """Trials (n, 1, ...) at actions `given` as {"action": (n, k)}, or drawn from those tried; all else is drawn.

        Outcomes of given actions are withheld (NaN) as in `predict_outcome`. Raises DataError for actions of another shape.
        """
        self.check_fitted()
        control = self.control_
        drawn = torch.randint(len(control.actions), (2, n))
        action = control.actions[drawn[0]] if given is None else torch.as_tensor(given[ACTION]).to(control.actions)
        if action.shape != (n, control.actions.shape[1]):
            raise DataError(f"rep4ex: actions {[n, control.actions.shape[1]]} are expected, got {list(action.shape)}.")
        rest = control.residuals[drawn[1]]
        code = control.alpha + action @ control.matrix + rest
        made = {self._name: self._decoded(code[:, None]), ACTION: action[:, None]}
        if control.additive is not None:
            outcome = control.additive.expected(code, rest)
            outcome = outcome if given is None else _withheld(outcome, control.overlap(action))
            made[OUTCOME] = outcome[:, None, None]
        return made

    def _decoded(self, codes: Tensor) -> Tensor:
        """Codes (B, T, latent) -> observations (B, T, *shape), camera frames uint8 (C, H, W)."""
        feature = self.spec_.features[self._name]
        seen = self.net_["normal"].inverse(self.net_["decoder"](codes))
        shaped: Tensor = (
            seen.round().clamp(0, 255).byte() if feature.is_visual else seen.reshape(*codes.shape[:2], *feature.shape)
        )
        return shaped

    # ---- on disk ------------------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, about = super().state()
        return tensors | {f"control.{name}": value for name, value in self.control_.state_dict().items()}, about

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        control = {name.removeprefix("control."): value for name, value in tensors.items() if name.startswith("control.")}
        super().restore({name: value for name, value in tensors.items() if not name.startswith("control.")}, about)
        self.control_ = ControlFunction.restored(control, self.confounded, self.torch_device)


def _withheld(outcome: Tensor, overlap: Tensor, force: bool = False) -> Tensor:
    """Outcomes (m,) of actions, of whose codes this share (m,) was seen: NaN where that is thin, with a warning."""
    if (faint := overlap < FAINT).any():
        thin = int((overlap < THIN).sum())
        withheld = f"; those of {thin} are withheld as NaN (predict_outcome gives them with force=True)"
        warnings.warn(
            f"rep4ex: {int(faint.sum())} of {len(overlap)} actions lead mostly to where nothing was seen (overlap down to "
            f"{float(overlap.min()):.2f}): trust their outcomes less{withheld if thin and not force else ''}.",
            stacklevel=3,
        )
    return outcome if force else torch.where(overlap < THIN, torch.nan, outcome)
