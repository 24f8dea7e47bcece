"""Seer: foresee the next frames, and act so that they come about; one transformer, trained end to end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from retrodict.errors import DataError, RetrodictError
from retrodict.networks.chunks import ChunkExecutor, Mode
from retrodict.networks.patches import from_patches
from retrodict.objectives.patches import PatchScale
from retrodict.roles import Batch, Generator, Inferred, InverseModel, Policy
from retrodict.systems.contract import Card
from retrodict.systems.policies.seer_learning import SeerLearning
from retrodict.systems.policies.seer_memory import SeerMemory
from retrodict.trajectories import Recordings, Window
from retrodict.trajectories.features import STATE, TASK


@dataclass
class Seer(SeerLearning, Policy, Generator, InverseModel):
    """Predictive inverse dynamics: actions conditioned on a forecast of what the cameras will show.  (Tian et al., 2024)

    Reads camera frames `observation.images.<camera>`, `observation.state` where there is one, and which task it is; learns from
    `action`. At each of `history` steps the tokens of task, state and images are joined by foresight tokens, from which a small
    decoder must paint the frame `ahead` steps later, and by action tokens, which look at the foresight tokens and say the next
    `chunk` actions. When it acts, nothing is painted: the forecast stays latent.

    `fit` pretrains on many tasks and `adapt` goes on with a few demonstrations of one. Images are read by a few convolutions that
    are learned with the rest, where the paper has a frozen MAE ViT-B/16, and tasks by a table, where it has CLIP's text encoder.
    As an inverse model it is given what came after in the place of its forecast (our addition, see `inverse`).

    The paper's sizes: 224 px, patch 16, history 7 (finetuning) and 11 (pretraining), 6 to 9 queries, width 384, 24 blocks, 12
    heads, decoder of 2 blocks with 16 heads; AdamW at 1e-4 and 1e-3, weight decay 1e-4, clip 0.1.

    Attributes:
        mode: which actions of a chunk are played, see `ChunkExecutor`.
    """

    card: ClassVar[Card] = Card(
        slug="seer",
        title="Predictive Inverse Dynamics Models are Scalable Learners for Robotic Manipulation",
        authors="Tian, Yang, Zeng, Wang, Lin, Dong, Pang",
        year=2024,
        url="https://arxiv.org/abs/2412.15109",
        reads="camera frames, the robot's state, the task; actions",
        returns="the action to take; the frame some steps ahead; the action between two frames",
        claim="actions conditioned on a forecast, both learned end to end, beat cloning and forecasts learned apart",
    )

    mode: Mode = "first"

    _memory: SeerMemory | None = field(default=None, init=False, repr=False, compare=False)
    _chunks: ChunkExecutor | None = field(default=None, init=False, repr=False, compare=False)

    # ---- what it is asked with ----------------------------------------------------------------------------------------

    @property
    def reads(self) -> Window:
        """From a step to the frame `ahead`; `infer` says the actions in between."""
        self.check_fitted()
        return replace(self._asked(0), after=self.ahead)

    @property
    def keeps(self) -> slice:
        return slice(0, 1)

    @property
    def asks(self) -> Window:
        """The window that `sample` is given: what was seen up to now."""
        self.check_fitted()
        return self._asked(self.history - 1)

    def _asked(self, before: int) -> Window:
        state = (STATE,) if STATE in self.spec_.features else ()
        return replace(self.looked_at(self.spec_, before, beside=state), edge="replicate")

    def prepare(self, recordings: Recordings) -> None:
        self._memory = self._chunks = None
        super().prepare(recordings)

    def adapt(self, recordings: Recordings) -> Self:
        self._memory = self._chunks = None
        return super().adapt(recordings)

    # ---- how it answers -----------------------------------------------------------------------------------------------

    def act(self, observation: Batch) -> Tensor:
        """Flat actions (B, width); remembers what was seen. `task`, a text or one for each world, may be among the observation.

        A task that is not told is the one that it learned last, if that was a single one. Where recordings named none, none is
        heard.

        Raises NotFittedError before `fit`; DataError where a feature is missing or of the wrong form, or a task is unknown;
        RetrodictError where `reset` was not called first.
        """
        self.check_fitted()
        frames, state = self._look({n: v[:, None] if isinstance(v, Tensor) else v for n, v in observation.items()})
        if self._chunks is None or self._memory is None:
            raise RetrodictError("seer was asked to act without reset(): call it before the first step of each episode.")
        with torch.no_grad():
            task = self._task(observation.get(TASK), len(frames))
            steps, now = self._memory.add(self.net_.observed(self.net_.see(frames), state, task))
            said = None
            if self._chunks.needs:
                said = self.net_.flat(self._through(steps)[1][torch.arange(len(now), device=now.device), now])
            return self._chunks.push(said)

    def reset(self, mask: Tensor | None = None) -> None:
        self._memory = self._memory or SeerMemory(self.history)
        self._chunks = self._chunks or ChunkExecutor(self.chunk, self.mode)
        self._memory.reset(mask)
        self._chunks.reset(mask)

    def sample(self, n: int, given: Batch | None = None) -> dict[str, Tensor]:
        """The frame of each camera `ahead` steps after a window (see `asks`), uint8 (n, C, H, W): one for each of n windows.

        Patches are painted with mean 0 and deviation 1, and shown with those of the same patch as it is now.

        Raises NotFittedError before `fit`; DataError where no window is given, there are not n, or they are of the wrong form.
        """
        self.check_fitted()
        if given is None:
            raise DataError("seer foresees what follows a window: sample(n, given=window), see `asks`.")
        frames, _ = self._look(given)
        if len(frames) != n:
            raise DataError(f"seer foresees one frame for each window: {n} are asked for and {len(frames)} windows are given.")
        with torch.no_grad():
            last = frames[:, -1]
            shown = PatchScale.of(self.patches(last)).undone(self.foresee(given))
            pixels = from_patches(shown, (self.patch, self.patch), last.shape[-2:])
            painted = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
        return {name: painted[:, v] for v, name in enumerate(self.seen(self.spec_))}

    def foresee(self, given: Batch) -> Tensor:
        """The patches foreseen after windows (see `asks`), each of mean 0 and deviation 1, (B, V, L, pixels).

        Raises as `sample` does.
        """
        frames, state = self._look(given)
        if frames.shape[1] > self.history:
            raise DataError(f"seer looks back on {self.history} steps and was given windows of {frames.shape[1]}.")
        with torch.no_grad():
            task = self._task(given.get(TASK), len(frames))
            observed = self.net_.observed(self.net_.see(frames), state, task)
            there = given["mask"].to(observed.device) if "mask" in given else observed.new_ones(observed.shape[:2])
            first = observed.shape[1] - there.long().sum(1)  # steps before the episode come first, and are left out
            row = torch.arange(len(observed), device=observed.device)
            order = (torch.arange(observed.shape[1], device=observed.device) + first[:, None]) % observed.shape[1]
            steps = observed[row[:, None], order]
            foreseen = self._through(steps)[0][row, observed.shape[1] - 1 - first]
            painted: Tensor = self.net_.decode(foreseen)
        return painted

    def infer(self, window: Batch) -> Inferred:
        """The actions between the first step of windows (B, T, ...) and the step `ahead` of it; the last that is said repeats.

        Raises NotFittedError before `fit`; DataError for windows that are too short, frames of the wrong form, and a system that
        was fitted with `inverse=0`.
        """
        self.check_fitted()
        if not self.inverse:
            raise DataError("seer was fitted with inverse=0 and has learned no inverse model; fit it with inverse=0.5.")
        frames, state = self._look(window)
        if frames.shape[1] <= self.ahead:
            raise DataError(f"seer was given windows of {frames.shape[1]} steps; it looks {self.ahead} ahead.")
        with torch.no_grad():
            patches = self.net_.see(frames[:, [0, self.ahead]])
            untold = torch.zeros(len(frames), dtype=torch.long, device=frames.device)
            observed = self.net_.observed(patches[:, :1], state[:, :1] if state is not None else None, untold)
            acting = self._through(observed, self.net_.outcome(patches[:, 1:]))[1][:, 0]
            step = torch.arange(frames.shape[1], device=frames.device).clamp(max=self.chunk - 1)
            return Inferred(self.net_.flat(acting)[:, step], self.net_.sure(acting).confidence()[:, step])

    # ---- details ------------------------------------------------------------------------------------------------------

    def _through(self, observed: Tensor, foresight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        out: tuple[Tensor, Tensor] = self.net_(self.net_.sequence(observed, foresight), self.mask(self.net_, observed.shape[1]))
        return out

    def _look(self, window: Batch) -> tuple[Tensor, Tensor | None]:
        """Frames (B, T, V, C, H, W) and the state (B, T, s), where there is one."""
        self.check_fitted()
        for name in self.seen(self.spec_):
            if name not in window:
                raise DataError(
                    f"seer was not given {name!r}, which it learned to look at; a view that is missing is not filled with zeros."
                )
        frames, state = self.look(window), None
        if STATE in self.spec_.features:
            state = self.checked(window, (STATE,))[STATE]
            if state.shape[:2] != frames.shape[:2]:
                raise DataError(
                    f"seer was given {list(frames.shape[:2])} frames and {list(state.shape[:2])} states; one for each."
                )
        return frames, state

    def _task(self, told: Any, size: int) -> Tensor:
        texts = [told] * size if isinstance(told, str) else told
        texts = [self.doing_] * size if told is None and self.doing_ else texts
        if texts is None or not self.net_.text.vocabulary:  # nothing is told, or nothing can be
            return torch.zeros(size, dtype=torch.long, device=self.torch_device)
        if isinstance(texts[0], list):  # a window has the text of each step
            texts = [of_step[0] for of_step in texts]
        numbers: Tensor = self.net_.text.numbers(texts)
        return numbers.to(self.torch_device)
