"""SS-ORL: learn what was done from a few labelled trajectories, even bad ones, and label all others for offline learning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from retrodict.errors import DataError
from retrodict.networks.distributions import TanhNormal, mixed_moments, squashed_deviation
from retrodict.networks.mlp import MLP
from retrodict.objectives.masked import masked_mean
from retrodict.roles import Batch, Inferred, InverseModel
from retrodict.systems.actions.transitions import check_actions, cut_at_ends, reach, warn_of_jumps
from retrodict.systems.contract import Card, Spec, refuse_nan
from retrodict.systems.gradient import GradientSystem
from retrodict.training.run import Run
from retrodict.training.stage import Stage
from retrodict.training.validation import Measure
from retrodict.trajectories import Recordings, Span, Window
from retrodict.trajectories.features import ACTION, NEXT_STATE, STATE
from retrodict.trajectories.normalise import Normaliser


class Inverse(nn.Module):
    """p(a | s_t-k, ..., s_t, s_t+1) as a Gaussian before the squashing, for each member of an ensemble."""

    def __init__(self, states: int, context: int, reach: Normaliser, width: int, depth: int, dropout: float, ensemble: int):
        super().__init__()
        self.states, self.changes, self.actions = Normaliser((states,)), Normaliser((states,)), reach
        sizes = (context * states, *[width] * depth, len(reach.offset))
        self.mean, self.deviation = (MLP(sizes, output_dropout=dropout, init="orthogonal", members=ensemble) for _ in range(2))
        self.ensemble = ensemble

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation (B, ensemble, actions) from states (B, context, d)."""
        present, changes = self.states(seen[:, -2]), self.changes(seen.diff(dim=1))
        x = torch.cat([present, changes.flatten(1)], -1).float()[:, None].expand(-1, self.ensemble, -1)
        return self.mean(x), squashed_deviation(self.deviation(x))


