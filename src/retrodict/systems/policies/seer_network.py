"""Seer's network: what is seen, what will be seen and what to do, as tokens of one transformer, and the mask that joins them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from retrodict.networks.conv import ConvEncoder, ConvLayer
from retrodict.networks.heads import ActionHead
from retrodict.networks.mask_decoder import MaskTokenDecoder
from retrodict.networks.masks import Group, Rule, mask_builder
from retrodict.networks.mlp import MLP
from retrodict.networks.patches import Positions
from retrodict.networks.queries import QueryDecoder
from retrodict.networks.tasks import TaskEncoder
from retrodict.networks.transformer import Transformer
from retrodict.trajectories import ActionSpace, MultiBinary
from retrodict.trajectories.normalise import Normaliser

Sees = Literal["all", "images", "images and state"]


@dataclass(frozen=True)
class Layout:
    """The tokens of one step, in order: text, state (where there is one), image, foresight, action.

    Attributes:
        state: whether there is a state.
        image, foresight, action: how many there are, of all views.
    """

    state: bool
    image: int
    foresight: int
    action: int

    @property
    def observed(self) -> int:
        """Tokens of what was observed: text, state, image."""
        return 1 + self.state + self.image

    def __len__(self) -> int:
        return self.observed + self.foresight + self.action

    def hidden(self, mask: Tensor, share: float) -> Tensor:
        """The mask with a share of each step's foresight tokens, drawn anew, hidden from the action tokens of that step."""
        steps = len(mask) // len(self)
        kept = self.foresight - round(share * self.foresight)
        drawn = torch.rand(steps, self.foresight, device=mask.device).argsort(-1) < kept
        out = mask.view(steps, len(self), steps, len(self)).clone()
        step = torch.arange(steps, device=mask.device)
        foresight = slice(self.observed, self.observed + self.foresight)
        out[step, -self.action :, step, foresight] &= drawn[:, None, :]
        return out.view_as(mask)


@cache
def seer_mask(layout: Layout, steps: int, *, sees: Sees = "all", goal: int = 0, foreseen: bool = True) -> Tensor:
    """Who may look at whom, bool (steps n, steps n) for n tokens a step.  (Tian et al., 2024, section 3.2)

    What was observed looks at what was observed up to then. Foresight tokens do so too, and see no foresight token, not even
    themselves; nor do action tokens see action tokens. Action tokens see what was observed and the foresight of their step.

    Args:
        layout: the tokens of a step, n of them.
        steps: time steps K.
        sees: what action tokens see of what was observed: everything up to then, or of their own step only the images.
        goal: foresight tokens also see the state token of so many steps later; 0 for none.
        foreseen: whether action tokens see foresight tokens.
    """
    observed = ("text", "state", "image") if layout.state else ("text", "image")
    groups = []
    for step in range(steps):
        counts = {"text": 1, "state": int(layout.state), "image": layout.image}
        counts |= {"foresight": layout.foresight, "action": layout.action}
        groups += [Group(name, count, step) for name, count in counts.items() if count]
    rules: dict[tuple[str, str], Rule | tuple[Rule, ...]] = {(a, b): "past" for a in observed for b in observed}
    rules |= {("foresight", name): "past" for name in observed}
    if goal and layout.state:
        rules["foresight", "state"] = ("past", goal)
    if sees == "all":
        rules |= {("action", name): "past" for name in observed}
    else:
        rules["action", "image"] = "same"
        if sees == "images and state" and layout.state:
            rules["action", "state"] = "same"
    if foreseen:
        rules["action", "foresight"] = "same"
    return mask_builder(groups, rules)


