"""What both sides write and expect: short films in which every frame can be told from its neighbours. Needs NumPy alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

LENGTHS = (23, 40, 9, 31)
HEIGHT, WIDTH, FPS = 96, 128, 20
CAMERAS = ("front", "wrist")
TASKS = ("gather the health packs", "gather the health packs", "leave the room", "gather the health packs")


def film(seed: int, length: int) -> np.ndarray:
    """Frames (length, H, W, 3) of a room that pans, with a bar whose place is the frame number."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 180, (6, 16, 3)).astype(float)
    room = np.kron(coarse, np.ones((HEIGHT // 6, 2 * WIDTH // 16, 1)))
    frames = np.stack([np.roll(room, 3 * t, axis=1)[:, :WIDTH] for t in range(length)])
    for t, frame in enumerate(frames):
        frame[-16:, 3 * t : 3 * t + 3] = 255
    return frames.astype(np.uint8)


def episodes() -> list[dict[str, np.ndarray]]:
    """Values of each episode, frames under `observation.images.<camera>`."""
    made = []
    for number, length in enumerate(LENGTHS):
        rng = np.random.default_rng((7, number))
        values: dict[str, np.ndarray] = {
            "observation.state": rng.normal(size=(length, 6)).astype(np.float32),
            "action": rng.normal(size=(length, 3)).astype(np.float32),
            "next.reward": rng.normal(size=length).astype(np.float32),
            "next.done": np.arange(length) == length - 1,
        }
        for place, camera in enumerate(CAMERAS):
            values[f"observation.images.{camera}"] = film(10 * number + place, length)
        made.append(values)
    return made


def same_frames(got: np.ndarray, true: np.ndarray, what: str, *, exact: bool = False) -> float:
    """Check that frames (T, H, W, 3) are the true ones, each at its own number; returns the mean error in grey levels.

    The codec blurs, but a frame must be nearer to its own original than to its neighbours'.
    """
    assert got.shape == true.shape, f"{what}: shape {got.shape}, expected {true.shape}"
    error = np.abs(got.astype(int) - true.astype(int))
    if exact:
        assert not error.any(), f"{what}: frames differ by up to {error.max()}"
        return 0.0
    assert error.mean() < 6, f"{what}: mean error {error.mean():.1f} grey levels"
    distance = np.abs(got[:, None, -16:].astype(int) - true[None, :, -16:].astype(int)).mean((2, 3, 4))
    nearest = distance.argmin(1)
    assert (nearest == np.arange(len(true))).all(), f"{what}: frames out of place: {nearest.tolist()}"
    return float(error.mean())


def done(name: str) -> None:
    print(f"ok  {name}", flush=True)


def folder(arguments: list[str]) -> Path:
    return Path(arguments[1])
