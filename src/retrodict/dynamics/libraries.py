"""Feature libraries: named functions of a state, the columns that a law is regressed on or a Koopman operator is compressed to.

    library = Monomials(2) + Controlled(Monomials(1))
    library.transform(x, u)                 # (T, F), NumPy or torch as given
    library.names(("angle", "rate"), ("torque",))

Rows are samples and columns are functions. Everything runs in torch, so that a law can be differentiated by its state.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self, overload

import numpy as np
import torch
from torch import Tensor

from retrodict.errors import DataError


class Library(ABC):
    """Functions of a state x (..., d) and, in some, of an input u (..., m). `+` puts two libraries side by side."""

    @abstractmethod
    def values(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        """The value of every function, (..., F)."""

    @abstractmethod
    def names(self, states: Sequence[str], inputs: Sequence[str] = ()) -> tuple[str, ...]:
        """What every function is called, given the names of the entries of x and u."""

    def regularity(self) -> tuple[Tensor, Tensor]:
        """Largest modulus and Lipschitz constant of every function, each (F,).

        Raises DataError for functions that are not bounded, or of which nothing is known.
        """
        raise DataError(f"{type(self).__name__} functions have no known bounds; Fourier, Legendre and RadialBasis have.")

    @overload
    def transform(self, x: np.ndarray, u: np.ndarray | None = None) -> np.ndarray: ...
    @overload
    def transform(self, x: Tensor, u: Tensor | None = None) -> Tensor: ...
    def transform(self, x: np.ndarray | Tensor, u: np.ndarray | Tensor | None = None) -> np.ndarray | Tensor:
        """The value of every function, (..., F): an array for arrays, a tensor for tensors."""
        values = self.values(torch.as_tensor(x), None if u is None else torch.as_tensor(u))
        return values.numpy() if isinstance(x, np.ndarray) else values

    def __add__(self, other: Library) -> Joined:
        return Joined((*_parts(self), *_parts(other)))


@dataclass(frozen=True)
class Joined(Library):
    """Libraries side by side."""

    parts: tuple[Library, ...]

    def values(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        return torch.cat([part.values(x, u) for part in self.parts], -1)

    def names(self, states: Sequence[str], inputs: Sequence[str] = ()) -> tuple[str, ...]:
        return tuple(name for part in self.parts for name in part.names(states, inputs))

    def regularity(self) -> tuple[Tensor, Tensor]:
        tops, slopes = zip(*(part.regularity() for part in self.parts), strict=True)
        return torch.cat(tops), torch.cat(slopes)


def _parts(library: Library) -> tuple[Library, ...]:
    return library.parts if isinstance(library, Joined) else (library,)


@dataclass(frozen=True)
class Monomials(Library):
    """Products of powers, 1, x, y, x^2, x y, y^2, ..., by degree.

    Attributes:
        degree: largest sum of the exponents.
        bias: include the constant 1.
        interactions: include products of different entries; where False, only powers of one entry.
    """

    degree: int
    bias: bool = True
    interactions: bool = True

    def exponents(self, d: int) -> np.ndarray:
        """Exponents (F, d) of every monomial of d entries."""
        found = [(0,) * d] if self.bias else []
        for degree in range(1, self.degree + 1):
            for chosen in itertools.combinations_with_replacement(range(d), degree):
                if self.interactions or len(set(chosen)) == 1:
                    found += [tuple(chosen.count(i) for i in range(d))]
        return np.array(found, np.int64).reshape(-1, d)

    def values(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        powers = [torch.ones_like(x)]
        for _ in range(self.degree):
            powers.append(powers[-1] * x)
        table = torch.stack(powers)  # (degree + 1, ..., d): multiplied, not raised, so that 0 has a gradient
        exponents = torch.from_numpy(self.exponents(x.shape[-1])).to(x.device)
        product = torch.ones(*x.shape[:-1], len(exponents), dtype=x.dtype, device=x.device)
        for i in range(x.shape[-1]):
            product = product * table[..., i].movedim(0, -1)[..., exponents[:, i]]
        return product

    def names(self, states: Sequence[str], inputs: Sequence[str] = ()) -> tuple[str, ...]:
        def name(row: np.ndarray) -> str:
            factors = [s if e == 1 else f"{s}^{e}" for s, e in zip(states, row, strict=True) if e]
            return " ".join(factors) or "1"

        return tuple(name(row) for row in self.exponents(len(states)))


@dataclass(frozen=True)
class Controlled(Library):
    """P(x) ⊗ u: every function of a library times every input, for laws that are affine in their control."""

    library: Library

    def values(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        if u is None:
            raise DataError("a library of controlled functions needs inputs u, and none were given.")
        return (self.library.values(x)[..., :, None] * u[..., None, :]).flatten(-2)

    def names(self, states: Sequence[str], inputs: Sequence[str] = ()) -> tuple[str, ...]:
        return tuple(i if name == "1" else f"{name} {i}" for name in self.library.names(states) for i in inputs)


@dataclass(frozen=True)
class Fourier(Library):
    """exp(2 pi i k·(x - low)/period) for integer k, orthonormal under the uniform probability on a torus; complex.

    Attributes:
        degrees: largest |k| for each entry.
        low, period: start and length of the period of each entry.
    """

    degrees: tuple[int, ...]
    low: tuple[float, ...]
    period: tuple[float, ...]

    def waves(self) -> np.ndarray:
        """The integer vectors k (F, d), the constant first, then by size."""
        every = itertools.product(*(range(-n, n + 1) for n in self.degrees))
        return np.array(sorted(every, key=lambda k: (sum(map(abs, k)), [abs(e) for e in k], k)), np.int64)

    def values(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        low, period = x.new_tensor(self.low), x.new_tensor(self.period)
        phase = 2 * math.pi * ((x - low) / period) @ torch.from_numpy(self.waves()).to(x).T
        return torch.complex(torch.cos(phase), torch.sin(phase))

    def names(self, states: Sequence[str], inputs: Sequence[str] = ()) -> tuple[str, ...]:
        def name(k: np.ndarray) -> str:
            terms = [f"{e:+d} {s}" for s, e in zip(states, k, strict=True) if e]
            return f"exp(2πi({' '.join(terms)}))" if terms else "1"

        return tuple(name(k) for k in self.waves())

    def regularity(self) -> tuple[Tensor, Tensor]:
        slopes = 2 * math.pi * np.linalg.norm(self.waves() / np.array(self.period), axis=1)
        return torch.ones(len(slopes), dtype=torch.float64), torch.from_numpy(slopes)


@dataclass(frozen=True)
class Legendre(Library):
    """Products of Legendre polynomials, orthonormal under dx on a box, up to a total degree.

    Attributes:
        degree: largest sum of the degrees.
        low, high: the box, per entry.
    """

    degree: int
    low: tuple[float, ...]
    high: tuple[float, ...]

    def degrees(self) -> np.ndarray:
        """The degree of every product in every entry, (F, d)."""
        return Monomials(self.degree).exponents(len(self.low))

    def values(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        low, high = x.new_tensor(self.low), x.new_tensor(self.high)
        s = (2 * x - low - high) / (high - low)
        columns = [torch.ones_like(s), s]
        for n in range(1, self.degree):  # (n + 1) P_{n+1} = (2n + 1) s P_n - n P_{n-1}
            columns.append(((2 * n + 1) * s * columns[n] - n * columns[n - 1]) / (n + 1))
        scale = torch.sqrt((2 * torch.arange(self.degree + 1) + 1)[:, None].to(x) / (high - low))  # (degree + 1, d)
        table = torch.stack(columns[: self.degree + 1], -2) * scale
        degrees = torch.from_numpy(self.degrees()).to(x.device)
        product = torch.ones(*x.shape[:-1], len(degrees), dtype=x.dtype, device=x.device)
        for i in range(x.shape[-1]):
            product = product * table[..., degrees[:, i], i]
        return product

    def names(self, states: Sequence[str], inputs: Sequence[str] = ()) -> tuple[str, ...]:
        def name(row: np.ndarray) -> str:
            return " ".join(f"P{n}({s})" for s, n in zip(states, row, strict=True) if n) or "1"

        return tuple(name(row) for row in self.degrees())

    def regularity(self) -> tuple[Tensor, Tensor]:
        degrees, length = self.degrees(), np.array(self.high) - np.array(self.low)
        tops = np.sqrt((2 * degrees + 1) / length)  # |P_n| <= 1, |P_n'| <= n (n + 1) / 2
        slopes = degrees * (degrees + 1) / length
        return torch.from_numpy(tops.prod(1)), torch.from_numpy(tops.prod(1) * np.linalg.norm(slopes, axis=1))


@dataclass(frozen=True, eq=False)
class RadialBasis(Library):
    """Bumps around centres: exp(-2 |x - c| / width), the form of Colbrook, Mezić and Stepanenko, or exp(-|x - c|^2 / width^2).

    Attributes:
        centres: (F, d).
        width: of a bump.
        shape: `exponential` or `gaussian`.
    """

    centres: Tensor
    width: float
    shape: Literal["exponential", "gaussian"] = "exponential"

    @classmethod
    def fit(cls, x: np.ndarray, functions: int, shape: Literal["exponential", "gaussian"] = "exponential", seed: int = 0) -> Self:
        """Centres by k-means of states (n, d), width the mean distance from their mean.

        Raises DataError where there are fewer different states than functions.
        """
        from sklearn.cluster import KMeans  # heavy to import, and needed by this kind of library only

        x = np.asarray(x, np.float64)
        different = len(np.unique(x, axis=0))
        if different < functions:
            raise DataError(f"{functions} radial functions need as many different states, there are {different}.")
        centres = KMeans(functions, n_init=1, random_state=seed).fit(x).cluster_centers_
        return cls(torch.from_numpy(centres), float(np.linalg.norm(x - x.mean(0), axis=1).mean()), shape)

    def values(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        centres = self.centres.to(x)
        flat = x.reshape(-1, x.shape[-1])
        # Not by |x|^2 - 2 x·c + |c|^2, which loses half the digits where a state is close to a centre.
        distance = torch.cdist(flat, centres, compute_mode="donot_use_mm_for_euclid_dist").reshape(*x.shape[:-1], -1)
        if self.shape == "exponential":
            return torch.exp(-2 * distance / self.width)
        return torch.exp(-((distance / self.width) ** 2))

    def names(self, states: Sequence[str], inputs: Sequence[str] = ()) -> tuple[str, ...]:
        return tuple(f"bump({', '.join(f'{c:.3g}' for c in centre)})" for centre in self.centres.tolist())

    def regularity(self) -> tuple[Tensor, Tensor]:
        slope = 2 / self.width if self.shape == "exponential" else math.sqrt(2 / math.e) / self.width
        ones = torch.ones(len(self.centres), dtype=torch.float64)
        return ones, slope * ones


@dataclass(frozen=True)
class Delays(Library):
    """Time-delay coordinates: the entries of a window of states (..., n, d), oldest first; `delays.hankel` cuts windows.

    Attributes:
        delays: states n in a window.
        coordinates: which entries of the state; all where empty.
    """

    delays: int
    coordinates: tuple[int, ...] = ()

    def values(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        if x.ndim < 2 or x.shape[-2] != self.delays:
            raise DataError(f"delay coordinates are read from windows (..., {self.delays}, d), got {list(x.shape)}.")
        chosen = x[..., list(self.coordinates)] if self.coordinates else x
        return chosen.flatten(-2)

    def names(self, states: Sequence[str], inputs: Sequence[str] = ()) -> tuple[str, ...]:
        chosen = [states[i] for i in self.coordinates] if self.coordinates else list(states)
        back = range(self.delays - 1, -1, -1)
        return tuple(f"{s}(t-{n})" if n else f"{s}(t)" for n in back for s in chosen)


@dataclass(frozen=True, eq=False)
class Encoded(Library):
    """Any encoder as a library: what `encode` makes of states (..., d), (..., width)."""

    encode: Callable[[Tensor], Tensor]
    width: int
    name: str = "z"

    def values(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        code = self.encode(x)
        if code.shape != (*x.shape[:-1], self.width):
            raise DataError(f"the encoder gave {list(code.shape)} for states {list(x.shape)}; a width of {self.width} was said.")
        return code

    def names(self, states: Sequence[str], inputs: Sequence[str] = ()) -> tuple[str, ...]:
        return tuple(f"{self.name}{i}" for i in range(self.width))
