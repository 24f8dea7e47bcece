"""Reproducing kernels of states: k(x, y) for rows x (n, d) and y (m, d), (n, m)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances (n, m), accurate where rows nearly coincide."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def gaussian(x: Tensor, y: Tensor, width: float) -> Tensor:
    """exp(-|x - y|^2 / width^2)."""
    return torch.exp(-((distances(x, y) / width) ** 2))


def laplacian(x: Tensor, y: Tensor, width: float) -> Tensor:
    """exp(-|x - y| / width)."""
    return torch.exp(-distances(x, y) / width)


def lorentzian(x: Tensor, y: Tensor, width: float) -> Tensor:
    """1 / (1 + |x - y|^2 / width^2)."""
    return 1 / (1 + (distances(x, y) / width) ** 2)


def matern(x: Tensor, y: Tensor, width: float) -> Tensor:
    """(1 + r + r^2/3) exp(-r) with r = sqrt(5) |x - y| / width: Matérn 5/2, whose space is a Sobolev space."""
    r = 5**0.5 * distances(x, y) / width
    return (1 + r + r**2 / 3) * torch.exp(-r)


def wendland(x: Tensor, y: Tensor, width: float) -> Tensor:
    """(1 - r)^4_+ (4 r + 1) with r = |x - y| / width: Wendland C2, zero beyond its width, positive definite up to d = 3."""
    r = distances(x, y) / width
    return (1 - r).clamp_min(0) ** 4 * (4 * r + 1)


KERNELS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    f.__name__: f for f in (gaussian, laplacian, lorentzian, matern, wendland)
}
"""Kernels by name."""


def default_width(x: Tensor) -> float:
    """0.9 times the mean distance of states (n, d) from their mean.

    The choice of Boullé, Colbrook and Conradie, 2025.
    """
    return 0.9 * float((x - x.mean(0)).norm(dim=1).mean())
