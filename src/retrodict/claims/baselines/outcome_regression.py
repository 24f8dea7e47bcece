"""Regression of the outcome on the action: what one does who does not look at what was observed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from retrodict.networks.mlp import MLP
from retrodict.training.loop import train
from retrodict.training.optimisers import Optimiser
from retrodict.training.randomness import isolated
from retrodict.training.schedules import schedule
from retrodict.training.stage import Stage

RATE, BATCH = 3e-3, 512


def outcome_regression(actions: np.ndarray, outcome: np.ndarray, asked: np.ndarray, *, seed: int, steps: int) -> np.ndarray:
    """E[Y | A] by a perceptron of the shape and training of Rep4Ex's nu.

    Args:
        actions, outcome: (n, k) and (n,) of the trials.
        asked: actions (m, k).
        seed, steps: of the training.
    """
    mean, spread = outcome.mean(), outcome.std()
    a = torch.from_numpy(actions).float()
    y = torch.from_numpy((outcome - mean) / spread).float()
    with isolated(seed):
        net = MLP([actions.shape[1], 64, 64, 1], activation="silu")

    def batch(step: int) -> dict[str, Tensor]:
        rows = torch.from_numpy(np.random.default_rng((seed, step)).integers(len(a), size=BATCH))
        return {"a": a[rows], "y": y[rows]}

    def loss(net: nn.Module, batch: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        return {"square": (net(batch["a"]).squeeze(-1) - batch["y"]).square().mean()}

    train(net, batch, [Stage(steps, loss, (Optimiser(kind="adam", rate=schedule("cosine", RATE, 0.0, steps)),))], seed=seed)
    with torch.no_grad():
        said = net(torch.from_numpy(asked).float()).squeeze(-1).numpy()
    return np.asarray(said * spread + mean)
