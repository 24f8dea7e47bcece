"""Action heads: from features to a distribution over actions, built from what the `ActionSpace` says of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrodict.errors import DataError
from retrodict.networks.distributions import (
    Categorical,
    Cells,
    Distribution,
    Normal,
    Regression,
    TanhNormal,
    squashed_deviation,
)
from retrodict.networks.layers import initialise
from retrodict.objectives.masked import masked_mean
from retrodict.trajectories import ActionSpace, Box, Discrete, MuLaw, MultiBinary
from retrodict.trajectories.actions import Part, range_met

Kind = Literal["softmax", "bernoulli", "binned", "cells", "gaussian", "tanh_gaussian", "mse", "l1", "smooth_l1", "norm_cosine"]
Spread = Literal["squashed", "softplus", "free"]
Allowed = Mapping[str, Tensor]
Conditions = Mapping[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class ActionDistribution:
    """What a head says of the actions at steps (...).

    Attributes:
        space: what the numbers of an action mean.
        parts: part name -> its distribution, or one distribution over the whole action under the name `joint`.
        only_if: part -> (part of choices, indices): a part that matters only where that choice is one of these. In training the
            true choice decides, otherwise the most likely or drawn one; where a part does not matter it is zero.
    """

    space: ActionSpace
    parts: Mapping[str, Distribution]
    only_if: Conditions

    def _slice(self, name: str) -> slice:
        return self.space.slices.get(name, slice(None))

    def _matters(self, name: str, action: Tensor) -> Tensor | None:
        """Where a part matters given flat actions (..., width), (...); None for everywhere."""
        if name not in self.only_if:
            return None
        chooser, choices = self.only_if[name]
        chosen = action[..., self._slice(chooser)][..., 0].round()
        return torch.isin(chosen, chosen.new_tensor(choices))

    def losses(self, action: Tensor, mask: Tensor | None = None, weight: Tensor | None = None) -> dict[str, Tensor]:
        """The loss of each part, a mean over the steps where `mask` (...) is True, weighted by `weight` (...)."""
        out = {}
        for name, part in self.parts.items():
            matters = self._matters(name, action)
            valid = mask if matters is None else matters if mask is None else mask & matters
            value = action[..., self._slice(name)]
            if valid is not None:  # what stands at steps that do not count may be anything, so it must not choose an index
                value = value.masked_fill(~valid[..., None], 0.0)
            out[name] = masked_mean(part.loss(value), valid, weight=weight)
        return out

    def loss(self, action: Tensor, mask: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        """The sum of the losses of all parts."""
        return torch.stack(list(self.losses(action, mask, weight).values())).sum()

    def log_prob(self, action: Tensor) -> Tensor:
        """Log probability (or density) of flat actions (..., width) as a whole, (...)."""
        total = action.new_zeros(action.shape[:-1])
        for name, part in self.parts.items():
            matters = self._matters(name, action)
            of_part = part.log_prob(action[..., self._slice(name)])
            total = total + (of_part if matters is None else of_part.masked_fill(~matters, 0.0))
        return total

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Drawn flat actions (..., width)."""
        return self._assemble({name: part.sample(generator) for name, part in self.parts.items()})

    def mode(self) -> Tensor:
        """Most likely flat actions (..., width)."""
        return self._assemble({name: part.mode() for name, part in self.parts.items()})

    def _assemble(self, values: Mapping[str, Tensor]) -> Tensor:
        action = torch.cat([values[name].float() for name in self.parts], -1)
        for name in self.only_if:
            matters = self._matters(name, action)
            assert matters is not None
            action[..., self._slice(name)] *= matters[..., None]
        return action

    def confidences(self) -> dict[str, Tensor]:
        """Probability (...) that the mode is right, for each part."""
        action = self.mode()
        out = {}
        for name, part in self.parts.items():
            matters = self._matters(name, action)
            out[name] = part.confidence() if matters is None else part.confidence().masked_fill(~matters, 1.0)
        return out

    def confidence(self) -> Tensor:
        """Probability (...) that the mode is right as a whole."""
        return torch.stack(list(self.confidences().values())).prod(0)

    def entropy(self) -> Tensor:
        """Entropy (...) in nats; parts are independent given the features."""
        return torch.stack([part.entropy() for part in self.parts.values()]).sum(0)  # type: ignore[attr-defined]

    def kl(self, other: ActionDistribution) -> Tensor:
        """KL(self || other), (...)."""
        return torch.stack([part.kl(other.parts[name]) for name, part in self.parts.items()]).sum(0)  # type: ignore[attr-defined]


