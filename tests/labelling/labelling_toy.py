"""A game of one number: the state moves by what the buttons say, and a toy inverse model reads the action off the change."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from retrodict.roles import Inferred, InverseModel
from retrodict.systems.contract import Card, Spec, System
from retrodict.trajectories import ActionSpace, Box, MultiBinary, Recordings, Window, from_arrays

SPACE = ActionSpace({"jump": MultiBinary(("jump",)), "turn": Box(("turn",), -1, 1)}, leads=True, null=(0, 0))


def play(
    episodes: int = 12,
    steps: int = 60,
    *,
    labelled: int = 6,
    seed: int = 0,
    noise: float = 0.05,
    level: float = 0.0,
    ragged: bool = True,
) -> tuple[Recordings, list[np.ndarray]]:
    """Recordings of which the first `labelled` episodes carry actions, and the true actions of all."""
    rng = np.random.default_rng(seed)
    made, truth = [], []
    for i in range(episodes):
        n = steps + (int(rng.integers(0, 20)) if ragged else 0)
        action = np.column_stack([rng.random(n) < 0.3, rng.uniform(-1, 1, n)]).astype(np.float32)
        state = np.cumsum(np.concatenate([np.zeros((1, 2)), action[:-1]]), 0)
        # How much a step is blurred wanders, and the state tells it: an honest model can know where it is unsure.
        blur = np.abs(np.convolve(rng.normal(0, 1, n + 9), np.ones(10) / np.sqrt(10), "valid")) * noise
        observed = state + rng.normal(0, 1, (n, 2)) * blur[:, None] + level
        values: dict[str, Any] = {"observation.state": np.column_stack([observed, blur]).astype(np.float32)}
        truth.append(action)
        if i < labelled:
            values["action"] = action
        made.append(values)
    return from_arrays(made, fps=10, actions=SPACE, source="toy"), truth


@dataclass
class Toy(System, InverseModel):
    """Reads the action off the change of the state; sure where the state says that it is not blurred."""

    card: ClassVar[Card] = Card("toy-inverse", "Toy", "nobody", 2024, "observation.state", "actions", "none")

    boast: float = 3.0
    before: int = 0
    after: int = 1
    stride: int = 1
    keep: tuple[int | None, int | None] = (0, 1)
    edge: str = "replicate"
    broken: bool = False

    def inputs(self, recordings: Recordings) -> tuple[str, ...]:
        return ("observation.state", "action")

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Any) -> None:
        self.spec_ = Spec.of(recordings, ("observation.state",))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {"weight": torch.ones(1)}, {"spec": self.spec_.to_json()}

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        self.spec_ = Spec.from_json(about["spec"])

    @property
    def reads(self) -> Window:
        return Window(self.before, self.after, ("observation.state",), self.stride, edge=self.edge)

    @property
    def keeps(self) -> slice:
        return slice(*self.keep)

    def infer(self, window: Any) -> Inferred:
        state = window["observation.state"].double()
        change = torch.cat([state[:, 1:] - state[:, :-1], state[:, -1:] - state[:, -2:-1]], 1) / self.stride
        action = torch.stack([(change[..., 0] > 0.5).double(), change[..., 1].clamp(-1, 1)], -1)
        blur = torch.maximum(state[..., 2], torch.cat([state[:, 1:, 2], state[:, -1:, 2]], 1))
        confidence = torch.sigmoid(self.boast - 40 * blur)
        if self.broken:
            action = action * float("nan")
        return Inferred(action.float(), confidence.float(), {"confidence.turn": confidence.float()})
