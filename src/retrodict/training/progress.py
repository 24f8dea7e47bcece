"""The progress bar of a run, shown where there is a terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

REFRESH = 0.1
"""Seconds between updates; drawing more often costs time and shows nothing more."""


class Bar:
    """Steps done, loss, learning rate and the time that is left, on standard error."""

    def __init__(self, total: int, done: int, wanted: bool, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not (wanted and console.is_terminal),
        )
        self._task = self._progress.add_task("train", total=total, completed=done, values="")
        self._shown, self._done = 0.0, done

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.update(self._task, completed=self._done)
        self._progress.stop()

    def advance(self, done: int) -> None:
        """Show the steps done, unless that was shown a moment ago."""
        self._done = done
        now = time.monotonic()
        if now - self._shown > REFRESH and not self._progress.disable:
            self._shown = now
            self._progress.update(self._task, completed=done)

    def show(self, stage: str, loss: float, rate: float, validation: float | None) -> None:
        """Show the values of the latest steps."""
        judged = "" if validation is None else f" validation {validation:.4g}"
        self._progress.update(self._task, description=stage, values=f"loss {loss:.4g} rate {rate:.2g}{judged}")

    def shorten(self, total: int) -> None:
        """There is less to do than was thought, as a stage ended early."""
        self._progress.update(self._task, total=total)
