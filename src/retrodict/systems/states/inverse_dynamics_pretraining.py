"""Inverse dynamics pretraining: an image encoder learned by telling actions from what they changed, for tasks not seen yet."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from retrodict.errors import DataError
from retrodict.networks.code_head import CodeHead, regressing
from retrodict.networks.heads import ActionHead
from retrodict.networks.mlp import MLP
from retrodict.roles import Batch, Inferred, InverseModel, Policy
from retrodict.systems.contract import Card, Spec
from retrodict.systems.frames import Backbone, FrameSystem
from retrodict.systems.looking import codes_of, same_actions
from retrodict.systems.supervision import recorded_actions
from retrodict.training.loop import train
from retrodict.training.optimisers import Optimiser
from retrodict.training.randomness import isolated
from retrodict.training.run import Run
from retrodict.training.stage import Stage
from retrodict.trajectories import ActionSpace, Recordings, Window
from retrodict.trajectories.features import ACTION

STILL = 0.95
"""Share of pairs in which nothing moves, above which a warning is given."""
LOOKED_AT = 20  # batches by which that is judged


class InverseNet(nn.Module):
    """Codes before and after (N, 2 width) -> actions, by mean squared error where they are continuous, and how sure that is.

    The Gaussian (or softmax) that says how sure looks at detached features, so that it teaches the encoder nothing.
    """

    def __init__(self, width: int, space: ActionSpace, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.trunk = MLP((2 * width, *hidden), dropout=dropout, last_activation="relu")
        self.drop = nn.Dropout(dropout)
        self.action = ActionHead(space, hidden[-1], regressing(space))
        self.sure = ActionHead(space, hidden[-1])


@dataclass
class InverseDynamicsPretraining(FrameSystem, InverseModel, Policy):
    """An encoder learned by inverse dynamics on many tasks, for a new one of few demonstrations.  (Brandfonbrener et al., 2023)

    Reads camera frames `observation.images.<camera>` and learns from `action`. Each frame is encoded by itself, and a perceptron
    says from the codes before and after what was done between: mean |pi(phi(o_t), phi(o_t+k)) - a_t|^2, the gradient flowing
    through both. Which task an episode had is nowhere told; behaviour cloning must guess it, inverse dynamics need not.

    As a policy it first does what the pretraining episodes did, by a head on detached codes; `adapt` learns that head anew from a
    few demonstrations of one task, the encoder staying as it is.

    The defaults are those of a CPU. The paper's: 84 or 120 px, channels (32, 64, 128, 256), strides (2, 2, 1, 1), 64 keypoints,
    width 64, hidden layers (256, 256), batches of 256, 10,000 steps of Adam at 1e-3.

    Attributes:
        k: steps from before to after.
        say: `first` says the first of the k actions between, `all` says all of them.
        frames: steps of the clips that training reads, more than k; every pair in them is learned from.
        hidden: widths of the inverse model.
        policy_hidden: widths of the policy.
        dropout: in both.
        adapt_steps, adapt_rate: of `adapt`, by AdamW in batches of 64.
    """

    card: ClassVar[Card] = Card(
        slug="inverse-dynamics-pretraining",
        title="Inverse Dynamics Pretraining Learns Good Representations for Multitask Imitation",
        authors="Brandfonbrener, Nachum, Bruna",
        year=2023,
        url="https://arxiv.org/abs/2305.16985",
        reads="camera frames, and actions",
        returns="a code for each frame; the action between two; after adapting, what to do",
        claim="where the task is hidden, predicting actions from their effects gives a better encoder than cloning behaviour",
    )
    gaps: ClassVar[tuple[str, ...]] = (ACTION,)

    backbone: Backbone = "keypoints"
    channels: tuple[int, ...] = (16, 32, 32)
    strides: tuple[int, ...] = (2, 2, 1)
    keypoints: int = 32
    width: int = 32
    k: int = 1
    say: Literal["first", "all"] = "first"
    frames: int = 4
    hidden: tuple[int, ...] = (128, 128)
    policy_hidden: tuple[int, ...] = (64, 64)
    dropout: float = 0.1
    adapt_steps: int = 500
    adapt_rate: float = 1e-3
    steps: int = field(default=1500, kw_only=True)
    batch: int = field(default=48, kw_only=True)
    learning_rate: float = field(default=2e-3, kw_only=True)
    warmup: int = field(default=400, kw_only=True)

    # ---- what is read -------------------------------------------------------------------------------------------------

    def inputs(self, recordings: Recordings) -> tuple[str, ...]:
        if ACTION not in recordings.features:
            raise DataError(
                f"{self.card.slug} learns from {ACTION!r} and these recordings have none; dynamo learns without actions."
            )
        return super().inputs(recordings)

    def features(self, recordings: Recordings) -> tuple[str, ...]:
        return (*super().features(recordings), ACTION)

    def window(self, spec: Spec) -> Window:
        if not 1 <= self.k < self.frames:
            raise DataError(f"{self.card.slug} reads clips of more than k >= 1 steps; got k={self.k} and frames={self.frames}.")
        return self.looked_at(spec, after=self.frames - 1, beside=(ACTION,))

    @property
    def reads(self) -> Window:
        self.check_fitted()
        return self.looked_at(self.spec_, after=self.frames - 1)

    @property
    def keeps(self) -> slice:
        return slice(0, self.frames - self.k)

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        short = [str(episode) for episode in recordings if len(episode) < self.frames]
        if short:
            raise DataError(
                f"{self.card.slug} reads clips of {self.frames} steps; {len(short)} episode(s) are shorter, such as {short[0]}: "
                "read fewer frames, or leave them out."
            )
        super().learn(recordings, world, validation, run)

    # ---- how it is built ----------------------------------------------------------------------------------------------

    def build(self, spec: Spec) -> nn.ModuleDict:
        encoder, space = self.encoder(spec), self._space(spec)
        width = encoder.width * len(self.seen(spec))
        said = space if self.say == "first" else _repeated(space, self.k)
        return nn.ModuleDict(
            {
                "encoder": encoder,
                "inverse": InverseNet(width, said, self.hidden, self.dropout),
                "policy": CodeHead(width, space, self.policy_hidden, self.dropout),
            }
        )

    def _space(self, spec: Spec) -> ActionSpace:
        return spec.actions if spec.actions is not None else ActionSpace.unknown(spec.features[ACTION])

    def prepare(self, recordings: Recordings) -> None:
        actions = recorded_actions(recordings, self._space(self.spec_), self.card.slug)
        flat = [i for i, spread in enumerate(actions.std(0)) if spread == 0]
        if flat:
            names = ", ".join(self._space(self.spec_).names[i] for i in flat)
            warnings.warn(f"{self.card.slug}: {names} never changes in these recordings and cannot be learned.", stacklevel=4)
        said = actions if self.say == "first" else actions.repeat(self.k, 0).reshape(len(actions), -1)
        inverse = self.net_["inverse"]
        inverse.action.fit_scale(said)
        inverse.sure.fit_scale(said)
        self.net_["policy"].head.fit_scale(actions)
        self._warn_of_stillness(recordings)

    def _warn_of_stillness(self, recordings: Recordings) -> None:
        windows, still = recordings.windows(self.window(self.spec_), self.batch, seed=self.seed, prefetch=0), []
        for step in range(min(LOOKED_AT, len(windows))):
            frames = self.views(windows.at(step))
            still.append((frames[:, self.k :] == frames[:, : -self.k]).flatten(2).all(-1).float().mean())
        if float(torch.stack(still).mean()) > STILL:
            warnings.warn(
                f"{self.card.slug}: in more than {STILL:.0%} of the pairs no motion between frames; check the frame rate.",
                stacklevel=4,
            )

    def loss(self, net: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        codes = self.codes(net, self.views(batch)).flatten(2)  # (B, T, width)
        action = batch[ACTION].float()
        pairs = codes.shape[1] - self.k
        between = [action[:, i : i + pairs] for i in range(self.k if self.say == "all" else 1)]
        features = self._between(net, codes)
        inverse = net["inverse"]
        known = batch.get(f"mask.{ACTION}", torch.ones_like(batch["mask"]))
        mask = torch.stack([known[:, i : i + pairs] for i in range(len(between))]).all(0)
        terms = inverse.action(features).losses(torch.cat(between, -1), mask)
        sure = inverse.sure(features.detach()).losses(torch.cat(between, -1), mask)
        acted = net["policy"](codes.detach()).losses(action[:, :, None], known[..., None])
        return {
            **{f"inverse.{name}": value for name, value in terms.items()},
            **{f"sure.{name}": value for name, value in sure.items()},
            **{f"policy.{name}": value for name, value in acted.items()},
        }

    def _between(self, net: Any, codes: Tensor) -> Tensor:
        """What the inverse model makes of each pair k steps apart, (B, T - k, hidden)."""
        inverse = net["inverse"]
        features: Tensor = inverse.drop(inverse.trunk(torch.cat([codes[:, : -self.k], codes[:, self.k :]], -1)))
        return features

    # ---- how it answers -----------------------------------------------------------------------------------------------

    def infer(self, window: Batch) -> Inferred:
        """Actions at every step of a clip (B, T, ...) of more than k steps; the last k, whose outcome is not seen, repeat.

        Raises NotFittedError before `fit`; DataError for clips that are too short, or frames of the wrong form.
        """
        frames = self.look(window)
        if frames.shape[1] <= self.k:
            raise DataError(f"{self.card.slug} was given clips of {frames.shape[1]} steps; it looks {self.k} ahead.")
        with torch.no_grad():
            features = self._between(self.net_, self.codes(self.net_, frames).flatten(2))
            width = self._space(self.spec_).width
            action = self.net_["inverse"].action(features).mode()[..., :width]
            sure = self.net_["inverse"].sure(features).confidence()
        last = torch.arange(frames.shape[1]).clamp(max=action.shape[1] - 1)
        return Inferred(action[:, last], sure[:, last])

    def adapt(self, recordings: Recordings) -> Self:
        """Learn the policy anew from a few demonstrations of one task, the encoder staying as it is; returns self.

        Raises NotFittedError before `fit`; DataError where the demonstrations have other cameras or actions.
        """
        self.check_fitted()
        space, policy = self._space(self.spec_), self.net_["policy"]
        few = self.admit(recordings)
        same_actions(space.width, few, self.card.slug)
        codes, actions = codes_of(self, few, ACTION)
        policy.fit_scale(codes, actions.numpy())
        with isolated(self.seed):
            for module in policy.modules():
                if isinstance(module, nn.Linear):
                    module.reset_parameters()

        def at(step: int) -> dict[str, Tensor]:
            rows = torch.randint(len(codes), (64,), generator=torch.Generator().manual_seed(self.seed * 1_000_003 + step))
            return {"code": codes[rows], ACTION: actions[rows, None].float()}

        def loss(net: Any, batch: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
            losses: dict[str, Tensor] = net(batch["code"]).losses(batch[ACTION])
            return losses

        stage = Stage(self.adapt_steps, loss, (Optimiser(rate=self.adapt_rate, weight_decay=0.01),), name="adapt")
        train(policy, at, (stage,), Run(progress=False), seed=self.seed, device=self.torch_device)
        self.taught_by(few)
        return self

    def act(self, observation: Batch) -> Tensor:
        """Flat actions (B, width).

        Raises NotFittedError before `fit`; DataError where a camera is missing or its frames are of the wrong form.
        """
        self.check_fitted()
        names = self.seen(self.spec_)
        codes = self.encode({name: observation[name][:, None] for name in names if name in observation} or observation)
        with torch.no_grad():
            action: Tensor = self.net_["policy"].act(codes)[:, 0, 0]
        return action

    def reset(self, mask: Tensor | None = None) -> None:
        """Nothing is remembered."""


def _repeated(space: ActionSpace, times: int) -> ActionSpace:
    """A space of `times` actions, one after the other."""
    return ActionSpace({f"{name}+{i}": part for i in range(times) for name, part in space.parts.items()})
