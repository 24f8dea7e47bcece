"""Nearest neighbours as a policy: do what was done where it looked most alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from retrodict.errors import DataError
from retrodict.metrics.neighbours import regress
from retrodict.roles import Batch, Policy
from retrodict.systems.contract import Card, Spec, System
from retrodict.systems.looking import code_of, codes_of, require_encoder
from retrodict.training.run import Run
from retrodict.trajectories import Box, Recordings
from retrodict.trajectories.features import ACTION


@dataclass
class NearestNeighbours(System, Policy):
    """The action of the recorded steps whose codes are nearest, weighed by exp(-distance).  (VINN: Pari et al., 2021)

    Reads what its encoder reads, and learns from `action`; nothing is trained. Continuous numbers of an action are the
    neighbours' weighted mean, buttons and choices are the nearest neighbour's.

    Attributes:
        encoder: a fitted `Encoder` of single frames.
        k: neighbours.
    """

    card: ClassVar[Card] = Card(
        slug="nearest-neighbours",
        title="The Surprising Effectiveness of Representation Learning for Visual Imitation (VINN)",
        authors="Pari, Shafiullah, Arunachalam, Pinto",
        year=2021,
        url="https://arxiv.org/abs/2112.01511",
        reads="what its encoder reads; actions",
        returns="the action that was taken where it looked most alike",
        claim="with a good representation, nearest neighbours imitate about as well as a trained network",
        baseline=True,
    )
    gaps: ClassVar[tuple[str, ...]] = (ACTION,)

    encoder: System | None = None
    k: int = 16

    keys_: Tensor = field(init=False, repr=False, compare=False)
    values_: Tensor = field(init=False, repr=False, compare=False)
    spec_: Spec = field(init=False, repr=False, compare=False)

    def inputs(self, recordings: Recordings) -> tuple[str, ...]:
        encoder = require_encoder(self.encoder, self.card.slug)
        return (*encoder.inputs(recordings), ACTION)  # type: ignore[attr-defined]

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        encoder = require_encoder(self.encoder, self.card.slug)
        codes, actions = codes_of(encoder, recordings, ACTION)
        if not 1 <= self.k <= len(codes):
            raise DataError(f"{self.k} neighbours were asked for among {len(codes)} recorded steps.")
        self.spec_ = Spec.of(recordings, self.inputs(recordings))
        self.keys_, self.values_ = codes.to(self.torch_device), actions.float().to(self.torch_device)

    def act(self, observation: Batch) -> Tensor:
        """Flat actions (B, width).

        Raises NotFittedError before `fit`; DataError where a feature is missing or of the wrong form.
        """
        self.check_fitted()
        code = code_of(require_encoder(self.encoder, self.card.slug), observation).to(self.keys_)
        action = regress(code, self.keys_, self.values_, self.k, weights="exponential")
        nearest = regress(code, self.keys_, self.values_, 1)
        space = self.spec_.actions
        for name, part in space.parts.items() if space is not None else ():
            if not isinstance(part, Box):
                action[:, space.slices[name]] = nearest[:, space.slices[name]]  # type: ignore[union-attr]
        return action

    def reset(self, mask: Tensor | None = None) -> None:
        """Nothing is remembered."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {"keys": self.keys_, "values": self.values_}, {"spec": self.spec_.to_json()}

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        self.spec_ = Spec.from_json(about["spec"])
        self.keys_, self.values_ = (tensors[name].to(self.torch_device) for name in ("keys", "values"))
        if len(self.keys_) != len(self.values_) or not torch.isfinite(self.keys_).all():
            raise DataError("the recorded codes and actions do not belong together.")
