"""Where recordings come from and policies are tried."""

from retrodict.worlds.batched import BatchedWorld, Step
from retrodict.worlds.catalogue import ids, make
from retrodict.worlds.players import NullPolicy, RandomPlayer, RandomPolicy
from retrodict.worlds.recording import play, record
from retrodict.worlds.rollouts import Rollout, Rollouts, rollout, success
from retrodict.worlds.vector import Vector
from retrodict.worlds.world import Observation, Player, Unplayable, World

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
