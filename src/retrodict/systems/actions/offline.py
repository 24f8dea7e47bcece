"""What offline learners have in common: a policy from recorded transitions alone, whoever wrote their actions down."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from retrodict.errors import DataError
from retrodict.networks.mlp import MLP
from retrodict.roles import Batch, Policy
from retrodict.systems.actions.transitions import check_actions, cut_at_ends, reach, successors, warn_of_jumps
from retrodict.systems.contract import Spec
from retrodict.systems.gradient import GradientSystem
from retrodict.training.run import Run
from retrodict.trajectories import Episode, Feature, Recordings, Span, Window
from retrodict.trajectories.features import (
    ACTION,
    CONFIDENCE,
    INFERRED,
    NEXT_STATE,
    REWARD,
    SOURCE,
    STATE,
    TERMINATED,
    WEIGHT,
)
from retrodict.trajectories.normalise import Normaliser


@dataclass
class OfflineLearner(GradientSystem, Policy):
    """Base of policies that are learned from recorded transitions alone.

    Reads `observation.state`, `action`, `next.reward` and `next.terminated`: an episode that was cut off by a time limit goes on
    for the learner, one that ended does not, and `next.done` alone cannot tell the two apart. `next.truncated` says where a time
    limit cut off: what follows in the same recording began anew, as after an end, and a step that says both ended. Steps are
    drawn in proportion to `sample.weight` where there is one. Left out, and counted in `left_out_`, are the last steps of
    episodes that were cut off and kept no final observation, steps whose action is marked as missing, and inferred actions that
    are not sure enough.

    Attributes:
        width: units of a hidden layer.
        least_confidence: inferred actions (`label.action.source` 1) are learned from where their calibrated confidence
            `label.action.confidence` is above this; at 0 only those that are guesses are left out.
        left_out_: number of steps by the reason for which they were left out; None in a learner that was loaded.
    """

    gaps: ClassVar[tuple[str, ...]] = (ACTION, NEXT_STATE)
    mixes: ClassVar[bool] = False  # a value of some hundred has no digits to spare

    width: int = 256
    least_confidence: float = 0.0
    steps: int = field(default=30_000, kw_only=True)
    batch: int = field(default=256, kw_only=True)
    learning_rate: float = field(default=3e-4, kw_only=True)
    decay: Literal["constant", "linear", "cosine"] = field(default="constant", kw_only=True)

    left_out_: dict[str, int] | None = field(init=False, repr=False, compare=False)

    # ---- what is read -------------------------------------------------------------------------------------------------

    def window(self, spec: Spec) -> Window:
        if TERMINATED not in spec.features and "next.done" in spec.features:
            raise DataError(
                f"{self.card.slug} needs the feature {TERMINATED!r}: 'next.done' does not say whether an episode ended or a time "
                "limit cut it off, and the value of what comes after depends on it."
            )
        for name in (REWARD, TERMINATED):
            if name in spec.features and (shape := spec.features[name].shape) != (1,):
                raise DataError(
                    f"{self.card.slug} reads one number a step from {name!r}, and it has the shape {list(shape)}; make it one "
                    f"(of several rewards, their sum), and keep others under names of their own, such as '{name}.<name>'."
                )
        names = (STATE, ACTION, REWARD, TERMINATED, *([NEXT_STATE] if NEXT_STATE in spec.features else []))
        return Window(features={name: Span() for name in names})

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        check_actions(recordings, recordings.actions, self.card.slug)
        warn_of_jumps(recordings, self.card.slug)
        prepared, counts = self._usable(recordings)
        judged = None if validation is None else self._usable(validation)[0]
        super().learn(prepared, world, judged, run)
        self.left_out_ = counts

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        super().restore(tensors, about)
        self.left_out_ = None

    def prepare(self, recordings: Recordings) -> None:
        self.net_["states"].fit(np.concatenate([np.asarray(episode[STATE]) for episode in recordings]))

    def _usable(self, recordings: Recordings) -> tuple[Recordings, dict[str, int]]:
        """The recordings with successors, and with weight 0 where a step is not learned from; and how many those are."""
        made, counts, weights = successors(cut_at_ends(recordings)), dict[str, int](), list[np.ndarray]()
        for episode in made:
            weight = _flat(episode, WEIGHT, 1.0).astype(np.float32)
            for reason, wrong in self._faults(episode).items():
                counts[reason] = counts.get(reason, 0) + int((wrong & (weight > 0)).sum())
                weight[wrong] = 0
            weights.append(weight[:, None])
        if not any(weight.any() for weight in weights):
            said = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
            raise DataError(f"{self.card.slug}: no step of {made.steps} is left to learn from ({said or 'their weight is 0'}).")
        if counts["inferred with too little confidence"] > 0.05 * made.steps:
            share = counts["inferred with too little confidence"] / made.steps
            warnings.warn(
                f"{self.card.slug}: {share:.1%} of the steps are left out, as their actions are not sure.", stacklevel=4
            )
        return made.with_column(WEIGHT, weights, Feature("float32", (1,))), counts

    def _faults(self, episode: Episode) -> dict[str, np.ndarray]:
        """For every reason to leave steps out, the steps (T,) that it holds for."""
        ended = _flat(episode, TERMINATED, 0).astype(bool)
        unsure = _flat(episode, CONFIDENCE, 1.0) <= self.least_confidence
        return {
            "without a successor": ~episode.there(NEXT_STATE) & ~ended,
            "without an action": ~episode.there(ACTION),
            "inferred with too little confidence": (_flat(episode, SOURCE, 0) == INFERRED) & unsure,
        }

    # ---- how it is built ----------------------------------------------------------------------------------------------

    def scales(self, spec: Spec) -> tuple[nn.ModuleDict, int, int]:
        """The beginning of a network: what normalises states and actions; and how many numbers these have."""
        (states,) = spec.features[STATE].shape
        scaled = reach(spec.actions, self.card.slug)
        return nn.ModuleDict({"states": Normaliser((states,), name=STATE), "actions": scaled}), states, len(scaled.offset)


@dataclass
class TransitionLearner(OfflineLearner):
    """Base of those that learn from one transition at a time and act by the state alone."""

    @abstractmethod
    def decide(self, net: Any, state: Tensor) -> Tensor:
        """Actions (B, a) in [-1, 1] at normalised states (B, d)."""

    def reader(self, recordings: Recordings) -> Any:
        windows = recordings.windows(self.window(self.spec_), self.batch, order="replacement", seed=self.seed)
        return windows.resident(self.torch_device)

    def act(self, observation: Batch) -> Tensor:
        """Flat actions (B, width), the same for the same state.

        Raises NotFittedError before `fit`; DataError where `observation.state` is missing or of the wrong form.
        """
        self.check_fitted()
        state = self.checked(observation, (STATE,), time=False)[STATE]
        with torch.no_grad():
            action: Tensor = self.net_["actions"].inverse(self.decide(self.net_, self.net_["states"](state).float()))
        return action

    def reset(self, mask: Tensor | None = None) -> None:
        """Nothing is remembered."""


@dataclass(frozen=True)
class Transitions:
    """A batch of transitions in the units of the networks.

    Attributes:
        state, following: normalised, (B, d).
        action: in [-1, 1], (B, a).
        reward: (B,).
        goes_on: 0 where the episode ended with the step, else 1, (B,).
    """

    state: Tensor
    action: Tensor
    reward: Tensor
    following: Tensor
    goes_on: Tensor

    @classmethod
    def of(cls, net: Any, batch: Batch) -> Transitions:
        return cls(
            net["states"](batch[STATE][:, 0]).float(),
            net["actions"](batch[ACTION][:, 0].float()),
            batch[REWARD][:, 0, 0].float(),
            net["states"](batch[NEXT_STATE][:, 0]).float(),
            1 - batch[TERMINATED][:, 0, 0].float(),
        )


class TwinCritic(nn.Module):
    """Two action values, of which the smaller is believed: (..., d), (..., a) -> (..., 2)."""

    def __init__(self, states: int, actions: int, hidden: Sequence[int]):
        super().__init__()
        self.critics = nn.ModuleList(MLP((states + actions, *hidden, 1)) for _ in range(2))

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        x = torch.cat([state, action], -1)
        return torch.cat([critic(x) for critic in self.critics], -1)


def frozen(module: nn.Module, *inputs: Tensor) -> Tensor:
    """The module's answer, through which gradients flow to the inputs and not to its parameters."""
    answer: Tensor = functional_call(module, {name: p.detach() for name, p in module.named_parameters()}, inputs)
    return answer


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, share: float) -> None:
    """Move the parameters of `target` this share of the way to those of `source`."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), share)


def _flat(episode: Episode, name: str, default: float) -> np.ndarray:
    return np.array(episode[name]).reshape(-1) if name in episode else np.full(episode.length, default)
