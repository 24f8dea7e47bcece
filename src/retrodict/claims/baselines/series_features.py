"""Features of short series by a small convolutional network, which may first have learned to foresee chaotic ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifierCV
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from retrodict.errors import require
from retrodict.training.randomness import isolated

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
BUNDLED = {
    "ItalyPowerDemand": "load_italy_power_demand",
    "GunPoint": "load_gunpoint",
    "ArrowHead": "load_arrow_head",
}
"""Sets of series that sktime brings along, with the function that loads them."""
AHEAD = 4


def bundled(name: str) -> Split:
    """Training series (n, T) and labels (n,), test series and labels of a set that sktime brings along; each series standardised.

    Raises MissingExtraError where sktime is not installed.
    """
    load: Callable[..., tuple[np.ndarray, np.ndarray]] = getattr(require("sktime.datasets", extra="chaos"), BUNDLED[name])
    parts = []
    for split in ("train", "test"):
        series, labels = load(split=split, return_type="numpy3d")
        parts += [standardised(np.asarray(series, np.float64)[:, 0]), np.asarray(labels)]
    return parts[0], parts[1], parts[2], parts[3]


def standardised(series: np.ndarray) -> np.ndarray:
    """Series (n, T), each with mean 0 and deviation 1."""
    return np.asarray((series - series.mean(1, keepdims=True)) / np.maximum(series.std(1, keepdims=True), 1e-9))


class SeriesEncoder(nn.Module):
    """Causal dilated convolutions with residual connections: (B, T) -> (B, width, T)."""

    def __init__(self, width: int = 32, levels: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, width, 1)
        self.levels = nn.ModuleList(nn.Conv1d(width, width, 3, dilation=2**i) for i in range(levels))
        self.foresee = nn.Conv1d(width, AHEAD, 1)

    def forward(self, series: Tensor) -> Tensor:
        hidden = self.first(series[:, None])
        for level in self.levels:
            reach = 2 * int(level.dilation[0])  # type: ignore[index, arg-type]
            hidden = hidden + torch.relu(level(nn.functional.pad(hidden, (reach, 0))))
        return torch.as_tensor(hidden)

    def loss(self, series: Tensor) -> Tensor:
        """Mean square error of the next values foreseen at every step."""
        said = self.foresee(self(series))
        length = series.shape[1]
        errors = [(said[:, k - 1, : length - k] - series[:, k:]) ** 2 for k in range(1, AHEAD + 1)]
        return torch.cat([error.flatten() for error in errors]).mean()


def surrogates(paths: list[np.ndarray], period: float, target: float, length: int, count: int, seed: int) -> np.ndarray:
    """Pieces (count, length) of series, stretched from `period` steps per oscillation to `target`; each standardised."""
    rng = np.random.default_rng(seed)
    pieces = []
    for _ in range(count):
        path = paths[rng.integers(len(paths))]
        span = (length - 1) * period / target
        begin = rng.uniform(0, max(len(path) - 1 - span, 0))
        at = begin + np.arange(length) * period / target
        pieces.append(np.interp(at, np.arange(len(path)), path))
    return standardised(np.stack(pieces))


def encoders(series: np.ndarray, seed: int, steps: int = 1500, batch: int = 32) -> tuple[SeriesEncoder, SeriesEncoder]:
    """An encoder as it was drawn, and the same one after it learned to foresee series (n, T)."""
    with isolated(seed):
        drawn, learned = SeriesEncoder(), SeriesEncoder()
    learned.load_state_dict(drawn.state_dict())
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.Adam(learned.parameters(), 2e-3)
    data = torch.from_numpy(series.astype(np.float32))
    for _ in range(steps):
        optimiser.zero_grad()
        learned.loss(data[torch.from_numpy(rng.integers(len(data), size=batch))]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return drawn, learned


def features(encoder: SeriesEncoder, series: np.ndarray) -> np.ndarray:
    """Means, largest values and last values over time of an encoder's channels, (n, 3 * width)."""
    with torch.no_grad():
        hidden = encoder(torch.from_numpy(series.astype(np.float32)))
        return np.asarray(torch.cat([hidden.mean(2), hidden.amax(2), hidden[:, :, -1]], 1).double().numpy())


def accuracy(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray) -> float:
    """Of a ridge classifier on standardised features."""
    scale = StandardScaler().fit(train)
    ridge = RidgeClassifierCV(np.logspace(-3, 3, 13)).fit(scale.transform(train), labels)
    return float((ridge.predict(scale.transform(test)) == truth).mean())
