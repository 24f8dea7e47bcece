"""The systems, one small file each in the room of what it recovers. Adding one is adding a file: it is found by being there."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from retrodict.systems.contract import REGISTRY, Card, Spec, System, lookup, read_manifest, roles_of

__all__ = ["REGISTRY", "Card", "Spec", "System", "catalogue", "lookup", "read_manifest", "roles_of"]


@cache
def discover() -> None:
    """Import every module of every room, so that the registry is complete."""
    for module in pkgutil.walk_packages(__path__, f"{__name__}."):
        importlib.import_module(module.name)


def catalogue() -> dict[str, type[System]]:
    """Every system, by slug."""
    discover()
    return {slug: system for slug, system in sorted(REGISTRY.items()) if system.__module__.startswith("retrodict.systems.")}
