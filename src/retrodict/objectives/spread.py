"""Spread regularisers: terms that keep the codes (..., d) of an encoder from collapsing; leading dimensions are rows."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from retrodict.errors import DataError


def covariance_term(z: Tensor) -> Tensor:
    """Mean squared off-diagonal entry of the covariance of codes, over its d^2 - d entries.  (Cui et al., 2024, DynaMo)

    VICReg's term is the same sum divided by d.

    Raises DataError for fewer than 2 rows or 2 entries.
    """
    rows = _rows(z, 2)
    d = rows.shape[1]
    if d < 2:
        raise DataError("the covariance term is of codes with at least 2 entries; these have 1.")
    covariance = _covariance(rows, ddof=1)
    term: Tensor = (covariance.square().sum() - covariance.diagonal().square().sum()) / (d * d - d)
    return term


def singular_value_term(z: Tensor, form: Literal["svd", "gram"] = "svd", eps: float = 1e-6) -> Tensor:
    """How far the singular values of centred unit codes are from all being equal; 0 where the codes fill the sphere evenly.

    mean_j (s_j / s* - 1)^2 with s* = sqrt(N / r), r = min(N - 1, d): it grows both where some directions empty and where all do.
    `gram` is |Z' Z / (N / r) - 1|_F^2 / r, which needs no decomposition.

    Raises DataError for fewer than 3 rows.
    """
    rows = F.normalize(_rows(z, 3), dim=-1)
    rows = rows - rows.mean(0)
    n, d = rows.shape
    rank = min(n - 1, d)
    target = n / rank
    if form == "gram":
        gram = rows.T @ rows / target if d <= n else rows @ rows.T / target
        apart: Tensor = gram - torch.eye(len(gram), device=z.device, dtype=gram.dtype)
        term: Tensor = apart.square().sum() / rank
        return term
    jitter = eps * torch.eye(n, d, device=z.device, dtype=rows.dtype)  # equal singular values have no gradient: none are equal
    values: Tensor = torch.linalg.svdvals(rows + jitter)[:rank]
    apart = values / target**0.5 - 1
    return apart.square().mean()


def entropy_term(z: Tensor) -> Tensor:
    """Minus the von Neumann entropy of C / tr C, C being the covariance of codes; minimised, it spreads them over directions.

    It says nothing of how large codes are. Its least value is -log(min(N - 1, d)).

    Raises DataError for fewer than 8 rows, and where the codes do not differ at all.
    """
    rows = _rows(z, 8)
    covariance = _covariance(rows, ddof=0)
    trace = covariance.diagonal().sum()
    if float(trace.detach()) <= torch.finfo(rows.dtype).tiny:
        raise DataError("the codes do not differ at all; the encoder has collapsed.")
    shares = torch.linalg.eigvalsh(covariance / trace).clamp_min(1e-12)
    term: Tensor = (shares * shares.log()).sum()
    return term


def _rows(z: Tensor, least: int) -> Tensor:
    rows = z.reshape(-1, z.shape[-1]).float() if z.dtype in (torch.bfloat16, torch.float16) else z.reshape(-1, z.shape[-1])
    if len(rows) < least:
        raise DataError(f"a spread term is of a batch of at least {least} codes; {len(rows)} were given.")
    return rows


def _covariance(rows: Tensor, ddof: int) -> Tensor:
    with torch.autocast(rows.device.type, enabled=False):  # half precision loses what is small here
        rows = rows.float() if rows.dtype != torch.float64 else rows
        centred = rows - rows.mean(0)
        return centred.T @ centred / (len(rows) - ddof)
