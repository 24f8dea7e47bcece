"""Decision transformer: what to do next, given what was seen and done and how much is still to be earned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from retrodict.errors import RetrodictError
from retrodict.networks.distributions import TanhNormal, squashed_deviation
from retrodict.networks.masks import causal
from retrodict.networks.transformer import Transformer
from retrodict.objectives.masked import masked_mean
from retrodict.roles import Batch
from retrodict.systems.actions.offline import OfflineLearner
from retrodict.systems.contract import Card, Spec
from retrodict.training.optimisers import Optimiser
from retrodict.training.stage import Stage
from retrodict.trajectories import Recordings, Window
from retrodict.trajectories.features import ACTION, REWARD, STATE, WEIGHT

TO_GO = "label.to_go"
"""The sum of the rewards from a step to the end of its episode."""


class DecisionNet(nn.Module):
    """Steps as three tokens each (to go, state, action); the token of a state says the action."""

    def __init__(self, states: int, actions: int, width: int, depth: int, heads: int, frames: int, dropout: float):
        super().__init__()
        self.into = nn.ModuleList(nn.Linear(n, width) for n in (1, states, actions))
        self.age = nn.Embedding(frames, width)  # counted back from now
        self.norm, self.drop = nn.LayerNorm(width), nn.Dropout(dropout)
        self.trunk = Transformer(width, depth, heads, activation="relu", dropout=dropout, init="scaled_normal")
        self.last, self.out = nn.LayerNorm(width), nn.Linear(width, 2 * actions)

    def forward(self, to_go: Tensor, state: Tensor, action: Tensor, valid: Tensor) -> TanhNormal:
        """Distributions of the actions (B, T, a) at steps (B, T, ...), of which those that exist are `valid` (B, T)."""
        steps = state.shape[1]
        age = self.age(torch.arange(steps - 1, -1, -1, device=state.device))
        tokens = torch.stack([into(x) + age for into, x in zip(self.into, (to_go, state, action), strict=True)], 2)
        x = self.drop(self.norm(tokens.flatten(1, 2)))
        x = self.trunk(x, causal(3 * steps, device=x.device), valid=valid.repeat_interleave(3, 1))
        mean, raw = self.out(self.last(x[:, 1::3])).chunk(2, -1)
        return TanhNormal(mean, squashed_deviation(raw), mean.new_zeros(mean.shape[-1]), -1.0, 1.0)


@dataclass
class DecisionTransformer(OfflineLearner):
    """A policy that is asked for a return.  (Chen et al., 2021; stochastic with an entropy constraint, as in Zheng et al., 2022)

    A causal transformer reads the last `frames` steps (what was to be earned from there on, state, action) and says the next
    action; the likelihood of the recorded one is maximised while the entropy is held at minus the number of actions. When acting,
    what is to be earned starts at `target` and falls by every reward, which it is told as `next.reward` of the observation.

    The defaults are the size of Chen et al. for such bodies; in semi-supervised offline learning width 512, 4 layers and 4 heads
    were used, with LAMB, in place of which AdamW stands here.

    Attributes:
        frames: steps that are looked at (K).
        depth, heads: of the transformer.
        dropout: on attention, hidden units and inputs.
        target: the return that is asked for; the best in the recordings where None.
        scale: factor on returns.
    """

    card: ClassVar[Card] = Card(
        slug="decision-transformer",
        title="Decision Transformer: Reinforcement Learning via Sequence Modeling",
        authors="Chen, Lu, Rajeswaran, Lee, Grover, Laskin, Abbeel, Srinivas, Mordatch",
        year=2021,
        url="https://arxiv.org/abs/2106.01345",
        reads="states, continuous actions (recorded or inferred), rewards and ends",
        returns="the action to take on the way to a wanted return",
        claim="modelling sequences of returns, states and actions matches offline learners that learn values",
        baseline=True,
    )

    frames: int = 20
    width: int = 128
    depth: int = 3
    heads: int = 1
    dropout: float = 0.1
    target: float | None = None
    scale: float = 0.001
    batch: int = field(default=64, kw_only=True)
    learning_rate: float = field(default=1e-4, kw_only=True)
    weight_decay: float = field(default=1e-3, kw_only=True)
    warmup: int = field(default=10_000, kw_only=True)
    clip: float | None = field(default=0.25, kw_only=True)
    decay: Literal["constant", "linear", "cosine"] = field(default="constant", kw_only=True)

    _memory: dict[str, Tensor] | None = field(default=None, init=False, repr=False, compare=False)

    # ---- what is read -------------------------------------------------------------------------------------------------

    def window(self, spec: Spec) -> Window:
        read = super().window(spec)
        if TO_GO not in spec.features:  # asked what is needed of the recordings as they are
            return read
        return Window(self.frames - 1, 0, {**read.spans, **dict.fromkeys((STATE, ACTION, TO_GO, WEIGHT))})

    def _usable(self, recordings: Recordings) -> tuple[Recordings, dict[str, int]]:
        made, counts = super()._usable(recordings)
        rewards = [np.asarray(episode[REWARD], np.float64).reshape(-1) for episode in made]
        return made.with_column(TO_GO, [np.cumsum(r[::-1])[::-1][:, None].astype(np.float32) for r in rewards]), counts

    def reader(self, recordings: Recordings) -> Any:
        return recordings.windows(self.window(self.spec_), self.batch, order="replacement", seed=self.seed)

    # ---- how it is built ----------------------------------------------------------------------------------------------

    def build(self, spec: Spec) -> nn.ModuleDict:
        net, states, actions = self.scales(spec)
        net["decision"] = DecisionNet(states, actions, self.width, self.depth, self.heads, self.frames, self.dropout)
        net["temperature"] = nn.ParameterDict({"log": nn.Parameter(torch.tensor(0.1).log())})
        net.register_buffer("best", torch.zeros(()))
        return net

    def prepare(self, recordings: Recordings) -> None:
        super().prepare(recordings)
        self.net_.best.fill_(max(float(episode[TO_GO][0, 0]) for episode in recordings))
        self._memory = None

    def stages(self, net: Any) -> tuple[Stage, ...]:
        rate = self.scheduled(self.learning_rate)
        body = Optimiser(net["decision"], rate=rate, weight_decay=self.weight_decay, clip=self.clip)
        temperature = Optimiser(net["temperature"], "adam", self.learning_rate)
        return (Stage(self.steps, self.stage_loss, (body, temperature), ema=self.ema),)

    def loss(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        action, valid = net["actions"](batch[ACTION].float()), batch["mask"]
        policy = net["decision"](batch[TO_GO] * self.scale, net["states"](batch[STATE]).float(), action, valid)
        taught = valid & (batch[WEIGHT][..., 0] > 0)
        _, log_prob = policy.draw()
        entropy = masked_mean(-log_prob[0], taught)
        alpha = net["temperature"]["log"].exp()
        return {
            "action": masked_mean(policy.loss(action.clamp(-1 + 1e-3, 1 - 1e-3)), taught),
            "entropy": -alpha.detach() * entropy,
            "temperature": alpha * (entropy.detach() + action.shape[-1]),
        }

    # ---- how it acts --------------------------------------------------------------------------------------------------

    def act(self, observation: Batch) -> Tensor:
        """Flat actions (B, width); remembers the observation, and what `next.reward` (B, n) of it says was earned since.

        Raises NotFittedError before `fit`; DataError where `observation.state` is missing or of the wrong form; RetrodictError
        where another number of worlds is played than before.
        """
        self.check_fitted()
        seen = self.checked(observation, (STATE,), time=False)
        state = self.net_["states"](seen[STATE]).float()
        earned = seen[REWARD].float().sum(-1) if REWARD in seen else state.new_zeros(len(state))
        memory = self._begun(state) if self._memory is None else self._remembered(self._memory, earned)
        if (worlds := len(memory["state"])) != len(state):
            raise RetrodictError(
                f"decision-transformer remembers {worlds} worlds and was given {len(state)}; call reset() in between."
            )
        memory["state"][:, -1], memory["valid"][:, -1] = state, True
        with torch.no_grad():
            policy = self.net_["decision"](*(memory[name] for name in ("to_go", "state", "action", "valid")))
            chosen = policy.mode()[:, -1]
        memory["action"][:, -1] = chosen
        self._memory = memory
        action: Tensor = self.net_["actions"].inverse(chosen)
        return action

    def reset(self, mask: Tensor | None = None) -> None:
        self.check_fitted()
        if mask is None or self._memory is None:
            self._memory = None
            return
        fresh = self._begun(self._memory["state"][:, -1])
        again = mask.to(self.torch_device)
        self._memory = {n: torch.where(again.view(-1, *[1] * (v.ndim - 1)), fresh[n], v) for n, v in self._memory.items()}

    def _begun(self, state: Tensor) -> dict[str, Tensor]:
        """A memory in which nothing has happened, and the wanted return is still to be earned."""
        worlds, actions = len(state), len(self.net_["actions"].offset)
        wanted = float(self.net_.best if self.target is None else self.target) * self.scale
        return {
            "to_go": state.new_full((worlds, self.frames, 1), wanted),
            "state": state[:, None].repeat(1, self.frames, 1),
            "action": state.new_zeros(worlds, self.frames, actions),
            "valid": torch.zeros(worlds, self.frames, dtype=torch.bool, device=state.device),
        }

    def _remembered(self, memory: Mapping[str, Tensor], earned: Tensor) -> dict[str, Tensor]:
        """The memory one step on, with room for what is seen now."""
        moved = {name: torch.cat([values[:, 1:], values[:, -1:]], 1) for name, values in memory.items()}
        begun = memory["valid"][:, -1]
        moved["to_go"][:, -1, 0] -= torch.where(begun, earned, 0.0) * self.scale
        moved["action"][:, -1] = 0
        return moved
