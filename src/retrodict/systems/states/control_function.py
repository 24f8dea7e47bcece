"""What would come of an action: E[Y | do(A = a)] from a code in which actions act linearly, by a control function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from retrodict.errors import DataError
from retrodict.metrics.neighbours import knn
from retrodict.networks.mlp import MLP
from retrodict.training.loop import train
from retrodict.training.optimisers import Optimiser
from retrodict.training.randomness import isolated
from retrodict.training.run import Run
from retrodict.training.schedules import schedule
from retrodict.training.stage import Stage
from retrodict.training.validation import Validation
from retrodict.trajectories.normalise import Normaliser

STEPS, BATCH, HELD = 2000, 512, 0.1
DRAWS = 4000
"""Residuals over which an effect is averaged."""
PROBED = 500
"""Residuals with which it is told how much of an action's codes lie where codes were seen."""
KEYS, NEIGHBOURS, WITHIN = 4000, 5, 0.99
"""Codes that stand for the training cloud; a point is inside where its neighbours are no farther than for this share of them."""


class Effect(NamedTuple):
    """The mean outcome (m,) of actions, and the share (m,) of the codes that they lead to that lie where codes were seen."""

    outcome: Tensor
    overlap: Tensor


class Additive(nn.Module):
    """E[Y | z, v] = nu(z) + psi(v), of standardised arguments; (n, d), (n, d) -> (n,)."""

    def __init__(self, width: int, confounded: bool) -> None:
        super().__init__()
        self.code, self.rest, self.outcome = Normaliser((width,)), Normaliser((width,)), Normaliser((1,))
        self.nu = MLP([width, 64, 64, 1], activation="silu")
        self.psi = MLP([width, 64, 64, 1], activation="silu") if confounded else None

    def forward(self, z: Tensor, v: Tensor) -> Tensor:
        """In standard deviations of the outcome."""
        said: Tensor = self.nu(self.code(z))
        return (said if self.psi is None else said + self.psi(self.rest(v))).squeeze(-1)

    def expected(self, z: Tensor, v: Tensor) -> Tensor:
        """E[Y | z, v] in units of the outcome."""
        said: Tensor = self.outcome.inverse(self(z, v)[:, None])
        return said[:, 0]

    def of_code(self, z: Tensor) -> Tensor:
        """What nu says, in units of the outcome; its constant means nothing by itself."""
        said: Tensor = self.nu(self.code(z)).squeeze(-1)
        return said * self.outcome.scale


