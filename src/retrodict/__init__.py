"""retrodict: recover the action behind a recording and the law behind a motion."""

from retrodict._version import __version__
from retrodict.errors import DataError, MissingExtraError, NotFittedError, RetrodictError

__all__ = ["DataError", "MissingExtraError", "NotFittedError", "RetrodictError", "__version__"]
