"""A forecaster that learns from short segments of a world it can integrate again: from random points, or near its hardest ones.

What is compared is where new segments begin (Gilpin, 2021, importance sampling); network, steps and number of segments are one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from retrodict.training.randomness import isolated
from retrodict.worlds.chaos.world import OdeWorld

PER_PERIOD, LENGTH = 60, 8


@dataclass(frozen=True)
class SegmentTraining:
    """How a forecaster is trained on a growing set of segments.

    Attributes:
        segments: how many there are at first.
        added: how many are added in each epoch.
        epochs, steps: epochs, and gradient steps in each.
        batch: segments per step.
        width: of the network's two hidden layers.
        learning_rate: of Adam.
        hardest: share of the segments, those with most loss, near which new ones begin.
        apart: how far from them, in deviations of the attractor.
    """

    segments: int = 64
    added: int = 32
    epochs: int = 30
    steps: int = 100
    batch: int = 32
    width: int = 64
    learning_rate: float = 2e-3
    hardest: float = 0.25
    apart: float = 0.02
    length: int = 8
    share: float = 1.0

    def run(self, world: OdeWorld, important: bool, seed: int) -> np.ndarray:
        """Loss on held-out segments after each epoch, (epochs,): mean square of one-step errors, relative to the steps."""
        rng = np.random.default_rng(seed)
        pool = world.integrate(world.start, np.arange(6000) * world.period / 17.3).states[0][500:]
        held_out, reservoir = pool[:1500:3], pool[1500:]
        centre, size = reservoir.mean(0), reservoir.std(0)
        times = np.arange(self.length + 1) * world.period / PER_PERIOD

        def segments(starts: np.ndarray) -> Tensor:
            made = world.integrate(starts, times)
            return torch.from_numpy(((made.states[made.complete] - centre) / size).astype(np.float32))

        test = segments(held_out)
        known = segments(reservoir[rng.integers(len(reservoir), size=self.segments)])
        with isolated(seed):
            d = pool.shape[1]
            net = nn.Sequential(
                nn.Linear(d, self.width), nn.Tanh(), nn.Linear(self.width, self.width), nn.Tanh(), nn.Linear(self.width, d)
            )
        step = (test[:, 1:] - test[:, :-1]).std((0, 1))

        def losses(paths: Tensor) -> Tensor:
            wrong: Tensor = net(paths[:, :-1]) - (paths[:, 1:] - paths[:, :-1]) / step
            return wrong.square().mean((1, 2))

        optimiser = torch.optim.Adam(net.parameters(), self.learning_rate)
        curve = []
        for _ in range(self.epochs):
            for _ in range(self.steps):
                chosen = torch.from_numpy(rng.integers(len(known), size=self.batch))
                optimiser.zero_grad()
                losses(known[chosen]).mean().backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            with torch.no_grad():
                curve.append(float(losses(test).mean()))
                hard = losses(known).argsort(descending=True)[: round(self.hardest * len(known))].numpy()
            if important:
                count = round(self.share * self.added)
                near = known[rng.choice(hard, count), 0].double().numpy() + self.apart * rng.normal(size=(count, d))
                starts = np.concatenate([near * size + centre, reservoir[rng.integers(len(reservoir), size=self.added - count)]])
            else:
                starts = reservoir[rng.integers(len(reservoir), size=self.added)]
            known = torch.cat([known, segments(starts)])
        return np.array(curve)


def steps_saved(important: np.ndarray, random: np.ndarray) -> float:
    """Share of the steps after which one curve of losses is first, and from then on in the mean, as low as the other's end.

    Curves are smoothed over three epochs. Infinite where it never is.
    """
    smooth = [np.convolve(curve, np.ones(3) / 3, "valid") for curve in (important, random)]
    reached = np.flatnonzero(smooth[0] <= smooth[1][-1])
    return float((reached[0] + 1) / len(smooth[0])) if len(reached) else float("inf")
