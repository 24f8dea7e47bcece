"""Ctrl-C during a training: the step under way is finished first, so that what it learned can be kept."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Stopping:
    """Holds Ctrl-C back while a step is under way; pressed a second time it is not held back.

    Elsewhere than in the main thread, or where not `wanted`, Ctrl-C does what it did before.

    Attributes:
        within: whether a step is under way.
        asked: whether Ctrl-C was pressed during it.
    """

    def __init__(self, wanted: bool) -> None:
        self.within = self.asked = False
        self._wanted = wanted and threading.current_thread() is threading.main_thread()
        self._before: Any = None

    def __enter__(self) -> Stopping:
        if self._wanted and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _pressed(self, number: int, frame: FrameType | None) -> None:
        if not self.within or self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def begins(self) -> None:
        """A step begins."""
        self.within = True

    def ended(self) -> None:
        """A step is finished; raises the KeyboardInterrupt that was held back."""
        self.within = False
        if self.asked:
            raise KeyboardInterrupt
