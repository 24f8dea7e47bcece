"""Behaviour cloning: do what was done, given what was seen. With actions that VPT inferred, it is VPT's foundation policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from retrodict.errors import DataError, RetrodictError
from retrodict.networks.heads import ActionDistribution, ActionHead
from retrodict.networks.joint import JointHead
from retrodict.networks.masks import causal
from retrodict.networks.transformer import Memory, RelativeBias, Transformer
from retrodict.roles import Batch, Inferred, Policy
from retrodict.systems.clips import ClipNet, ClipSystem
from retrodict.systems.contract import Card, Spec
from retrodict.trajectories import Recordings, Window
from retrodict.trajectories.codecs import JointCodec
from retrodict.trajectories.features import ACTION


class CausalNet(ClipNet):
    """A clip network whose trunk looks back only, and knows how far back."""

    def __init__(self, observations: nn.Module, trunk: Transformer, head: nn.Module, memory: int):
        super().__init__(observations, trunk, head)  # type: ignore[arg-type]
        self.memory = memory
        self.bias = RelativeBias(trunk.heads, memory)

    def forward(self, batch: Mapping[str, Tensor]) -> ActionDistribution:
        """The action at every step of clips (B, T, ...), from that step and those before it."""
        x = self.observations(batch)
        mask = causal(x.shape[1], reach=self.memory, device=x.device)
        return self.read_out(self.trunk(x, self.bias(mask), valid=batch.get("mask")))

    def step(self, batch: Mapping[str, Tensor], memory: Memory, temperature: float) -> tuple[ActionDistribution, Memory]:
        """The action at one further step (B, 1, ...), and the memory after it."""
        x = self.observations(batch)
        mask = causal(x.shape[1], len(memory), reach=self.memory, device=x.device)
        x, memory = self.trunk.step(x, memory, self.bias(mask))
        return self.read_out(x, temperature), memory


@dataclass
class BehaviorCloning(ClipSystem, Policy):
    """A policy with memory, cloned from recorded or inferred actions.  (the foundation policy of Baker et al., 2022)

    Reads camera frames `observation.images.<camera>`, numbers `observation.state`, or both; learns from `action`, each step
    weighted by `sample.weight` where there is one. Each frame goes through an IMPALA network, a causal transformer looks at it
    and at `memory` steps before it, and a head answers; -log pi(a_t | o_<=t) is minimised over all steps of a clip.

    Steps whose action is the null action of the space are not learned from, or the policy would learn to stand still. (VPT takes
    them out of its data altogether; here they stay in sight as context.)

    The paper's network: 128 frames, memory 128, width 2048, 4 blocks, 16 heads, stacks (128, 256, 256), joint head; 30 epochs of
    batches of 880 clips, rate 2.147e-3, weight decay 0.0625.

    Attributes:
        memory: steps that are remembered while acting, and looked back at in training.
        head: `factored` (each part of the action by itself) or `joint` (VPT's: everything pressed is one choice, the mouse
            another; buttons and one quantised part only).
        groups: for the joint head, groups of buttons that exclude each other.
        drop_null: leave steps with the null action out of the loss.
        sampling: act by drawing from the distribution; by its mode where False.
        temperature: divides the logits when acting; below 1 is bolder.
    """

    card: ClassVar[Card] = Card(
        slug="behavior-cloning",
        title="Video PreTraining (VPT): Learning to Act by Watching Unlabeled Online Videos",
        authors="Baker, Akkaya, Zhokhov, Huizinga, Tang, Ecoffet, Houghton, Sampedro, Clune",
        year=2022,
        url="https://arxiv.org/abs/2206.11795",
        reads="camera frames, numbers, or both; actions on some episodes",
        returns="the action to take, with memory of the episode",
        claim="cloned from enough inferred labels, it plays about as well as if it had been cloned from true ones",
        baseline=True,
    )

    memory: int = 16
    head: Literal["factored", "joint"] = "factored"
    groups: tuple[tuple[str, ...], ...] = ()
    drop_null: bool = True
    sampling: bool = True
    temperature: float = 1.0
    batch: int = field(default=16, kw_only=True)
    weight_decay: float = field(default=0.01, kw_only=True)
    warmup: int = field(default=50, kw_only=True)
    decay: Literal["constant", "linear", "cosine"] = field(default="linear", kw_only=True)
    clip: float | None = field(default=5.0, kw_only=True)
    augmented: bool = field(default=False, kw_only=True)

    _memory: Memory | None = field(default=None, init=False, repr=False, compare=False)
    _ready: bool = field(default=False, init=False, repr=False, compare=False)
    _drawing: torch.Generator | None = field(default=None, init=False, repr=False, compare=False)

    # ---- what is read -------------------------------------------------------------------------------------------------

    @property
    def reads(self) -> Window:
        """The window that `imitate` takes: a clip that ends at the anchor."""
        self.check_fitted()
        return self.looked_at(self.spec_, self.frames - 1, 0, learning=False)

    def window(self, spec: Spec) -> Window:
        if self.memory < 1:
            raise DataError(f"behavior-cloning remembers at least 1 step, got memory={self.memory}.")
        return self.looked_at(spec, self.frames - 1, 0, learning=True)

    # ---- how it is built ----------------------------------------------------------------------------------------------

    def build(self, spec: Spec) -> CausalNet:
        space = self.space(spec)
        head = JointHead(JointCodec.of(space, self.groups), self.width) if self.head == "joint" else ActionHead(space, self.width)
        return CausalNet(self.observations(spec), self.trunk(), head, self.memory)

    def prepare(self, recordings: Recordings) -> None:
        super().prepare(recordings)
        self._memory, self._ready, self._drawing = None, False, None

    def loss(self, net: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.named(net(self.through(batch)), batch)

    def supervised(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        mask, weight = super().supervised(batch)
        null = self.space(self.spec_).null
        if self.drop_null and null is not None:
            mask = mask & (batch[ACTION] != batch[ACTION].new_tensor(null)).any(-1)
        return mask, weight

    # ---- how it acts --------------------------------------------------------------------------------------------------

    def act(self, observation: Batch) -> Tensor:
        """Flat actions (B, width) for B worlds side by side; remembers the observation.

        Raises NotFittedError before `fit`; DataError where a feature is missing or of the wrong form; RetrodictError where
        `reset` was not called first, or another number of worlds is played than before.
        """
        seen = {name: value[:, None] for name, value in self.look(observation, time=False).items() if name in self.spec_.features}
        worlds = len(next(iter(seen.values())))
        if not self._ready:
            raise RetrodictError(
                "behavior-cloning was asked to act without reset(): call it before the first step of each episode."
            )
        if self._memory is None:
            self._memory = self.net_.trunk.memory(worlds, self.memory)
            self._drawing = self._drawing or torch.Generator(self.torch_device).manual_seed(self.seed)
        if len(self._memory.valid) != worlds:
            raise RetrodictError(
                f"behavior-cloning remembers {len(self._memory.valid)} worlds and was given {worlds}; call reset() in between."
            )
        with torch.no_grad():
            dist, self._memory = self.net_.step(self.through(seen), self._memory, self.temperature)
            action: Tensor = (dist.sample(self._drawing) if self.sampling else dist.mode())[:, 0]
        return action

    def reset(self, mask: Tensor | None = None) -> None:
        self._ready = True
        if mask is None:
            self._memory = None
        elif self._memory is not None:
            mask = torch.as_tensor(mask, dtype=torch.bool, device=self._memory.valid.device)
            if mask.shape != self._memory.valid.shape[:1]:
                raise DataError(
                    f"reset takes one truth value for each of {len(self._memory.valid)} worlds, got {list(mask.shape)}."
                )
            self._memory = self._memory.reset(mask)

    def imitate(self, window: Batch) -> Inferred:
        """What it would most likely have done at every step of a recorded clip (B, T, ...), to be scored against what was done.

        Raises as `act` does.
        """
        seen = self.look(window)
        with torch.no_grad():
            dist = self.net_(self.through(seen))
            parts = {f"confidence.{name}": value for name, value in dist.confidences().items()}
            return Inferred(dist.mode(), dist.confidence(), parts)
