"""Two stages: a forecaster that is learned first and stays as it is, then an inverse model of the pictures that it paints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from retrodict.errors import DataError
from retrodict.objectives.masked import masked_mean
from retrodict.roles import Batch, Inferred, InverseModel
from retrodict.systems.contract import Card, Spec, System
from retrodict.systems.policies.seer import Seer
from retrodict.systems.policies.seer_learning import SeerLearning
from retrodict.trajectories import Span, Window
from retrodict.trajectories.features import ACTION, STATE


@dataclass
class TwoStage(SeerLearning, InverseModel):
    """Seer's network between the frame that is seen and the frame that a frozen Seer paints, as pixels.  (Du et al., 2023)

    Attributes:
        forecaster: a fitted `Seer`; it is not trained.
    """

    card: ClassVar[Card] = Card(
        slug="two-stage",
        title="Learning Universal Policies via Text-Guided Video Generation",
        authors="Du, Yang, Dai, Dai, Nachum, Tenenbaum, Schuurmans, Abbeel",
        year=2023,
        url="https://arxiv.org/abs/2302.00111",
        reads="camera frames, the robot's state, the task; actions",
        returns="the actions that lead to the frame foreseen",
        claim="a policy is a forecast of video and an inverse model",
        baseline=True,
    )

    forecaster: System | None = field(default=None, kw_only=True)
    history: int = 1

    def window(self, spec: Spec) -> Window:
        seer = self._seer()
        spans = dict.fromkeys((*self.seen(spec), *((STATE,) if STATE in spec.features else ())), Span(seer.history - 1))
        return Window(seer.history - 1, 0, {**spans, ACTION: Span(0, self.chunk - 1)})

    @property
    def reads(self) -> Window:
        self.check_fitted()
        return self._seer().asks

    @property
    def keeps(self) -> slice:
        return slice(-1, None)

    def acting(self, net: Any, batch: Mapping[str, Any]) -> Tensor:
        """Action tokens (B, chunk, width) between the last frame of windows and the one that is painted after it."""
        now = self.views(batch)[:, -1:]
        painted = self._seer().sample(len(now), batch)
        after = torch.stack([painted[name] for name in self.seen(self.spec_)], 1)[:, None]
        patches = net.see(torch.cat([now, after.to(now.device)], 1))
        untold = torch.zeros(len(now), dtype=torch.long, device=now.device)
        state = batch[STATE][:, -1:] if STATE in self.spec_.features else None
        observed = net.observed(patches[:, :1], state, untold)
        acting: Tensor = net(net.sequence(observed, net.outcome(patches[:, 1:])), self.mask(net, 1))[1][:, 0]
        return acting

    def loss(self, net: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        arm, _ = net.hand(self.acting(net, self._told(batch)))
        off = F.smooth_l1_loss(arm, net.scale(batch[ACTION].float()[..., net.arm]), reduction="none")
        return {"arm": masked_mean(off, batch.get(f"mask.{ACTION}"))}

    def infer(self, window: Batch) -> Inferred:
        """The action after windows (B, T, ...) of what was seen up to now, at every step of them."""
        self.check_fitted()
        with torch.no_grad():
            action = self.net_.flat(self.acting(self.net_, window))[:, :1]
        action = action.expand(-1, len(self.reads), -1)
        return Inferred(action, torch.full(action.shape[:2], 0.5))

    def _told(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with the task in words, as a forecaster is told it."""
        return {**batch, "task": [self.spec_.tasks[number - 1] for number in batch["task"].tolist()]}

    def _seer(self) -> Seer:
        if not isinstance(self.forecaster, Seer):
            raise DataError("two-stage stands on a fitted Seer: TwoStage(forecaster=...).")
        return self.forecaster
