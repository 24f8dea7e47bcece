"""What systems that look through cameras have in common: which cameras they look at, and at what size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from retrodict.errors import DataError
from retrodict.roles import Batch
from retrodict.systems.contract import Spec
from retrodict.systems.gradient import GradientSystem
from retrodict.trajectories import Feature, Recordings, Window
from retrodict.trajectories.features import IMAGES, cameras
from retrodict.trajectories.video import resize


@dataclass
class CameraSystem(GradientSystem):
    """Base of systems that look at one camera or several at once, all of them at one size.

    Attributes:
        cameras: names of the cameras to look at, with or without `observation.images.`; all where empty.
        image_size: (height, width) to which camera frames are brought; None keeps theirs.
    """

    cameras: tuple[str, ...] = ()
    image_size: tuple[int, int] | None = None

    def inputs(self, recordings: Recordings) -> tuple[str, ...]:
        for episode in recordings:
            missing = [name for name in self.seen(Spec(recordings.features)) if name not in episode]
            if missing and len(missing) < len(self.seen(Spec(recordings.features))):
                raise DataError(f"{self.card.slug} looks at several cameras at once and {episode} lacks {missing[0]!r}.")
        return super().inputs(recordings)

    def features(self, recordings: Recordings) -> tuple[str, ...]:
        return self.seen(Spec(recordings.features))

    def seen(self, spec: Spec) -> tuple[str, ...]:
        """Names of the cameras that are looked at.

        Raises DataError where one that was asked for is not there, there is none, or they show frames of different sizes.
        """
        there = cameras(spec.features)
        names = tuple(name if name.startswith(IMAGES) else IMAGES + name for name in self.cameras) or there
        for name in names:
            if name not in there:
                raise DataError(f"{self.card.slug} is to look at {name!r}; there is {', '.join(there) or 'no camera'}.")
        if not names:
            raise DataError(
                f"{self.card.slug} looks at observation.images.<camera>; these recordings have "
                f"{', '.join(spec.features) or 'nothing'}."
            )
        shapes = {name: self.shape(spec.features[name]) for name in names}
        if len(set(shapes.values())) > 1:
            raise DataError(
                f"{self.card.slug} looks at all cameras through one network and they differ: {shapes}; set image_size."
            )
        return names

    def shape(self, feature: Feature) -> tuple[int, int, int]:
        """(channels, height, width) at which frames are looked at."""
        height, width = self.image_size or feature.shape[:2]
        if -1 in (height, width):
            raise DataError(f"{self.card.slug}: camera frames differ in size between episodes; set image_size=(height, width).")
        return feature.shape[-1], int(height), int(width)

    def looked_at(self, spec: Spec, before: int = 0, after: int = 0, *, beside: tuple[str, ...] = (), stride: int = 1) -> Window:
        """A window of camera frames, and of the features `beside` them, that lies within its episode."""
        names = self.seen(spec)
        sized = all(tuple(spec.features[name].shape[:2]) == self.image_size for name in names)
        image_size = None if sized else self.image_size
        return Window(before, after, (*names, *beside), stride=stride, edge="drop", image_size=image_size)

    def look(self, window: Batch) -> Tensor:
        """The frames of a window, checked (see `checked`), on the device and at the size of the network: (B, T, V, C, H, W).

        Frames may come as they were recorded or already resized.
        """
        self.check_fitted()
        names = self.seen(self.spec_)
        shape = self.shape(self.spec_.features[names[0]])
        fits = {n: n in window and window[n].dtype == torch.uint8 and window[n].shape[2:] == shape for n in names}
        checked = self.checked(window, [name for name in names if not fits[name]])
        views = []
        for name in names:
            frames = checked[name]
            if not fits[name] and tuple(frames.shape[2:]) != shape:
                frames = torch.from_numpy(resize(frames.cpu().movedim(-3, -1).numpy(), shape[1:])).movedim(-1, -3)
            views.append(frames.to(self.torch_device))
        if len({view.shape[:2] for view in views}) > 1:
            raise DataError(f"{self.card.slug} was given cameras of different lengths: {[list(v.shape[:2]) for v in views]}.")
        return torch.stack(views, 2)

    def views(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The frames of a training batch as one tensor (B, T, V, C, H, W)."""
        return torch.stack([batch[name] for name in self.seen(self.spec_)], 2)
