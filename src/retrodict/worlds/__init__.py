"""Where recordings come from and policies are tried.

Everything is imported when it is first asked for: a process that plays a world needs no torch, which takes seconds to load.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrodict.worlds.batched import BatchedWorld as BatchedWorld
    from retrodict.worlds.batched import Step as Step
    from retrodict.worlds.catalogue import ids as ids
    from retrodict.worlds.catalogue import make as make
    from retrodict.worlds.players import RandomPlayer as RandomPlayer
    from retrodict.worlds.policies import NullPolicy as NullPolicy
    from retrodict.worlds.policies import RandomPolicy as RandomPolicy
    from retrodict.worlds.recording import play as play
    from retrodict.worlds.recording import record as record
    from retrodict.worlds.rollouts import Rollout as Rollout
    from retrodict.worlds.rollouts import Rollouts as Rollouts
    from retrodict.worlds.rollouts import rollout as rollout
    from retrodict.worlds.rollouts import success as success
    from retrodict.worlds.vector import Vector as Vector
    from retrodict.worlds.world import Observation as Observation
    from retrodict.worlds.world import Player as Player
    from retrodict.worlds.world import Unplayable as Unplayable
    from retrodict.worlds.world import World as World

HOMES = {
    **dict.fromkeys(("BatchedWorld", "Step"), "batched"),
    **dict.fromkeys(("ids", "make"), "catalogue"),
    "RandomPlayer": "players",
    **dict.fromkeys(("NullPolicy", "RandomPolicy"), "policies"),
    **dict.fromkeys(("play", "record"), "recording"),
    **dict.fromkeys(("Rollout", "Rollouts", "rollout", "success"), "rollouts"),
    "Vector": "vector",
    **dict.fromkeys(("Observation", "Player", "Unplayable", "World"), "world"),
}
"""Public name -> module of this package that it is imported from when first asked for."""

__all__ = [
    "BatchedWorld",
    "NullPolicy",
    "Observation",
    "Player",
    "RandomPlayer",
    "RandomPolicy",
    "Rollout",
    "Rollouts",
    "Step",
    "Unplayable",
    "Vector",
    "World",
    "ids",
    "make",
    "play",
    "record",
    "rollout",
    "success",
]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})
