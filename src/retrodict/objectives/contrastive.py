"""Contrastive losses: InfoNCE, NT-Xent, n-pairs and SupCon are one masked log-sum-exp."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from retrodict.errors import DataError


def contrastive(
    a: Tensor,
    b: Tensor | None = None,
    *,
    temperature: float,
    similarity: Literal["cosine", "dot"] = "cosine",
    positives: Tensor | None = None,
    negatives: Tensor | None = None,
    extra: Tensor | None = None,
    symmetric: bool = False,
    reduce: Literal["log_of_sum", "mean_of_logs"] = "mean_of_logs",
    penalty: float = 0.0,
) -> Tensor:
    """The loss of finding each row's positives among all candidates, a mean over the rows that have a positive.

    Args:
        a: (N, d), those that look.
        b: (M, d), those among which they look. None looks among `a` itself, a row never being its own candidate.
        temperature: divides similarities; there is no usual one (0.07, 0.1 and 1 occur).
        similarity: `cosine`, or the plain `dot` product (n-pairs).
        positives: bool (N, M). By default row i of `b` belongs to row i of `a`; without `b`, rows i and i + N/2 to each other.
        negatives: bool (N, M), the candidates beside the positives; by default all others.
        extra: (K, d), further negatives of every row.
        symmetric: look from `b` to `a` as well and take the mean of both.
        reduce: several positives of a row count by the `log_of_sum` of their probabilities or by the `mean_of_logs` (SupCon).
        penalty: weight of the mean squared norm of the codes.

    Raises DataError where no row has a positive, or the defaults do not fit the shapes.
    """
    alone = b is None
    other = a if b is None else b
    if positives is None:
        positives = _usual(len(a), len(other), alone, a.device)
    allowed = torch.ones_like(positives) if negatives is None else negatives
    if alone:
        allowed = allowed & ~torch.eye(len(a), dtype=torch.bool, device=a.device)
    loss = _one_way(a, other, temperature, similarity, positives, allowed | positives, extra, reduce)
    if symmetric:
        back = _one_way(other, a, temperature, similarity, positives.T, (allowed | positives).T, extra, reduce)
        loss = (loss + back) / 2
    if penalty:
        norms = a.square().sum(-1).mean()
        loss = loss + penalty * (norms if alone else (norms + other.square().sum(-1).mean()) / 2)
    return loss


def chance(candidates: int, positives: int = 1) -> float:
    """The loss of one who cannot tell candidates apart, with `log_of_sum`: what a contrastive loss is to be read against."""
    return math.log(candidates / positives)


def _usual(n: int, m: int, alone: bool, device: torch.device) -> Tensor:
    if alone and n % 2 == 0:
        return torch.eye(n, dtype=torch.bool, device=device).roll(n // 2, 1)
    if alone or n != m:
        raise DataError(f"{n} rows among {m} candidates have no usual positives; say which by `positives`.")
    return torch.eye(n, dtype=torch.bool, device=device)


def _one_way(
    a: Tensor,
    b: Tensor,
    temperature: float,
    similarity: str,
    positives: Tensor,
    candidates: Tensor,
    extra: Tensor | None,
    reduce: str,
) -> Tensor:
    if extra is not None:
        b = torch.cat([b, extra])
        none = positives.new_zeros(len(a), len(extra))
        positives, candidates = torch.cat([positives, none], 1), torch.cat([candidates, ~none], 1)
    if similarity == "cosine":
        a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    logits = ((a @ b.T).float() / temperature).masked_fill(~candidates, -torch.inf)
    held = positives.any(1)
    if not bool(held.any()):
        raise DataError("no row has a positive to be found; a contrastive loss needs some.")
    logits, positives = logits[held], positives[held]
    log_p = logits - logits.logsumexp(1, keepdim=True)
    if reduce == "log_of_sum":
        return -log_p.masked_fill(~positives, -torch.inf).logsumexp(1).mean()
    return -(log_p.masked_fill(~positives, 0.0).sum(1) / positives.sum(1)).mean()
