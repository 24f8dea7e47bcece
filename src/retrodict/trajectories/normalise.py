"""Normalisers: statistics fitted on training data and saved in the model, as modules whose numbers are buffers.

Statistics are always those of all data given, never of one domain; they are computed in float64.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from retrodict.errors import DataError, NotFittedError

Values = Tensor | np.ndarray
#: A spread below this part of the values' size is rounding: the entry is constant.
CONSTANT = 1e-12


class Normaliser(nn.Module):
    """(x - offset) / scale, with offset and scale of a shape that broadcasts over the last dimensions of x.

    `(d,)` gives each entry of a vector its own statistics, `()` shares one pair among all entries, `(3, 1, 1)` has one for each
    channel of images (..., 3, H, W).

    Args:
        shape: shape of the statistics.
        kind: `standard` to mean 0 and deviation 1; `range` from minimum and maximum to `low` and `high`.
        ddof: 0 divides the variance by n, 1 by n - 1.
        low, high: where `range` puts the minimum and the maximum.
        constant: what to do with an entry that never changes: `warn` and scale it by 1, or raise an `error`.
        name: what is normalised, for messages.
    """

    offset: Tensor
    scale: Tensor
    moments: Tensor
    seen: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        kind: Literal["standard", "range"] = "standard",
        *,
        ddof: Literal[0, 1] = 0,
        low: float = -1.0,
        high: float = 1.0,
        constant: Literal["warn", "error"] = "warn",
        name: str = "values",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.shape, self.kind, self.ddof, self.low, self.high = tuple(shape), kind, ddof, low, high
        self.constant, self.name = constant, name
        self.register_buffer("offset", torch.zeros(shape, dtype=dtype))
        self.register_buffer("scale", torch.ones(shape, dtype=dtype))
        # What further data is merged into: mean and sum of squared deviations, or minimum and maximum.
        self.register_buffer("moments", torch.zeros((2, *shape), dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(shape, dtype=torch.float64))

    @classmethod
    def given(cls, offset: Values | float, scale: Values | float, dtype: torch.dtype = torch.float32) -> Self:
        """A normaliser with this offset and scale, which fits nothing: (x - offset) / scale.

        Raises DataError where a scale is 0 or not finite.
        """
        by = torch.as_tensor(scale, dtype=dtype)
        moved = torch.as_tensor(offset, dtype=dtype) + torch.zeros_like(by)
        by = by + torch.zeros_like(moved)
        if not (torch.isfinite(by).all() and (by != 0).all() and torch.isfinite(moved).all()):
            raise DataError(f"a given offset and scale are finite and the scale is not 0, got {moved.tolist()}, {by.tolist()}.")
        made = cls(tuple(moved.shape), dtype=dtype)
        made.offset, made.scale = moved, by
        made.seen.fill_(1)
        return made

    @classmethod
    def box(cls, low: Values, high: Values, dtype: torch.dtype = torch.float32) -> Self:
        """A normaliser that brings the box from `low` to `high` (a workspace, the limits of an action) to [-1, 1]."""
        low, high = torch.as_tensor(low, dtype=torch.float64), torch.as_tensor(high, dtype=torch.float64)
        return cls.given((low + high) / 2, (high - low) / 2, dtype)

    @property
    def fitted(self) -> bool:
        return bool((self.seen > 0).all())

    def fit(self, values: Values | Mapping[str, Any], mask: Values | None = None, weights: Values | None = None) -> Self:
        """Take the statistics of `values`, forgetting earlier ones, and return self.

        Args:
            values: (..., *shape) (broadcast), or what `meta/stats.json` says of a feature (`mean`, `std`, `min`, `max`, `count`).
            mask: which values count, aligned with the first dimensions of `values`: (B, T), (B, T, N), ...
            weights: how much values count, aligned with the last dimensions: masses of the points of a mesh, ...

        Raises DataError for no values, values that are not finite, and constant entries where `constant` is `error`.
        """
        self.moments.zero_()
        self.seen.zero_()
        if isinstance(values, Mapping):
            self._take(values)
            self._settle()
            return self
        return self.update(values, mask, weights)

    def update(self, values: Values, mask: Values | None = None, weights: Values | None = None) -> Self:
        """Merge further values into the statistics, as if all had been given at once: the running kind."""
        x, counts = self._weighed(values, mask, weights)
        axes = self._axes(x)
        total = self._reduced(counts, axes)
        if not (total > 0).all():
            raise DataError(f"{self.name}: there is nothing to take statistics of; {tuple(x.shape)} values, all masked or none.")
        if self.kind == "range":
            low = torch.where(counts > 0, x, torch.inf).amin(axes, keepdim=True).reshape(self.shape) if axes else x
            high = torch.where(counts > 0, x, -torch.inf).amax(axes, keepdim=True).reshape(self.shape) if axes else x
            if (self.seen > 0).all():
                low, high = torch.minimum(low, self.moments[0]), torch.maximum(high, self.moments[1])
            self.moments.copy_(torch.stack([low, high]))
            self.seen += total
        else:
            mean = self._reduced(x * counts, axes) / total
            spread = self._reduced((x - mean) ** 2 * counts, axes)
            before, apart, together = self.seen.clone(), mean - self.moments[0], self.seen + total
            self.moments[0] += apart * total / together
            self.moments[1] += spread + apart**2 * before * total / together
            self.seen.copy_(together)
        self._settle()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Normalised values, same shape; integers come back as floats."""
        self._check()
        return (x - self.offset) / self.scale

    def inverse(self, x: Tensor) -> Tensor:
        """Values in their own units; the inverse of `forward`."""
        self._check()
        return x * self.scale + self.offset

    # ---- the statistics -----------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if not self.fitted:
            raise NotFittedError(f"{self.name}: the normaliser has no statistics yet; call fit first.")

    def _weighed(self, values: Values, mask: Values | None, weights: Values | None) -> tuple[Tensor, Tensor]:
        x = torch.as_tensor(values).detach().to(self.moments)
        if x.ndim < len(self.shape) or any(s not in (1, n) for s, n in zip(self.shape[::-1], x.shape[::-1], strict=False)):
            raise DataError(f"{self.name}: values {tuple(x.shape)} do not fit statistics of shape {self.shape}.")
        counts = torch.ones_like(x)
        if mask is not None:
            mask = torch.as_tensor(mask, device=x.device).bool()
            counts = counts * mask.reshape(*mask.shape, *[1] * (x.ndim - mask.ndim))
        if weights is not None:
            counts = counts * torch.as_tensor(weights).to(x)
        bad = ~torch.isfinite(x) & (counts > 0)
        if bad.any():
            raise DataError(f"{self.name}: value {torch.nonzero(bad)[0].tolist()} is not finite; mask it or mend it first.")
        return torch.where(counts > 0, x, 0), counts

    def _axes(self, x: Tensor) -> tuple[int, ...]:
        lead = x.ndim - len(self.shape)
        return (*range(lead), *(lead + i for i, s in enumerate(self.shape) if s == 1))

    def _reduced(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        return (x.sum(axes, keepdim=True) if axes else x).reshape(self.shape)

    def _take(self, stats: Mapping[str, Any]) -> None:
        wanted = ("min", "max") if self.kind == "range" else ("mean", "std")
        try:
            first, second = (torch.as_tensor(np.asarray(stats[key], np.float64)).reshape(self.shape) for key in wanted)
        except KeyError as error:
            raise DataError(f"{self.name}: the statistics lack {error}; {wanted} are needed, they have {list(stats)}.") from None
        except RuntimeError:
            raise DataError(f"{self.name}: the statistics given do not have the shape {self.shape}.") from None
        count = float(np.asarray(stats.get("count", 1)).reshape(-1)[0])
        self.moments.copy_(torch.stack([first, second if self.kind == "range" else second**2 * count]))
        self.seen.fill_(count)

    def _settle(self) -> None:
        """Offset and scale from the statistics."""
        if self.kind == "range":
            low, high = self.moments
            scale = (high - low) / (self.high - self.low)
            size, spread = torch.maximum(low.abs(), high.abs()), high - low
        else:
            scale = (self.moments[1] / (self.seen - self.ddof).clamp(min=1e-300)).sqrt()
            size, spread = self.moments[0].abs(), scale
        flat = spread <= CONSTANT * size
        if flat.any():
            which = f" at {torch.nonzero(flat).squeeze(-1).tolist()}" if self.shape else ""
            if self.constant == "error":
                raise DataError(f"{self.name}: the values{which} never change, so they cannot be normalised; leave them out.")
            warnings.warn(f"{self.name}: the values{which} never change; they are scaled by 1.", stacklevel=4)
            scale = torch.where(flat, 1.0, scale)
        offset = self.moments[0] if self.kind == "standard" else self.moments[0] - self.low * scale
        if self.kind == "range" and flat.any():
            offset = torch.where(flat, self.moments[0], offset)  # a constant goes to 0
        self.offset.copy_(offset)
        self.scale.copy_(scale)

    def extra_repr(self) -> str:
        return f"{self.shape}, kind={self.kind!r}"


class Whitener(nn.Module):
    """Projection on the leading principal components, scaled so that the fitted data has mean 0 and identity covariance (ddof 0).

    Args:
        inputs: width d of the data.
        components: how many components k to keep; all where None.
        name: what is whitened, for messages.
    """

    mean: Tensor
    axes: Tensor
    deviations: Tensor

    def __init__(
        self, inputs: int, components: int | None = None, *, name: str = "values", dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.components, self.name = inputs if components is None else components, name
        self.register_buffer("mean", torch.zeros(inputs, dtype=dtype))
        self.register_buffer("axes", torch.zeros(self.components, inputs, dtype=dtype))
        self.register_buffer("deviations", torch.zeros(self.components, dtype=dtype))

    def fit(self, values: Values, stored: torch.dtype = torch.float64) -> Self:
        """Take mean and principal components of `values` (..., d) and return self.

        Args:
            stored: the type in which values were kept, whose rounding no component is made of.

        Raises DataError where the data has a smaller rank than the components asked for, or is not finite.
        """
        x = torch.as_tensor(values).detach().to(self.mean.device, torch.float64).reshape(-1, len(self.mean))
        if not torch.isfinite(x).all():
            raise DataError(f"{self.name}: some values are not finite; mend them before whitening.")
        mean = x.mean(0)
        _, singular, axes = torch.linalg.svd(x - mean, full_matrices=False)
        tolerance = float(singular.max()) * max(x.shape) * torch.finfo(torch.float64).eps if len(x) else 0.0
        if stored.is_floating_point:
            tolerance = max(tolerance, float(torch.linalg.vector_norm(x)) * torch.finfo(stored).eps)  # what rounding can add
        rank = int((singular > tolerance).sum())
        if rank < self.components:
            raise DataError(
                f"{self.name}: {len(x)} rows of width {x.shape[1]} have rank {rank} (but for rounding), {self.components} "
                "components were asked for; ask for fewer or give more data."
            )
        # The sign of a component is free: its largest entry is made positive, so that a fit repeats everywhere.
        axes = axes[: self.components]
        signs = torch.sign(axes.gather(1, axes.abs().argmax(1, keepdim=True)))
        self.mean.copy_(mean)
        self.axes.copy_(axes * signs)
        self.deviations.copy_(singular[: self.components] / len(x) ** 0.5)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Whitened values (..., k)."""
        self._check()
        return (x - self.mean) @ self.axes.T / self.deviations

    def inverse(self, x: Tensor) -> Tensor:
        """Values (..., d) in their own units: exact for what lies in the span of the components."""
        self._check()
        return (x * self.deviations) @ self.axes + self.mean

    def _check(self) -> None:
        if not (self.deviations > 0).all():
            raise NotFittedError(f"{self.name}: the whitener has not been fitted; call fit first.")


def standardised(x: Tensor, mask: Tensor | None = None, ddof: int = 0, eps: float = 1e-6) -> Tensor:
    """A batch (..., d) brought to mean 0 and deviation 1 by its own statistics, over all dimensions but the last.

    The gradient runs through the statistics. `mask` (...) says which rows count; the others come back as 0.
    """
    keep = torch.ones_like(x[..., :1]) if mask is None else mask[..., None].to(x)
    rows = tuple(range(x.ndim - 1))
    count = keep.sum()
    centred = (x - (x * keep).sum(rows) / count) * keep
    return centred / ((centred**2).sum(rows) / (count - ddof) + eps**2).sqrt()
