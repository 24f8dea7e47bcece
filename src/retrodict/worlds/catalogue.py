"""Worlds by name: `family/name`, where the family is a module of this package that says which names it has.

A family module (`dm_control` for `dm-control`) defines `NAMES`, what it lists, and `make(name, **options) -> World`. It imports
what it needs of optional packages inside `make`, so that listing works without them. Adding a family is adding a file.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from types import ModuleType
from typing import Any

from retrodict.errors import DataError
from retrodict.worlds.world import World


def make(id: str, **options: Any) -> World:
    """The world of a name such as `vizdoom/health-gathering`; the options are its family's.

    Every family takes `privileged=False`, which leaves out the hidden truth where computing it costs time.

    Raises DataError naming the known worlds where there is none of this name, or options that the world does not take;
    MissingExtraError where its package is missing.
    """
    family, _, name = id.partition("/")
    module = _family(family)
    if module is None or not name:
        raise unknown(id, ids())
    try:
        world: World = module.make(name, **options)
    except (TypeError, ValueError) as error:
        if not options:
            raise
        given = ", ".join(f"{option}={value!r}" for option, value in options.items())
        raise DataError(f"{id} does not take {given}: {error}. Its options stand where its class is documented.") from error
    return world


def ids() -> tuple[str, ...]:
    """Names of the worlds, installed or not."""
    return tuple(f"{family}/{name}" for family, module in _families().items() for name in module.NAMES)


def unknown(id: str, known: Iterable[str]) -> DataError:
    """The error for a world that does not exist."""
    known = tuple(known)
    close = difflib.get_close_matches(id, known, n=1, cutoff=0.4)
    meant = f"; did you mean {close[0]}?" if close else "."
    return DataError(f"no world is called {id!r} (there are {', '.join(known)}){meant}")


@cache
def _family(name: str) -> ModuleType | None:
    """The module of a family, which alone is imported; None where there is none of this name."""
    package = importlib.import_module("retrodict.worlds")
    module = name.replace("-", "_")
    if "_" in name or module not in {entry.name for entry in pkgutil.iter_modules(package.__path__)}:
        return None
    found = importlib.import_module(f"retrodict.worlds.{module}")
    return found if hasattr(found, "NAMES") else None


def _families() -> dict[str, ModuleType]:
    package = importlib.import_module("retrodict.worlds")
    names = (entry.name.replace("_", "-") for entry in pkgutil.iter_modules(package.__path__))
    return {name: module for name in names if (module := _family(name)) is not None}
