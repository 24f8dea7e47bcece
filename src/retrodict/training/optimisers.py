"""Optimisers: how which parameters move, described before there is anything to move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from retrodict.errors import DataError
from retrodict.training.adabelief import AdaBelief
from retrodict.training.radam import RAdam
from retrodict.training.schedules import Scalar, at

KINDS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "radam": RAdam,
    "sgd": torch.optim.SGD,
    "lbfgs": torch.optim.LBFGS,
    "adabelief": AdaBelief,
    **({"muon": torch.optim.Muon} if hasattr(torch.optim, "Muon") else {}),  # torch 2.9 and later
}

#: Those that move all parameters in one kernel, three times as fast as one after the other where the net is small.
FUSED = (torch.optim.Adam, torch.optim.AdamW)


@dataclass(frozen=True)
class Plateau:
    """Lower a learning rate where the validation measure no longer falls.

    Attributes:
        factor: by which the rate is multiplied.
        patience: evaluations without improvement before it is.
        minimum: smallest share of the scheduled rate.
    """

    factor: float = 0.5
    patience: int = 3
    minimum: float = 1e-4


@dataclass(frozen=True, eq=False)
class Optimiser:
    """How some parameters of a net move during a stage.

    Attributes:
        parameters: a module or parameters; None for every parameter of the net that asks for gradients.
        kind: a name in `KINDS` or a class of torch's form. `muon` moves matrices only; give the rest to a second optimiser.
            `lbfgs` must be the only one of its stage.
        rate, weight_decay: numbers or schedules over the steps of the stage.
        clip: largest norm of the gradient of these parameters; None leaves it.
        plateau: lowers the rate by what validation says.
        options: further arguments of torch's optimiser (`betas`, `momentum`, `ns_coefficients`, ...).
    """

    parameters: nn.Module | Iterable[nn.Parameter] | None = None
    kind: str | type[torch.optim.Optimizer] = "adamw"
    rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    clip: float | None = None
    plateau: Plateau | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.parameters is not None and not isinstance(self.parameters, nn.Module):
            object.__setattr__(self, "parameters", tuple(self.parameters))  # a generator would be empty the second time

    def of(self, net: nn.Module) -> list[nn.Parameter]:
        """The parameters it moves in a net; raises DataError when there are none."""
        if self.parameters is None:
            found = [p for p in net.parameters() if p.requires_grad]
        else:
            found = list(self.parameters.parameters() if isinstance(self.parameters, nn.Module) else self.parameters)
        if not found:
            raise DataError(f"an optimiser of kind {self.name!r} was given no parameters to move.")
        return found

    @property
    def name(self) -> str:
        return self.kind if isinstance(self.kind, str) else self.kind.__name__.lower()

    @property
    def asks_again(self) -> bool:
        """True where one step evaluates the loss several times."""
        return self.name == "lbfgs"

    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Torch's optimiser over the parameters; raises DataError for an unknown kind or an option that it does not take."""
        make = KINDS.get(self.kind) if isinstance(self.kind, str) else self.kind
        if make is None:
            raise DataError(f"no optimiser is called {self.kind!r}; there are {', '.join(KINDS)}.")
        settings: dict[str, Any] = {"lr": at(self.rate, 0), **self.options}
        if make in FUSED and all(p.is_floating_point() for p in parameters):
            settings = {"fused": True, **settings}
        if not self.asks_again:
            settings["weight_decay"] = at(self.weight_decay, 0)
        try:
            return make(parameters, **settings)
        except (TypeError, ValueError) as error:
            raise DataError(f"the optimiser {self.name!r} cannot be made with {settings}: {error}") from error

    def set(self, optimizer: torch.optim.Optimizer, step: int, slowed: float) -> None:
        """Give torch's optimiser the rate and weight decay of a step; `slowed` is the plateau's factor so far."""
        for group in optimizer.param_groups:
            group["lr"] = at(self.rate, step) * slowed
            if callable(self.weight_decay):
                group["weight_decay"] = self.weight_decay(step)
