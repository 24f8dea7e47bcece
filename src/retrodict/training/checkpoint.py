"""Checkpoints: all that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from retrodict.errors import DataError

NAME = re.compile(r"checkpoint-(\d+)\.pt")


class Checkpoints:
    """The checkpoints of a run folder; the newest `keep` stay."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def paths(self) -> list[Path]:
        """Newest first."""
        found = [(int(match[1]), path) for path in self.folder.glob("*") if (match := NAME.fullmatch(path.name))]
        return [path for _, path in sorted(found, reverse=True)]

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint so that it is there whole or not at all, then drop what is too old."""
        path = self.folder / f"checkpoint-{step:08d}.pt"
        partial = self.folder / f".{path.name}.{os.getpid()}.partial"
        with partial.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())  # the rename must not reach the disk before the contents do
        partial.replace(path)
        for old in self.paths()[self.keep :]:
            old.unlink()

    def latest(self) -> dict[str, Any] | None:
        """The newest checkpoint that can be read, with a warning for each that cannot; None where there is none.

        Raises DataError when there are checkpoints and none can be read.
        """
        for leftover in self.folder.glob(".checkpoint-*.partial"):
            leftover.unlink(missing_ok=True)  # a process was killed while writing it
        paths = self.paths()
        for path in paths:
            try:
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # a damaged archive fails in many ways, none of which is to end the run
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                warnings.warn(f"{path} cannot be read ({reason}); going on from the checkpoint before.", stacklevel=2)
                continue
            for newer in paths[: paths.index(path)]:
                newer.unlink(missing_ok=True)
            return state
        if paths:
            raise DataError(f"none of the checkpoints in {self.folder} can be read; remove the folder to start again.")
        return None
