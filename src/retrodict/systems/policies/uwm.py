"""Unified world models: one diffusion transformer that is policy, forward model, inverse model and video generator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from retrodict.errors import DataError
from retrodict.roles import Batch, ForwardModel, Generator, Inferred, InverseModel, Prediction
from retrodict.systems.contract import Card, Spec
from retrodict.systems.looking import same_actions
from retrodict.systems.policies.uwm_learning import FRAMES, VideoAndActions, but_codec
from retrodict.training.loop import train
from retrodict.training.optimisers import Optimiser
from retrodict.training.run import Run
from retrodict.training.schedules import schedule
from retrodict.training.stage import Stage
from retrodict.trajectories import Recordings, Window
from retrodict.trajectories.features import ACTION

TOLERANCE = 0.05
"""Share of its range by which an inferred action may be off and still count as right, for the confidence."""


@dataclass
class UWM(VideoAndActions, InverseModel, ForwardModel, Generator):
    """A unified world model: next frames and next actions, each with a noise level of its own.  (Zhu et al., 2025)

    Reads camera frames `observation.images.<camera>`, and `action` in the episodes that have it. A transformer, told the codes of
    the last `observed` frames, removes the noise from `foreseen` frames to come and from the actions that lead to them. As their
    levels are drawn independently, the levels chosen afterwards say which question is answered: at the highest level a part is
    unknown, at the lowest it is given.

    * `act` draws actions, the frames unknown; `predict` draws frames, given actions or not; `infer` draws actions, given frames;
      `sample` draws frames, the actions unknown; `joint` draws both.

    Episodes without actions are learned from with their actions at the highest level, where nothing of an action is left. Frames
    to come are drawn as what keypoints do, which are learned first. Steps beyond the end of an episode repeat its last one and
    are not learned from.

    The defaults are those of a CPU. The paper's: 2 frames of 224 x 224 through a ResNet-18, chunks of 16, 16 frames to come as
    codes of the image VAE of SDXL (4 numbers for 8 x 8 pixels) in blocks of (2, 4, 4), width 768, depth 12, 12 heads and 8
    registers; 100,000 steps of AdamW at 1e-4 in batches of 36 for each GPU; then 10,000 steps on one task. Its loss is the error
    of the noise, also of the actions that bare video has not; here it is that of v (see `JointDiffusion`), and as such actions
    would then teach that nothing is done, they do not count. Proprioception and language, optional there, are left out.

    Attributes:
        draws: samples of which `infer` takes the mean, and the spread for its confidence.
        adapt_steps, adapt_rate: of `adapt`; the rate climbs for a tenth of the steps and then falls on a cosine.
    """

    card: ClassVar[Card] = Card(
        slug="uwm",
        title="Unified World Models: Coupling Video and Action Diffusion for Pretraining on Large Robotic Datasets",
        authors="Zhu, Yu, Feng, Burchfiel, Shah, Gupta",
        year=2025,
        url="https://arxiv.org/abs/2504.02792",
        reads="camera frames; actions on some episodes",
        returns="what to do; what was done; the frames to come, with or without actions given",
        claim="with a noise level each for action and video, one network is four models, and learns to act from bare video too",
    )

    draws: int = 8
    adapt_steps: int = 500
    adapt_rate: float = 1e-4

    # ---- what is read -------------------------------------------------------------------------------------------------

    def window(self, spec: Spec) -> Window:
        if self.draws < 2:
            raise DataError(f"{self.card.slug} infers from two draws or more; got draws={self.draws}.")
        return super().window(spec)

    @property
    def reads(self) -> Window:
        """A window as long as the chunk, with the frames up to its first step and those to come."""
        self.check_fitted()
        return self.around(self.spec_, learning=False)

    @property
    def asks(self) -> Window:
        """The frames up to a step."""
        self.check_fitted()
        return replace(self.looked_at(self.spec_, self.observed - 1), edge="replicate")

    def adapt(self, recordings: Recordings) -> Self:
        """Learn on from recordings of one task, with the scale of actions as it is; returns self.

        Raises NotFittedError before `fit`; DataError where they have other cameras or actions, or none were ever seen.
        """
        self.require_actions("adapt")
        few = self.admit(recordings)
        same_actions(self.space(self.spec_).width, few, self.card.slug)
        rate = schedule("cosine", self.adapt_rate, 0.0, self.adapt_steps, self.adapt_steps // 10)
        optimiser = Optimiser(but_codec(self.net_), rate=rate, weight_decay=self.weight_decay)
        stage = Stage(self.adapt_steps, self.stage_loss, (optimiser,), clip=self.clip, augment=self.augment, name="adapt")
        train(
            self.net_,
            self.reader_of_keypoints(self.net_, few),
            (stage,),
            Run(progress=False),
            seed=self.seed,
            device=self.torch_device,
        )
        self.taught_by(few)
        return self

    # ---- how it answers -----------------------------------------------------------------------------------------------

    def infer(self, window: Batch, *, pad: bool = False) -> Inferred:
        """The actions of a chunk, (B, chunk, width), between frames up to now and frames to come, (B, observed + foreseen, ...).

        The answer is the mean of `draws` samples. With `pad`, one frame to come stands for all.

        Raises NotFittedError before `fit`; DataError where no actions were ever seen, or frames are of the wrong form or number.
        """
        frames = self.look(window)
        self.require_actions("infer")
        if pad and frames.shape[1] == self.observed + 1:
            frames = torch.cat([frames, *[frames[:, -1:]] * (self.foreseen - 1)], 1)
        if frames.shape[1] != self.observed + self.foreseen:
            raise DataError(
                f"{self.card.slug} infers from {self.observed} frames up to now and {self.foreseen} to come; it was given "
                f"{frames.shape[1]} in all (pad=True repeats a single one to come)."
            )
        places = self.places(self.net_, frames[:, self.observed - 1 :])
        known = self.coded(self.net_, places).repeat_interleave(self.draws, 0)
        generator = torch.Generator(self.torch_device).manual_seed(self.seed)
        drawn = self.drawn(self._told(frames, self.draws), (ACTION,), {FRAMES: known}, generator)[ACTION]
        drawn = drawn.view(len(frames), self.draws, *drawn.shape[1:])
        spread = drawn.std(1).clamp(min=1e-6)
        right = torch.erf(2 * TOLERANCE / (spread * 2**0.5)).prod(-1)  # of a normal distribution of this spread; the range is 2
        return Inferred(self.net_["scale"].inverse(drawn.mean(1)), right)

    def predict(
        self, observation: Batch, actions: Tensor | None = None, horizon: int | None = None, samples: int = 1
    ) -> Prediction:
        """The frames to come, uint8 (B, samples, foreseen, C, H, W) for each camera, after frames (B, observed, ...).

        Further frames, as `reads` gives them, are not looked at. Without `actions` (B, chunk, width) they are marginalised.

        Raises NotFittedError before `fit`; DataError for another horizon than the chunk, actions of another shape or that are not
        finite or of which none were ever seen, and frames of the wrong form or number.
        """
        frames = self._up_to_now(observation)
        if horizon not in (None, self.chunk):
            raise DataError(f"{self.card.slug} foresees {self.chunk} steps at once; it was asked for {horizon}.")
        known = {}
        if actions is not None:
            self.require_actions("foresee what actions lead to")
            wanted = (len(frames), self.chunk, self.space(self.spec_).width)
            if tuple(actions.shape) != wanted or not torch.isfinite(actions).all():
                raise DataError(
                    f"{self.card.slug} takes finite actions (B, H, A) = {list(wanted)}; it was given {list(actions.shape)}."
                )
            known = {ACTION: self.net_["scale"](actions.to(self.torch_device).float()).repeat_interleave(samples, 0)}
        drawn = self.drawn(self._told(frames, samples), (FRAMES,), known)[FRAMES]
        return Prediction(self._seen_in(drawn, frames, samples), every=self.every)

    def sample(self, n: int, given: Batch | None = None) -> Batch:
        """Frames to come, uint8 (n, foreseen, C, H, W) for each camera, after the frames (n or 1, observed, ...) given.

        Raises as `predict` does, and where nothing is given.
        """
        self.check_fitted()
        if given is None:
            raise DataError(f"{self.card.slug} samples what follows on what was seen; give it frames: sample(n, given).")
        frames = self._up_to_now(given)
        if len(frames) not in (1, n):
            raise DataError(f"{self.card.slug} was asked for {n} samples and given {len(frames)} beginnings; give {n}, or one.")
        drawn = self.drawn(self._told(frames, n // len(frames)), (FRAMES,))[FRAMES]
        return {name: video.flatten(0, 1) for name, video in self._seen_in(drawn, frames, n // len(frames)).items()}

    def joint(self, observation: Batch, samples: int = 1) -> Batch:
        """Frames to come as `predict` gives them, and the `action` that goes with them, (B, samples, chunk, width).

        Raises as `predict` does.
        """
        frames = self._up_to_now(observation)
        self.require_actions("draw actions and frames")
        drawn = self.drawn(self._told(frames, samples), (ACTION, FRAMES))
        action = self.net_["scale"].inverse(drawn[ACTION]).view(len(frames), samples, self.chunk, -1)
        return {**self._seen_in(drawn[FRAMES], frames, samples), ACTION: action}

    def _up_to_now(self, observation: Batch) -> Tensor:
        """The frames (B, observed, V, C, H, W) of what a role method was given."""
        frames = self.look(observation)
        if frames.shape[1] not in (self.observed, self.observed + self.foreseen):
            raise DataError(f"{self.card.slug} goes on from {self.observed} frames up to now; it was given {frames.shape[1]}.")
        return frames[:, : self.observed]

    def _told(self, frames: Tensor, times: int) -> Tensor:
        """What the denoiser is told (B times, c), each window `times` over."""
        with torch.no_grad():
            return self.conditions(self.net_, frames[:, : self.observed]).repeat_interleave(times, 0)

    @torch.no_grad()
    def _seen_in(self, drawn: Tensor, frames: Tensor, samples: int) -> dict[str, Tensor]:
        """What each camera shows, uint8 (B, samples, T, C, H, W), of drawn codes (B samples, T V, c) that follow on frames."""
        made = self.decoded(self.net_, drawn, frames[:, -1].repeat_interleave(samples, 0))  # (B samples, T, V, C, H, W)
        made = made.view(-1, samples, *made.shape[1:])
        return {name: made[:, :, :, view] for view, name in enumerate(self.seen(self.spec_))}
