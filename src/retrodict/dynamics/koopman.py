"""Koopman operators from data: estimation, and how far every spectral claim made of them can be trusted.

The Koopman operator K of a map F takes a function g to g∘F. Rows are samples, columns are functions of a dictionary psi, so that
psi(y) ≈ psi(x) K for y = F(x), and an eigenvector v of the matrix is the eigenfunction psi v. Besides the Gram matrix
G = psi_x* W psi_x and A = psi_x* W psi_y of extended dynamic mode decomposition, residuals need L = psi_y* W psi_y:

    |(K - z) psi v|^2 = v* [L - z A* - conj(z) A + |z|^2 G] v

which `Galerkin` keeps in a form that never squares a condition number.  (Colbrook, Mezić and Stepanenko, 2024; Colbrook and
Townsend, Rigorous data-driven computation of spectral properties of Koopman operators, 2024.) Any encoder's codes can be psi.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from retrodict.errors import DataError

CUTOFF = 1e-10
"""Functions whose share of the dictionary's largest singular value is below this are combinations of the others."""

CHUNK = 2**24
"""Numbers held at a time while looking at many points of the complex plane."""

STEPS = 16
"""Lanczos steps for a smallest singular value."""


def fit_operator(
    z: Tensor,
    z_plus: Tensor,
    *,
    method: Literal["qr", "pinv", "ridge", "measure-preserving"] = "qr",
    ridge: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """K (..., N, N) with z_plus ≈ z K, differentiable; leading dimensions are fitted one by one (average them by `.mean(0)`).

    Args:
        z, z_plus: rows of functions and of the same functions one step later, (..., T, N).
        method: `qr` (least squares, T >= N), `pinv` (least norm where it is not unique), `ridge` (penalty `ridge` |K|^2, solved
            in the smaller of T and N), or `measure-preserving` (least squares among isometries of the weighted samples;
            Colbrook, The mpEDMD algorithm, 2023).
        weights: of the rows, (..., T), not negative; equal where None.

    Raises DataError for rows that do not match, or too few of them.
    """
    if z.shape != z_plus.shape or z.ndim < 2:
        raise DataError(f"rows before and after are (..., T, N) of one shape, got {list(z.shape)} and {list(z_plus.shape)}.")
    rows, functions = z.shape[-2:]
    if rows < functions and method in ("qr", "measure-preserving"):
        raise DataError(f"an operator on {functions} functions needs at least {functions} rows, got {rows}; use pinv or ridge.")
    if weights is not None:
        root = weights.sqrt()[..., None]
        z, z_plus = z * root, z_plus * root
    operator: Tensor
    if method == "pinv":
        operator = torch.linalg.pinv(z) @ z_plus
    elif method == "ridge" and rows >= functions:
        operator = torch.linalg.solve(z.mH @ z + ridge * torch.eye(functions).to(z), z.mH @ z_plus)
    elif method == "ridge":
        operator = z.mH @ torch.linalg.solve(z @ z.mH + ridge * torch.eye(rows).to(z), z_plus)
    else:
        q, r = torch.linalg.qr(z)
        target = q.mH @ z_plus
        if method == "measure-preserving":
            target = _isometry(q.mH @ torch.linalg.solve_triangular(r, z_plus, upper=True, left=False)) @ r
        operator = torch.linalg.solve_triangular(r, target, upper=True)
    return operator


def eigenvalues(operator: Tensor, limit: float = 10.0) -> Tensor:
    """Eigenvalues (..., N) in complex128, largest modulus first, through which gradients can flow.

    The gradient is infinite where eigenvalues meet; what goes back is clipped to the norm `limit`, and 0 where it is not finite.
    """
    wide = operator.to(torch.complex128 if operator.is_complex() else torch.float64)
    if wide.requires_grad:
        if wide is operator:
            wide = wide.clone()

        def clipped(gradient: Tensor | None) -> Tensor | None:
            if gradient is None:  # nothing came back
                return None
            finite = torch.where(torch.isfinite(gradient), gradient, 0)
            norm: Tensor = torch.linalg.matrix_norm(finite, keepdim=True)
            return finite * (limit / norm.clamp_min(limit))

        wide.register_hook(clipped)  # type: ignore[no-untyped-call]
    values: Tensor = torch.linalg.eigvals(wide)
    return values.gather(-1, values.detach().abs().argsort(-1, descending=True))


@dataclass(frozen=True)
class Galerkin:
    """A Koopman operator on the span of a dictionary, in an orthonormal basis: what stays in the span and what leaves it.

    |(K - z) g|^2 = |(inside - z) v|^2 + |outside v|^2 for the function g = psi basis v. `inside` alone is EDMD; `outside` is what
    it throws away, and with it every warning that an eigenvalue is none.

    Attributes:
        basis: coefficients of the orthonormal functions in the dictionary, (N, r).
        inside: the compression of K, (r, r).
        outside: (k, r).
    """

    basis: Tensor
    inside: Tensor
    outside: Tensor

    @property
    def rank(self) -> int:
        """Dimension r of the span."""
        return self.basis.shape[1]

    @cached_property
    def isometry(self) -> Tensor:
        """The compression that is nearest to `inside` among the unitary ones: measure-preserving EDMD."""
        return _isometry(self.inside)

    def eigenpairs(self, *, preserving: bool = False) -> tuple[Tensor, Tensor]:
        """Eigenvalues (r,), largest modulus first, and eigenvectors in the dictionary (N, r) of unit norm."""
        values, vectors = torch.linalg.eig((self.isometry if preserving else self.inside).to(torch.complex128))
        order = values.abs().argsort(descending=True, stable=True)
        return values[order], self.basis.to(torch.complex128) @ vectors[:, order]

    def residuals(self, values: Tensor, vectors: Tensor) -> Tensor:
        """|(K - z) g| / |g| (n,) of candidates: values z (n,), functions g = psi v with v the columns of `vectors` (N, n)."""
        v = torch.linalg.pinv(self.basis).to(vectors.dtype) @ vectors
        there = (self.inside.to(v.dtype) @ v - v * values).abs().square().sum(0)
        lost = (self.outside.to(v.dtype) @ v).abs().square().sum(0)
        found: Tensor = ((there + lost) / v.abs().square().sum(0)).sqrt()
        return found

    def tau(self, z: Tensor) -> Tensor:
        """Smallest residual over the whole span at points z (n,), (n,): below eps lies the eps-pseudospectrum."""
        found = [torch.linalg.svdvals(shifted)[:, -1] for _, shifted in self._shifted(z)]
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)

    def minimisers(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest residual at points z (n,), and a function that has it, columns of (N, n).

        By Lanczos steps on the inverse of the squared problem, whose vectors are then judged in the one that is not squared: what
        comes back is the true residual of the function that comes back, an upper bound of `tau` that is nearly reached, for a
        fraction of the time of singular value decompositions.
        """
        r, z = self.rank, z.to(torch.complex128)
        inside, outside = self.inside.to(torch.complex128), self.outside.to(torch.complex128)
        square = inside.mH @ inside + outside.mH @ outside
        tiny = 4 * r * torch.finfo(torch.float64).eps * max(float(torch.linalg.matrix_norm(square)), 1.0)
        eye = torch.eye(r, dtype=torch.complex128, device=inside.device)
        parts = torch.stack([square + tiny * eye, inside.mH, inside, (1 + tiny) * eye]).flatten(1)
        start = torch.randn(r, 1, dtype=torch.complex128, generator=torch.Generator().manual_seed(0)).to(z.device)
        taus, vectors = [], []
        for points in torch.split(z, max(1, CHUNK // (32 * r * r))):
            w = points[:, None, None]
            shares = torch.stack([torch.ones_like(points), -points, -points.conj(), points.abs() ** 2 + 0j], 1)
            lower = torch.linalg.cholesky((shares @ parts).reshape(-1, r, r))
            upper = lower.mH.contiguous()
            krylov = (start / start.norm()).expand(len(points), r, 1)
            for _ in range(min(STEPS, r) - 1):
                further = torch.linalg.solve_triangular(lower, krylov[:, :, -1:], upper=False)
                further = torch.linalg.solve_triangular(upper, further, upper=True)
                further = further - krylov @ (krylov.mH @ further)
                krylov = torch.cat([krylov, further / further.norm(dim=1, keepdim=True).clamp_min(tiny)], 2)
            krylov = torch.linalg.qr(krylov)[0]
            stacked = torch.cat([inside @ krylov - w * krylov, outside @ krylov], 1)
            _, singular, right = torch.linalg.svd(torch.linalg.qr(stacked, mode="r")[1])
            taus.append(singular[:, -1])
            vectors.append((krylov @ right.mH[:, :, -1:])[..., 0])
        if not taus:
            return torch.zeros(0, dtype=torch.float64), self.basis.new_zeros(len(self.basis), 0, dtype=torch.complex128)
        return torch.cat(taus), self.basis.to(torch.complex128) @ torch.cat(vectors).T

    def _shifted(self, z: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Chunks of points with the (2r, r) matrices whose smallest singular values are asked for."""
        inside, outside = self.inside.to(torch.complex128), self.outside.to(torch.complex128)
        eye = torch.eye(self.rank, dtype=torch.complex128, device=inside.device)
        for points in torch.split(z.to(torch.complex128), max(1, CHUNK // (4 * self.rank**2))):
            top = inside - points[:, None, None] * eye
            yield points, torch.cat([top, outside.expand(len(points), *outside.shape)], 1)


def galerkin(psi_x: Tensor, psi_y: Tensor, weights: Tensor | None = None, cutoff: float = CUTOFF) -> Galerkin:
    """The operator on the span of a dictionary, from its values before and after a step.

    Args:
        psi_x, psi_y: (M, N) each, in double precision; a column of ones is the constant function.
        weights: quadrature weights (M,), not negative; 1/M where None.
        cutoff: columns that are combinations of others to this share of the largest singular value are left out, with a warning.

    Raises DataError for rows that do not match or a dictionary that vanishes.
    """
    if psi_x.shape != psi_y.shape or psi_x.ndim != 2:
        raise DataError(f"a dictionary before and after a step is (M, N) twice, got {list(psi_x.shape)}, {list(psi_y.shape)}.")
    rows = len(psi_x)
    root = (torch.full((rows,), 1 / rows, device=psi_x.device) if weights is None else weights).to(torch.float64).sqrt()[:, None]
    psi_x, psi_y = psi_x.to(_double(psi_x)) * root, psi_y.to(_double(psi_y)) * root
    q, r = torch.linalg.qr(psi_x)
    u, singular, right = torch.linalg.svd(r, full_matrices=False)
    kept = _kept(singular, cutoff, psi_x.shape[1])
    basis = right.mH[:, :kept] / singular[:kept]
    after = psi_y @ basis
    q = q @ u[:, :kept]
    inside = q.mH @ after
    return Galerkin(basis, inside, torch.linalg.qr(after - q @ inside, mode="r")[1])


def galerkin_from_grams(gram: Tensor, cross: Tensor, square: Tensor, cutoff: float = CUTOFF) -> Galerkin:
    """The operator from G, A and L (N, N), for inner products that are known exactly or estimated without bias.

    With G_ij = k(x_i, x_j), A_ij = k(x_i, y_j), L_ij = k(y_i, y_j) of a reproducing kernel, it is the adjoint K* on the span of
    the kernel functions at x, and nothing is approximated: residuals are exact for any number of samples.  (Boullé, Colbrook
    and Conradie, Convergent methods for Koopman operators on reproducing kernel Hilbert spaces, 2025.)
    """
    values, vectors = torch.linalg.eigh(gram.to(_double(gram)))
    values, vectors = values.flip(0), vectors.flip(1)
    kept = _kept(values.clamp_min(0), cutoff, len(values), quiet=True)
    basis = vectors[:, :kept] / values[:kept].sqrt()
    inside = basis.mH @ cross.to(basis.dtype) @ basis
    rest = basis.mH @ square.to(basis.dtype) @ basis - inside.mH @ inside
    weight, axes = torch.linalg.eigh((rest + rest.mH) / 2)
    return Galerkin(basis, inside, weight.clamp_min(0).sqrt()[:, None] * axes.mH)


def residual(values: Tensor, vectors: Tensor, psi_x: Tensor, psi_y: Tensor, weights: Tensor | None = None) -> Tensor:
    """|(K - z) g| / |g| (n,) of candidates on pairs that they were not made from: the honest one of the two.

    Args:
        values, vectors: z (n,) and coefficients of g in the dictionary, columns of (N, n).
        psi_x, psi_y: the dictionary before and after a step, (M, N). With two independent successors of every state, psi_y is
            (2, M, N), and the noise, which would count as residual, drops out.
        weights: of the rows, (M,).
    """
    above, below = residual_sums(values, vectors, psi_x, psi_y, weights)
    return (above.sum(0) / below.sum(0)).clamp_min(0).sqrt()


def residual_sums(
    values: Tensor,
    vectors: Tensor,
    psi_x: Tensor,
    psi_y: Tensor,
    weights: Tensor | None = None,
    blocks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Numerators |(K - z) g|^2 and denominators |g|^2 summed within blocks of rows, (blocks, n) each; see `residual`.

    Args:
        blocks: the block of each row, (M,) from 0; one for all where None. Rows of different blocks should be independent.
    """
    vectors = vectors.to(torch.complex128)
    rows = len(psi_x)
    weights = torch.full((rows,), 1 / rows) if weights is None else weights
    weights = weights.to(psi_x.device, torch.float64)[:, None]
    blocks = torch.zeros(rows, dtype=torch.long) if blocks is None else blocks
    blocks = blocks.to(psi_x.device)
    count = int(blocks.max()) + 1
    above, below = [], []
    ys = psi_y if psi_y.ndim == 3 else psi_y[None]
    for z, v in zip(torch.split(values, 256), torch.split(vectors, 256, 1), strict=True):
        before = _combined(psi_x, v)
        off = [_combined(y, v) - before * z for y in ys]
        square = (off[0].conj() * off[-1]).real * weights  # one successor: |.|^2; two: their noise is independent
        size = before.abs().square() * weights
        above.append(square.new_zeros(count, len(z)).index_add_(0, blocks, square))
        below.append(size.new_zeros(count, len(z)).index_add_(0, blocks, size))
    return torch.cat(above, 1), torch.cat(below, 1)


def upper_bounds(above: Tensor, below: Tensor, level: float = 0.05, resamples: int = 400, seed: int = 0) -> Tensor:
    """Bounds (n,) that all n true residuals keep at once with probability 1 - level, by a bootstrap over blocks.

    Args:
        above, below: what `residual_sums` gives on fresh pairs, (blocks, n), blocks being independent.

    The largest studentised deviation over all candidates is resampled, so that choosing the best afterwards voids nothing.
    Raises DataError for fewer than ten blocks.
    """
    count = len(above)
    if count < 10:
        raise DataError(f"a bound needs at least 10 independent blocks of fresh pairs, got {count}; give more episodes.")
    drawn = torch.randint(count, (resamples, count), generator=torch.Generator().manual_seed(seed))
    times = torch.zeros(resamples, count, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    times = times.to(above.device)
    ratio = above.sum(0) / below.sum(0)
    again = (times @ above) / (times @ below)
    spread = again.std(0).clamp_min(torch.finfo(torch.float64).tiny)
    reach = torch.quantile(((ratio - again) / spread).amax(1), 1 - level).clamp_min(0)
    return (ratio + reach * spread).clamp_min(0).sqrt()


def spectrum_cover(grid: Tensor, bounds: Tensor, factor: float = 5.0) -> Tensor:
    """Which grid points (n,) make up the spectrum: for every z with D(z) < 1, the point of least D within factor·D(z) of it.

    Args:
        grid: points of the plane (n,).
        bounds: D, an upper bound of the distance of each from the spectrum.
        factor: 1 in the theorem, 5 in the authors' code.

    Algorithm 3 (CompSpec). The largest D among the points that come back is the certificate: all lie that close to the spectrum.
    """
    kept = torch.zeros(len(grid), dtype=torch.bool, device=grid.device)
    seeds = torch.nonzero(bounds < 1)[:, 0]
    for some in torch.split(seeds, max(1, CHUNK // max(len(grid), 1))):
        near = (grid[None] - grid[some, None]).abs() <= factor * bounds[some, None]
        kept[torch.where(near, bounds[None], torch.inf).argmin(1)] = True
    return kept


def _combined(psi: Tensor, v: Tensor) -> Tensor:
    """The functions psi v for complex v; half the work where psi is real."""
    return psi @ v if psi.is_complex() else torch.complex(psi @ v.real, psi @ v.imag)


def _isometry(a: Tensor) -> Tensor:
    """The unitary factor of the polar decomposition."""
    u, _, v = torch.linalg.svd(a)
    unitary: Tensor = u @ v
    return unitary


def _double(x: Tensor) -> torch.dtype:
    return torch.complex128 if x.is_complex() else torch.float64


def _kept(sizes: Tensor, cutoff: float, asked: int, *, quiet: bool = False) -> int:
    """How many of descending sizes are above the cutoff."""
    largest = float(sizes[0]) if len(sizes) else 0.0
    if largest <= 0:
        raise DataError("the dictionary is zero at every sample; choose functions that are not.")
    kept = int((sizes > cutoff * largest).sum())
    if kept < asked and not quiet:
        warnings.warn(
            f"the dictionary's {asked} functions have rank {kept} at a cutoff of {cutoff:g}: some are constant multiples or "
            f"combinations of others; {kept} are kept.",
            stacklevel=3,
        )
    return kept