@dataclass
class SSORL(GradientSystem, InverseModel):
    """The inverse model of semi-supervised offline reinforcement learning.  (Zheng et al., 2023)

    Reads `observation.state`; learns from `action` on the episodes that have it, however badly they went, while states are
    normalised over all episodes. Where the recordings hold `next.observation.state`, that is where a step led; otherwise it is
    the row that follows, and the last step of an episode, which has none, is left out of the training and labelled as a guess;
    so is a step that is said to end an episode within a recording.

    A mean and a deviation come from two networks that look at `past` states before the step, the state, and the one after it; a
    tanh brings the Gaussian into the range of the actions, and the likelihood of the recorded action is maximised. The networks
    are given the present state and the changes from each state to the next, both normalised: the same numbers as the states
    side by side, which the paper gives them, but an action shows in the last digits of those. Before the start of an episode its
    first state is repeated. The action that is answered is the squashed mean; the confidence is the
    probability that the truth lies within `tolerance` of it, and `infer` gives the variance before the squashing beside it.

    A share `holdout` of the episodes with actions is put aside to stop training by; of a single one, that share of its steps, the
    last ones.

    With the labels (`retrodict.label`), any offline learner can be fitted to the union: `TD3BC`, `CQL`, `DecisionTransformer`.
    Labels carry the confidence, calibrated, and no variance: `least_confidence` of a learner is its cap on uncertainty.

    Attributes:
        past: states looked at before the present one (paper: 1, better than 0 and than many).
        width: units of a hidden layer (paper: 1024).
        depth: hidden layers.
        dropout: before the last layer.
        ensemble: members, whose mixture answers (paper: 1).
        margin: share of half the range by which recorded actions are kept from its ends, where the Gaussian would be infinite.
        tolerance: share of its range by which a value may be off and still count as right, for the confidence.
    """

    card: ClassVar[Card] = Card(
        slug="ss-orl",
        title="Semi-Supervised Offline Reinforcement Learning with Action-Free Trajectories",
        authors="Zheng, Henaff, Amos, Grover",
        year=2023,
        url="https://arxiv.org/abs/2210.06518",
        reads="states; continuous actions on some episodes, which may be bad ones",
        returns="the action of every step with its confidence, for offline learners to go by",
        claim="with actions on 10 % of the trajectories, even of the worst, offline learners match those that see all actions",
    )
    gaps: ClassVar[tuple[str, ...]] = (ACTION, NEXT_STATE)
    mixes: ClassVar[bool] = False  # neighbouring states differ in their last digits

    past: int = 1
    width: int = 256
    depth: int = 2
    dropout: float = 0.1
    ensemble: int = 1
    margin: float = 1e-3
    tolerance: float = 0.05
    steps: int = field(default=10_000, kw_only=True)
    batch: int = field(default=256, kw_only=True)
    learning_rate: float = field(default=3e-4, kw_only=True)
    decay: Literal["constant", "linear", "cosine"] = field(default="constant", kw_only=True)
    holdout: float = field(default=0.1, kw_only=True)
    patience: int = field(default=20, kw_only=True)

    _all: Recordings | None = field(default=None, init=False, repr=False, compare=False)

    # ---- what is read -------------------------------------------------------------------------------------------------

    @property
    def reads(self) -> Window:
        self.check_fitted()
        return self._around(self.spec_, learning=False)

    @property
    def keeps(self) -> slice:
        return slice(self.past, self.past + 1)

    def window(self, spec: Spec) -> Window:
        if self.past < 0 or self.ensemble < 1:
            raise DataError(f"ss-orl looks at 0 or more past states with 1 or more members, got {self.past} and {self.ensemble}.")
        if ACTION not in spec.features:
            raise DataError(f"ss-orl learns from episodes with 'action'; these recordings have {', '.join(spec.features)}.")
        return self._around(spec, learning=True)

    def _around(self, spec: Spec, *, learning: bool) -> Window:
        """The states before a step, its own, and where it led; every episode counts for the states, so `action` may be absent."""
        acted = {ACTION: Span()} if learning else {}
        if NEXT_STATE in spec.features:
            return Window(self.past, 0, {STATE: None, NEXT_STATE: Span(), **acted}, optional=tuple(acted))
        return Window(self.past, 1, {STATE: None, **acted}, optional=tuple(acted), edge=("replicate", "drop"))

    # ---- how it is built ----------------------------------------------------------------------------------------------

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        recordings, validation = cut_at_ends(recordings), None if validation is None else cut_at_ends(validation)
        acting = recordings.having(ACTION)
        if all(episode.length < 2 for episode in recordings) and NEXT_STATE not in recordings.features:
            raise DataError("ss-orl: no episode has two steps, so that none shows where an action led; give longer ones.")
        refuse_nan(acting, ACTION)
        check_actions(acting, acting.actions, self.card.slug)
        warn_of_jumps(recordings, self.card.slug)
        self._all = recordings  # states are normalised over all episodes, and learned from only where there are actions
        if validation is None and self.holdout > 0 and len(acting) == 1:
            acting, validation = self._cut_in_time(acting)
        super().learn(acting, world, validation, run)
        self._all = None

    def _cut_in_time(self, acting: Recordings) -> tuple[Recordings, Recordings]:
        """The beginning of the only episode with actions, and its end to stop training by: `holdout` of it, from two steps."""
        steps = acting.steps
        held = max(round(self.holdout * steps), 2)
        if steps - held < 2:
            raise DataError(
                f"ss-orl: the only episode with 'action' has {steps} steps, too few to learn from and to stop training by; give "
                "more of them, or fit with holdout=0."
            )
        warnings.warn(
            f"ss-orl: only one episode carries 'action'; its last {held} steps of {steps} are put aside to stop training by, "
            "which resemble the others: give validation= or a second episode with actions where you have one.",
            stacklevel=4,
        )
        return acting.of([acting[0].part(0, steps - held)]), acting.of([acting[0].part(steps - held, steps)])

    def build(self, spec: Spec) -> Inverse:
        (states,) = spec.features[STATE].shape
        scaled = reach(spec.actions, self.card.slug)
        return Inverse(states, self.past + 2, scaled, self.width, self.depth, self.dropout, self.ensemble)

    def prepare(self, recordings: Recordings) -> None:
        assert self._all is not None
        states = [np.asarray(episode[STATE], np.float64) for episode in self._all]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what stands still in a state (a goal) tells nothing and does no harm
            self.net_.states.fit(np.concatenate(states))
            self.net_.changes.fit(np.concatenate([np.diff(s, axis=0) for s in states]))

    def reader(self, recordings: Recordings) -> Callable[[int], dict[str, Tensor]]:
        return recordings.windows(self.window(self.spec_), self.batch, seed=self.seed).resident(self.torch_device)

    def loss(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        mean, deviation = net(self._seen(batch))
        end = 1 - self.margin
        action = net.actions(batch[ACTION].float()).clamp(-end, end)
        surprise = -self._squashed(mean, deviation).log_prob(action).mean(-1)
        return {"action": masked_mean(surprise, self._there(batch, surprise))}

    def measure(self, stage: Stage, validation: Recordings) -> Measure:
        """The squared error of the answers on held-out episodes, which are few: their likelihood turns long before, as deviations
        that were learned on the others grow too small for them.
        """
        return super().measure(replace(stage, loss=self._error), validation)

    def _error(self, net: Any, batch: Batch, step: int) -> dict[str, Tensor]:
        off = mixed_moments(*net(self._seen(batch)))[0].tanh() - net.actions(batch[ACTION][:, 0].float())
        return {"error": masked_mean(off.square().mean(-1), self._there(batch, off[:, 0]))}

    def _there(self, batch: Batch, of: Tensor) -> Tensor:
        """Which windows (B,) count: not steps marked as missing, nor the last one of an episode that kept no successor."""
        there = torch.ones_like(of, dtype=torch.bool)
        for name in (ACTION, NEXT_STATE):
            if f"mask.{name}" in batch:
                there = there & batch[f"mask.{name}"].reshape(of.shape)
        return there

    # ---- how it answers -----------------------------------------------------------------------------------------------

    def infer(self, window: Batch) -> Inferred:
        """The action at the anchor of each window, repeated at every step of it (`keeps` says which one counts).

        Raises NotFittedError before `fit`; DataError when a feature is missing or of the wrong form.
        """
        self.check_fitted()
        seen = self.checked(window, [name for name in (STATE, NEXT_STATE) if name in self.spec_.features])
        states = self._seen(seen)
        if states.shape[1] != self.past + 2:
            raise DataError(f"ss-orl looks at {self.past + 2} states, it was given {states.shape[1]}.")
        with torch.no_grad():
            mean, deviation = mixed_moments(*self.net_(states))
            said = self._squashed(mean, deviation)
            steps = seen[STATE].shape[1]
            action, confidence, variance = (
                value[:, None].expand(-1, steps, *value.shape[1:])
                for value in (self.net_.actions.inverse(said.mode()), said.confidence(), (deviation**2).mean(-1))
            )
        return Inferred(action, confidence, {"variance": variance})

    def _seen(self, batch: Batch) -> Tensor:
        """States (B, past + 2, d): the past, the present, and where it led."""
        return torch.cat([batch[STATE], batch[NEXT_STATE]], 1) if NEXT_STATE in self.spec_.features else batch[STATE]

    def _squashed(self, mean: Tensor, deviation: Tensor) -> TanhNormal:
        return TanhNormal(mean, deviation, mean.new_full((mean.shape[-1],), 2 * self.tolerance), -1.0, 1.0)
