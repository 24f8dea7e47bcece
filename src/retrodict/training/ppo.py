"""Proximal policy optimisation (Schulman et al., 2017), with several critics and a prior to stay near to.

Several rewards have a critic each, with their own discount; their advantages are normalised one by one and then weighted. In
place of an entropy bonus, KL(prior || policy) can hold a policy that was cloned first to what it was (Baker et al., 2022).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from retrodict.errors import DataError
from retrodict.roles import Batch
from retrodict.training.actor import State
from retrodict.training.randomness import mixed
from retrodict.training.schedules import Scalar
from retrodict.worlds import BatchedWorld

Reward = Callable[[Batch, Tensor, Batch], Tensor]
"""Observation, action and next observation of B worlds -> rewards (B, n)."""


@dataclass(frozen=True)
class Settings:
    """How to learn. What may change (`Scalar`) is a number or a function of the iteration.

    Attributes:
        steps: decisions per world between two updates.
        epochs: passes over them in an update, each in `minibatches` parts.
        segment: steps that are learned from as one sequence, from the state in which they were played; 1 without memory.
        clip: how far the ratio of new to old probability counts.
        value_clip: how far a value may move in one update, None without bound.
        value_weight: of the critics' squared error.
        entropy: weight of the entropy bonus; not used beside a prior.
        prior: weight rho of KL(prior || policy); VPT lets it decay from 0.2 by 0.9995 an iteration.
        gammas, lambdas, scales, weights: for each critic its discount, trace, factor on its reward, and say in the update.
        learning_rate: of Adam.
        gradient_clip: largest norm of the gradient.
    """

    steps: int = 128
    epochs: int = 4
    minibatches: int = 4
    segment: int = 1
    clip: float = 0.2
    value_clip: float | None = None
    value_weight: float = 0.5
    entropy: Scalar = 0.01
    prior: Scalar = field(default=lambda iteration: 0.2 * 0.9995**iteration)
    gammas: tuple[float, ...] = (0.99,)
    lambdas: tuple[float, ...] = (0.95,)
    scales: tuple[float, ...] = (1.0,)
    weights: tuple[float, ...] = (1.0,)
    learning_rate: Scalar = 3e-4
    gradient_clip: float = 0.5

    def __post_init__(self) -> None:
        if len({len(values) for values in (self.gammas, self.lambdas, self.scales, self.weights)}) != 1:
            raise DataError("gammas, lambdas, scales and weights need one entry for each critic.")
        if self.steps % self.segment:
            raise DataError(f"steps must be a multiple of segment, got {self.steps} and {self.segment}.")


def advantages(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    ended: Tensor,
    gamma: Tensor,
    trace: Tensor,
) -> Tensor:
    """Generalised advantage estimates (Schulman et al., 2016), (T, B, n).

    An episode that terminated is worth nothing afterwards; one that was truncated is worth what its last observation promises.

    Args:
        reward, value: (T, B, n).
        next_value: (T, B, n), value of the observation to which the step led, before another episode began there.
        terminated: (T, B), the step came to an end in itself.
        ended: (T, B), the step was an episode's last, for whatever reason.
        gamma, trace: (n,), discount and lambda of each critic.
    """
    surprise = reward + gamma * next_value * ~terminated[..., None] - value
    carried = gamma * trace * ~ended[..., None]
    out = torch.empty_like(surprise)
    later = torch.zeros_like(surprise[0])
    for t in reversed(range(len(surprise))):
        later = surprise[t] + carried[t] * later
        out[t] = later
    return out


@dataclass
class Experience:
    """What was played, cut into S segments of L steps: tensors (S, L, ...), states at the start of each segment (S, ...)."""

    observation: dict[str, Tensor]
    first: Tensor
    action: Tensor
    log_prob: Tensor
    value: Tensor
    advantage: Tensor  # normalised and weighted over the critics, (S, L)
    target: Tensor  # returns that the critics should have expected, (S, L, n)
    state: State
    prior_state: State

    def take(self, rows: Tensor) -> Experience:
        """The segments `rows`."""
        chosen: dict[str, Any] = {
            name: {key: values[rows] for key, values in part.items()} if isinstance(part, dict) else part[rows]
            for name, part in vars(self).items()
        }
        return Experience(**chosen)


class PPO:
    """Learns by acting; each step of the iteration plays `steps` decisions in every world and then updates the network.

    The network is changed in place. With one seed, the same network and the same worlds a run repeats itself to the bit on a CPU.
    To begin from a cloned policy as VPT does, pass it as `prior` too, and give the network critics whose last layer is zero.

    Args:
        net: an `Actor`.
        world: the worlds to act in.
        settings: how to learn.
        reward: rewards in place of the world's, such as a discriminator's.
        prior: an `Actor` to stay near to; it is copied and frozen.
        seed: of draws, shuffling and the episodes that are met.

    Raises DataError when the rewards are not as many as the critics.
    """

    def __init__(
        self,
        net: nn.Module,
        world: BatchedWorld,
        settings: Settings,
        *,
        reward: Reward | None = None,
        prior: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        self.net, self.world, self.settings, self.reward, self.seed = net, world, settings, reward, seed
        self.prior = copy.deepcopy(prior).eval().requires_grad_(False) if prior is not None else None
        self.device = next(net.parameters()).device
        self.generator = torch.Generator(self.device).manual_seed(mixed(seed, 0))
        self.optimiser = torch.optim.Adam(net.parameters(), lr=_at(settings.learning_rate, 0), eps=1e-5)
        self.gamma, self.trace, self.scale, self.weight = (
            torch.tensor(values, device=self.device)
            for values in (settings.gammas, settings.lambdas, settings.scales, settings.weights)
        )
        self.iteration = self.decisions = self._episodes = 0
        self._observation: Batch = {}
        self._finished: list[Tensor] = []

    def run(self, iterations: int) -> Iterator[dict[str, float]]:
        """Learn for so many iterations and say after each how it went: losses, and the mean `return` of `episodes` that ended."""
        if not self._observation:
            self._begin()
        for _ in range(iterations):
            self._finished = []
            experience = self._play()
            log = self._update(experience)
            self.iteration += 1
            self.decisions += self.settings.steps * self.world.size
            log["episodes"] = len(self._finished)
            if self._finished:
                log["return"] = float(torch.stack(self._finished).sum(1).mean())
            yield log

    # ---- playing ------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._observation = self.world.reset(self._seeds(self.world.size))
        self._first = torch.ones(self.world.size, dtype=torch.bool, device=self.device)
        self._state = self.net.initial(self.world.size)  # type: ignore[operator]
        self._prior_state = self.prior.initial(self.world.size) if self.prior is not None else {}  # type: ignore[operator]
        self._sums = torch.zeros(self.world.size, len(self.world.rewards))

    def _seeds(self, count: int) -> list[int]:
        """Seeds of the next episodes."""
        self._episodes += count
        return [mixed(self.seed, 1, number) % 2**31 for number in range(self._episodes - count, self._episodes)]

    def _look(self, net: nn.Module, observation: Batch, first: Tensor, state: State) -> tuple[Any, Tensor, State]:
        """One step of a network: the distribution over (B, 1) steps, values (B, n), and the state after it."""
        sequence = {name: values[:, None].to(self.device) for name, values in observation.items()}
        distribution, value, state = net(sequence, first[:, None], state)
        return distribution, value[:, 0], state

    @torch.no_grad()
    def _play(self) -> Experience:
        settings, rows = self.settings, []
        states: list[tuple[State, State]] = []
        distribution, value, after = self._look(self.net, self._observation, self._first, self._state)
        for t in range(settings.steps):
            if t % settings.segment == 0:
                states.append((self._state, self._prior_state))
            if self._prior_state:
                assert self.prior is not None
                _, _, self._prior_state = self._look(self.prior, self._observation, self._first, self._prior_state)
            action = distribution.sample(self.generator)
            row = {"action": action[:, 0], "log_prob": distribution.log_prob(action)[:, 0], "value": value, "first": self._first}
            step = self.world.step(action[:, 0])
            reward = step.reward if self.reward is None else self.reward(self._observation, action[:, 0], step.observation)
            if reward.shape != value.shape or len(self.gamma) != value.shape[-1]:
                counts = f"{reward.shape[-1]} rewards, {value.shape[-1]} critics and settings for {len(self.gamma)}"
                raise DataError(f"there are {counts}; each critic needs one reward and its settings.")
            ended = (step.terminated | step.truncated).to(self.device)
            row |= {"reward": reward.to(self.device) * self.scale, "terminated": step.terminated.to(self.device), "ended": ended}
            rows.append((self._observation, row))
            self._sums += step.reward.cpu()
            self._state, going_on = after, torch.zeros_like(ended)
            distribution, value, after = self._look(self.net, step.observation, going_on, self._state)
            row["next_value"] = value
            self._observation, self._first = step.observation, ended
            if bool(ended.any()):  # what was seen last has been judged; another episode begins there
                places = ended.nonzero()[:, 0].tolist()
                self._finished += list(self._sums[places])
                self._sums[places] = 0
                self._observation = self.world.reset(self._seeds(len(places)), places)
                distribution, value, after = self._look(self.net, self._observation, self._first, self._state)
        return self._experience(rows, states)

    def _experience(self, rows: list[tuple[Batch, dict[str, Tensor]]], states: list[tuple[State, State]]) -> Experience:
        length = self.settings.segment
        played = {name: torch.stack([row[name] for _, row in rows]) for name in rows[0][1]}
        judged = {name: played[name] for name in ("reward", "value", "next_value", "terminated", "ended")}
        gained = advantages(**judged, gamma=self.gamma, trace=self.trace)
        spread = gained.std((0, 1), unbiased=False)
        advantage = ((gained - gained.mean((0, 1))) / (spread + 1e-8) * self.weight).sum(-1)

        def cut(x: Tensor) -> Tensor:
            """(T, B, ...) -> (segments, steps of a segment, ...)."""
            return x.reshape(-1, length, *x.shape[1:]).movedim(1, 2).flatten(0, 1)

        def starts(which: int) -> State:
            return {name: torch.cat([both[which][name] for both in states]) for name in states[0][which]}

        return Experience(
            observation={name: cut(torch.stack([seen[name] for seen, _ in rows]).to(self.device)) for name in rows[0][0]},
            first=cut(played["first"]),
            action=cut(played["action"]),
            log_prob=cut(played["log_prob"]),
            value=cut(played["value"]),
            advantage=cut(advantage),
            target=cut(gained + played["value"]),
            state=starts(0),
            prior_state=starts(1),
        )

    # ---- learning -----------------------------------------------------------------------------------------------------

    def _update(self, experience: Experience) -> dict[str, float]:
        for group in self.optimiser.param_groups:
            group["lr"] = _at(self.settings.learning_rate, self.iteration)
        logs: list[Mapping[str, Tensor]] = []
        count = len(experience.first)
        for _ in range(self.settings.epochs):
            order = torch.randperm(count, generator=self.generator, device=self.device)
            for rows in order.tensor_split(min(self.settings.minibatches, count)):
                terms, log = self._terms(experience.take(rows))
                self.optimiser.zero_grad(set_to_none=True)
                torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(self.net.parameters(), self.settings.gradient_clip)
                self.optimiser.step()
                logs.append({**{name: term.detach() for name, term in terms.items()}, **log})
        return {name: float(torch.stack([log[name] for log in logs]).mean()) for name in logs[0]}

    def _terms(self, part: Experience) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The terms of the loss, weighted, and numbers to watch."""
        settings = self.settings
        distribution, value, _ = self.net(part.observation, part.first, part.state)
        change = distribution.log_prob(part.action) - part.log_prob
        ratio = change.exp()
        clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
        error = (value - part.target) ** 2
        if settings.value_clip is not None:
            near = part.value + (value - part.value).clamp(-settings.value_clip, settings.value_clip)
            error = torch.maximum(error, (near - part.target) ** 2)
        terms = {
            "policy": -torch.minimum(ratio * part.advantage, clipped * part.advantage).mean(),
            "value": settings.value_weight * error.mean(),
        }
        if self.prior is None and (bonus := _at(settings.entropy, self.iteration)):
            terms["entropy"] = -bonus * distribution.entropy().mean()
        if self.prior is not None:
            with torch.no_grad():
                before, _, _ = self.prior(part.observation, part.first, part.prior_state)
            terms["prior"] = _at(settings.prior, self.iteration) * before.kl(distribution).mean()
        watched = {
            "kl": ((ratio - 1) - change).detach().mean(),
            "clipped": ((ratio - 1).abs() > settings.clip).float().mean(),
        }
        return terms, watched


def _at(value: Scalar, iteration: int) -> float:
    return value(iteration) if callable(value) else value
