"""A dot that is pushed about on a dark ground: video in which place and push can be told, with the truth beside it."""

import numpy as np

from retrodict.trajectories import ActionSpace, Box, from_arrays

EYE = "observation.images.eye"
SPACE = ActionSpace({"push": Box(("x", "y"), -1.0, 1.0)}, leads=True)


def episode(rng, steps=20, size=20):
    """Frames (T, size, size, 3), places (T, 2) and pushes (T, 2); `action[t]` leads to frame t + 1."""
    place = rng.uniform(0.2, 0.8, 2)
    frames, places, pushes = np.zeros((steps, size, size, 3), np.uint8), [], []
    down, across = np.mgrid[:size, :size] / (size - 1)
    for t in range(steps):
        near = np.exp(-((across - place[0]) ** 2 + (down - place[1]) ** 2) / 0.01)
        frames[t] = (near[..., None] * [255, 180, 60] + (1 - near[..., None]) * [20, 30, 50]).astype(np.uint8)
        push = rng.uniform(-1, 1, 2)
        places.append(place)
        after = np.clip(place + 0.15 * push, 0.1, 0.9)
        pushes.append((after - place) / 0.15)
        place = after
    return {EYE: frames, "action": np.array(pushes, np.float32), "privileged.place": np.array(places, np.float32)}


def recordings(episodes, seed=0, *, without=(), tasks=None, **options):
    rng = np.random.default_rng(seed)
    made = [{k: v for k, v in episode(rng, **options).items() if k not in without} for _ in range(episodes)]
    return from_arrays(made, fps=10, actions=SPACE if "action" not in without else None, tasks=tasks)
