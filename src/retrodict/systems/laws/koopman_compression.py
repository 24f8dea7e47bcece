"""From pairs of states to the operator on a dictionary, and to how states are read back from it."""

from __future__ import annotations

import torch
from torch import Tensor

from retrodict.dynamics.kernels import KERNELS
from retrodict.dynamics.koopman import Galerkin, galerkin, galerkin_from_grams
from retrodict.errors import DataError
from retrodict.systems.laws.koopman_certificates import refuse_unless_preserving
from retrodict.systems.laws.koopman_dictionary import Dictionary
from retrodict.systems.laws.koopman_pairs import Pairs


def compress(psi: Dictionary, pairs: Pairs, cutoff: float, *, interpolating: bool, preserving: bool) -> tuple[Galerkin, Tensor]:
    """The operator on the span of a dictionary, and the coefficients (r, n d) of the state in its orthonormal functions.

    Args:
        psi: the dictionary; of kernel functions at the states of the pairs themselves, the operator is the adjoint.
        pairs: states and successors; of two independent successors the noise is left out.
        cutoff: share of the largest singular value below which functions are combinations of others.
        interpolating: allow half as many functions as pairs and more, because residuals are judged elsewhere.
        preserving: the map is said to preserve the sampled measure; refused where the pairs say otherwise.

    Raises DataError for a dictionary that interpolates the pairs, or a measure that is not preserved.
    """
    target, before = pairs.before.flatten(1), psi(pairs.before)
    if psi.kind == "kernel":
        y = psi.seen(pairs.after)
        operator = galerkin_from_grams(before, psi(pairs.after).mT, KERNELS[psi.kernel](y, y, psi.width), cutoff)
        return operator, operator.basis.mH @ target
    if not interpolating and 2 * before.shape[1] >= len(before):
        raise DataError(
            f"{before.shape[1]} functions on {len(before)} pairs interpolate them: residuals on the pairs that were fitted would "
            "be near 0 whatever the map; certify by 'holdout', or give more pairs."
        )
    weights = pairs.weights if pairs.weights is not None else torch.full((len(before),), 1 / len(before)).double()
    weighed = weights[:, None] * before
    if pairs.repeated:
        one, two = psi(pairs.after[0]), psi(pairs.after[1])
        after = (one + two) / 2
        square = (one.mH @ (weights[:, None] * two) + two.mH @ (weights[:, None] * one)) / 2
        operator = galerkin_from_grams(before.mH @ weighed, weighed.mH @ after, square, cutoff)
    else:
        after = psi(pairs.after)
        operator = galerkin(before, after, pairs.weights, cutoff)
    if preserving:
        refuse_unless_preserving(before, after, pairs)
    return operator, operator.basis.mH @ (weighed.mH @ target.to(weighed.dtype))
