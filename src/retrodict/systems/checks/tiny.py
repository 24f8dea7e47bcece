"""Tiny recordings of several kinds, made up so that any system finds something it can learn from within seconds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from retrodict.trajectories import ActionSpace, Box, Discrete, MultiBinary, Recordings, from_arrays, from_samples
from retrodict.trajectories.features import ACTION, IMAGES, STATE

LENGTHS = (9, 14, 11, 17, 8, 12)
"""Steps of the episodes: no two alike, as real ones."""

HEIGHT, WIDTH, STATES = 32, 40, 5

STICK = Box(("x", "y"), -1.0, 1.0)
BUTTONS = MultiBinary(("fire", "jump"))
TOOL = Discrete(("none", "axe", "rope"))

SPACES: Mapping[str, ActionSpace] = {
    "all parts": ActionSpace({"stick": STICK, "buttons": BUTTONS, "tool": TOOL}, leads=True),
    "continuous": ActionSpace({"stick": STICK}, leads=True),
    "buttons": ActionSpace({"buttons": BUTTONS}, leads=True),
    "choices": ActionSpace({"tool": TOOL}, leads=True),
}


def tiny_recordings(actions: ActionSpace, *, images: bool = True, state: bool = True, seed: int = 0) -> Recordings:
    """Ragged episodes whose actions move a state, which a camera shows; with rewards, a label, and hidden truth."""
    rng = np.random.default_rng(seed)
    push = rng.normal(size=(actions.width, STATES)) / 4
    made = []
    for length in LENGTHS:
        parts = {
            name: rng.uniform(-1, 1, (length, part.width)).astype(np.float32)
            if isinstance(part, Box)
            else rng.integers(0, part.n, length)
            if isinstance(part, Discrete)
            else rng.integers(0, 2, (length, part.width))
            for name, part in actions.parts.items()
        }
        flat = actions.encode(parts)
        before = np.vstack([np.zeros((1, STATES)), flat[:-1] @ push])
        where = (np.cumsum(before, 0) + rng.normal(size=STATES) / 4).astype(np.float32)
        values = {ACTION: flat, "next.reward": where[:, :1], "privileged.truth": where[:, ::-1].copy()}
        values["next.done"] = (np.arange(length) == length - 1)[:, None]
        values["next.terminated"] = values["next.done"] & (length % 2 == 0)
        values["next.truncated"] = values["next.done"] & (length % 2 == 1)
        values["label.phase"] = np.minimum(np.arange(length) * 3 // length, 2)[:, None]
        if state:
            values[STATE] = where
        if images:
            values[IMAGES + "front"] = _pictures(where)
        made.append(values)
    return from_arrays(
        made, fps=10.0, actions=actions, tasks=["reach" if i % 2 else "push" for i in range(len(made))], source="tiny"
    )


def candidates() -> dict[str, Recordings]:
    """Tiny recordings by what they hold, those with most first: every kind of action, images or states only, loose samples."""
    made = {name: tiny_recordings(space) for name, space in SPACES.items()}
    made["images only"] = tiny_recordings(SPACES["all parts"], state=False)
    made["states only"] = tiny_recordings(SPACES["continuous"], images=False)
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, 48)
    states = (rng.normal(size=(48, STATES)) + classes[:, None]).astype(np.float32)
    made["samples"] = from_samples(
        source="tiny", observation__images__front=_pictures(states), observation__state=states, label__class=classes[:, None]
    )
    return made


def _pictures(states: np.ndarray) -> np.ndarray:
    """A bright bar per number, as long as the number is large, (T, HEIGHT, WIDTH, 3) uint8."""
    lengths = np.clip((np.tanh(states) + 1) / 2 * WIDTH, 1, WIDTH).astype(int)
    rows = np.arange(HEIGHT) * STATES // HEIGHT
    lit = np.arange(WIDTH) < lengths[:, rows, None]
    shade = 60 + 40 * rows[None, :, None] * lit
    return np.stack([np.where(lit, shade, 20), np.where(lit, 200, 30), np.full(lit.shape, 40)], -1).astype(np.uint8)
