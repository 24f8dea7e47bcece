"""How a unified world model is built and learns: video and actions side by side, the actions missing in some episodes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from retrodict.errors import DataError
from retrodict.networks.joint_denoiser import ChunkPart
from retrodict.networks.keypoint_codec import KeypointCodec
from retrodict.systems.contract import Spec
from retrodict.systems.joint_diffusion import JointDiffusion
from retrodict.training.optimisers import Optimiser
from retrodict.training.run import Run
from retrodict.training.schedules import schedule
from retrodict.training.stage import Batch, Later, Stage
from retrodict.trajectories import Recordings, Span, Window, Windows
from retrodict.trajectories.features import ACTION
from retrodict.trajectories.normalise import Normaliser

FRAMES = "frames"
PLACES = "places"
CODEC_RATE = 3e-3  # of the codec's own AdamW
CHANGED = 10  # of 255: how much a pixel differs that counts as changed
REACH = 3  # standard deviations by which a keypoint goes that are as much as 1
LOST = 0.5  # share of what changes that the codec may lose before a warning is given


@dataclass
class VideoAndActions(JointDiffusion):
    """Base of world models that draw frames to come, as what keypoints do, and the actions that lead to them.

    The codec of each camera (`KeypointCodec`) is learned first, from single frames, and then stays as it is. A frame is told by
    how far each keypoint goes from the frame before, in units of three standard deviations. Of places themselves the difference
    that an action makes would be a small part, which little noise hides. Where all frames of a window are shifted together, the
    keypoints go as far as before.

    Attributes:
        foreseen: frames to come, spread evenly over the chunk, the last at its end.
        points: keypoints of a frame.
        codec_steps: in which they are learned.
        labelled: share of the windows of a batch that have actions, where not all recordings do.
    """

    gaps: ClassVar[tuple[str, ...]] = (ACTION,)

    foreseen: int = 4
    points: int = 16
    codec_steps: int = 500
    labelled: float = 0.5
    steps: int = field(default=4000, kw_only=True)
    learning_rate: float = field(default=2e-3, kw_only=True)

    _training: Recordings | None = field(default=None, init=False, repr=False, compare=False)

    # ---- what is read -------------------------------------------------------------------------------------------------

    def window(self, spec: Spec) -> Window:
        if self.observed < 1 or self.foreseen < 1 or self.chunk % self.foreseen:
            raise DataError(
                f"{self.card.slug} foresees frames evenly spread over its chunk, after one or more up to now; got "
                f"observed={self.observed}, chunk={self.chunk}, foreseen={self.foreseen}."
            )
        _, height, width = self.shape(spec.features[self.seen(spec)[0]])
        if height % 4 or width % 4 or min(height, width) < 8:
            raise DataError(
                f"{self.card.slug} draws frames whose sides are multiples of 4 and at least 8, not {height} x {width}; set "
                "image_size."
            )
        return self.around(spec, learning=True)

    @property
    def every(self) -> int:
        """Steps between the frames to come."""
        return self.chunk // self.foreseen

    @property
    def to_come(self) -> Span:
        """The frames to come, from the last one seen."""
        return Span(0, self.foreseen - 1, stride=self.every, offset=self.every)

    def around(self, spec: Spec, *, learning: bool) -> Window:
        """Frames up to a step and those to come, and to learn from, the actions between them."""
        spans: dict[str, Any] = dict.fromkeys(self.seen(spec), (Span(self.observed - 1), self.to_come))
        if learning and self.acts(spec):
            spans[ACTION] = Span(0, self.chunk - 1)
        optional = (ACTION,) if ACTION in spans else ()
        return Window(0, self.chunk - 1, spans, optional=optional, image_size=self.looked_at(spec).image_size)

    def reader(self, recordings: Recordings) -> Windows:
        return self._windows(recordings, self.window(self.spec_))

    def reader_of_keypoints(self, net: Any, recordings: Recordings) -> Windows:
        """As `reader`, with the places of keypoints, found once by the codec that was learned, for the frames to come."""
        cameras = self.seen(self.spec_)
        window = self.window(self.spec_)
        up_to_now = dict.fromkeys(cameras, Span(self.observed - 1))
        spans = {**window.spans, **up_to_now, PLACES: (Span(), self.to_come)}
        return self._windows(self._with_places(net, recordings), replace(window, features=spans))

    def _windows(self, recordings: Recordings, window: Window) -> Windows:
        known = [ACTION in episode for episode in recordings]
        weights = None
        if any(known) and not all(known):
            steps = {has: sum(len(e) for e, k in zip(recordings, known, strict=True) if k == has) for has in (True, False)}
            weights = [self.labelled / steps[True] if has else (1 - self.labelled) / steps[False] for has in known]
        return recordings.windows(window, self.batch, seed=self.seed, weights=weights)

    def _with_places(self, net: Any, recordings: Recordings) -> Recordings:
        """Recordings in which every step has the places of its keypoints, (V 2 points,)."""
        single = replace(self.looked_at(self.spec_), edge="replicate")
        frames = recordings.windows(single, self.batch, order="sequence")
        device = next(net.parameters()).device
        places = torch.cat([self.places(net, self.views(batch).to(device)).flatten(1).cpu() for batch in frames])
        return recordings.with_rows(PLACES, places.numpy())

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        short = [str(episode) for episode in recordings if len(episode) < self.chunk]
        if short:
            warnings.warn(
                f"{self.card.slug}: {len(short)} episode(s), such as {short[0]}, are shorter than a chunk of {self.chunk}; what "
                "is missing at their end repeats their last step and is not learned from.",
                stacklevel=3,
            )
        super().learn(recordings, world, validation, run)
        self._training = None
        self._warn_of_loss(recordings)

    @torch.no_grad()
    def _warn_of_loss(self, recordings: Recordings) -> None:
        """A codec that draws the background well and loses what moves in front of it would go unnoticed."""
        windows = recordings.windows(self.window(self.spec_), self.batch, seed=self.seed, order="replacement", prefetch=0)
        frames = self.views(windows.at(0)).to(self.torch_device)
        before, after = frames[:, self.observed - 1].float(), frames[:, -1].float()
        codes = self.coded(self.net_, self.places(self.net_, frames[:, self.observed - 1 :]))
        again = self.decoded(self.net_, codes, frames[:, self.observed - 1])
        again = again[:, -1].float()
        changed = (after - before).abs() > CHANGED
        lost = float((again - after)[changed].square().mean() / (after - before)[changed].square().mean())
        if lost > LOST:
            warnings.warn(
                f"{self.card.slug}: its codec of frames loses what moves (at changed pixels its error is {lost:.0%} of the "
                "change), and so will what it foresees; give it more codec_steps, or more points.",
                stacklevel=5,
            )

    # ---- how it learns ------------------------------------------------------------------------------------------------

    def parts(self, spec: Spec) -> dict[str, ChunkPart]:
        return {**super().parts(spec), FRAMES: ChunkPart(len(self.seen(spec)) * self.foreseen, 2 * self.points, self.hidden)}

    def build(self, spec: Spec) -> nn.ModuleDict:
        net, shape = super().build(spec), self.shape(spec.features[self.seen(spec)[0]])
        views = len(self.seen(spec))
        net["codec"] = nn.ModuleList(KeypointCodec(shape, self.points) for _ in range(views))
        net["reach"] = Normaliser((views, 2 * self.points), name=f"{self.card.slug}: what keypoints do")
        return net

    def prepare(self, recordings: Recordings) -> None:
        super().prepare(recordings)
        windows = recordings.windows(self.window(self.spec_), 256, seed=self.seed, order="replacement", prefetch=0)
        glimpsed, self._training = self.views(windows.at(0)), recordings
        for view, codec in enumerate(self.net_["codec"]):
            codec.fit_mean(glimpsed[:, :, view].flatten(0, 1))

    def stages(self, net: Any) -> tuple[Stage, ...]:
        def codec_loss(net: Any, batch: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
            frames = self.views(batch)[:, step % (self.observed + self.foreseen)]
            return {f"codec {view}": codec(frames[:, view]) for view, codec in enumerate(net["codec"])}

        rate = schedule("cosine", CODEC_RATE, 0.0, self.codec_steps, self.codec_steps // 10)
        draws = (Optimiser(net["codec"], rate=rate),)
        codec = Stage(self.codec_steps, codec_loss, draws, clip=1.0, augment=_as_recorded, name="codec")
        (stage,) = super().stages(net)
        moved = tuple(replace(optimiser, parameters=but_codec(net)) for optimiser in stage.optimisers)
        return (codec, replace(stage, optimisers=moved, batches=Later(partial(self._begin, net))))

    def _begin(self, net: Any) -> Windows:
        """What the stage after the codec's reads; takes the scale of what keypoints do."""
        assert self._training is not None
        read = self.reader_of_keypoints(net, self._training)
        places = [torch.from_numpy(np.asarray(episode[PLACES])) for episode in read.recordings]
        steps = torch.cat([place[self.every :] - place[: -self.every] for place in places])
        net["reach"].fit(steps.view(-1, *net["reach"].shape))
        return read

    def taught(self, net: Any, batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        if PLACES in batch:
            places = batch[PLACES].view(*batch[PLACES].shape[:2], len(net["codec"]), -1)
            inside = batch[f"mask.{PLACES}"][:, 1:]
        else:
            places = self.places(net, self.views(batch)[:, self.observed - 1 :])
            inside = batch[f"mask.{self.seen(self.spec_)[0]}"][:, self.observed :]
        clean, counts = {FRAMES: self.coded(net, places)}, {FRAMES: inside.repeat_interleave(places.shape[2], 1)}
        if self.acts(self.spec_):
            known = batch[f"mask.{ACTION}"]  # none of a window without actions, whose actions are 0
            clean[ACTION], counts[ACTION] = net["scale"](batch[ACTION].float()) * known[:, :1, None], known
        return clean, counts

    def drawn_levels(self, batch: Mapping[str, Tensor], parts: Sequence[str]) -> dict[str, Tensor]:
        levels = super().drawn_levels(batch, parts)
        if ACTION in levels:
            levels[ACTION] = torch.where(batch[f"mask.{ACTION}"][:, 0], levels[ACTION], self.levels - 1)
        return levels

    def coded(self, net: Any, places: Tensor) -> Tensor:
        """Places (B, 1 + T, V, 2 points) of keypoints in the last frame seen and in those to come, as the denoiser has them.

        They are how far each goes from frame to frame, (B, T V, 2 points).
        """
        codes: Tensor = net["reach"](places.diff(dim=1)) / REACH
        return codes.flatten(1, 2)

    @torch.no_grad()
    def decoded(self, net: Any, codes: Tensor, now: Tensor) -> Tensor:
        """The inverse of `coded`: frames to come (B, T, V, C, H, W), after the last one seen, (B, V, C, H, W)."""
        moves = net["reach"].inverse(REACH * codes.view(len(codes), self.foreseen, -1, codes.shape[-1]))
        places = (self.places(net, now[:, None]) + moves.cumsum(1)).unbind(2)
        return torch.stack([codec.decode(place) for codec, place in zip(net["codec"], places, strict=True)], 2)

    @torch.no_grad()
    def places(self, net: Any, frames: Tensor) -> Tensor:
        """Of the keypoints in frames (B, T, V, C, H, W), (B, T, V, 2 points)."""
        return torch.stack([codec.encode(frames[:, :, view]) for view, codec in enumerate(net["codec"])], 2)


def _as_recorded(batch: Batch, _: torch.Generator) -> Batch:
    """The codec's frames are not shifted: it draws what moves over a background that stays."""
    return batch


def but_codec(net: nn.ModuleDict) -> list[nn.Parameter]:
    """The parameters of a net that move after its codec was learned."""
    return [p for name, part in net.items() if name != "codec" for p in part.parameters()]