class ActionHead(nn.Module):
    """Features (..., width) -> `ActionDistribution`, one head per part of the space.

    Args:
        space: what an action is made of.
        width: of the features.
        kinds: part name -> kind, where another than the default is wanted.
            * choices: `softmax`.
            * buttons: `softmax` (two-way each, as VPT has it; default) or `bernoulli` (one number each).
            * continuous: `binned` (default where the space has a quantiser; else `bins` equal ones of the known range), `cells`
              (two coordinates, on a grid of `grid` with an offset), `gaussian` (default), `tanh_gaussian` (needs a range), or
              regression by `mse`, `l1`, `smooth_l1`, `norm_cosine`, which gives no confidence.
        temperature: divides logits, in training too.
        spread: standard deviation of Gaussians: `squashed` exp(-5 + 3.5 (tanh + 1)), `softplus` + 0.001, or `free`, one number
            per dimension that starts at exp(-0.5). In units of the data's spread, see `fit_scale`.
        bins: number of equal bins for `binned` without a quantiser.
        grid: (rows, columns) of `cells`.
        tolerance: share of its range by which a continuous value may be off and still count as right, for the confidence.
        only_if: see `ActionDistribution`.
    """

    def __init__(
        self,
        space: ActionSpace,
        width: int,
        kinds: Mapping[str, Kind] | None = None,
        *,
        temperature: float = 1.0,
        spread: Spread = "squashed",
        bins: int = 1000,
        grid: tuple[int, int] = (40, 40),
        tolerance: float = 0.05,
        only_if: Conditions | None = None,
    ):
        super().__init__()
        self.space, self.temperature, self.only_if = space, temperature, dict(only_if or {})
        chosen = {name: (kinds or {}).get(name, _default(part)) for name, part in space.parts.items()}
        heads: list[nn.Module] = []
        for name, part in space.parts.items():
            kind = chosen[name]
            if kind in ("softmax", "bernoulli", "binned"):
                heads.append(CategoricalHead(part, kind, width, bins))
            elif isinstance(part, Box) and kind == "cells":
                heads.append(CellsHead(part, width, grid))
            elif isinstance(part, Box):
                heads.append(ContinuousHead(part, kind, width, spread, tolerance))
            else:
                raise DataError(f"the action part {name!r} is a {part.kind}; a {kind!r} head does not fit it.")
        self.heads = nn.ModuleList(heads)  # not a ModuleDict: a part may be called anything

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Part name -> its head."""
        return dict(zip(self.space.parts, self.heads, strict=True))

    def fit_scale(self, actions: np.ndarray) -> None:
        """Set the units of continuous parts from recorded flat actions (n, width)."""
        for name, head in self.parts.items():
            if isinstance(head, ContinuousHead):
                head.fit_scale(actions[:, self.space.slices[name]])

    def forward(self, features: Tensor, allowed: Allowed | None = None, temperature: float = 1.0) -> ActionDistribution:
        """The distribution at every step.

        Args:
            features: (..., width).
            allowed: part name -> bool (..., K) or (..., n, K), False for choices that cannot be made here.
            temperature: on top of the head's own; multiplies the standard deviation of Gaussians.
        """
        parts: dict[str, Distribution] = {}
        for name, head in self.parts.items():
            if isinstance(head, CategoricalHead):
                parts[name] = head(features, self.temperature * temperature, (allowed or {}).get(name))
            else:
                parts[name] = head(features, temperature)
        return ActionDistribution(self.space, parts, self.only_if)


class CategoricalHead(nn.Module):
    """Choices, buttons, or the bins of continuous values."""

    bounds: Tensor | None
    centres: Tensor | None

    def __init__(self, part: Part, kind: str, width: int, bins: int):
        super().__init__()
        self.kind, self.n = kind, part.width
        edges, centres = _bins(part, bins) if kind == "binned" else (None, None)
        self.choices = part.n if isinstance(part, Discrete) else 2 if centres is None else centres.shape[-1]
        self.register_buffer("bounds", edges, persistent=False)
        self.register_buffer("centres", centres, persistent=False)
        self.linear = _output(width, self.n * (1 if kind == "bernoulli" else self.choices))

    def forward(self, features: Tensor, temperature: float, allowed: Tensor | None = None) -> Categorical:
        logits = self.linear(features).float().unflatten(-1, (self.n, -1)) / temperature
        if self.kind == "bernoulli":
            logits = torch.cat([torch.zeros_like(logits), logits], -1)
        if allowed is not None:
            logits = logits.masked_fill(~(allowed if allowed.dim() == logits.dim() else allowed[..., None, :]), -torch.inf)
        return Categorical(logits.log_softmax(-1), self.bounds, self.centres)


class CellsHead(nn.Module):
    """A point as one cell of a grid and an offset in it."""

    def __init__(self, part: Box, width: int, grid: tuple[int, int]):
        super().__init__()
        self.low, self.high = _range(part, "cells")
        if part.width != 2:
            raise DataError(f"a 'cells' head needs two coordinates, got {part.names}.")
        self.grid = grid
        self.linear = _output(width, grid[0] * grid[1] + 2)

    def forward(self, features: Tensor, temperature: float) -> Cells:
        out = self.linear(features).float()
        logits = (out[..., :-2] / temperature).log_softmax(-1)
        return Cells(logits, out[..., -2:].sigmoid(), self.grid, self.low, self.high)


class ContinuousHead(nn.Module):
    """Gaussians or regression, on values brought to mean 0 and standard deviation 1 (`fit_scale`)."""

    centre: Tensor
    scale: Tensor
    tolerance: Tensor

    def __init__(self, part: Box, kind: str, width: int, spread: Spread, tolerance: float):
        super().__init__()
        self.part, self.kind, self.spread, self.share = part, kind, spread, tolerance
        n = part.width
        low, high = (-1.0, 1.0) if part.low is None or part.high is None else (part.low, part.high)
        self.register_buffer("centre", torch.full((n,), (low + high) / 2))
        self.register_buffer("scale", torch.full((n,), (high - low) / 2))
        self.register_buffer("tolerance", torch.full((n,), tolerance * (high - low)))
        if kind == "tanh_gaussian":
            _range(part, kind)
        gaussian = kind in ("gaussian", "tanh_gaussian")
        self.linear = _output(width, n * (2 if gaussian and spread != "free" else 1))
        if gaussian and spread == "free":
            self.log_std = nn.Parameter(torch.full((n,), -0.5))

    @torch.no_grad()
    def fit_scale(self, values: np.ndarray) -> None:
        values = values.astype(np.float64)
        if self.kind != "tanh_gaussian":
            std = values.std(0)
            self.centre.copy_(torch.from_numpy(values.mean(0)))
            self.scale.copy_(torch.from_numpy(np.where(std > 0, std, 1.0)))
        if self.part.span is None:
            self.tolerance.copy_(torch.from_numpy(self.share * range_met(values)))

    def forward(self, features: Tensor, temperature: float) -> Distribution:
        out = self.linear(features).float()
        low = -np.inf if self.part.low is None else self.part.low
        high = np.inf if self.part.high is None else self.part.high
        if self.kind not in ("gaussian", "tanh_gaussian"):
            return Regression(self.centre + self.scale * out, self.kind, self.scale, low, high)  # type: ignore[arg-type]
        mean, std = self._moments(out)
        std = std * temperature
        if self.kind == "tanh_gaussian":
            return TanhNormal(mean, std, self.tolerance, low, high)
        return Normal(self.centre + self.scale * mean, self.scale * std, self.tolerance, low, high)

    def _moments(self, out: Tensor) -> tuple[Tensor, Tensor]:
        if self.spread == "free":
            return out, self.log_std.exp().expand_as(out)
        mean, raw = out.chunk(2, -1)
        return mean, squashed_deviation(raw) if self.spread == "squashed" else F.softplus(raw) + 0.001


def _default(part: Part) -> Kind:
    if isinstance(part, Box):
        return "binned" if part.quantiser is not None else "gaussian"
    return "softmax"


def _output(width: int, outputs: int) -> nn.Linear:
    """A last layer that starts out saying almost the same of everything."""
    layer = nn.Linear(width, outputs)
    initialise(layer.weight, "fan_in")
    with torch.no_grad():
        layer.weight *= 0.01
        layer.bias.zero_()
    return layer


def _range(part: Box, kind: Any) -> tuple[float, float]:
    if part.low is None or part.high is None:
        raise DataError(f"a {kind!r} head needs the range of {part.names}, which the action space does not say.")
    return part.low, part.high


def _bins(part: Part, bins: int) -> tuple[Tensor, Tensor]:
    """Bounds (n, K - 1) and centres (n, K) of the bins of continuous values."""
    if isinstance(part, MultiBinary | Discrete):
        raise DataError(f"a 'binned' head needs continuous values, got a {part.kind}.")
    if isinstance(part.quantiser, MuLaw):
        places = np.arange(part.quantiser.bins)
        bounds, centres = part.quantiser.decode(places[:-1] + 0.5), part.quantiser.decode(places)
    else:
        low, high = _range(part, "binned")
        edges = np.linspace(low, high, bins + 1)
        bounds, centres = edges[1:-1], (edges[1:] + edges[:-1]) / 2
    return tuple(torch.from_numpy(np.tile(a.astype(np.float32), (part.width, 1))) for a in (bounds, centres))  # type: ignore[return-value]
