"""The health of a representation: does it use its room, or has it collapsed? Codes are (..., d); leading dimensions are rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from retrodict.errors import DataError

Codes = Tensor | ArrayLike


@dataclass(frozen=True)
class Health:
    """What a batch of codes says of the encoder that made them.

    Attributes:
        std: mean over coordinates of their standard deviation; 0 where the encoder has collapsed altogether.
        std_unit: the same of codes brought to unit norm, times sqrt(d); 1 where they fill the sphere evenly.
        rank: effective rank, between 1 and d. It knows no scale, so it misses a total collapse: read it with `std`.
        norm: mean norm.
    """

    std: float
    std_unit: float
    rank: float
    norm: float


def health(z: Codes) -> Health:
    """All of it at once; raises DataError for fewer than 2 codes."""
    rows = _rows(z)
    norms = rows.norm(dim=1)
    unit = rows / norms.clamp_min(1e-12)[:, None]
    return Health(spread(rows), spread(unit) * rows.shape[1] ** 0.5, effective_rank(rows), float(norms.mean()))


def spread(z: Codes) -> float:
    """Mean over coordinates of the standard deviation of codes (ddof 0)."""
    return float(_rows(z).std(0, correction=0).mean())


def effective_rank(z: Codes) -> float:
    """exp(H(l / sum l)) of the eigenvalues l of the centred covariance; 1 where codes lie on a line, or do not differ at all.

    Squared singular values of the centred codes give the same number.  (Roy and Vetterli, 2007)
    """
    rows = _rows(z)
    values = torch.linalg.svdvals(rows - rows.mean(0)).square()
    total = values.sum()
    if total <= 0:
        return 1.0
    shares = values / total
    shares = shares[shares > 0]
    return float(torch.exp(-(shares * shares.log()).sum()))


def usage(indices: Codes, n: int) -> Mapping[str, float]:
    """How a codebook of `n` entries is used.

    Returns `entropy` (nats), `perplexity` (entries as if used evenly), `largest` (share of the most used) and `used` (share of
    the entries used at all).
    """
    counts = torch.bincount(torch.as_tensor(np.asarray(indices)).reshape(-1).long(), minlength=n).double()
    if len(counts) > n or not counts.sum():
        raise DataError(
            f"a codebook of {n} entries was given indices up to {len(counts) - 1}; at least one is needed, below {n}."
        )
    shares = counts / counts.sum()
    held = shares[shares > 0]
    entropy = float(-(held * held.log()).sum())
    return {
        "entropy": entropy,
        "perplexity": float(np.exp(entropy)),
        "largest": float(shares.max()),
        "used": float((counts > 0).double().mean()),
    }


def alignment(a: Codes, b: Codes) -> float:
    """Mean squared distance of unit codes of two views of the same things, rows being pairs; 0 where views agree.

    (Wang and Isola, 2020)
    """
    return float((_unit(a) - _unit(b)).square().sum(1).mean())


def uniformity(z: Codes, t: float = 2.0) -> float:
    """Uniformity: log E exp(-t |z_i - z_j|^2) over pairs of different unit codes; the less, the more evenly they lie.  (ibid.)"""
    distances = torch.pdist(_unit(z)).square()
    return float((-t * distances).logsumexp(0) - np.log(len(distances)))


def distance_from(weights: Mapping[str, Tensor], initial: Mapping[str, Tensor]) -> float:
    """How far a net went from where it began: |w - w0| / |w0| over all its weights.

    Raises DataError where the two are not of one net.
    """
    if weights.keys() != initial.keys():
        raise DataError(f"these weights are of different nets: {sorted(weights.keys() ^ initial.keys())[:3]} are in one only.")
    moved = sum(float((weights[name].double() - initial[name].double()).square().sum()) for name in initial)
    return float((moved / sum(float(value.double().square().sum()) for value in initial.values())) ** 0.5)


def _rows(z: Codes) -> Tensor:
    values = torch.as_tensor(z).detach()
    rows = values.reshape(-1, values.shape[-1]).double().cpu()
    if len(rows) < 2:
        raise DataError(f"the health of a representation is judged by at least 2 codes, got {len(rows)}.")
    return rows


def _unit(z: Codes) -> Tensor:
    rows = _rows(z)
    unit: Tensor = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return unit
