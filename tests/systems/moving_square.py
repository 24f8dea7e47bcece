"""A square that moves where the action says: video from which actions can be told, and no policy guessed."""

import numpy as np

from retrodict.trajectories import ActionSpace, Box, MuLaw, MultiBinary, from_arrays

QUANTISER = MuLaw(10.0, 5)
SPACE = ActionSpace(
    {"keys": MultiBinary(("up", "down")), "mouse": Box(("turn",), -10, 10, quantiser=QUANTISER)}, leads=True, null=(0.0, 0.0, 0.0)
)
EYE = "observation.images.eye"


def episode(rng, steps=40, size=12):
    """Frames (T, size, size, 3), the place of the square (T, 2), and actions (T, 3); `action[t]` leads to frame t + 1."""
    frames, places, actions = np.zeros((steps, size, size, 3), np.uint8), np.zeros((steps, 2), np.float32), []
    y, x = rng.integers(size, size=2)
    for t in range(steps):
        rows, columns = np.meshgrid((y + np.arange(4)) % size, (x + np.arange(4)) % size, indexing="ij")
        frames[t, rows, columns] = (255, 140, 60)
        places[t] = y, x
        up, down, right = rng.random() < 0.4, rng.random() < 0.4, rng.integers(-1, 2)
        actions.append((up, down, QUANTISER.decode(2 + right)))
        y, x = (y - up + 2 * down) % size, (x + 2 * right) % size
    return {EYE: frames, "observation.state": places, "action": np.array(actions, np.float32)}


def recordings(episodes, seed, *, without=(), **options):
    rng = np.random.default_rng(seed)
    made = [{k: v for k, v in episode(rng, **options).items() if k not in without} for _ in range(episodes)]
    return from_arrays(made, fps=10, actions=SPACE if "action" not in without else None)
