"""TD3+BC: the smallest thing that makes an actor-critic learn offline is to stay near what was done."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrodict.networks.mlp import MLP
from retrodict.roles import Batch
from retrodict.systems.actions.offline import TransitionLearner, Transitions, TwinCritic, follow, frozen
from retrodict.systems.contract import Card, Spec
from retrodict.training.optimisers import Optimiser
from retrodict.training.stage import Stage


@dataclass
class TD3BC(TransitionLearner):
    """Twin delayed deterministic policy gradients with a term of behaviour cloning.  (Fujimoto and Gu, 2021)

    Two critics learn the smaller of their delayed copies' values at the next state, at the delayed actor's action and some
    noise. Every other step the actor climbs Q_1, brought to the scale of `greed`, and stays near the recorded action. Both move
    from the same weights: the actor climbs the critic as it was before the step, where the paper has it after.

    Attributes:
        greed: the weight of the value (alpha of the paper); 0 is behaviour cloning.
        discount: of later rewards.
        rate_of_targets: share by which the delayed copies follow.
        noise, noise_clip: deviation and bound of the noise on the target's action, actions being in [-1, 1].
        delay: critic steps for each step of actor and delayed copies.
    """

    card: ClassVar[Card] = Card(
        slug="td3-bc",
        title="A Minimalist Approach to Offline Reinforcement Learning",
        authors="Fujimoto, Gu",
        year=2021,
        url="https://arxiv.org/abs/2106.06860",
        reads="states, continuous actions (recorded or inferred), rewards and ends",
        returns="the action to take",
        claim="TD3 with normalised states and a term of behaviour cloning matches far heavier offline learners",
        baseline=True,
    )

    greed: float = 2.5
    discount: float = 0.99
    rate_of_targets: float = 0.005
    noise: float = 0.2
    noise_clip: float = 0.5
    delay: int = 2

    def build(self, spec: Spec) -> nn.ModuleDict:
        net, states, actions = self.scales(spec)
        net["actor"] = MLP((states, self.width, self.width, actions), last_activation="tanh")
        net["critic"] = TwinCritic(states, actions, (self.width, self.width))
        for name in ("actor", "critic"):
            net[f"{name}_target"] = copy.deepcopy(net[name])
        return net

    def stages(self, net: Any) -> tuple[Stage, ...]:
        rate = self.scheduled(self.learning_rate)
        parts = (Optimiser(net[name], "adam", rate, self.weight_decay) for name in ("critic", "actor"))
        return (Stage(self.steps, self.stage_loss, tuple(parts), clip=self.clip, ema=self.ema, after=self._follow),)

    def loss(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        step = Transitions.of(net, batch)
        with torch.no_grad():
            noise = (torch.randn_like(step.action) * self.noise).clamp(-self.noise_clip, self.noise_clip)
            action = (net["actor_target"](step.following) + noise).clamp(-1, 1)
            value = net["critic_target"](step.following, action).amin(-1)
            target = step.reward + self.discount * step.goes_on * value
        off = net["critic"](step.state, step.action) - target[:, None]
        terms = {"critic": (off**2).sum(-1).mean(), "actor": off.new_zeros(())}
        if self.now % self.delay == 0:
            action = net["actor"](step.state)
            q = frozen(net["critic"].critics[0], torch.cat([step.state, action], -1))
            terms["actor"] = F.mse_loss(action, step.action) - self.greed * q.mean() / q.abs().mean().detach()
        return terms

    def _follow(self, net: Any, step: int) -> None:
        if step % self.delay == 0:
            for name in ("actor", "critic"):
                follow(net[f"{name}_target"], net[name], self.rate_of_targets)

    def decide(self, net: Any, state: Tensor) -> Tensor:
        action: Tensor = net["actor"](state)
        return action
