"""An object in a process of its own, to be asked over a pipe, or for comparison in this one.

The other process is a fresh interpreter, so scripts need no `if __name__ == "__main__"` guard. It ends when its pipe does: kill
the asker in any way, and it closes its object and goes.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from retrodict.errors import RetrodictError

SERVE = "from retrodict.worlds.remote import serve; serve()"


class Local:
    """An object in this process, asked as a `Remote` is; it works when the answer is fetched."""

    def __init__(self, factory: str, *args: Any) -> None:
        self._served = _made(factory, args)
        self._asked: deque[tuple[str, tuple[Any, ...]]] = deque()

    def ask(self, method: str, *args: Any) -> None:
        """Have a method called; what it gives comes with the next `answer`."""
        self._asked.append((method, args))

    def answer(self) -> Any:
        """What the method that was asked for first gives; raises what it raises."""
        method, args = self._asked.popleft()
        return getattr(self._served, method)(*args)

    def close(self) -> None:
        """Close the object."""
        self._served.close()


class Remote:
    """An object made by `factory(*args)` in another process, where `factory` is `module:name`.

    Several questions can be asked before the first answer is fetched; answers come in their order.
    """

    def __init__(self, factory: str, *args: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self._send((factory, args))

    def ask(self, method: str, *args: Any) -> None:
        """Have a method called; what it gives comes with the next `answer`."""
        self._send((method, args))

    def answer(self) -> Any:
        """What the method that was asked for first gave.

        Raises what it raised, and RetrodictError when the process ended.
        """
        assert self._process.stdout is not None
        try:
            error, value = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            raise self._ended() from None
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """End the process, after what it is doing."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # it is gone already
                    pipe.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _ended(self) -> RetrodictError:
        return RetrodictError(f"a worker process ended unasked (exit code {self._process.wait()}); its last words stand above.")


def serve() -> None:
    """What the other process does: make the object, call its methods, close it when nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the asker; this process follows it
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever is printed must not come between the answers
    questions = sys.stdin.buffer
    served: Any = None
    try:
        while True:
            name, args = pickle.load(questions)
            try:
                if served is None:
                    served = _made(name, args)
                    continue
                reply: tuple[Exception | None, Any] = (None, getattr(served, name)(*args))
            except Exception as error:
                reply = (_portable(error), None)
            pickle.dump(reply, answers)
            answers.flush()
            if served is None:
                return
    except EOFError:
        pass  # nobody asks any more
    except BrokenPipeError:  # nobody listens any more: what is left in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), answers.fileno())
    finally:
        if served is not None:
            served.close()


def _made(factory: str, args: tuple[Any, ...]) -> Any:
    module, _, name = factory.partition(":")
    return getattr(importlib.import_module(module), name)(*args)


def _portable(error: Exception) -> Exception:
    """The error, or its words where it cannot be carried over."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RetrodictError(f"{type(error).__name__}: {error}")
