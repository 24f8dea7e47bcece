"""Smooth paths through recorded values."""

from __future__ import annotations

import torch
from torch import Tensor

from retrodict.errors import DataError


class CubicPath:
    """The natural cubic spline through values (B, T, C) at common times (T,); gradients flow to the values.

    Raises DataError for fewer than 2 times, or times that do not rise.
    """

    def __init__(self, times: Tensor, values: Tensor) -> None:
        gaps = times.diff()
        if times.ndim != 1 or len(times) < 2 or values.shape[-2] != len(times) or not (gaps > 0).all():
            raise DataError(
                f"a path takes rising times (T,), T >= 2, and values (B, T, C); got {[*times.shape], [*values.shape]}."
            )
        self.times, self.values, self.gaps = times, values, gaps
        inner = torch.zeros(len(times), len(times), dtype=values.dtype, device=values.device)
        inner.diagonal()[1:-1] = 2 * (gaps[1:] + gaps[:-1])
        inner.diagonal()[[0, -1]] = 1.0
        inner.diagonal(1)[1:] = gaps[1:]
        inner.diagonal(-1)[:-1] = gaps[:-1]
        rises = values.diff(dim=-2) / gaps[:, None]
        bends = torch.zeros_like(values)
        bends[..., 1:-1, :] = 6 * rises.diff(dim=-2)
        self.curvatures = torch.linalg.solve(inner, bends)  # second derivatives at the knots; zero at the ends
        self.rises = rises

    def _piece(self, t: Tensor) -> tuple[Tensor, int]:
        at = int(torch.searchsorted(self.times, t.detach(), right=True).clamp(1, len(self.times) - 1)) - 1
        return t - self.times[at], at

    def value(self, t: Tensor) -> Tensor:
        """(B, C) at a time; beyond the ends the last piece goes on."""
        s, at = self._piece(t)
        return self.values[..., at, :] + s * self._slope(at) + s**2 * (self._bend(at) / 2 + s * self._twist(at) / 6)

    def derivative(self, t: Tensor) -> Tensor:
        """(B, C) per unit of time."""
        s, at = self._piece(t)
        return self._slope(at) + s * (self._bend(at) + s * self._twist(at) / 2)

    def slopes(self, shares: Tensor) -> Tensor:
        """Derivatives (B, T - 1, S, C) per unit of time where these shares (S,) of every gap, from 0 to 1, have gone by."""
        bends, gaps = self.curvatures, self.gaps[:, None]
        first = self.rises - gaps * (2 * bends[..., :-1, :] + bends[..., 1:, :]) / 6
        s, before = shares[:, None] * gaps[..., None], bends[..., :-1, None, :]
        twist = (bends[..., 1:, None, :] - before) / gaps[..., None]
        found: Tensor = first[..., None, :] + s * (before + s * twist / 2)
        return found

    def _bend(self, at: int) -> Tensor:
        found: Tensor = self.curvatures[..., at, :]
        return found

    def _twist(self, at: int) -> Tensor:
        return (self._bend(at + 1) - self._bend(at)) / self.gaps[at]

    def _slope(self, at: int) -> Tensor:
        rise: Tensor = self.rises[..., at, :]
        return rise - self.gaps[at] * (2 * self._bend(at) + self._bend(at + 1)) / 6
