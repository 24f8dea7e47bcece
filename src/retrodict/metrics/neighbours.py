"""Nearest neighbours: what a representation puts near each other, found by torch among few keys and by a tree among many."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from retrodict.errors import DataError

Metric = Literal["euclidean", "cosine"]
Weights = Literal["uniform", "exponential"]

#: More keys than this are put into a tree.
MANY = 100_000
BLOCK = 4096  # queries at a time, so that memory stays bounded


def knn(query: Tensor, keys: Tensor, k: int, metric: Metric = "euclidean", *, leave_out: bool = False) -> tuple[Tensor, Tensor]:
    """Indices (Q, k) of the nearest keys (K, d) of each query (Q, d), nearest first, and their distances (Q, k).

    Args:
        metric: `euclidean`, or `cosine` (1 - cos).
        leave_out: the queries are the keys, and no row is its own neighbour.

    Raises DataError where there are fewer than k keys.
    """
    there = len(keys) - leave_out
    if not 1 <= k <= there:
        raise DataError(f"{k} nearest neighbours were asked for and there are {there} keys.")
    if metric == "cosine":
        query, keys = F.normalize(query, dim=-1), F.normalize(keys, dim=-1)
    dtype = query.dtype
    if len(keys) > MANY:
        found, apart = _by_tree(query, keys, k + leave_out)
        if leave_out:
            own = torch.arange(len(query), device=query.device)[:, None]
            first = (found != own).to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :k]
            found, apart = found.gather(1, first), apart.gather(1, first)
    else:
        # |x|^2 + |y|^2 - 2xy, the fast way, has no digits left in float32 where codes lie far from 0 and near each other: it
        # finds the neighbours, in the widest type of the device, and how far these are is told by their differences.
        wide = torch.float32 if keys.device.type == "mps" else torch.float64
        centre, blocks = keys.to(wide).mean(0), []
        query, keys = query.to(wide) - centre, keys.to(wide) - centre
        for start in range(0, len(query), BLOCK):
            apart = torch.cdist(query[start : start + BLOCK], keys)
            if leave_out:
                rows = torch.arange(len(apart), device=apart.device)
                apart[rows, rows + start] = torch.inf
            near = apart.topk(k, largest=False).indices
            apart = torch.linalg.vector_norm(query[start : start + BLOCK, None] - keys[near], dim=-1)
            apart, order = apart.sort(dim=1, stable=True)
            blocks.append((near.gather(1, order), apart))
        found, apart = (torch.cat(part) for part in zip(*blocks, strict=True))
        apart = apart.to(dtype)
    return found, apart.square() / 2 if metric == "cosine" else apart


def weights_of(distances: Tensor, weights: Weights) -> Tensor:
    """Weights (Q, k) that sum to 1 over the neighbours: equal, or in proportion to exp(-distance)."""
    return torch.full_like(distances, 1 / distances.shape[1]) if weights == "uniform" else (-distances).softmax(1)


def regress(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    k: int,
    *,
    weights: Weights = "uniform",
    metric: Metric = "euclidean",
    leave_out: bool = False,
) -> Tensor:
    """The weighted mean (Q, *shape) of the values (K, *shape) of the k nearest keys: locally weighted regression."""
    found, apart = knn(query, keys, k, metric, leave_out=leave_out)
    share = weights_of(apart, weights)
    return torch.einsum("qk,qk...->q...", share.to(values.dtype), values[found])


def classify(
    query: Tensor,
    keys: Tensor,
    labels: Tensor,
    k: int,
    *,
    weights: Weights = "uniform",
    metric: Metric = "euclidean",
    leave_out: bool = False,
) -> Tensor:
    """The class (Q,) that most of the k nearest keys have, by weight; of equals the one with the smaller number."""
    one_hot = F.one_hot(labels.long()).to(keys.dtype)
    return regress(query, keys, one_hot, k, weights=weights, metric=metric, leave_out=leave_out).argmax(1)


def retrieval(query: Tensor, keys: Tensor, answer: Tensor, top: int = 1, metric: Metric = "cosine") -> float:
    """Share of queries whose answer (Q,), the index of a key, is among the `top` nearest."""
    found, _ = knn(query, keys, top, metric)
    return float((found == answer[:, None]).any(1).double().mean())


def overlap(query: Tensor, keys: Tensor, k: int = 1, quantile: float = 0.95) -> float:
    """Share of queries no farther from the keys than all but 1 - `quantile` of the keys are from each other (k-th neighbour)."""
    _, among = knn(keys, keys, k, leave_out=True)
    _, apart = knn(query, keys, k)
    return float((apart[:, -1] <= torch.quantile(among[:, -1].double(), quantile)).double().mean())


def _by_tree(query: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    from sklearn.neighbors import KDTree

    apart, found = KDTree(keys.cpu().double().numpy()).query(query.cpu().double().numpy(), k)
    return torch.from_numpy(np.asarray(found, np.int64)).to(query.device), torch.from_numpy(apart).to(query)
