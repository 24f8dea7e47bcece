"""Moment restrictions: a residual that nothing known explains, E[r | a] = 0, as a loss.

Maximum moment restriction (Muandet et al., 2020), as linear invariance uses it (Saengkyongam et al., 2024): for a Gaussian
kernel the mean over pairs of k(a_i, a_j) <r_i, r_j> is 0 exactly where the restriction holds. The kernel is taken through random
Fourier features (Rahimi and Recht, 2007): a large batch, which the statistic wants, then costs no more per row than a small one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FourierFeatures(nn.Module):
    """Vectors (..., k) -> features (..., count per bandwidth) whose inner products are about the sum of Gaussian kernels.

    Args:
        inputs: k.
        bandwidths: standard deviations of the kernels; a sum of several serves where k is large.
        count: features of each kernel; the error of the kernel falls as 1 / sqrt(count).
        generator: draws the frequencies, which are buffers and saved.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, inputs: int, bandwidths: Sequence[float], count: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        drawn = [torch.randn(inputs, count, generator=generator) / width for width in bandwidths]
        self.register_buffer("frequencies", torch.cat(drawn, 1))
        self.register_buffer("phases", 2 * math.pi * torch.rand(count * len(bandwidths), generator=generator))
        self.scale = math.sqrt(2 / count)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.scale * torch.cos(x @ self.frequencies + self.phases)
        return features


def linear_residual(values: Tensor, given: Tensor) -> Tensor:
    """What is left of `values` (B, d) after its least-squares affine function of `given` (B, k) is taken away.

    The gradient runs through the fit.
    """
    design = torch.cat([torch.ones_like(given[:, :1]), given], 1)
    rest: Tensor = values - design @ torch.linalg.solve(design.T @ design, design.T @ values)
    return rest


def moment_restriction(residual: Tensor, features: Tensor) -> Tensor:
    """How far E[residual | given] is from 0: the mean over pairs i != j of <features_i, features_j> <residual_i, residual_j>.

    A U-statistic: it is 0 on average where the restriction holds, and so may be negative. With the pairs i = i kept it would
    shrink the residual itself.

    Args:
        residual: (B, d); standardise it, or what it is the residual of, or the loss is lowered by shrinking that.
        features: (B, m) of what is given, such as `FourierFeatures`.
    """
    together = (features.T @ residual).square().sum()
    alone = (features.square().sum(1) * residual.square().sum(1)).sum()
    return (together - alone) / (len(residual) * (len(residual) - 1))


def shape_moments(residual: Tensor, degree: int) -> Tensor:
    """Products of two (and, from degree 3, of three) entries of the whitened residual (B, d), less their means.

    Restricted by what is given, they say that not only the mean but the shape of the residual does not depend on it. (B, number
    of products).
    """
    count, width = residual.shape
    root = torch.linalg.cholesky(residual.T @ residual / count)
    white = torch.linalg.solve_triangular(root, residual.T, upper=False).T
    made = []
    for order in range(2, degree + 1):
        rows = torch.combinations(torch.arange(width), order, with_replacement=True)
        made.append(white[:, rows].prod(-1))
    products = torch.cat(made, 1)
    return products - products.mean(0)


def median_distance(values: Tensor, most: int = 2000) -> float:
    """The median distance between rows of `values` (n, k), of the first `most` of them: the usual bandwidth."""
    return float(torch.pdist(values[:most].double()).median())
