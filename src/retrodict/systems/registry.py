"""Which systems there are: a system is found by its file being in its room."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING

from retrodict.errors import DataError

if TYPE_CHECKING:
    from retrodict.systems.contract import System

ROOMS = "retrodict.systems"

REGISTRY: dict[str, type[System]] = {}
"""Every system class that has been imported, by slug."""


@cache
def discover() -> None:
    """Import every module of every room, so that the registry is complete."""
    for module in pkgutil.walk_packages(importlib.import_module(ROOMS).__path__, f"{ROOMS}."):
        importlib.import_module(module.name)


def catalogue() -> dict[str, type[System]]:
    """Every system of this package, by slug."""
    discover()
    return {slug: system for slug, system in sorted(REGISTRY.items()) if system.__module__.startswith(f"{ROOMS}.")}


def lookup(slug: str) -> type[System]:
    """The system class of a slug.

    Raises DataError naming the known ones.
    """
    if slug not in REGISTRY:
        discover()
    try:
        return REGISTRY[slug]
    except KeyError:
        raise DataError(f"no system is called {slug!r}; there are {', '.join(sorted(REGISTRY))}.") from None
