"""A scripted player of health gathering: it sees what is on the screen, remembers little, and walks in arcs as people do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from retrodict.worlds.world import Observation, Player

OBJECTS = 16
"""Rows of `privileged.objects`; their kinds are 0 (no object), MEDIKIT and POISON."""
MEDIKIT, POISON = 1, 2

FASTEST = 10.0  # degrees per tic
LOOK, LOOKING = 28.0, 13  # degrees per decision and decisions that make one turn around
STRAY = 6.0  # degrees per decision by which a straight walk bends
FREE = 30.0  # degrees per decision when walking out of a corner
STANDING = 8.0  # map units per decision; a walk makes 15 to 60


class Gatherer(Player):
    """Walks to the medikit that is largest and nearest to the middle of the screen and steps aside of poison.

    With none in sight it turns around once, walks on for a while, and turns around again; out of a corner it turns and pushes on.

    Args:
        skip: tics per decision.
        seed: of its whims.
    """

    def __init__(self, skip: int, seed: int = 0) -> None:
        self.skip, self.seed = skip, seed
        self.reset()

    def reset(self) -> None:
        self.rng = np.random.default_rng((self.seed, 0))
        self.position: np.ndarray | None = None
        self.standing = 0  # decisions in a row without getting on
        self.freeing = 0  # decisions left of walking out of a corner
        self.side = 1.0
        self.looking, self.left, self.bend = True, LOOKING, 0.0  # turning around or walking on, for how long, in which curve

    def act(self, observation: Observation, info: Mapping[str, Any]) -> np.ndarray:
        objects = info["privileged"]["privileged.objects"]
        medikits, poisons = (objects[objects[:, 0] == kind] for kind in (MEDIKIT, POISON))
        self._notice(info["privileged"]["privileged.position"][:2])
        if self.freeing:
            self.freeing -= 1
            return self._walk(self.side * FREE, poisons)
        if len(medikits):
            return self._fetch(medikits, poisons)
        return self._search(poisons)

    def _notice(self, position: np.ndarray) -> None:
        """Whether the last decisions led anywhere."""
        stood = self.position is not None and float(np.hypot(*(position - self.position))) < STANDING
        self.standing = self.standing + 1 if stood else 0
        self.position = position
        if self.standing >= 2 and not self.freeing:
            self.freeing, self.side = int(self.rng.integers(4, 8)), float(self.rng.choice([-1, 1]))

    def _fetch(self, medikits: np.ndarray, poisons: np.ndarray) -> np.ndarray:
        _, offset, width, _ = medikits[np.argmax(medikits[:, 2] / (0.6 + np.abs(medikits[:, 1])))]
        self.side = float(np.sign(offset)) or 1.0
        self._look_around()  # once it is taken
        return self._walk(np.degrees(np.arctan(offset)), poisons, nearer_than=width)

    def _search(self, poisons: np.ndarray) -> np.ndarray:
        if not self.left:
            if self.looking:
                self.looking, self.left, self.bend = False, int(self.rng.integers(10, 20)), float(self.rng.uniform(-STRAY, STRAY))
            else:
                self.side = float(self.rng.choice([-1, 1]))
                self._look_around()
        self.left -= 1
        return self._walk(self.side * LOOK if self.looking else self.bend, poisons)

    def _look_around(self) -> None:
        self.looking, self.left, self.bend = True, LOOKING, 0.0

    def _walk(self, turn: float, poisons: np.ndarray, nearer_than: float = 0.0) -> np.ndarray:
        """Forward with a turn (degrees per decision), and sideways where poison lies ahead and is nearer than the goal."""
        ahead = poisons[(poisons[:, 2] > max(nearer_than, 0.04)) & (np.abs(poisons[:, 1]) < 0.35)]
        left, right = (ahead[0, 1] >= 0, ahead[0, 1] < 0) if len(ahead) else (False, False)
        return np.array([1, left, right, np.clip(turn / self.skip, -FASTEST, FASTEST)], np.float32)