class SeerNet(nn.Module):
    """See `Seer` for the sizes.

    Args:
        shape: (C, H, W) of a frame; `views` of them a step.
        state: numbers of the state, 0 for none.
        tasks: what can be told.
        space: of the actions.
        arm, gripper: which numbers of an action are moved by tanh, and which are open or closed.
    """

    closed: Tensor
    opened: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        views: int,
        state: int,
        tasks: Sequence[str],
        space: ActionSpace,
        arm: Sequence[int],
        gripper: Sequence[int],
        *,
        history: int,
        chunk: int,
        queries: int,
        slots: int,
        patch: int,
        vision: int,
        resampler_depth: int,
        width: int,
        depth: int,
        heads: int,
        dropout: float,
        decoder_width: int,
        decoder_depth: int,
        decoder_heads: int,
    ) -> None:
        super().__init__()
        self.views, self.slots, self.chunk, self.patch, self.arm, self.gripper = views, slots, chunk, patch, [*arm], [*gripper]
        self.layout = Layout(bool(state), views * (queries + 1), views * slots, chunk)
        cells = (shape[1] // patch, shape[2] // patch)
        layers = int(math.log2(patch))
        convolutions = [ConvLayer(max(vision >> (layers - 1 - i), 16), stride=2) for i in range(layers - 1)]
        self.stem = ConvEncoder(
            [*convolutions, ConvLayer(vision, stride=2)], shape[0], readout="tokens", norm="group", activation="gelu"
        )
        self.places = Positions(cells, vision)
        self.resampler = QueryDecoder(queries, vision, resampler_depth, heads)
        self.after = QueryDecoder(slots, vision, resampler_depth, heads)
        few = max(vision // 4, 1)  # the whole frame in one token, which tells places at once, as a ViT's class token would
        self.whole = nn.Sequential(
            nn.Linear(vision, few), nn.Flatten(-2), nn.Linear(cells[0] * cells[1] * few, vision), nn.GELU()
        )
        self.image_into = nn.ModuleList(nn.Linear(vision, width) for _ in range(views))
        self.whole_into = nn.ModuleList(nn.Linear(vision, width) for _ in range(views))
        self.after_into = nn.ModuleList(nn.Linear(vision, width) for _ in range(views))
        self.state_scale = Normaliser((state,), name="observation.state") if state else None
        self.state_into = nn.Linear(state, width) if state else None
        self.text = TaskEncoder(tasks, width)
        self.foresight = nn.Parameter(torch.zeros(views * slots, width))
        self.action = nn.Parameter(torch.zeros(chunk, width))
        self.step = nn.Parameter(torch.randn(history, width) * 0.02)
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.trunk = Transformer(width, depth, heads, dropout=dropout)
        side = math.isqrt(slots)
        self.decoder = MaskTokenDecoder(
            width,
            cells,
            shape[0] * patch**2,
            width=decoder_width,
            depth=decoder_depth,
            heads=decoder_heads,
            given=(side, side),
        )
        self.hands = MLP((width, width // 2, width // 2), last_activation="relu")
        self.arm_out = nn.Linear(width // 2, len(self.arm))
        self.gripper_out = nn.Linear(width // 2, len(self.gripper)) if gripper else None
        self.scale = Normaliser((len(self.arm),), "range", name="action")
        # A gripper's two numbers; a button's are 0 and 1, those of a named gripper are known once actions were seen.
        self.register_buffer("opened", torch.zeros(len(self.gripper)))
        self.register_buffer("closed", torch.ones(len(self.gripper)))
        self.sure = ActionHead(space, width)

    # ---- in -----------------------------------------------------------------------------------------------------------

    def see(self, frames: Tensor) -> Tensor:
        """Frames uint8 (B, T, V, C, H, W) -> patch tokens (B, T, V, L, vision)."""
        tokens: Tensor = self.places(self.stem(frames.float() / 127.5 - 1))
        return tokens

    def observed(self, patches: Tensor, state: Tensor | None, task: Tensor) -> Tensor:
        """Tokens (B, T, n, width) of what was observed, before they know of time.

        Args:
            patches: (B, T, V, L, vision).
            state: (B, T, s), where there is one.
            task: numbers (B,).
        """
        size, steps = patches.shape[:2]
        read = self.resampler(patches.flatten(0, 2)).unflatten(0, (size, steps, self.views))
        tokens = [self.text(task)[:, None, None].expand(-1, steps, -1, -1)]
        if self.state_into is not None and self.state_scale is not None:
            assert state is not None
            tokens.append(self.state_into(self.state_scale(state.float()))[:, :, None])
        tokens += [into(read[:, :, v]) for v, into in enumerate(self.image_into)]
        whole = self.whole(patches)
        tokens += [into(whole[:, :, v])[:, :, None] for v, into in enumerate(self.whole_into)]
        return torch.cat(tokens, 2)

    def outcome(self, patches: Tensor) -> Tensor:
        """Patch tokens (B, T, V, L, vision) of frames that came after, as tokens of foresight (B, T, V slots, width)."""
        size, steps = patches.shape[:2]
        read = self.after(patches.flatten(0, 2)).unflatten(0, (size, steps, self.views)) + self.whole(patches)[:, :, :, None]
        return torch.cat([into(read[:, :, v]) for v, into in enumerate(self.after_into)], 2)

    def sequence(self, observed: Tensor, foresight: Tensor | None = None) -> Tensor:
        """All tokens (B, T n, width) of T steps; a `foresight` (B, T, V slots, width) given replaces the learned one."""
        size, steps = observed.shape[:2]
        if foresight is None:
            foresight = self.foresight.expand(size, steps, -1, -1)
        tokens = torch.cat([observed, foresight, self.action.expand(size, steps, -1, -1)], 2)
        normed: Tensor = self.norm_in(tokens + self.step[:steps, None])
        return normed.flatten(1, 2)

    # ---- out ----------------------------------------------------------------------------------------------------------

    def forward(self, sequence: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What comes out at foresight tokens (B, T, V slots, width) and at action tokens (B, T, chunk, width)."""
        out = self.norm_out(self.trunk(sequence, mask)).unflatten(1, (-1, len(self.layout)))
        return out[:, :, self.layout.observed : -self.chunk], out[:, :, -self.chunk :]

    def decode(self, foresight: Tensor) -> Tensor:
        """Normalised patches (..., V, L, pixels) of the frame foreseen, from foresight tokens (..., V slots, width)."""
        lead = (*foresight.shape[:-2], self.views)
        patches: Tensor = self.decoder(foresight.reshape(-1, self.slots, foresight.shape[-1]))
        return patches.view(*lead, *patches.shape[1:])

    def hand(self, action: Tensor) -> tuple[Tensor, Tensor | None]:
        """The arm's numbers in (-1, 1), (..., a), and logits that the gripper is closed (..., g), from action tokens."""
        features = self.hands(action)
        return self.arm_out(features).tanh(), self.gripper_out(features) if self.gripper_out is not None else None

    def flat(self, action: Tensor) -> Tensor:
        """Flat actions (..., width of the space) in the units of the recordings, from action tokens."""
        arm, gripper = self.hand(action)
        out = arm.new_empty(*arm.shape[:-1], len(self.arm) + len(self.gripper))
        out[..., self.arm] = self.scale.inverse(arm)
        if gripper is not None:
            out[..., self.gripper] = torch.where(gripper > 0, self.closed, self.opened)
        return out


def parts_of(space: ActionSpace, gripper: str) -> tuple[list[int], list[int]]:
    """Which numbers of an action are the arm's, and which open or close: buttons, and the number called `gripper`."""
    buttons = {
        i for name, part in space.parts.items() if isinstance(part, MultiBinary) for i in range(space.width)[space.slices[name]]
    }
    closing = [i for i, name in enumerate(space.names) if i in buttons or name == gripper]
    return [i for i in range(space.width) if i not in closing], closing
