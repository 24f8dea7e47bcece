"""Initial weights of whole stacks of layers: those for which depth costs learning time, and those for which it is free.

(Saxe, McClelland and Ganguli, 2014, section 3.) Stacks are tuples of matrices (out, in) in float64, the first layer first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from retrodict.errors import DataError

Layers = tuple[Tensor, ...]


def orthogonal(rows: int, columns: int, gain: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """A matrix (rows, columns) drawn evenly (by Haar measure) from those whose singular values all are `gain`.

    The Q of a Gaussian matrix, with the signs that make the diagonal of R positive: without them it is not evenly drawn.
    """
    tall = torch.randn(max(rows, columns), min(rows, columns), dtype=torch.float64, generator=generator)
    q, r = torch.linalg.qr(tall)
    drawn: Tensor = gain * q * r.diagonal().sign()
    return drawn if rows >= columns else drawn.T.contiguous()


def orthogonal_layers(widths: Sequence[int], gain: float = 1.0, generator: torch.Generator | None = None) -> Layers:
    """Independent orthogonal matrices between layers of these widths: norms pass any number of linear layers unchanged."""
    return tuple(orthogonal(after, before, gain, generator) for before, after in pairwise(widths))


def gaussian_layers(widths: Sequence[int], gain: float = 1.0, generator: torch.Generator | None = None) -> Layers:
    """Independent normal entries of deviation gain / sqrt(fan-in): norms are kept on average only, not in each direction."""
    return tuple(
        gain / before**0.5 * torch.randn(after, before, dtype=torch.float64, generator=generator)
        for before, after in pairwise(widths)
    )


def balanced_layers(
    left: Tensor, right: Tensor, widths: Sequence[int], starts: Tensor, generator: torch.Generator | None = None
) -> Layers:
    """Layers whose product is left diag(starts) right^T, balanced and aligned: for these each mode follows its own equation.

    Args:
        left, right: orthonormal columns (out, k) and (in, k), as of a singular value decomposition.
        widths: from `in` to `out`; a hidden layer narrower than k cannot carry all modes.
        starts: strengths u0 (k,), at least 0.

    Raises DataError where a hidden layer is narrower than the number of modes.
    """
    modes, depth = len(starts), len(widths) - 1
    if min(widths[1:-1], default=modes) < modes:
        narrow = min(widths[1:-1])
        raise DataError(f"a hidden layer of width {narrow} cannot carry {modes} modes; give fewer modes or more width.")
    frames = [right, *(orthogonal(width, modes, 1.0, generator) for width in widths[1:-1]), left]
    return tuple((after * starts ** (1 / depth)) @ before.T for before, after in pairwise(frames))


def pretrained_layers(widths: Sequence[int], covariance: Tensor, generator: torch.Generator | None = None) -> Layers:
    """Greedy layer-wise pre-training: each layer the encoder of a linear autoencoder of what the layer below gives out.

    A linear autoencoder with tied weights finds the space of the leading principal components and nothing within it, so its
    solution is written down instead of searched: those components, turned by a random rotation. `covariance` is the input's.
    """
    layers = []
    for before, after in pairwise(widths):
        keep = min(before, after)
        axes = torch.linalg.eigh(covariance).eigenvectors[:, -keep:]
        layers.append(orthogonal(after, keep, 1.0, generator) @ axes.T)
        covariance = layers[-1] @ covariance @ layers[-1].T
    return tuple(layers)


def propagation(layers: Sequence[Tensor], x: Tensor, activation: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Singular values, largest first, of the derivative of the last layer by the input at `x` (d,): how gradients travel.

    `activation` (linear where None) is applied after every layer, entry by entry.
    """
    jacobian = torch.eye(len(x), dtype=x.dtype)
    for weight in layers:
        x, jacobian = weight @ x, weight @ jacobian
        if activation is not None:
            with torch.enable_grad():
                before = x.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(activation(before).sum(), before)
            x, jacobian = activation(x), gradient[:, None] * jacobian
    values: Tensor = torch.linalg.svdvals(jacobian)
    return values
