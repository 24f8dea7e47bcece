"""Run: where and how a fit happens, apart from what is learned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


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
    """

    folder: Path | None = None
    checkpoint_every: int = 500
    log_every: int = 20
    progress: bool = True
    devices: int = 1
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed", "64-true"] = "auto"
