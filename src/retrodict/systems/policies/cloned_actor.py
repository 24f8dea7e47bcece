"""A cloned policy that learns on by acting: the same network with critics, as `training.ppo` wants it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from retrodict.errors import DataError
from retrodict.networks.heads import ActionDistribution
from retrodict.networks.masks import causal
from retrodict.networks.transformer import Memory
from retrodict.roles import Batch
from retrodict.systems.policies.behavior_cloning import BehaviorCloning, CausalNet
from retrodict.training.actor import State
from retrodict.training.randomness import isolated


class ClonedActor(nn.Module):
    """The network of a fitted `BehaviorCloning` as an `Actor`; the policy itself stays as it is.

    Its critics start at zero, as VPT's do when reinforcement learning begins (Baker et al., 2022). The memory has one length
    throughout, so that states of different moments can be laid side by side; steps before an episode are marked as forgotten.

    Args:
        policy: a fitted policy.
        critics: how many rewards there are to expect.
        fresh: weights as before cloning, drawn with `seed`; the scales of plain numbers stay.

    Raises DataError where the policy looks at frames of another size than the world shows.
    """

    net: CausalNet

    def __init__(self, policy: BehaviorCloning, *, critics: int = 1, fresh: bool = False, seed: int = 0) -> None:
        super().__init__()
        policy.check_fitted()
        self.names = policy.seen(policy.spec_)
        for name in self.names:
            feature = policy.spec_.features[name]
            if feature.is_visual and tuple(feature.shape[:2]) != policy.size(feature):
                raise DataError(
                    f"{name!r} shows frames of {tuple(feature.shape[:2])} and the policy looks at {policy.size(feature)}; "
                    "make a world that shows them so, and clone from its recordings."
                )
        self.net = copy.deepcopy(policy.net_)
        if fresh:
            with isolated(seed):
                self.net = policy.build(policy.spec_)
            kept = {name: value for name, value in policy.net_.named_buffers() if name in self.net.state_dict()}
            self.net.load_state_dict(kept, strict=False)
        self.net.train()
        self.critic = nn.Linear(policy.width, critics)
        for parameter in self.critic.parameters():
            nn.init.zeros_(parameter)
        self.to(policy.torch_device)

    def initial(self, size: int) -> State:
        """Nothing is remembered, (size, ...)."""
        trunk, length = self.net.trunk, self.net.memory
        empty = self.critic.weight.new_zeros(size, len(trunk.blocks), trunk.heads, length, trunk.width // trunk.heads)
        return {"keys": empty, "values": empty, "valid": torch.zeros(size, length, dtype=torch.bool, device=empty.device)}

    def forward(self, observation: Batch, first: Tensor, state: State) -> tuple[ActionDistribution, Tensor, State]:
        """See `training.actor.Actor`."""
        length, steps = self.net.memory, first.shape[1]
        episode = first.cumsum(1)  # within this sequence; what is remembered belongs to 0
        of_key = torch.cat([episode.new_zeros(len(first), length), episode], 1)
        mask = causal(steps, length, reach=length, device=first.device) & (episode[:, :, None] == of_key[:, None, :])
        memory = Memory(state["keys"].movedim(1, 0), state["values"].movedim(1, 0), state["valid"], length)
        x = self.net.observations({name: observation[name] for name in self.names})
        x, memory = self.net.trunk.step(x, memory, self.net.bias(mask))
        after = {
            "keys": memory.keys.movedim(0, 1),
            "values": memory.values.movedim(0, 1),
            "valid": memory.valid & (of_key[:, -length:] == episode[:, -1:]),
        }
        return self.net.read_out(x), self.critic(self.net.norm(x.relu())), after
