"""How Seer learns: its settings, its network, its loss, and how it goes on with a few demonstrations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from retrodict.errors import DataError
from retrodict.networks.patches import to_patches
from retrodict.objectives.masked import masked_mean
from retrodict.objectives.patches import PatchScale
from retrodict.systems.cameras import CameraSystem
from retrodict.systems.contract import Spec
from retrodict.systems.looking import same_actions
from retrodict.systems.policies.seer_data import (
    ToldWindows,
    check_sizes,
    gripper_zero,
    refuse_beyond,
    refuse_short,
    refuse_uncut,
)
from retrodict.systems.policies.seer_network import SeerNet, Sees, parts_of, seer_mask
from retrodict.systems.supervision import recorded_actions
from retrodict.training.augment import Augment, Shift
from retrodict.training.loop import train
from retrodict.training.optimisers import Optimiser
from retrodict.training.run import Run
from retrodict.training.stage import Stage
from retrodict.trajectories import ActionSpace, Discrete, Recordings, Span, Window
from retrodict.trajectories.features import ACTION, STATE, TASK


@dataclass
class SeerLearning(CameraSystem):
    """How Seer is built and how it learns; see `Seer`.

    Attributes:
        history: steps K that are looked back on, this one included.
        ahead: steps from now to the frame that is foreseen.
        chunk: actions said ahead.
        queries: tokens into which the patches of a frame are resampled.
        slots: foresight tokens of each camera, a square number.
        patch: side of a patch in pixels, a power of two.
        vision: width of patch tokens.
        resampler_depth: blocks of the resampler.
        width, depth, heads, dropout: of the transformer.
        decoder_width, decoder_depth, decoder_heads: of the decoder of frames.
        arm_weight: of the loss of the arm's numbers; 0 leaves a forecaster.
        image_weight: of the loss of the forecast; 0 leaves behaviour cloning by the same network.
        gripper: name of the number of an action that only opens and closes, {0, 1} or {-1, 1}; buttons do so too. All other
            numbers are the arm's.
        gripper_weight: of the loss of the gripper.
        scale_actions: bring the arm's numbers to [-1, 1] by their smallest and largest; without it they must lie there.
        foreseen: let action tokens look at the forecast; False leaves it a side task.
        sees: what action tokens see beside the forecast while `fit` goes on: `all`, or of their own step `images` (the paper's
            pretraining, so that language is no short cut) or `images and state`. `adapt` lets them see all.
        hidden: share of foresight tokens that are hidden from action tokens in `fit`, drawn anew every step (paper: 0.5).
        goal: foresight tokens in `fit` also see the state token so many steps later (paper: 4, with history 11), as a hint of
            where the arm goes; it has itself seen the frames up to then. Only steps whose hint lies in the window are learned.
        inverse: share of training windows in which the foresight tokens are those of the frame that came, so that `infer` can ask
            for the action between two frames; 0 learns no inverse model.
        untold: share of training windows in which the task is not told.
        shifts: largest shift of training frames in pixels, by camera, the last for all further ones (paper: 10 and 4 of 224).
            None are shifted by default: a forecast of small frames then has to learn the background at every offset.
        adapt_steps, adapt_rate: of `adapt`.
    """

    gaps: ClassVar[tuple[str, ...]] = (ACTION,)

    history: int = 4
    ahead: int = 3
    chunk: int = 3
    queries: int = 4
    slots: int = 9
    patch: int = 8
    vision: int = 128
    resampler_depth: int = 3
    width: int = 128
    depth: int = 4
    heads: int = 4
    dropout: float = 0.1
    decoder_width: int = 64
    decoder_depth: int = 2
    decoder_heads: int = 4
    arm_weight: float = 1.0
    image_weight: float = 0.1
    gripper: str = ""
    gripper_weight: float = 0.01
    scale_actions: bool = False
    foreseen: bool = True
    sees: Sees = "all"
    hidden: float = 0.0
    goal: int = 0
    inverse: float = 0.5
    untold: float = 0.1
    shifts: tuple[int, ...] = ()
    adapt_steps: int = 500
    adapt_rate: float = 5e-4
    steps: int = field(default=1500, kw_only=True)
    learning_rate: float = field(default=1e-3, kw_only=True)
    weight_decay: float = field(default=1e-4, kw_only=True)
    warmup: int = field(default=100, kw_only=True)
    clip: float | None = field(default=0.1, kw_only=True)

    adapted_: bool = field(default=False, init=False, repr=False, compare=False)
    doing_: str = field(default="", init=False, repr=False, compare=False)

    # ---- what is read -------------------------------------------------------------------------------------------------

    def features(self, recordings: Recordings) -> tuple[str, ...]:
        return (*super().features(recordings), *(name for name in (STATE, ACTION) if name in recordings.features))

    def window(self, spec: Spec) -> Window:
        """Windows that begin anywhere in an episode; what lies past its end is not learned from."""
        check_sizes(self.slots, self.patch, self.depth, history=self.history, ahead=self.ahead, chunk=self.chunk, goal=self.goal)
        spans = dict.fromkeys(self.seen(spec), Span(0, self.history - 1 + self.ahead))
        spans |= {STATE: Span(0, self.history - 1)} if STATE in spec.features else {}
        spans[ACTION] = Span(0, self.history + self.chunk - 2)
        return Window(0, self.history - 1, spans, image_size=self.looked_at(spec).image_size)

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        refuse_short(recordings, self._needed)
        self.adapted_ = False
        self.doing_ = recordings.tasks[0] if len(recordings.tasks) == 1 else ""
        super().learn(recordings, world, validation, run)

    @property
    def _needed(self) -> int:
        """Steps that an episode has at least."""
        return self.history + max(self.ahead, self.chunk, self.goal)

    def reader(self, recordings: Recordings) -> ToldWindows:
        return ToldWindows(recordings, self.window(self.spec_), self.batch, self.seed, self.spec_.tasks)

    # ---- how it is built ----------------------------------------------------------------------------------------------

    def build(self, spec: Spec) -> SeerNet:
        names, space = self.seen(spec), self._space(spec)
        shape = self.shape(spec.features[names[0]])
        refuse_uncut(*shape[1:], self.patch)
        if any(isinstance(part, Discrete) for part in space.parts.values()):
            raise DataError(f"seer moves an arm and a gripper; these actions hold choices ({space}), which it cannot say.")
        if self.gripper and self.gripper not in space.names:
            raise DataError(f"seer: no number of the action is called {self.gripper!r}; there are {', '.join(space.names)}.")
        arm, gripper = parts_of(space, self.gripper)
        if not arm:
            raise DataError(f"seer moves an arm, by numbers between -1 and 1; these actions have none ({space}).")
        sizes = (
            *("history", "chunk", "queries", "slots", "patch", "vision", "resampler_depth"),
            *("width", "depth", "heads", "dropout", "decoder_width", "decoder_depth", "decoder_heads"),
        )
        return SeerNet(
            shape,
            len(names),
            spec.features[STATE].shape[0] if STATE in spec.features else 0,
            spec.tasks,
            space,
            arm,
            gripper,
            **{name: getattr(self, name) for name in sizes},
        )

    def prepare(self, recordings: Recordings) -> None:
        actions = self._looked_over(recordings)
        arm = actions[:, self.net_.arm]
        self.net_.scale.fit(arm if self.scale_actions else np.array([[-1.0], [1.0]]).repeat(arm.shape[1], 1))
        self.net_.sure.fit_scale(actions)
        if self.net_.state_scale is not None:
            self.net_.state_scale.fit(np.concatenate([np.asarray(episode[STATE]) for episode in recordings]))

    def _space(self, spec: Spec) -> ActionSpace:
        return spec.actions if spec.actions is not None else ActionSpace.unknown(spec.features[ACTION])

    def _looked_over(self, recordings: Recordings) -> np.ndarray:
        """All recorded flat actions (n, width); sets what the gripper's numbers mean. Raises DataError for impossible ones."""
        net, space = self.net_, self._space(self.spec_)
        actions = recorded_actions(recordings, space, self.card.slug)
        for j, i in enumerate(net.gripper):
            net.opened[j] = gripper_zero(actions[:, i], space.names[i], float(net.opened[j]))
        if not self.scale_actions:
            refuse_beyond(actions[:, net.arm], [space.names[i] for i in net.arm])
        return actions

    # ---- how it learns ------------------------------------------------------------------------------------------------

    def augment(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        out = dict(batch)
        for i, name in enumerate(self.seen(self.spec_)):
            pixels = self.shifts[min(i, len(self.shifts) - 1)] if self.shifts else 0
            out[name] = Augment((Shift(pixels),))(batch[name], generator) if pixels else batch[name]
        return out

    def mask(self, net: SeerNet, steps: int, goal: int = 0) -> Tensor:
        """Who may look at whom in `steps` steps, as it stands now: in pretraining, or after `adapt`."""
        sees = "all" if self.adapted_ else self.sees
        mask = seer_mask(net.layout, steps, sees=sees, goal=goal, foreseen=self.foreseen).to(net.step.device)
        return net.layout.hidden(mask, self.hidden) if net.training and self.hidden and not self.adapted_ else mask

    def loss(self, net: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        frames, names, goal = self.views(batch), self.seen(self.spec_), 0 if self.adapted_ else self.goal
        device, size, k = frames.device, len(frames), self.history
        seen = torch.stack([batch[f"mask.{name}"] for name in names]).all(0)  # (B, K + ahead): False past the end
        steps = seen[:, :k] & (torch.arange(k, device=device) < k - goal)
        shown = torch.rand(size, device=device) < self.inverse  # windows in which what came after is shown
        told = torch.rand(size, device=device) >= self.untold
        patches = net.see(frames if self.inverse else frames[:, :k])
        observed = net.observed(patches[:, :k], batch.get(STATE), batch[TASK].to(device) * (told & ~shown))
        foresight = None
        if self.inverse:
            known = net.foresight.expand(size, k, -1, -1)
            foresight = torch.where(shown[:, None, None, None], net.outcome(patches[:, self.ahead :]), known)
        foreseen, acting = net(net.sequence(observed, foresight), self.mask(net, k, goal))

        action = batch[ACTION].float().unfold(1, self.chunk, 1).transpose(-1, -2)  # (B, K, chunk, width)
        steps = steps & (seen[:, self.ahead :] | ~shown[:, None])  # what came after cannot be shown past the end
        valid = batch.get(f"mask.{ACTION}", batch["mask"]).unfold(1, self.chunk, 1) & steps[..., None]
        arm, gripper = net.hand(acting)
        off = F.smooth_l1_loss(arm, net.scale(action[..., net.arm]), reduction="none")
        terms = {"arm": self.arm_weight * masked_mean(off, valid)}
        if gripper is not None:
            closed = (action[..., net.gripper] > 0.5).float()
            of_step = F.binary_cross_entropy_with_logits(gripper, closed, reduction="none")
            terms["gripper"] = self.gripper_weight * masked_mean(of_step, valid)
        if self.image_weight:
            target = self.patches(frames[:, self.ahead :])
            painted = masked_mean(
                (net.decode(foreseen) - PatchScale.of(target).normalised(target)).square().mean((-3, -2, -1)),
                steps & seen[:, self.ahead :] & ~shown[:, None],
            )
            terms["image"] = self.image_weight * painted
        if self.inverse:
            sure = net.sure(acting.detach()).losses(action, valid & shown[:, None, None])
            terms |= {f"sure.{name}": value for name, value in sure.items()}
        return terms

    def patches(self, frames: Tensor) -> Tensor:
        """Frames uint8 (..., C, H, W) as patches (..., L, pixels) from 0 to 1."""
        return to_patches(frames.float() / 255, (self.patch, self.patch))

    def adapt(self, recordings: Recordings) -> Self:
        """Go on with a few demonstrations, all weights moving and action tokens seeing everything; returns self.

        Foresight and action tokens begin anew, as in the paper. A task that is new is added to those that can be told.

        Raises NotFittedError before `fit`; DataError where the demonstrations have other cameras or actions, or are too short.
        """
        self.check_fitted()
        few = self.admit(recordings)
        same_actions(self._space(self.spec_).width, few, self.card.slug)
        refuse_short(few, self._needed)
        self._looked_over(few)
        self.spec_ = replace(self.spec_, tasks=tuple(dict.fromkeys((*self.spec_.tasks, *few.tasks))))
        self.adapted_, self.doing_ = True, few.tasks[0] if len(few.tasks) == 1 else ""
        self.net_.text = self.net_.text.extended(few.tasks)
        for tokens in (self.net_.foresight, self.net_.action):
            torch.nn.init.zeros_(tokens)
        stage = replace(self._stage(self.net_, self.adapt_steps, self.adapt_rate), augment=self.augment, name="adapt")
        train(self.net_, self.reader(few), (stage,), Run(progress=False), seed=self.seed, device=self.torch_device)
        self.taught_by(few)
        return self

    def stages(self, net: Any) -> tuple[Stage, ...]:
        return (self._stage(net, self.steps, self.learning_rate),)

    def _stage(self, net: SeerNet, steps: int, rate: float) -> Stage:
        """AdamW on everything; what says how sure it is learns apart, or its large gradient would eat up the clip."""
        how: dict[str, Any] = {
            "rate": self.scheduled(rate, steps),
            "weight_decay": self.weight_decay,
        }
        rest = [parameter for name, parameter in net.named_parameters() if not name.startswith("sure.")]
        moving = (Optimiser(rest, clip=self.clip, **how), *((Optimiser(net.sure, **how),) if self.inverse else ()))
        return Stage(steps, self.stage_loss, moving, ema=self.ema)

    # ---- on disk ------------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, about = super().state()
        return tensors, {**about, "adapted": self.adapted_, "doing": self.doing_}

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        self.adapted_, self.doing_ = bool(about["adapted"]), str(about["doing"])
        super().restore(tensors, about)
