"""What can be known of a Koopman spectrum from data, and what cannot: the classes of systems and the limits that each needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from retrodict.errors import DataError

ORDER = ("more samples", "a larger dictionary", "a finer grid")
"""The limits in the order in which they must be taken, innermost first."""


@dataclass(frozen=True)
class Verdict:
    """How far an answer can be trusted in principle.

    Attributes:
        assumes: what was said of the system, in words.
        limits: successive limits that the approximate point spectrum needs under these assumptions.
        verified: whether every output can carry a true error bound (the class Σ_1).
        certificate: what the error bounds of this fit rest on.
        unmet: the limits that stand between this fit and certainty.
    """

    assumes: tuple[str, ...]
    limits: int
    verified: bool
    certificate: str
    unmet: tuple[str, ...]

    def sentences(self) -> tuple[str, ...]:
        """The verdict in words."""
        assumed = ", ".join(self.assumes) or "nothing but continuity"
        limits = "one limit suffices" if self.limits == 1 else f"{self.limits} successive limits are needed, in their order"
        said = [f"Assuming {assumed}: {limits} for the spectrum.", f"The error bounds rest on {self.certificate}."]
        if self.unmet:
            said.append(f"Between this fit and certainty: {', then '.join(self.unmet)}.")
        if not self.verified:
            said.append(
                "No algorithm that takes a single limit, whatever its data, is right for every such system: a bound says that "
                "what was found is there, not that all was found."
            )
        return tuple(said)


def verdict(*, preserving: bool, modulus: bool, kernel: bool, certificate: str, noisy: bool) -> Verdict:
    """The verdict on a fit.

    General continuous maps need three limits, measure-preserving ones or those of known modulus of continuity two, both together
    one, with verification; with a reproducing kernel no integral is approximated, which saves a limit. (Colbrook, Mezić and
    Stepanenko, 2024; for the kernel Boullé, Colbrook and Conradie, 2025.)
    """
    limits = max(3 - preserving - modulus - kernel, 1)
    assumes = tuple(
        name
        for holds, name in (
            (preserving, "a measure-preserving map"),
            (modulus, "a known modulus of continuity"),
            (kernel, "a map that takes the kernel's space to itself"),
            (noisy, "noise (residual = bias + variance, the variance taken out by independent successors)"),
        )
        if holds
    )
    unmet = ORDER[int(modulus or kernel) :][: 3 if limits > 1 else 1]
    return Verdict(assumes, limits, limits == 1, certificate, unmet if limits > 1 else ("a larger dictionary",))


@dataclass(frozen=True)
class Adversary:
    """Two smooth, invertible, area-preserving maps of the unit disc that finite data cannot tell apart.

    `rest` leaves every point where it is: its spectrum is {1}. `twist` turns the circle of radius r by phi(r), a smooth bump that
    is zero at every radius that was sampled: its spectrum is the whole unit circle. On the samples they agree to the last bit.

    Attributes:
        low, high: the ring between two sampled radii in which they differ.
        height: largest angle of the twist, in radians.
    """

    low: float
    high: float
    height: float

    def angle(self, radius: np.ndarray) -> np.ndarray:
        """The angle phi(r) by which a circle is turned, of the shape of `radius`."""
        s = (2 * radius - self.low - self.high) / (self.high - self.low)
        inside = np.abs(s) < 1
        phi: np.ndarray = np.where(inside, self.height * np.exp(1 - 1 / (1 - np.where(inside, s, 0) ** 2)), 0.0)
        return phi

    @property
    def slope(self) -> float:
        """Largest |phi'|: what a modulus of continuity would have to allow for the twist to be possible."""
        r = np.linspace(self.low, self.high, 20_001)
        return float(np.abs(np.gradient(self.angle(r), r)).max())

    def rest(self, x: np.ndarray) -> np.ndarray:
        """F_0: points (n, 2) where they are."""
        return np.array(x, np.float64)

    def twist(self, x: np.ndarray) -> np.ndarray:
        """F_1: points (n, 2), each circle turned by its angle."""
        x = np.array(x, np.float64)
        phi = self.angle(np.linalg.norm(x, axis=1))
        turned = np.stack([np.cos(phi) * x[:, 0] - np.sin(phi) * x[:, 1], np.sin(phi) * x[:, 0] + np.cos(phi) * x[:, 1]], 1)
        return np.where((phi == 0)[:, None], x, turned)


def adversary(points: np.ndarray, height: float = np.pi, slope: float | None = None) -> Adversary:
    """The pair of maps that these samples (n, 2) of the unit disc cannot tell apart.

    Args:
        points: any finite set; whatever the algorithm saw of the map, it saw there.
        height: largest angle of the twist.
        slope: bound of its derivative; the height is lowered to meet it.

    Raises DataError for points outside the disc.
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points) or np.linalg.norm(points, axis=1).max() > 1 + 1e-12:
        raise DataError(f"the adversary lives on the unit disc: points (n, 2) of norm at most 1, got shape {list(points.shape)}.")
    radii = np.unique(np.concatenate([[0.0, 1.0], np.linalg.norm(points, axis=1)]))
    widest = int(np.diff(radii).argmax())
    made = Adversary(float(radii[widest]), float(radii[widest + 1]), height)
    if slope is not None and made.slope > slope:
        made = Adversary(made.low, made.high, height * slope / made.slope)
    return made


def fooled(estimate: Callable[[np.ndarray, np.ndarray], np.ndarray], points: np.ndarray) -> tuple[float, float, bool]:
    """Hausdorff errors of an estimator of spectra on both maps of the adversary, and whether it gave one answer for both.

    Args:
        estimate: from states and successors (n, 2) to points of the complex plane.
        points: the samples it may see.
    """
    pair = adversary(points)
    first, second = estimate(points, pair.rest(points)), estimate(points, pair.twist(points))
    circle = np.exp(2j * np.pi * np.arange(720) / 720)
    same = first.shape == second.shape and bool(np.array_equal(first, second))
    return hausdorff(first, np.ones(1, complex)), hausdorff(second, circle), same


def hausdorff(a: np.ndarray, b: np.ndarray) -> float:
    """Hausdorff distance of two finite sets of complex numbers; infinite where one is empty and the other not."""
    if not len(a) or not len(b):
        return 0.0 if len(a) == len(b) else float("inf")
    apart = np.abs(np.asarray(a)[:, None] - np.asarray(b)[None])
    return float(max(apart.min(1).max(), apart.min(0).max()))
