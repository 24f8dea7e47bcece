"""How a unified world model is built and learns: video and actions side by side, the actions missing in some episodes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from retrodict.errors import DataError
from retrodict.networks.image_codec import ImageCodec
from retrodict.networks.joint_denoiser import ChunkPart, VideoPart
from retrodict.systems.contract import Spec
from retrodict.systems.joint_diffusion import JointDiffusion
from retrodict.training.optimisers import Optimiser
from retrodict.training.run import Run
from retrodict.training.schedules import schedule
from retrodict.training.stage import Batches, Stage
from retrodict.trajectories import Recordings, Span, Window
from retrodict.trajectories.features import ACTION

FRAMES = "frames"
CODEC_RATE = 5e-3  # of the codec's own AdamW
CHANGED = 10  # of 255: how much a pixel differs that counts as changed
LOST = 0.5  # share of what changes that the codec may lose before a warning is given


@dataclass
class VideoAndActions(JointDiffusion):
    """Base of world models that draw frames to come, as codes of a small image codec, and the actions that lead to them.

    The codec is learned first, from single frames, and then stays as it is.

    Attributes:
        foreseen: frames to come, spread evenly over the chunk, the last at its end.
        latent: numbers by which the codec tells a block of pixels.
        codec_channels: of its convolutions, each of which halves the frame: a block has 2 ** len(codec_channels) pixels a side.
        codec_steps: in which it is learned.
        patch: frames, and rows and columns of codes, that make one token; it should not hold more numbers than `hidden`. Where a
            whole frame fits, as a small one does, nothing has to be gathered from several tokens.
        labelled: share of the windows of a batch that have actions, where not all recordings do.
    """

    foreseen: int = 4
    latent: int = 4
    codec_channels: tuple[int, ...] = (16, 32, 64, 64)
    codec_steps: int = 1000
    patch: tuple[int, int, int] = (1, 4, 4)
    labelled: float = 0.5
    steps: int = field(default=3000, kw_only=True)

    # ---- what is read -------------------------------------------------------------------------------------------------

    def window(self, spec: Spec) -> Window:
        if self.observed < 1 or self.foreseen < 1 or self.chunk % self.foreseen:
            raise DataError(
                f"{self.card.slug} foresees frames evenly spread over its chunk, after one or more up to now; got "
                f"observed={self.observed}, chunk={self.chunk}, foreseen={self.foreseen}."
            )
        _, height, width = self.shape(spec.features[self.seen(spec)[0]])
        shrink = 2 ** len(self.codec_channels)
        sides, blocks = (self.foreseen, height, width), (self.patch[0], self.patch[1] * shrink, self.patch[2] * shrink)
        if any(side % block for side, block in zip(sides, blocks, strict=True)):
            raise DataError(
                f"{self.card.slug}: {sides} (frames to come, height, width) is no multiple of {blocks}, which patch={self.patch} "
                f"and a codec of {shrink} x {shrink} pixels ask for; set image_size, patch or codec_channels."
            )
        return self.around(spec, learning=True)

    @property
    def every(self) -> int:
        """Steps between the frames to come."""
        return self.chunk // self.foreseen

    def around(self, spec: Spec, *, learning: bool) -> Window:
        """Frames up to a step and those to come, and to learn from, the actions between them."""
        to_come = Span(0, self.foreseen - 1, stride=self.every, offset=self.every)
        spans: dict[str, Any] = dict.fromkeys(self.seen(spec), (Span(self.observed - 1), to_come))
        if learning and self.acts(spec):
            spans[ACTION] = Span(0, self.chunk - 1)
        optional = (ACTION,) if ACTION in spans else ()
        return Window(0, self.chunk - 1, spans, optional=optional, image_size=self.looked_at(spec).image_size)

    def reader(self, recordings: Recordings) -> Batches:
        window, known = self.window(self.spec_), [ACTION in episode for episode in recordings]
        weights = None
        if any(known) and not all(known):
            steps = {has: sum(len(e) for e, k in zip(recordings, known, strict=True) if k == has) for has in (True, False)}
            weights = [self.labelled / steps[True] if has else (1 - self.labelled) / steps[False] for has in known]
        return recordings.windows(window, self.batch, seed=self.seed, weights=weights)

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        short = [str(episode) for episode in recordings if len(episode) < self.chunk]
        if short:
            warnings.warn(
                f"{self.card.slug}: {len(short)} episode(s), such as {short[0]}, are shorter than a chunk of {self.chunk}; what "
                "is missing at their end repeats their last step and is not learned from.",
                stacklevel=3,
            )
        super().learn(recordings, world, validation, run)
        self._warn_of_loss(recordings)

    @torch.no_grad()
    def _warn_of_loss(self, recordings: Recordings) -> None:
        """A codec that draws the background well and loses what moves in front of it would go unnoticed."""
        windows = recordings.windows(self.window(self.spec_), self.batch, seed=self.seed, order="replacement", prefetch=0)
        frames = self.views(windows.at(0)).to(self.torch_device)
        before, after = frames[:, self.observed - 1].float(), frames[:, -1].float()
        again = self.net_["codec"].decode(self.net_["codec"].encode(frames[:, -1])).float()
        changed = (after - before).abs() > CHANGED
        lost = float((again - after)[changed].square().mean() / (after - before)[changed].square().mean())
        if lost > LOST:
            warnings.warn(
                f"{self.card.slug}: its codec of frames loses what moves (at changed pixels its error is {lost:.0%} of the "
                "change), and so will what it foresees; give it more codec_steps, or more latent.",
                stacklevel=5,
            )

    # ---- how it learns ------------------------------------------------------------------------------------------------

    def parts(self, spec: Spec) -> dict[str, ChunkPart | VideoPart]:
        shape = (len(self.seen(spec)), self.foreseen, *self.codec(spec).shape)
        return {**super().parts(spec), FRAMES: VideoPart(shape, self.patch, self.hidden)}

    def build(self, spec: Spec) -> nn.ModuleDict:
        net = super().build(spec)
        net["codec"] = self.codec(spec)
        return net

    def codec(self, spec: Spec) -> ImageCodec:
        """The codec of frames, freshly initialised."""
        return ImageCodec(self.shape(spec.features[self.seen(spec)[0]]), self.latent, self.codec_channels)

    def stages(self, net: Any) -> tuple[Stage, ...]:
        def codec_loss(net: Any, batch: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
            frames = self.views(batch)
            return {"codec": net["codec"](frames[:, step % frames.shape[1]])}

        rate = schedule("cosine", CODEC_RATE, 0.0, self.codec_steps, self.codec_steps // 10)
        codec = Stage(self.codec_steps, codec_loss, (Optimiser(net["codec"], rate=rate),), clip=1.0, name="codec")
        (stage,) = super().stages(net)
        return (codec, replace(stage, optimisers=tuple(replace(o, parameters=but_codec(net)) for o in stage.optimisers)))

    def taught(self, net: Any, batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        frames = self.coded(net, self.views(batch)[:, self.observed :])
        inside = batch[f"mask.{self.seen(self.spec_)[0]}"][:, self.observed :]
        clean, counts = {FRAMES: frames}, {FRAMES: inside[:, None].expand(frames.shape[:3])}
        if self.acts(self.spec_):
            labelled, known = _labelled(batch)
            clean[ACTION] = net["scale"](batch[ACTION].float()) * labelled[:, None, None]
            counts[ACTION] = known | ~labelled[:, None]
        return clean, counts

    def drawn_levels(self, batch: Mapping[str, Tensor], parts: Sequence[str]) -> dict[str, Tensor]:
        levels = super().drawn_levels(batch, parts)
        if ACTION in levels:
            levels[ACTION] = torch.where(_labelled(batch)[0], levels[ACTION], self.levels - 1)
        return levels

    @torch.no_grad()
    def coded(self, net: Any, frames: Tensor) -> Tensor:
        """Frames (B, T, V, C, H, W), uint8, as the denoiser has them: (B, V, T, latent, h, w) within [-1, 1]."""
        codes: Tensor = net["codec"].encode(frames.movedim(2, 1))
        return codes


def _labelled(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Which windows have actions, (B,), and which of their steps, (B, chunk)."""
    known = batch[f"mask.{ACTION}"]
    return known[:, 0], known


def but_codec(net: nn.ModuleDict) -> list[nn.Parameter]:
    """The parameters of a net that move after its codec was learned."""
    return [p for name, part in net.items() if name != "codec" for p in part.parameters()]
