"""Dynamic mode decompositions: linear models of series, of their delays, and of their delays with a forcing left over.

Rows are samples. What these give comes without residuals: `koopman.galerkin` is for that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrodict.dynamics.delays import hankel
from retrodict.errors import DataError


@dataclass(frozen=True)
class Modes:
    """y ≈ sum over modes of amplitude(x) eigenvalue mode.

    Attributes:
        eigenvalues: (r,), largest modulus first, complex.
        modes: (r, d), each of unit norm.
        readout: from rows (n, d) to amplitudes (n, r) by `x @ readout`.
    """

    eigenvalues: np.ndarray
    modes: np.ndarray
    readout: np.ndarray

    def forecast(self, x: np.ndarray, steps: int) -> np.ndarray:
        """Rows (n, d) and their next `steps`, (n, steps + 1, d)."""
        powers = self.eigenvalues ** np.arange(steps + 1)[:, None]
        path: np.ndarray = (((x @ self.readout)[:, None] * powers) @ self.modes).real
        return path


def dmd(x: np.ndarray, y: np.ndarray, rank: int | None = None, cutoff: float = 1e-10) -> Modes:
    """Exact dynamic mode decomposition of pairs of rows (n, d).

    Args:
        rank: singular values kept; those above `cutoff` of the largest where None.

    (Tu et al., On dynamic mode decomposition, 2014.) Raises DataError for rows that do not match.
    """
    if x.shape != y.shape or x.ndim != 2:
        raise DataError(f"pairs are rows (n, d) twice, got {list(x.shape)} and {list(y.shape)}.")
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    r = min(rank or len(s), int((s > cutoff * s[0]).sum()))
    u, s, v = u[:, :r], s[:r], vh[:r].conj().T
    small = (u.conj().T @ y @ v) / s[:, None]  # psi(y) ≈ psi(x) K on the leading coordinates x v, row by row
    values, left = np.linalg.eig(small)
    order = np.argsort(-np.abs(values), kind="stable")
    values, left = values[order], left[:, order]
    modes = np.linalg.inv(left) @ v.conj().T
    sizes = np.linalg.norm(modes, axis=1)
    return Modes(values, modes / sizes[:, None], v @ left * sizes)


def hankel_dmd(series: np.ndarray, delays: int, rank: int | None = None) -> Modes:
    """Dynamic mode decomposition of delay coordinates of a series (T, d), oldest first: rows have delays x d entries."""
    windows = hankel(series, delays)
    rows = windows.reshape(len(windows), -1)
    return dmd(rows[:-1], rows[1:], rank)


@dataclass(frozen=True)
class Forced:
    """dv/dt ≈ v A + f B: a linear system in leading delay coordinates, forced by the last of them.

    Attributes:
        linear: A, (r - 1, r - 1).
        forcing: B, (r - 1,).
        coordinates: v and, in the last column, f along the series, (n, r).
    """

    linear: np.ndarray
    forcing: np.ndarray
    coordinates: np.ndarray


def havok(series: np.ndarray, delays: int, rank: int, dt: float) -> Forced:
    """Hankel alternative view of Koopman of a scalar series (T,): bursts of the forcing foretell where it stops being linear.

    (Brunton et al., Chaos as an intermittently forced linear system, 2017.) Raises DataError for a rank outside 2 to `delays`.
    """
    if not 2 <= rank <= delays:
        raise DataError(f"HAVOK keeps 2 to {delays} coordinates of {delays} delays, got {rank}.")
    rows = hankel(np.asarray(series).reshape(-1, 1), delays)[..., 0]
    coordinates = np.linalg.svd(rows, full_matrices=False)[0][:, :rank]
    slopes = np.gradient(coordinates, dt, axis=0, edge_order=2)
    both = np.linalg.lstsq(coordinates, slopes[:, :-1], rcond=None)[0]
    return Forced(both[:-1], both[-1], coordinates)
