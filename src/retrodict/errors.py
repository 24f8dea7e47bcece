"""Errors a user can act on: one sentence that says what was seen, what was expected and what to do."""

from __future__ import annotations

import importlib
from types import ModuleType


class RetrodictError(Exception):
    """Base of every error that retrodict raises on purpose; the command line prints it and exits with 2."""


class DataError(RetrodictError, ValueError):
    """The data given cannot be used: names the file, episode or feature, what was seen and what was expected."""


class NotIdentifiableError(DataError):
    """A recording cannot tell what was asked of it, such as its law: says why, and what to record instead."""


class NotFittedError(RetrodictError, RuntimeError):
    """A system was asked before it was fitted."""


class MissingExtraError(RetrodictError, ImportError):
    """An optional dependency is not installed."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it.

    Raises MissingExtraError naming the `pip install "retrodict[<extra>]"` that mends it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f'{module} is not installed and is needed here: pip install "retrodict[{extra}]" ({error})'
        ) from error
