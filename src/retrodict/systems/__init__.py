"""The systems, one small file each in the room of what it recovers. Adding one is adding a file: it is found by being there."""

from __future__ import annotations

from retrodict.systems.contract import Card, Spec, System, read_manifest, roles_of
from retrodict.systems.gradient import GradientSystem
from retrodict.systems.registry import REGISTRY, catalogue, discover, lookup

__all__ = [
    "REGISTRY",
    "Card",
    "GradientSystem",
    "Spec",
    "System",
    "catalogue",
    "discover",
    "lookup",
    "read_manifest",
    "roles_of",
]
