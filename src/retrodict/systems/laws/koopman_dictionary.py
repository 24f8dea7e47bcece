"""Dictionaries of observables that are fitted to data: functions of a window of states, or kernel functions at samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from retrodict.dynamics.kernels import KERNELS, default_width
from retrodict.dynamics.libraries import Fourier, Legendre, Library, Monomials, RadialBasis
from retrodict.errors import DataError

Kind = Literal["rbf", "fourier", "legendre", "monomials", "kernel"]


@dataclass(frozen=True, eq=False)
class Dictionary:
    """Observables psi of windows (..., n, d).

    Attributes:
        kind: what the functions are.
        coordinates: entries of the state that are seen; all where empty.
        degree: of Fourier modes (one for all or for each coordinate), Legendre polynomials and monomials.
        kernel: name of the reproducing kernel, of kind `kernel`.
        centres: of bumps and kernel functions, (N, d').
        box: low and high of each coordinate, (2, d'), of Fourier modes and Legendre polynomials.
        width: of bumps and kernels.
    """

    kind: Kind
    coordinates: tuple[int, ...]
    degree: tuple[int, ...]
    kernel: str
    centres: Tensor
    box: Tensor
    width: float

    @classmethod
    def fit(
        cls,
        kind: Kind,
        windows: Tensor,
        after: Tensor,
        *,
        coordinates: tuple[int, ...],
        degree: tuple[int, ...],
        kernel: str,
        functions: int,
        domain: tuple[tuple[float, float], ...],
        seed: int,
    ) -> Self:
        """Centres and box from windows before and after a step, (M, n, d); raises DataError where the domain does not fit."""
        x = _seen(windows, coordinates)
        y = _seen(after, coordinates).reshape(-1, x.shape[1])
        box = torch.stack([torch.minimum(x.amin(0), y.amin(0)), torch.maximum(x.amax(0), y.amax(0))])
        if domain:
            if len(domain) != x.shape[1]:
                raise DataError(f"a domain has one (low, high) for each of {x.shape[1]} coordinates, got {len(domain)}.")
            box = torch.tensor(domain, dtype=torch.float64).T
        centres, width = x[:0], 1.0
        if kind == "kernel":
            centres, width = x, default_width(x)
        elif kind == "rbf":
            bumps = RadialBasis.fit(x.numpy(), functions, seed=seed)
            centres, width = bumps.centres, bumps.width
        made = cls(kind, coordinates, degree, kernel, centres, box, width)
        if kind == "fourier" and len(degree) not in (1, x.shape[1]):
            raise DataError(f"fourier takes one degree or {x.shape[1]}, one for each coordinate; got {list(degree)}.")
        return made

    @property
    def library(self) -> Library:
        """The functions in closed form; raises DataError for kernel functions."""
        low, high = self.box.tolist()
        if self.kind == "rbf":
            return RadialBasis(self.centres, self.width)
        if self.kind == "fourier":
            degrees = self.degree * len(low) if len(self.degree) == 1 else self.degree
            return Fourier(degrees, tuple(low), tuple(h - a for a, h in zip(low, high, strict=True)))
        if self.kind == "legendre":
            return Legendre(self.degree[0], tuple(low), tuple(high))
        if self.kind == "monomials":
            return Monomials(self.degree[0])
        raise DataError("kernel functions are no library: their inner products are the kernel's own.")

    def seen(self, windows: Tensor) -> Tensor:
        """What the functions are functions of, (..., d')."""
        return _seen(windows, self.coordinates)

    def __call__(self, windows: Tensor) -> Tensor:
        """Values of every function at windows (..., n, d), (..., N)."""
        x = self.seen(windows)
        if self.kind != "kernel":
            return self.library.transform(x)
        values = KERNELS[self.kernel](x.reshape(-1, x.shape[-1]), self.centres, self.width)
        return values.reshape(*x.shape[:-1], -1)


def _seen(windows: Tensor, coordinates: tuple[int, ...]) -> Tensor:
    return (windows[..., list(coordinates)] if coordinates else windows).flatten(-2)
