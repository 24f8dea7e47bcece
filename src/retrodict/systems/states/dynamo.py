"""DynaMo: a visual state learned from bare demonstrations, by an inverse and a forward model of it in its own space."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from retrodict.errors import DataError
from retrodict.metrics.representation import Health
from retrodict.networks.masks import causal
from retrodict.networks.transformer import Transformer
from retrodict.objectives.latent import latent_prediction
from retrodict.objectives.spread import covariance_term
from retrodict.roles import Batch, ForwardModel, Inferred, InverseModel, Prediction
from retrodict.systems.contract import Card, Spec
from retrodict.systems.frames import FrameSystem
from retrodict.training.ema import EMA
from retrodict.training.optimisers import Optimiser
from retrodict.training.run import Run
from retrodict.training.stage import Stage
from retrodict.training.watching import CollapseAlarm
from retrodict.trajectories import Recordings, Window

CODE = "code"
WATCHED = 64  # windows by which collapse is judged


class Dynamics(nn.Module):
    """A causal transformer over the steps of a clip, (N, T, inputs) -> (N, T, outputs), T at most `steps`."""

    def __init__(self, inputs: int, outputs: int, steps: int, width: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.positions = nn.Parameter(torch.randn(steps, width) * 0.02)
        self.trunk = Transformer(width, depth, heads, dropout=dropout, init="scaled_normal", fused=True)
        self.drop, self.norm = nn.Dropout(dropout), nn.LayerNorm(width)
        for layer in (self.into, self.out):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.into(x) + self.positions[: x.shape[1]])
        out: Tensor = self.out(self.norm(self.trunk(x, causal(x.shape[1], device=x.device))))
        return out


@dataclass
class DynaMo(FrameSystem, InverseModel, ForwardModel):
    """A visual state learned from bare demonstrations, by latent inverse and forward dynamics.  (Cui et al., 2024)

    Reads camera frames `observation.images.<camera>`; needs no actions. The encoder gives a code s to each frame by itself. A
    causal transformer, the inverse model, says in a few numbers z what happened between a frame and the one before; another, the
    forward model, says the next code from the codes and the z of the step. Minimised is 1 - cos(forward(s, z), sg(s')) plus a
    penalty on covariance between the entries of s. Nothing of it is an action: `infer` gives z, `latent_width` numbers, and
    `predict` takes such z.

    The defaults are for frames of about 64 px and learn on a CPU. The paper's: a ResNet-18 on 224 px (`backbone="resnet18"`),
    40 epochs of batches of 64 windows at a rate of 1e-4, transformers of 6 layers, 6 heads and width 120.

    Attributes:
        frames: steps T of a clip; consecutive ones must differ.
        stride: rows between its steps.
        latent_action: numbers that say what happened, about as many as the true state has (paper: 8 to 64).
        covariance: weight of the penalty on covariance.
        depth, heads, hidden: of the two transformers.
        dropout: in them (paper: 0, and 0.3 for block pushing).
        teacher: momentum at the beginning of a moving average of the encoder that gives the targets (paper: 0.99 for block
            pushing, and none elsewhere, which learns faster); it climbs to 1 by a cosine.
        stop_gradient: False lets the gradient into the targets, which collapses the codes: for controls only.
        module_clip: largest norm of the gradient of encoder, inverse and forward model each.
        alarm, alarm_rank: mean standard deviation and effective rank of the codes below which a warning is given.
        health_: (step, health of the codes) through training.
    """

    card: ClassVar[Card] = Card(
        slug="dynamo",
        title="DynaMo: In-Domain Dynamics Pretraining for Visuo-Motor Control",
        authors="Cui, Pan, Iyer, Haldar, Pinto",
        year=2024,
        url="https://arxiv.org/abs/2409.12192",
        reads="clips of camera frames, without actions",
        returns="a code for each frame; what happened between two, in its own few numbers; the next code",
        claim="pretrained on demonstrations without their actions, it beats other representations for cloning behaviour",
    )

    frames: int = 5
    stride: int = 1
    latent_action: int = 8
    covariance: float = 0.04
    depth: int = 3
    heads: int = 4
    hidden: int = 96
    dropout: float = 0.0
    teacher: float | None = None
    stop_gradient: bool = True
    module_clip: float = 0.1
    alarm: float = 1e-2
    alarm_rank: float = 1.5
    steps: int = field(default=3000, kw_only=True)
    learning_rate: float = field(default=3e-4, kw_only=True)
    warmup: int = field(default=100, kw_only=True)

    health_: tuple[tuple[int, Health], ...] = field(default=(), init=False, repr=False, compare=False)

    # ---- what is read -------------------------------------------------------------------------------------------------

    @property
    def reads(self) -> Window:
        self.check_fitted()
        return self.looked_at(self.spec_, after=self.frames - 1, stride=self.stride)

    @property
    def keeps(self) -> slice:
        return slice(0, self.frames - 1)

    @property
    def latent_width(self) -> int:
        return self.latent_action * (len(self.seen(self.spec_)) if self.is_fitted else 1)

    def window(self, spec: Spec) -> Window:
        if self.frames < 2:
            raise DataError(f"dynamo learns from what happens between frames: frames is at least 2, got {self.frames}.")
        return self.looked_at(spec, after=self.frames - 1, stride=self.stride)

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        span = (self.frames - 1) * self.stride + 1
        shortest = min(recordings, key=len)
        if len(shortest) < span:
            raise DataError(
                f"dynamo reads clips that span {span} steps (frames={self.frames}, stride={self.stride}) and {shortest} has "
                f"{len(shortest)}; read fewer, or leave short episodes out."
            )
        watched = self._watched(recordings)

        def codes(net: Any) -> Tensor:
            return self.codes(net, watched.to(net["encoder"].mean.device))

        alarm = CollapseAlarm(codes, self.alarm, self.alarm_rank)
        super().learn(recordings, world, validation, replace(run, callbacks=(*run.callbacks, alarm)))
        self.health_ = tuple(alarm.history)

    def _watched(self, recordings: Recordings) -> Tensor:
        """Frames by which collapse is judged; warns where nothing moves in them."""
        spec = self._offered(recordings)
        rows = recordings.windows(self.window(spec), WATCHED, seed=self.seed, prefetch=0).at(0)
        frames = torch.stack([rows[name] for name in self.seen(spec)], 2)
        if bool((frames[:, 1:] == frames[:, :-1]).all()):
            warnings.warn(
                "nothing moves from frame to frame, so there are no dynamics to learn from and the codes will collapse; read "
                "with a larger stride, or look at the recordings.",
                stacklevel=4,
            )
        return frames[:, 0]

    # ---- how it is built ----------------------------------------------------------------------------------------------

    def build(self, spec: Spec) -> nn.ModuleDict:
        encoder = self.encoder(spec)
        if self.latent_action >= encoder.width:
            warnings.warn(
                f"what happened is said in {self.latent_action} numbers and a code has {encoder.width}: that is no bottleneck, "
                "the next code itself can be passed on.",
                stacklevel=4,
            )
        state, size = encoder.width, (self.frames, self.hidden, self.depth, self.heads, self.dropout)
        net = nn.ModuleDict(
            {
                "encoder": encoder,
                "inverse": Dynamics(state, self.latent_action, *size),
                "foresight": Dynamics(state + self.latent_action, state, *size),
            }
        )
        if self.teacher is not None:
            net["teacher"] = EMA(encoder, self._momentum, training=True)
        return net

    def _momentum(self, step: int) -> float:
        """Momentum 1 - (1 + cos(pi step / steps)) / 2 (1 - beta_0)."""
        assert self.teacher is not None
        return 1 - 0.5 * (1 + math.cos(math.pi * step / self.steps)) * (1 - self.teacher)

    def stages(self, net: Any) -> tuple[Stage, ...]:
        rate = self.scheduled(self.learning_rate)
        moved = [
            Optimiser(net[name], rate=rate, weight_decay=self.weight_decay, clip=self.module_clip)
            for name in ("encoder", "inverse", "foresight")
        ]
        after = None if self.teacher is None else lambda net, step: net["teacher"].update(step)
        return (Stage(self.steps, self.stage_loss, tuple(moved), clip=self.clip, ema=self.ema, after=after),)

    def loss(self, net: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        frames = self.views(batch).transpose(1, 2).flatten(0, 1)  # (B V, T, C, H, W): each camera by itself
        state = net["encoder"](frames)  # (B V, T, width)
        happened = net["inverse"](state)[:, 1:]  # (B V, T - 1, latent_action)
        foreseen = net["foresight"](torch.cat([state[:, :-1], happened], -1))
        target = state
        if self.teacher is not None:
            with torch.no_grad():
                target = net["teacher"](frames)
        dynamics = latent_prediction(foreseen, target[:, 1:], "cosine", stop_gradient=self.stop_gradient)
        return {"dynamics": dynamics, "covariance": self.covariance * covariance_term(state)}

    # ---- how it answers -----------------------------------------------------------------------------------------------

    def infer(self, window: Batch) -> Inferred:
        """What happened from each step of a clip (B, T, ...) to the next, as codes (B, T, latent_width) that are no actions.

        T is at most `frames`; the last step, after which nothing is seen, repeats the one before. Confidence is 1 throughout, as
        a code cannot be wrong.

        Raises NotFittedError before `fit`; DataError for clips of one step or too many, or frames of the wrong form.
        """
        state = self._states(window)
        with torch.no_grad():
            happened = self._happened(state)
        happened = torch.cat([happened, happened[:, -1:]], 1).flatten(2)
        return Inferred(happened, torch.ones(happened.shape[:2], device=happened.device))

    def predict(self, observation: Batch, actions: Tensor | None = None, horizon: int = 1, samples: int = 1) -> Prediction:
        """Codes `code` (B, samples, horizon, V width) that follow a clip (B, T, ...), given what will happen.

        Args:
            observation: frames of steps, the last being the present one.
            actions: (B, horizon, latent_width), codes such as `infer` gives. No action of a robot can stand here.
            horizon, samples: steps ahead; samples are all alike, as nothing is drawn.

        Raises NotFittedError before `fit`; DataError where codes are missing or of another width.
        """
        state = self._states(observation, least=1)[:, -(self.frames - 1) :]
        size, views = len(state), state.shape[2]
        if actions is None or tuple(actions.shape) != (size, horizon, self.latent_width):
            given = "none" if actions is None else str(list(actions.shape))
            raise DataError(
                f"dynamo foresees by codes of its own (B, horizon, {self.latent_width}) such as `infer` gives, and got {given}; "
                "its codes are no actions: fit a regression between the two on a few labelled steps."
            )
        codes = actions.to(state).view(size, horizon, views, self.latent_action)
        with torch.no_grad():
            past = self._happened(state) if state.shape[1] > 1 else codes[:, :0]
            path = []
            for step in range(horizon):
                past = torch.cat([past, codes[:, step : step + 1]], 1)[:, -(self.frames - 1) :]
                state = state[:, -past.shape[1] :]
                following = self._by_view(self.net_["foresight"], torch.cat([state, past], -1))[:, -1:]
                state = torch.cat([state, following], 1)
                path.append(following)
        values = torch.cat(path, 1).flatten(2)[:, None].expand(-1, samples, -1, -1)
        return Prediction({CODE: values}, space="embedding")

    def _states(self, window: Batch, least: int = 2) -> Tensor:
        frames = self.look(window)
        if not least <= frames.shape[1] <= self.frames:
            raise DataError(
                f"dynamo was given a clip of {frames.shape[1]} steps; between {least} and {self.frames} are expected."
            )
        with torch.no_grad():
            return self.codes(self.net_, frames)

    def _happened(self, state: Tensor) -> Tensor:
        """What happened before each step but the first, (B, T - 1, V, latent_action)."""
        return self._by_view(self.net_["inverse"], state)[:, 1:]

    def _by_view(self, model: nn.Module, x: Tensor) -> Tensor:
        said: Tensor = model(x.transpose(1, 2).flatten(0, 1))
        return said.view(len(x), x.shape[2], *said.shape[1:]).transpose(1, 2)