class ControlFunction:
    """z = alpha + M a + v by least squares, and where there is an outcome E[Y | z, v] = nu(z) + psi(v).

    Then E[Y | do(a)] = mean_i nu(alpha + M a + v_i) + mean(Y) - mean_i nu(z_i). Without psi it is biased wherever the outcome
    depends on v beside z; without the mean over v_i it would be of a single state.

    Attributes:
        alpha, matrix: (d,) and (k, d).
        actions, residuals: (n, k) and v (n, d) of the trials.
        additive: nu and psi, None where there is no outcome.
        level: mean(Y) - mean_i nu(z_i).
    """

    alpha: Tensor
    matrix: Tensor
    actions: Tensor
    residuals: Tensor
    level: Tensor
    keys: Tensor
    radius: Tensor

    def __init__(self, width: int, confounded: bool = True, outcome: bool = True) -> None:
        self.additive = Additive(width, confounded) if outcome else None

    @classmethod
    def fit(
        cls,
        codes: Tensor,
        actions: Tensor,
        outcome: Tensor | None = None,
        *,
        confounded: bool = True,
        seed: int = 0,
        steps: int = STEPS,
    ) -> Self:
        """From codes (n, d), actions (n, k) and outcomes (n,) of trials, on their device.

        Raises DataError where the actions do not vary, or only together.
        """
        refuse_collinear(actions)
        design = torch.cat([torch.ones_like(actions[:, :1]), actions], 1)
        fitted = torch.linalg.lstsq(design.double(), codes.double()).solution.to(codes)
        with isolated(seed):
            made = cls(codes.shape[1], confounded, outcome is not None)
        made.alpha, made.matrix, made.actions = fitted[0], fitted[1:], actions
        made.residuals = codes - design @ fitted
        made.keys = codes[:KEYS].clone()
        most = min(NEIGHBOURS, len(made.keys) - 1)
        near = knn(made._scaled(made.keys), made._scaled(made.keys), most, leave_out=True)[1][:, -1]
        made.radius = near.quantile(WITHIN)
        made.level = torch.zeros((), device=codes.device)
        if outcome is not None:
            made._learn(codes, outcome, seed, steps)
        return made

    def strengths(self) -> Tensor:
        """Singular values, largest first, of M in standard deviations of v: how strongly actions act beside what else moves z."""
        rest = self.residuals.double() - self.residuals.double().mean(0)
        spread = torch.linalg.cholesky(rest.T @ rest / len(rest))
        values: Tensor = torch.linalg.svdvals(torch.linalg.solve_triangular(spread, self.matrix.double().T, upper=False))
        return values

    @torch.no_grad()
    def effect(self, actions: Tensor) -> Effect:
        """The mean outcome of actions (m, k), tried or not.

        Raises DataError where no outcome was learned.
        """
        if self.additive is None:
            raise DataError(
                "no outcome was recorded of every trial, so none can be predicted; fit on trials that all have label.outcome."
            )
        rest = self.residuals[:: max(len(self.residuals) // DRAWS, 1)]
        codes = (self.alpha + action @ self.matrix + rest for action in actions.to(self.matrix))
        outcome = [self.additive.of_code(z).mean() + self.level for z in codes]
        return Effect(torch.stack(outcome), self.overlap(actions))

    @torch.no_grad()
    def overlap(self, actions: Tensor) -> Tensor:
        """The share (m,) of the codes that actions (m, k) lead to which lie where codes were seen."""
        rest = self.residuals[:: max(len(self.residuals) // PROBED, 1)]
        asked, place = torch.unique(actions.to(self.matrix), dim=0, return_inverse=True)
        shares = [self.inside(self.alpha + action @ self.matrix + rest).float().mean() for action in asked]
        return torch.stack(shares)[place]

    def inside(self, codes: Tensor) -> Tensor:
        """Whether codes (n, d) lie where codes were seen, (n,) bool."""
        most = min(NEIGHBOURS, len(self.keys) - 1)
        return knn(self._scaled(codes), self._scaled(self.keys), most)[1][:, -1] <= self.radius

    def state_dict(self) -> dict[str, Tensor]:
        """Everything learned, by name."""
        net = self.additive.state_dict() if self.additive is not None else {}
        return {name: getattr(self, name) for name in LEARNED} | {f"net.{name}": value for name, value in net.items()}

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], confounded: bool, device: torch.device) -> Self:
        """The control function whose `state_dict` this is."""
        net = {name.removeprefix("net."): value for name, value in tensors.items() if name.startswith("net.")}
        made = cls(tensors["matrix"].shape[1], confounded, bool(net))
        for name in LEARNED:
            setattr(made, name, tensors[name].to(device))
        if made.additive is not None:
            made.additive.load_state_dict(net)
            made.additive.to(device).eval()
        return made

    # ---- details ----------------------------------------------------------------------------------------------------------

    def _scaled(self, codes: Tensor) -> Tensor:
        return (codes - self.keys.mean(0)) / self.keys.std(0).clamp(min=1e-12)

    def _learn(self, codes: Tensor, outcome: Tensor, seed: int, steps: int) -> None:
        net = self.additive
        assert net is not None
        for normal, values in ((net.code, codes), (net.rest, self.residuals), (net.outcome, outcome[:, None])):
            normal.fit(values)
        wanted = net.outcome(outcome[:, None].cpu()).squeeze(-1).to(codes)
        rows = torch.from_numpy(np.random.default_rng(seed).permutation(len(codes))).to(codes.device)
        held, taught = rows[: max(int(HELD * len(rows)), 1)], rows[max(int(HELD * len(rows)), 1) :]

        def batch(step: int) -> dict[str, Tensor]:
            chosen = np.random.default_rng((seed, step)).integers(len(taught), size=min(BATCH, len(taught)))
            which = taught[torch.from_numpy(chosen).to(codes.device)]
            return {"z": codes[which], "v": self.residuals[which], "y": wanted[which]}

        def loss(net: nn.Module, batch: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
            return {"square": (net(batch["z"], batch["v"]) - batch["y"]).square().mean()}

        @torch.no_grad()
        def judged(net: nn.Module, step: int) -> float:
            return float((net(codes[held], self.residuals[held]) - wanted[held]).square().mean())

        rate = schedule("cosine", 3e-3, 0.0, steps)
        stage = Stage(steps, loss, (Optimiser(kind="adam", rate=rate),), validation=Validation(judged, every=100))
        train(net, batch, [stage], Run(progress=False, precision="32-true"), seed=seed, device=codes.device)
        with torch.no_grad():
            self.level = outcome.mean() - net.of_code(codes).mean()


LEARNED = ("alpha", "matrix", "actions", "residuals", "level", "keys", "radius")


def refuse_collinear(actions: Tensor) -> None:
    """Raise DataError where a column of the actions (n, k) never changes or takes two values, or some only change together."""
    centred = actions.double() - actions.double().mean(0)
    spread = centred.std(0)
    if (flat := spread <= 1e-9 * actions.double().abs().amax(0).clamp(min=1e-300)).any():
        raise DataError(
            f"the action's number {int(flat.int().argmax())} never changes; leave it out, as nothing can be learned of it."
        )
    for number, column in enumerate(actions.T):
        if len(actions) > 2 >= len(column.unique()):
            raise DataError(
                f"the action's number {number} takes two values only ({', '.join(f'{v:g}' for v in column.unique().tolist())}): "
                "between two points everything is linear, so nothing beyond them can be foretold; try more values."
            )
    values = torch.linalg.svdvals(centred / spread)
    if len(actions) <= actions.shape[1] or values[0] > 1e4 * values[-1]:
        condition = float(values[0] / values[-1].clamp(min=1e-300))
        raise DataError(
            f"the action's numbers change only together (condition number {condition:.3g}, above 1e4); try them apart."
        )
