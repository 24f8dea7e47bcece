"""A pinhole camera: where it stands and how it projects, so that pixels can be taken to places and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A pinhole camera, as vision has it: x to the right, y down, z along the optical axis; pixel centres at half-integers.

    Attributes:
        intrinsics: (3, 3), focal lengths and principal point in pixels.
        pose: (4, 4), from the camera's coordinates to the world's.
        size: (height, width) of its frames.
    """

    intrinsics: np.ndarray
    pose: np.ndarray
    size: tuple[int, int]

    @classmethod
    def of(cls, fovy: float, pose: np.ndarray, size: tuple[int, int]) -> Self:
        """A camera with square pixels that sees `fovy` degrees from top to bottom."""
        height, width = size
        focal = height / 2 / np.tan(np.deg2rad(fovy) / 2)
        return cls(np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]]), np.asarray(pose, float), size)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (..., 2) as (across, down) and depths (...) along the optical axis of places (..., 3) in the world.

        A place behind the camera has a negative depth; its pixel means nothing.
        """
        seen = (np.asarray(points, float) - self.pose[:3, 3]) @ self.pose[:3, :3]
        pixels = seen @ self.intrinsics.T
        return pixels[..., :2] / pixels[..., 2:], seen[..., 2]

    def unproject(self, depth: np.ndarray) -> np.ndarray:
        """Places (H, W, 3) in the world of the pixels of a depth map (H, W), metres along the optical axis."""
        height, width = depth.shape
        across, down = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        rays = np.stack([across, down, np.ones_like(across)], -1) @ np.linalg.inv(self.intrinsics).T
        return np.asarray((rays * depth[..., None]) @ self.pose[:3, :3].T + self.pose[:3, 3])

    def to_json(self) -> dict[str, Any]:
        """As it stands under `structures` of recordings."""
        return {"intrinsics": self.intrinsics.tolist(), "pose": self.pose.tolist(), "size": list(self.size)}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        return cls(np.array(entry["intrinsics"], float), np.array(entry["pose"], float), (entry["size"][0], entry["size"][1]))
