"""Piecewise-linear recurrent networks as modules, and how their states are seen and found from what is seen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from retrodict.dynamics.plrnn import AlmostLinear, Shallow


def contracting(latent: int) -> Tensor:
    """A random positive definite matrix (M, M) of largest eigenvalue 1: R R' / M + 1, scaled, with R standard normal."""
    root = torch.randn(latent, latent)
    matrix = root.T @ root / latent + torch.eye(latent)
    scaled: Tensor = matrix / torch.linalg.eigvalsh(matrix)[-1]
    return scaled


def _uniform(*shape: int, bound: float) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


class AlmostLinearRNN(nn.Module):
    """z' = A z + W phi(z) + h with the last `rectified` of `latent` entries rectified; A diagonal.

    A starts as the diagonal of a contracting matrix and W near 0, as in the tutorial of Brenner et al., 2024; from the rest of
    that matrix, where their Julia code starts W, training ended more often in a law without chaos.
    """

    def __init__(self, latent: int, rectified: int) -> None:
        super().__init__()
        self.rectified = rectified
        self.a = nn.Parameter(contracting(latent).diag().clone())
        self.w = nn.Parameter(0.01 * torch.randn(latent, latent))
        self.h = nn.Parameter(torch.zeros(latent))

    @property
    def map(self) -> AlmostLinear:
        return AlmostLinear(self.a, self.w, self.h, self.rectified)


class ShallowPLRNN(nn.Module):
    """z' = A z + W1 [relu(W2 z + h2) - relu(W2 z)] + h1 with `hidden` rectifiers; the second one only where `clipped`.

    A starts as the diagonal of a contracting matrix, W1 and W2 uniform within 1 / sqrt(their last dimension), h1 at 0, h2 at 0
    or, where clipped, uniform within 1 / sqrt(hidden), as it would do nothing otherwise (Hess et al., 2023).
    """

    def __init__(self, latent: int, hidden: int, clipped: bool = True) -> None:
        super().__init__()
        self.clipped = clipped
        self.a = nn.Parameter(contracting(latent).diag().clone())
        self.w1 = _uniform(latent, hidden, bound=hidden**-0.5)
        self.w2 = _uniform(hidden, latent, bound=latent**-0.5)
        self.h1 = nn.Parameter(torch.zeros(latent))
        self.h2 = _uniform(hidden, bound=hidden**-0.5) if clipped else nn.Parameter(torch.zeros(hidden))

    @property
    def map(self) -> Shallow:
        return Shallow(self.a, self.w1, self.w2, self.h1, self.h2, self.clipped)


class FirstEntries(nn.Module):
    """The first `seen` of `latent` entries of the state are what is seen; where it starts, the others are L x, learned."""

    def __init__(self, seen: int, latent: int) -> None:
        super().__init__()
        self.seen = seen
        bound = (6 / latent) ** 0.5  # Glorot
        self.lift = _uniform(latent - seen, seen, bound=bound) if latent > seen else None

    def forward(self, z: Tensor) -> Tensor:
        """What is seen (..., N) of states (..., M)."""
        return z if z.shape[-1] == self.seen else z[..., : self.seen]

    def start(self, x: Tensor) -> Tensor:
        """States (..., M) to start from where x (..., N) is seen; gradients reach L."""
        return x if self.lift is None else torch.cat([x, x @ self.lift.to(x.dtype).mT], -1)

    def signal(self, x: Tensor) -> Tensor:
        """To what teacher forcing draws the state: its first entries (..., N)."""
        return x


class LinearReadout(nn.Module):
    """x = B z is seen; the state behind it is found by the pseudo-inverse of B."""

    def __init__(self, seen: int, latent: int) -> None:
        super().__init__()
        self.b = nn.Parameter(nn.init.kaiming_normal_(torch.empty(seen, latent)))

    def forward(self, z: Tensor) -> Tensor:
        """What is seen (..., N) of states (..., M)."""
        return z @ self.b.to(z.dtype).mT

    def start(self, x: Tensor) -> Tensor:
        """States (..., M) to start from where x (..., N) is seen; gradients reach B."""
        inverse: Tensor = torch.linalg.pinv(self.b.to(x.dtype))
        return x @ inverse.mT

    def signal(self, x: Tensor) -> Tensor:
        """To what teacher forcing draws the state (..., M); no gradient passes."""
        with torch.no_grad():
            return self.start(x)

    def conditioning(self) -> Tensor:
        """(1 - largest / smallest singular value of B)^2, which is 0 where B distorts nothing."""
        singular: Tensor = torch.linalg.svdvals(self.b)
        return (1 - singular[0] / (singular[-1] + 1e-8)) ** 2


Readout = FirstEntries | LinearReadout
