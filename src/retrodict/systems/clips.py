"""What an inverse model and a policy over clips have in common: which features they read, at what size, through which network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from retrodict.errors import DataError
from retrodict.networks.heads import ActionDistribution, ActionHead
from retrodict.networks.observations import Numbers, Observations
from retrodict.networks.transformer import Transformer
from retrodict.roles import Batch
from retrodict.systems.contract import Spec, System
from retrodict.systems.gradient import GradientSystem
from retrodict.systems.looking import require_encoder
from retrodict.systems.supervision import recorded_actions
from retrodict.training.augment import VPT_AUGMENTATION, Mirror
from retrodict.trajectories import ActionSpace, Episode, Feature, Recordings, Window
from retrodict.trajectories.features import ACTION, DEPTH, IMAGES, POINTS, WEIGHT, cameras
from retrodict.trajectories.video import resize
from retrodict.trajectories.windows import Windows

CODE = "code"
"""What the encoder said, beside the observations of a batch."""

STATISTICS_STEPS = 100_000
"""Statistics of numbers are taken over at most about this many steps, spread over all episodes."""


@dataclass
class ClipSystem(GradientSystem):
    """Base of systems that look at clips of camera frames, numbers, or both, and answer with actions at every step.

    Attributes:
        frames: steps T of a clip (VPT: 128).
        cameras: names of the cameras to look at, with or without `observation.images.`; all where empty.
        numbers: whether to read plain numbers (`observation.state` and other numeric observations) too.
        image_size: (height, width) to which camera frames are brought (VPT: 128 x 128); None keeps theirs.
        patch: patches of this many pixels go into channels before the first convolution, which makes the costly layers at full
            size patch^2 times cheaper (VPT: 1).
        stacks: channels of the image network's three stacks (VPT: 256, 512, 512 in the inverse model).
        dense: width of its dense layer (VPT: 256).
        width: width of the trunk (VPT: 4096 in the inverse model, 2048 in the policy).
        depth: transformer blocks (VPT: 2 in the released inverse model, 4 in the policy).
        heads: attention heads (VPT: 32 and 16).
        encoder: a fitted `Encoder` of single frames to look through instead of the image network, at the size of the recordings;
            it is not trained.
        augmented: change colours and geometry of training frames a little, with one draw for each clip.
        mirror: show half of the training clips in a mirror, where the world has no left and right of its own: the names of the
            action's numbers as they read there, with a minus where the sign changes, ("forward", "right", "left", "-turn") for
            ("forward", "left", "right", "turn"). Plain numbers that are seen stay as they are. VPT: never, which is empty.
    """

    gaps: ClassVar[tuple[str, ...]] = (ACTION,)

    frames: int = 16
    cameras: tuple[str, ...] = ()
    numbers: bool = True
    image_size: tuple[int, int] | None = (64, 64)
    patch: int = 2
    stacks: tuple[int, ...] = (16, 32, 32)
    dense: int = 128
    width: int = 128
    depth: int = 2
    heads: int = 4
    encoder: System | None = field(default=None, kw_only=True)
    augmented: bool = field(default=True, kw_only=True)
    mirror: tuple[str, ...] = field(default=(), kw_only=True)

    # ---- what a system supplies ---------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def reads(self) -> Window:
        """The window that a role method takes."""

    # ---- what is read -------------------------------------------------------------------------------------------------

    def features(self, recordings: Recordings) -> tuple[str, ...]:
        spec = Spec(recordings.features, recordings.actions)
        return (*self.seen(spec), *(name for name in (ACTION, WEIGHT) if name in recordings.features))

    def seen(self, spec: Spec) -> tuple[str, ...]:
        """Names of the observations that are read.

        Raises DataError where a camera that was asked for is not there, or nothing is there to read.
        """
        there = cameras(spec.features)
        wanted = tuple(name if name.startswith(IMAGES) else IMAGES + name for name in self.cameras) or there
        for name in wanted:
            if name not in spec.features:
                raise DataError(f"{self.card.slug} is to look at {name!r}; there is {', '.join(there) or 'no camera'}.")
        names = wanted + (tuple(n for n, f in spec.features.items() if _plain(n, f)) if self.numbers else ())
        if not names:
            raise DataError(
                f"{self.card.slug} reads observation.images.<camera> or observation.state; "
                f"these recordings have {', '.join(spec.features) or 'nothing'}."
            )
        return names

    def size(self, feature: Feature) -> tuple[int, int]:
        """(height, width) at which frames of a camera are looked at."""
        size = self._image_size or feature.shape[:2]
        if -1 in size:
            raise DataError(f"{self.card.slug}: camera frames differ in size between episodes; set image_size=(height, width).")
        return int(size[0]), int(size[1])

    @property
    def _image_size(self) -> tuple[int, int] | None:
        return self.image_size if self.encoder is None else None  # an encoder knows its own size

    def looked_at(self, spec: Spec, before: int, after: int, *, learning: bool) -> Window:
        """The window of a clip: observations, and where it is learned from, the action and the weight of each step."""
        names = self.seen(spec)
        image_size = self._image_size
        if image_size and all(spec.features[n].shape[:2] == tuple(image_size) for n in names if n.startswith(IMAGES)):
            image_size = None  # nothing to resize
        if learning:
            names += (ACTION, *((WEIGHT,) if WEIGHT in spec.features else ()))
        return Window(before, after, names, optional=(WEIGHT,) if WEIGHT in names else (), image_size=image_size)

    def look(self, batch: Batch, *, time: bool = True) -> dict[str, Tensor]:
        """What a role method was given, checked (see `checked`) and on the device, frames at the size of the network.

        Frames may come as they were recorded or already resized.
        """
        self.check_fitted()
        names, visual = self.seen(self.spec_), {}
        for name in cameras({name: self.spec_.features[name] for name in names}):
            feature = self.spec_.features[name]
            visual[name] = size = self.size(feature)
            sized = (feature.shape[-1], *size)
            frames = batch.get(name)
            if frames is not None and frames.dtype == torch.uint8 and frames.shape[1 + time :] == sized:
                names = tuple(n for n in names if n != name)
        checked = self.checked(batch, names, time=time)
        for name, size in visual.items():
            if checked[name].shape[-2:] != size:
                recorded = checked[name].cpu().movedim(-3, -1).numpy()
                checked[name] = torch.from_numpy(resize(recorded, size)).movedim(-1, -3).to(self.torch_device)
        return checked

    # ---- networks -----------------------------------------------------------------------------------------------------

    def space(self, spec: Spec) -> ActionSpace:
        """What the recorded actions mean."""
        return spec.actions if spec.actions is not None else ActionSpace.unknown(spec.features[ACTION])

    def observations(self, spec: Spec, *, temporal: int = 1, stem: int = 16) -> Observations:
        """The network that turns what is seen at each step into a vector; an encoder's codes take the place of cameras."""
        features = {name: spec.features[name] for name in self.seen(spec)}
        images = {name: (f.shape[-1], *self.size(f)) for name, f in features.items() if f.is_visual}
        numbers = {name: f.shape for name, f in features.items() if not f.is_visual}
        if self.encoder is not None:
            images, numbers = {}, {**numbers, CODE: self._code_shape(spec)}
        return Observations(
            images,
            numbers,
            self.width,
            stacks=self.stacks,
            dense=self.dense,
            patch=self.patch,
            temporal=temporal,
            stem=stem,
        )

    def through(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The batch with the codes of its frames (B, T, d) beside them, where an encoder is looked through."""
        if self.encoder is None:
            return batch
        with torch.no_grad():
            return {**batch, CODE: require_encoder(self.encoder, self.card.slug).encode(batch).to(self.torch_device)}

    def _code_shape(self, spec: Spec) -> tuple[int, ...]:
        blank = {}
        for name in self.seen(spec):
            feature = spec.features[name]
            if feature.is_visual:
                blank[name] = torch.zeros(1, self.frames, feature.shape[-1], *self.size(feature), dtype=torch.uint8)
            else:
                blank[name] = torch.zeros(1, self.frames, *feature.shape)
        code = self.through(blank)[CODE]
        if code.dim() != 3 or code.shape[1] != self.frames:
            raise DataError(f"{self.card.slug} needs a code for each frame, (B, T, d); its encoder gave {list(code.shape)}.")
        return (code.shape[2],)

    def trunk(self) -> Transformer:
        """The transformer over the steps of a clip, initialised as VPT's."""
        return Transformer(self.width, self.depth, self.heads, activation="relu", init="fan_in")

    # ---- learning -----------------------------------------------------------------------------------------------------

    def reader(self, recordings: Recordings) -> Windows:
        # Weights weigh the loss of each step; drawing clips by the weight of their anchor as well would count it twice.
        return recordings.windows(self.window(self.spec_), self.batch, seed=self.seed, weights=None, where=_counts)

    def prepare(self, recordings: Recordings) -> None:
        actions = recorded_actions(recordings, self.space(self.spec_), self.card.slug)
        if isinstance(self.net_.head, ActionHead):
            self.net_.head.fit_scale(actions)
        observations = self.net_.observations
        for name, reader in zip(observations.names, observations.readers, strict=True):
            if isinstance(reader, Numbers) and name in self.spec_.features:
                every = max(1, recordings.steps // STATISTICS_STEPS)
                taken = [e.read(name, np.arange(0, e.length, every)).astype(np.float64) for e in recordings]
                observations.fit_scale(name, np.concatenate(taken))

    def augment(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        out = dict(batch)
        images = [name for name in batch if name.startswith(IMAGES)]
        if self.augmented:
            out |= {name: VPT_AUGMENTATION(batch[name], generator) for name in images}
        if self.mirror:
            mirror, drawn = self._mirror(), generator.get_state()
            for name in images:
                generator.set_state(drawn)  # the cameras of a clip are mirrored together
                out[name], out[ACTION] = mirror(out[name], batch[ACTION], generator)
        return out

    def _mirror(self) -> Mirror:
        names = self.space(self.spec_).names
        mirrored = tuple(name.removeprefix("-") for name in self.mirror)
        if sorted(mirrored) != sorted(names):
            raise DataError(
                f"{self.card.slug}: mirror must name each of {', '.join(names)} once; it names {', '.join(mirrored)}."
            )
        signs = tuple(-1.0 if name.startswith("-") else 1.0 for name in self.mirror)
        return Mirror(tuple(names.index(name) for name in mirrored), signs)

    def supervised(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Which steps (B, T) are learned from, and their weights."""
        mask = batch["mask"]
        if f"mask.{ACTION}" in batch:
            mask = mask & batch[f"mask.{ACTION}"]
        if WEIGHT not in batch:
            return mask, None
        weight = batch[WEIGHT].reshape(mask.shape).float()
        if f"mask.{WEIGHT}" in batch:  # an episode without weights counts fully
            weight = torch.where(batch[f"mask.{WEIGHT}"], weight, torch.ones_like(weight))
        return mask, weight

    def named(self, dist: ActionDistribution, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The losses of all parts of the action by name."""
        mask, weight = self.supervised(batch)
        return dist.losses(batch[ACTION].float(), mask, weight)


class ClipNet(nn.Module):
    """Observations, trunk and head of a clip system."""

    def __init__(self, observations: Observations, trunk: Transformer, head: nn.Module):
        super().__init__()
        self.observations, self.trunk, self.head = observations, trunk, head
        self.norm = nn.LayerNorm(trunk.width)

    def read_out(self, x: Tensor, temperature: float = 1.0) -> ActionDistribution:
        """The action at every step, from what the trunk gave (B, T, width)."""
        dist: ActionDistribution = self.head(self.norm(x.relu()), temperature=temperature)
        return dist


def _plain(name: str, feature: Feature) -> bool:
    """Whether a feature is a vector of numbers that a policy or inverse model may take as it is."""
    if not name.startswith("observation.") or name.startswith((IMAGES, DEPTH, POINTS)):
        return False
    return feature.is_numeric and len(feature.shape) == 1 and -1 not in feature.shape


def _counts(episode: Episode) -> np.ndarray:
    """At which steps (T,) there is something to learn."""
    counts = np.ones(episode.length, bool)
    if WEIGHT in episode:
        counts &= np.asarray(episode[WEIGHT]).reshape(-1) > 0
    counts &= episode.there(ACTION)
    return counts
