"""Run: where and how a fit happens, apart from what is learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from retrodict.errors import DataError


@dataclass(frozen=True)
class Moment:
    """What a callback is told after every optimiser step.

    Attributes:
        step: steps done so far, through all stages.
        stage: name of the stage.
        losses: the terms of the loss, scalars on the device of the net; reading one makes a GPU wait.
        gradient_norm: norm of the gradient before clipping, likewise on the device.
        net: the net as it stands; a recorder of weights copies from it, nobody changes it.
    """

    step: int
    stage: str
    losses: Mapping[str, Tensor]
    gradient_norm: Tensor
    net: nn.Module


Callback = Callable[[Moment], None]


@dataclass(frozen=True)
class Run:
    """Where a fit writes its checkpoints and logs, on which devices it runs, and what it shows.

    Attributes:
        folder: checkpoints and logs go here; a fit started again with the same folder resumes. None keeps nothing.
        checkpoint_every: steps between checkpoints.
        log_every: steps between logged values.
        progress: show a progress bar where there is a terminal.
        devices: number of devices that share the work.
        precision: Lightning Fabric's name (`32-true`, `bf16-mixed`, `16-mixed`); `auto` mixes where a GPU can.
        callbacks: told of every step, in the process of the first device.

    Raises DataError when a number is not positive.
    """

    folder: Path | None = None
    checkpoint_every: int = 500
    log_every: int = 20
    progress: bool = True
    devices: int = 1
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed", "64-true"] = "auto"
    callbacks: tuple[Callback, ...] = ()

    def __post_init__(self) -> None:
        for name in ("checkpoint_every", "log_every", "devices"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} of a run must be at least 1, got {getattr(self, name)}.")
        if self.folder is not None:
            object.__setattr__(self, "folder", Path(self.folder))
