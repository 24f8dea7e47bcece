"""A forecaster that learns from short segments of a world it can integrate again: from random points, or near its hardest ones.

What is compared is where new segments begin (Gilpin, 2021, importance sampling); network, steps and number of segments are one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from retrodict.training.ema import EMA
from retrodict.training.randomness import isolated
from retrodict.worlds.chaos.world import OdeWorld

PER_PERIOD, LENGTH = 60, 8
FINE, LEAD = 17.3, 4
"""Points per period of the trajectory that starts are taken from, and points before a start at which it is perturbed."""


@dataclass(frozen=True)
class SegmentTraining:
    """How a forecaster is trained on a growing set of segments.

    A segment near a hard one is made by going back a quarter of a period, moving a little aside and integrating again: what was
    moved off the attractor has come back to it by then. (Moved at the start itself, it has not; such points are hard because they
    are nowhere near what is to be learned, and draw ever more of their kind.)

    Attributes:
        segments: how many there are at first.
        added: how many are added in each epoch.
        epochs, steps: epochs, and gradient steps in each.
        batch: segments per step.
        width: of the network's two hidden layers.
        learning_rate: of Adam.
        momentum: of the averaged weights that are judged.
        share: of the added segments, those that begin near hard ones, drawn in proportion to their loss; the rest is random.
        apart: how far they are moved, in deviations of the attractor.
    """

    segments: int = 64
    added: int = 32
    epochs: int = 30
    steps: int = 100
    batch: int = 32
    width: int = 64
    learning_rate: float = 2e-3
    momentum: float = 0.98
    share: float = 0.5
    apart: float = 0.02

    def run(self, world: OdeWorld, important: bool, seed: int) -> np.ndarray:
        """Loss on held-out segments after each epoch, (epochs,): mean square of one-step errors, relative to the steps."""
        rng = np.random.default_rng(seed)
        pool = world.integrate(world.start, np.arange(6000) * world.period / FINE).states[0][500:]
        held_out, known = pool[:1500:3], pool[1500:]
        centre, size, d = known.mean(0), known.std(0), pool.shape[1]
        times = np.arange(LENGTH + 1) * world.period / PER_PERIOD

        def segments(starts: np.ndarray) -> Tensor:
            return torch.from_numpy(((world.integrate(starts, times).states - centre) / size).astype(np.float32))

        def drawn(count: int) -> np.ndarray:
            return rng.integers(LEAD, len(known), size=count)

        test, origins = segments(held_out), drawn(self.segments)
        paths = segments(known[origins])
        step = (test[:, 1:] - test[:, :-1]).std((0, 1))
        with isolated(seed):
            widths = (d, self.width, self.width, d)
            layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.Tanh())]
            net = nn.Sequential(*layers[:-1])
        judged = EMA(net, self.momentum)

        def losses(net: nn.Module, paths: Tensor) -> Tensor:
            wrong: Tensor = net(paths[:, :-1]) - (paths[:, 1:] - paths[:, :-1]) / step
            return wrong.square().mean((1, 2))

        optimiser = torch.optim.Adam(net.parameters(), self.learning_rate)
        curve: list[float] = []
        for _ in range(self.epochs):
            for _ in range(self.steps):
                chosen = torch.from_numpy(rng.integers(len(paths), size=self.batch))
                optimiser.zero_grad()
                losses(net, paths[chosen]).mean().backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                judged.update(len(curve))
            with torch.no_grad():
                curve.append(float(losses(judged, test).mean()))
                hardness = losses(judged, paths).double().numpy()
            near = round(self.share * self.added) if important else 0
            parents = origins[rng.choice(len(origins), near, p=hardness / hardness.sum())]
            chance = drawn(self.added - near)
            starts = np.concatenate([self._moved(world, known, parents, size, rng), known[chance]])
            origins, paths = np.concatenate([origins, parents, chance]), torch.cat([paths, segments(starts)])
        return np.array(curve)

    def _moved(
        self, world: OdeWorld, known: np.ndarray, at: np.ndarray, size: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """States near those at rows of a trajectory, (n, d); the states themselves where what was moved runs away."""
        if not len(at):
            return np.asarray(known[at])
        aside = known[at - LEAD] + self.apart * size * rng.normal(size=(len(at), known.shape[1]))
        back = world.integrate(aside, [0, LEAD * world.period / FINE]).states[:, 1]
        near = (np.abs(back - known[at]) <= 3 * size).all(1)
        return np.asarray(np.where(near[:, None], back, known[at]))


def steps_saved(important: np.ndarray, random: np.ndarray) -> float:
    """Share of the steps after which one curve of losses is as low as the other's end; infinite where it never is.

    Curves are smoothed over three epochs.
    """
    smooth = [np.convolve(curve, np.ones(3) / 3, "valid") for curve in (important, random)]
    reached = np.flatnonzero(smooth[0] <= smooth[1][-1])
    return float((reached[0] + 1) / len(smooth[0])) if len(reached) else float("inf")
