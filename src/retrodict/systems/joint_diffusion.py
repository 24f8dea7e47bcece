"""What systems have in common that draw chunks of actions, and whatever goes with them, out of noise."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from retrodict.errors import DataError
from retrodict.networks.joint_denoiser import ChunkPart, JointDenoiser
from retrodict.objectives.denoising import Schedule, ddim
from retrodict.objectives.masked import masked_mean
from retrodict.roles import Batch
from retrodict.systems.cameras import CameraSystem
from retrodict.systems.contract import Spec
from retrodict.systems.drawn_chunks import DrawnChunks
from retrodict.systems.frames import Backbone, FrameNet
from retrodict.systems.supervision import continuous_space, recorded_actions
from retrodict.training.augment import Augment, Shift
from retrodict.trajectories import ActionSpace, Recordings
from retrodict.trajectories.features import ACTION, IMAGES
from retrodict.trajectories.normalise import Normaliser


@dataclass
class JointDiffusion(CameraSystem, DrawnChunks):
    """Base of systems in which one diffusion transformer removes the noise from several parts of what happens next.

    One part is the next `chunk` actions, brought to [-1, 1] by their least and largest values. Every part has its own level of
    noise, drawn independently in training. The loss is the mean |v_said - v|^2 of each part, added up: the papers' error of the
    noise hardly counts the highest levels, where what one part says of another is learned. A system says which parts there are
    (`parts`), what of a batch they are (`taught`), and what is seen up to now (`recent`).

    Attributes:
        observed, chunk, mode: what is looked at, said and played, see `DrawnChunks`.
        backbone, channels, strides, keypoints, width: of the network that gives a code to each frame, see `FrameSystem`.
        shift: pixels by which all frames of a window are shifted together in training, at most.
        hidden, depth, heads: of the transformer.
        registers: learned tokens beside those of the parts.
        levels: of noise, on a squared cosine.
        sampling: steps of DDIM in which an answer is drawn. They begin somewhat below the highest level (at 90 of 0 to 99), where
            so little is left of a sample that its estimate from the noise would be arbitrary.
        unknown: level at which parts are held that an answer leaves open: the `highest`, as in training on bare video, or that at
            which sampling `begins`, as in the official code.
    """

    backbone: Backbone = "keypoints"
    channels: tuple[int, ...] = (16, 32, 32)
    strides: tuple[int, ...] = (2, 2, 1)
    keypoints: int = 32
    width: int = 64
    shift: int = 2
    hidden: int = 128
    depth: int = 4
    heads: int = 4
    registers: int = 4
    levels: int = 100
    sampling: int = 10
    unknown: Literal["highest", "begins"] = "highest"
    batch: int = field(default=64, kw_only=True)
    learning_rate: float = field(default=1e-3, kw_only=True)
    weight_decay: float = field(default=1e-6, kw_only=True)
    warmup: int = field(default=100, kw_only=True)
    decay: Literal["constant", "linear", "cosine"] = field(default="cosine", kw_only=True)
    clip: float | None = field(default=1.0, kw_only=True)

    # ---- what a system supplies ---------------------------------------------------------------------------------------

    def parts(self, spec: Spec) -> dict[str, ChunkPart]:
        """The parts that are drawn out of noise, by name."""
        return {ACTION: ChunkPart(self.chunk, self.space(spec).width, self.hidden)} if self.acts(spec) else {}

    @abstractmethod
    def taught(self, net: Any, batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Every part of a training batch without noise, within [-1, 1], and which of its entries are learned from."""

    def drawn_levels(self, batch: Mapping[str, Tensor], parts: Sequence[str]) -> dict[str, Tensor]:
        """The level of each part, (B,), from 0 to `levels` - 1."""
        anchors = batch["frame"]
        return {name: torch.randint(self.levels, (len(anchors),), device=anchors.device) for name in parts}

    def recent(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What a training batch shows up to now, (B, observed, ...), as `glimpse` gives it at each step."""
        return self.views(batch)[:, : self.observed]

    def glimpse(self, observation: Batch) -> Tensor:
        self.check_fitted()
        names = self.seen(self.spec_)
        return self.look({name: observation[name][:, None] for name in names if name in observation} or observation)[:, 0]

    def conditions(self, net: Any, recent: Tensor) -> Tensor:
        """What the denoiser is told of what was seen up to now, (B, c): the codes of all frames, side by side."""
        codes: Tensor = net["encoder"](recent)
        return codes.flatten(1)

    # ---- how it is built ----------------------------------------------------------------------------------------------

    def features(self, recordings: Recordings) -> tuple[str, ...]:
        return (*super().features(recordings), ACTION)

    def acts(self, spec: Spec) -> bool:
        """Whether there are actions at all."""
        return ACTION in spec.features

    def space(self, spec: Spec) -> ActionSpace:
        """What an action is made of; raises DataError where a part of it is not continuous."""
        return continuous_space(spec, self.card.slug)

    def build(self, spec: Spec) -> nn.ModuleDict:
        names = self.seen(spec)
        shape = self.shape(spec.features[names[0]])
        encoder = FrameNet(shape, self.backbone, self.channels, self.strides, self.keypoints, self.width)
        return nn.ModuleDict({"encoder": encoder, **self.drawing(spec, encoder.width * len(names) * self.observed)})

    def drawing(self, spec: Spec, condition: int) -> dict[str, nn.Module]:
        """The denoiser, told `condition` numbers, and the scale of actions."""
        denoiser = JointDenoiser(self.parts(spec), condition, self.hidden, self.depth, self.heads, self.registers)
        if not self.acts(spec):
            return {"denoiser": denoiser}
        scale = Normaliser((self.space(spec).width,), "range", name=f"{self.card.slug}: action")
        return {"denoiser": denoiser, "scale": scale}

    def prepare(self, recordings: Recordings) -> None:
        self.forget()
        if self.acts(self.spec_):
            actions = recorded_actions(recordings.having(ACTION), self.space(self.spec_), self.card.slug)
            self.net_["scale"].fit(actions)

    # ---- learning -----------------------------------------------------------------------------------------------------

    def augment(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
        names = [name for name in batch if name.startswith(IMAGES)]
        if not self.shift or not names:
            return batch
        together, drawn = dict(batch), generator.get_state()
        for name in names:
            generator.set_state(drawn)  # all cameras of a window are shifted together
            together[name] = Augment((Shift(self.shift),))(batch[name], generator)
        return together

    def loss(self, net: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        clean, counts = self.taught(net, batch)
        levels, schedule = self.drawn_levels(batch, tuple(clean)), self.schedule
        noise = {name: torch.randn_like(x) for name, x in clean.items()}
        noisy = {name: schedule.add_noise(x, levels[name], noise[name]) for name, x in clean.items()}
        said = net["denoiser"](noisy, levels, self.conditions(net, self.recent(batch)))
        asked = {name: schedule.v_of(x, levels[name], noise[name]) for name, x in clean.items()}
        return {name: masked_mean((said[name] - asked[name]).square(), counts[name]) for name in clean}

    def noise_in(
        self, net: Any, noisy: Mapping[str, Tensor], levels: Mapping[str, Tensor], condition: Tensor
    ) -> dict[str, Tensor]:
        """The noise in every part at its level."""
        said = net["denoiser"](noisy, levels, condition)
        return {name: self.schedule.noise_of(v, noisy[name], levels[name]) for name, v in said.items()}

    @property
    def schedule(self) -> Schedule:
        """The levels of noise."""
        return Schedule("cosine", self.levels)

    # ---- how it answers -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def drawn(
        self,
        condition: Tensor,
        wanted: Sequence[str],
        known: Mapping[str, Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Samples of the `wanted` parts, given the condition (B, c) and `known` parts, which are at the lowest level.

        What is neither stays the noise that it was drawn as, at the level `unknown` says: it is marginalised.
        """
        parts, schedule = self.net_["denoiser"].parts, self.schedule
        size, known = len(condition), known or {}
        noise = {
            name: torch.randn(size, *part.shape, generator=generator, device=condition.device)
            for name, part in parts.items()
            if name not in known
        }
        fixed = {**known, **{name: x for name, x in noise.items() if name not in wanted}}
        held = self.levels - 1 if self.unknown == "highest" else schedule.sampled(self.sampling, "leading")[0]
        lengths = [prod(noise[name].shape[1:]) for name in wanted]

        def split(flat: Tensor) -> dict[str, Tensor]:
            pieces = torch.split(flat, lengths, 1)
            return {name: piece.view_as(noise[name]) for name, piece in zip(wanted, pieces, strict=True)}

        def model(flat: Tensor, level: int) -> Tensor:
            at = {name: level if name in wanted else 0 if name in known else held for name in parts}
            levels = {name: torch.full((size,), t, device=flat.device) for name, t in at.items()}
            said = self.noise_in(self.net_, {**fixed, **split(flat)}, levels, condition)
            return torch.cat([said[name].flatten(1) for name in wanted], 1)

        start = torch.cat([noise[name].flatten(1) for name in wanted], 1)
        return split(ddim(model, start, schedule, self.sampling, spacing="leading", limit=1.0))

    def next_chunk(self, recent: Tensor, generator: torch.Generator | None) -> Tensor:
        self.require_actions("act")
        with torch.no_grad():
            condition = self.conditions(self.net_, recent)
        actions: Tensor = self.net_["scale"].inverse(self.drawn(condition, (ACTION,), generator=generator)[ACTION])
        return actions

    def require_actions(self, verb: str) -> None:
        """Raise DataError where nothing is known of actions."""
        self.check_fitted()
        if not self.acts(self.spec_):
            raise DataError(
                f"{self.card.slug} was asked to {verb} and no actions were ever seen; fit it on episodes of which some "
                f"have {ACTION!r}."
            )
