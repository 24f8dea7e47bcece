"""Features of short series by a small convolutional network, which may first have learned to foresee chaotic ones."""

from __future__ import annotations

import copy
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


AHEAD = (0.05, 0.1, 0.2, 0.35)
"""How far ahead is foreseen in training, in periods."""


class SeriesEncoder(nn.Module):
    """Causal dilated convolutions with residual connections, and what their channels do over time: (B, T) -> (B, 3 * width).

    Args:
        length: of the series; the convolutions look back over half of it.
        width: channels.
    """

    def __init__(self, length: int, width: int = 8) -> None:
        super().__init__()
        levels = max(3, int(np.ceil(np.log2(length / 4))))
        self.first = nn.Conv1d(1, width, 1)
        self.levels = nn.ModuleList(nn.Conv1d(width, width, 3, dilation=2**i) for i in range(levels))
        self.foresee = nn.Conv1d(width, len(AHEAD), 1)

    def forward(self, series: Tensor) -> Tensor:
        """Mean, largest value and deviation over time of every channel."""
        hidden = self.channels(series)
        return torch.cat([hidden.mean(2), hidden.amax(2), hidden.std(2)], 1)

    def channels(self, series: Tensor) -> Tensor:
        """(B, width, T), each step of what was until then."""
        hidden = self.first(series[:, None])
        for i, level in enumerate(self.levels):
            hidden = hidden + torch.relu(level(nn.functional.pad(hidden, (2 * 2**i, 0))))
        return torch.as_tensor(hidden)

    def loss(self, series: Tensor, period: float) -> Tensor:
        """Mean square error of what is foreseen at every step."""
        said, length = self.foresee(self.channels(series)), series.shape[1]
        steps = [max(round(share * period), 1) for share in AHEAD]
        errors = [((said[:, i, : length - k] - series[:, k:]) ** 2).mean() for i, k in enumerate(steps)]
        return torch.stack(errors).mean()


def surrogates(paths: list[np.ndarray], period: float, target: float, length: int, count: int, seed: int) -> np.ndarray:
    """Pieces (count, length) of series, stretched from `period` steps per oscillation to `target`; each standardised."""
    rng = np.random.default_rng(seed)
    steps, pieces = np.arange(length) * period / target, []
    for number in rng.integers(len(paths), size=count):
        path = paths[number]
        begin = rng.uniform(0, max(len(path) - 1 - steps[-1], 0))
        pieces.append(np.interp(begin + steps, np.arange(len(path)), path))
    return standardised(np.stack(pieces))


def encoders(
    series: np.ndarray, period: float, seed: int, steps: int = 600, batch: int = 32
) -> tuple[SeriesEncoder, SeriesEncoder]:
    """An encoder as it was drawn, and the same one after it learned to foresee series (n, T) of this dominant period."""
    with isolated(seed):
        learned = SeriesEncoder(series.shape[1])
    drawn = copy.deepcopy(learned)
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.Adam(learned.parameters(), 3e-3)
    data = torch.from_numpy(series.astype(np.float32))
    for _ in range(steps):
        optimiser.zero_grad()
        learned.loss(data[torch.from_numpy(rng.integers(len(data), size=batch))], period).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return drawn, learned


def features(encoder: SeriesEncoder, series: np.ndarray) -> np.ndarray:
    """An encoder's features of series (n, T)."""
    with torch.no_grad():
        return np.asarray(encoder(torch.from_numpy(series.astype(np.float32))).double().numpy())


def accuracy(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray) -> float:
    """Of a ridge classifier on standardised features."""
    scale = StandardScaler().fit(train)
    ridge = RidgeClassifierCV(np.logspace(-3, 3, 13)).fit(scale.transform(train), labels)
    return float((ridge.predict(scale.transform(test)) == truth).mean())
