"""The written course of a run: `log.csv` and TensorBoard events, which a resumed run continues without repeating a step."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOG = "log.csv"


class Journal:
    """Writes named values by step into a run folder.

    Args:
        folder: the run folder.
        step: steps done when this process takes over; whatever an earlier process wrote after it is forgotten.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter  # most fits write nowhere

        self.path = folder / LOG
        self.columns = ["step", "stage"]
        self._start(self._rows_until(step))
        self._events: Any = SummaryWriter(str(folder), purge_step=step + 1)  # type: ignore[no-untyped-call]

    def write(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """Add the values of a step."""
        unseen = [name for name in values if name not in self.columns]
        if unseen:
            self._file.close()
            self.columns += unseen
            self._start(self._rows_until(step))
        self._writer.writerow({"step": step, "stage": stage, **values})
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(f"{stage}/{name}", value, step)

    def flush(self) -> None:
        """Bring everything to disk; done before a checkpoint, so that it never is ahead of the log."""
        self._file.flush()
        self._events.flush()

    def close(self) -> None:
        self._file.close()
        self._events.close()

    def _rows_until(self, step: int) -> list[dict[str, str]]:
        """Rows of the file up to a step; a line that was cut off when a process was killed is left out."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            reader = csv.DictReader(file)
            self.columns += [name for name in reader.fieldnames or () if name not in self.columns]
            return [row for row in reader if None not in row.values() and row["step"].isdigit() and int(row["step"]) <= step]

    def _start(self, rows: list[dict[str, str]]) -> None:
        """Write the file anew, with the columns known so far, and keep it open at its end."""
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(self.path)
        self._file = self.path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, self.columns)
