"""CQL: a critic that thinks little of actions that were not taken."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from retrodict.networks.distributions import TanhNormal, squashed_deviation
from retrodict.networks.mlp import MLP
from retrodict.roles import Batch
from retrodict.systems.actions.offline import TransitionLearner, Transitions, TwinCritic, follow, frozen
from retrodict.systems.contract import Card, Spec
from retrodict.training.optimisers import Optimiser
from retrodict.training.stage import Stage


@dataclass
class CQL(TransitionLearner):
    """Conservative Q-learning on soft actor-critic.  (Kumar et al., 2020, the variant CQL(H) with importance sampling)

    Beside the error of the next state's value, each critic makes small how far the log-sum-exp of its values over all actions
    lies above its value of the recorded one. The actor is a squashed Gaussian whose entropy is held at minus the number of
    actions.

    Attributes:
        layers: hidden layers of actor and critics.
        conservatism: weight of the conservative term.
        samples: actions drawn from each of: everywhere alike, the policy here, the policy at the next state.
        actor_rate: learning rate of the actor; `learning_rate` is that of the critics and the temperature.
        discount: of later rewards.
        rate_of_targets: share by which the delayed critics follow.
    """

    card: ClassVar[Card] = Card(
        slug="cql",
        title="Conservative Q-Learning for Offline Reinforcement Learning",
        authors="Kumar, Zhou, Tucker, Levine",
        year=2020,
        url="https://arxiv.org/abs/2006.04779",
        reads="states, continuous actions (recorded or inferred), rewards and ends",
        returns="the action to take",
        claim="values that are lower bounds keep a policy from believing in actions that nobody tried",
        baseline=True,
    )

    layers: int = 3
    conservatism: float = 5.0
    samples: int = 10
    actor_rate: float = 1e-4
    discount: float = 0.99
    rate_of_targets: float = 0.005

    def build(self, spec: Spec) -> nn.ModuleDict:
        net, states, actions = self.scales(spec)
        hidden = [self.width] * self.layers
        net["actor"] = MLP((states, *hidden, 2 * actions))
        net["critic"] = TwinCritic(states, actions, hidden)
        net["critic_target"] = copy.deepcopy(net["critic"])
        net["temperature"] = nn.ParameterDict({"log": nn.Parameter(torch.zeros(()))})
        return net

    def stages(self, net: Any) -> tuple[Stage, ...]:
        rates = {"critic": self.learning_rate, "actor": self.actor_rate}
        parts = [Optimiser(net[name], "adam", self.scheduled(rate), self.weight_decay) for name, rate in rates.items()]
        parts.append(Optimiser(net["temperature"], "adam", self.scheduled(self.learning_rate)))
        return (Stage(self.steps, self.stage_loss, tuple(parts), clip=self.clip, ema=self.ema, after=self._follow),)

    def loss(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        step = Transitions.of(net, batch)
        policy, later = self._policy(net, step.state), self._policy(net, step.following)
        with torch.no_grad():
            action, _ = later.draw()
            value = net["critic_target"](step.following, action[0]).amin(-1)
            target = step.reward + self.discount * step.goes_on * value
        q = net["critic"](step.state, step.action)
        conservative = (self._everywhere(net, step, policy, later) - q).mean(0).sum()

        action, log_prob = (drawn[0] for drawn in policy.draw())
        alpha = net["temperature"]["log"].exp()
        worth = frozen(net["critic"], step.state, action).amin(-1)
        return {
            "critic": ((q - target[:, None]) ** 2).sum(-1).mean(),
            "conservative": self.conservatism * conservative,
            "actor": (alpha.detach() * log_prob - worth).mean(),
            "temperature": alpha * (action.shape[-1] - log_prob.detach().mean()),
        }

    def _everywhere(self, net: Any, step: Transitions, policy: TanhNormal, later: TanhNormal) -> Tensor:
        """Log of the integral of exp Q over all actions (B, 2), estimated from draws weighed by their density."""
        n, width = self.samples, step.action.shape[-1]
        with torch.no_grad():
            alike = torch.rand(n, *step.action.shape, device=step.action.device) * 2 - 1
            drawn = [(alike, alike.new_full(alike.shape[:-1], -width * math.log(2))), policy.draw(n), later.draw(n)]
            actions, densities = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        values = net["critic"](step.state.expand(len(actions), -1, -1), actions)
        everywhere: Tensor = (values - densities[..., None]).logsumexp(0)
        return everywhere

    def _policy(self, net: Any, state: Tensor) -> TanhNormal:
        mean, raw = net["actor"](state).chunk(2, -1)
        return TanhNormal(mean, squashed_deviation(raw), mean.new_zeros(mean.shape[-1]), -1.0, 1.0)

    def _follow(self, net: Any, step: int) -> None:
        follow(net["critic_target"], net["critic"], self.rate_of_targets)

    def decide(self, net: Any, state: Tensor) -> Tensor:
        return self._policy(net, state).mode()
