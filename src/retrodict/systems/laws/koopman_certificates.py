"""What the error bounds of a Koopman spectrum rest on, beyond residuals on the pairs that were fitted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from retrodict.dynamics.libraries import Library
from retrodict.errors import DataError
from retrodict.systems.laws.koopman_pairs import Pairs, fill_distance


def refuse_unless_preserving(before: Tensor, after: Tensor, pairs: Pairs) -> None:
    """Raise DataError where a dictionary (M, N) before and after a step says that the sampled measure is not preserved.

    |psi∘F|^2 and |psi|^2 have one mean where it is; blocks of pairs tell how far chance could part them (3 standard errors).
    """
    weights = torch.ones(len(before), dtype=torch.float64) if pairs.weights is None else pairs.weights * len(before)
    size = weights * before.abs().square().sum(1)
    gained = weights * after.abs().square().sum(1) - size
    count = int(pairs.blocks.max()) + 1
    sums = torch.zeros(count, dtype=torch.float64).index_add_(0, pairs.blocks, gained)
    mean, error, scale = float(sums.mean()), float(sums.std()) / math.sqrt(count), float(size.sum()) / count
    if abs(mean) > 3 * error + 1e-9 * scale:
        raise DataError(
            f"measure_preserving contradicts the data: |psi∘F|² differs from |psi|² by {mean / scale:.2%} of it, which is "
            f"{abs(mean) / max(error, 1e-300):.1f} standard errors; leave it out, or sample the measure that is preserved."
        )


class Slack:
    """How far sums over samples can be from the integrals L, A and G, as norms over orthonormal functions.

    A function known to a Lipschitz constant changes little over the gaps between samples that fill the domain; a modulus of
    continuity says the same of a function after a step. Sums with the sizes of cells around the samples as weights are then known
    to be close to integrals.
    """

    def __init__(self, square: float, cross: float, gram: float) -> None:
        self.square, self.cross, self.gram = square, cross, gram

    @classmethod
    def of(
        cls,
        states: Tensor,
        library: Library,
        basis: Tensor,
        modulus: tuple[float, float] | None,
        domain: tuple[tuple[float, float], ...],
    ) -> Slack:
        """From samples (M, d) of the domain; raises DataError where modulus or domain are not known."""
        if modulus is None or not domain:
            raise DataError("a certificate by quadrature needs modulus=(a, b) with |F(x) - F(y)| <= a |x - y|^b, and the domain.")
        gap = fill_distance(states, domain)
        moved = modulus[0] * gap ** modulus[1]
        tops, slopes = library.regularity()
        norm = float(torch.linalg.matrix_norm(basis, 2)) ** 2

        def off(first: float, second: float) -> float:
            """Of the mean of conj(f) g, when f is known to `first` and g to `second` times its Lipschitz constant."""
            return norm * float(torch.linalg.matrix_norm(slopes[:, None] * first * tops + tops[:, None] * slopes * second))

        return cls(off(moved, moved), off(gap, moved), off(gap, gap))

    def upper(self, residuals: Tensor, values: Tensor) -> Tensor:
        """The largest that true residuals at values z (n,) can be, (n,)."""
        if self.gram >= 1:
            return torch.full_like(residuals, torch.inf)
        off = self.square + 2 * values.abs() * self.cross + values.abs() ** 2 * self.gram
        return ((residuals**2 + off) / (1 - self.gram)).sqrt()

    def to_json(self) -> tuple[float, float, float]:
        return self.square, self.cross, self.gram
