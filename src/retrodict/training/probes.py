"""Probes: what can be read from a representation by a small model, judged on episodes that it has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from retrodict.errors import DataError
from retrodict.networks.mlp import MLP
from retrodict.roles import Encoder
from retrodict.training.loop import train
from retrodict.training.optimisers import Optimiser
from retrodict.training.run import Run
from retrodict.training.schedules import schedule
from retrodict.training.stage import Stage
from retrodict.trajectories import Recordings

Kind = Literal["ridge", "logistic", "linear", "mlp", "attentive"]

RIDGES = tuple(10.0**p for p in range(-4, 5))


@dataclass(frozen=True)
class Encoded:
    """What an encoder says of every step of recordings, beside what else is known of it.

    Attributes:
        codes: (N, d).
        values: feature -> array (N, *shape).
        episode, frame: (N,), position of the episode in the recordings, and step in it.
    """

    codes: np.ndarray
    values: Mapping[str, np.ndarray]
    episode: np.ndarray
    frame: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)


def encoded(encoder: Encoder, recordings: Recordings, names: Sequence[str] = (), batch: int = 256) -> Encoded:
    """Codes of every step, each frame encoded once, or each step with those around it.

    `names` are read beside them, `privileged.*` too, as this is for judging.
    Raises DataError where an encoder says one thing of a set, an episode or a domain, which are no steps.
    """
    if encoder.grain not in ("frame", "step", "window"):
        raise DataError(f"codes of steps are asked for and this encoder's are of a {encoder.grain}.")
    window = encoder.reads
    if encoder.grain == "frame":
        window = replace(window, before=0, after=0, stride=1, edge="replicate")
    codes, episodes, frames = [], [], []
    for rows in recordings.windows(window, batch, order="sequence"):
        code = encoder.encode(rows)
        codes.append((code if encoder.grain == "window" else code[:, window.before]).float().cpu().numpy())
        episodes.append(rows["episode"].numpy())
        frames.append(rows["frame"].numpy())
    episode, frame = np.concatenate(episodes), np.concatenate(frames)
    values = {}
    for name in names:
        columns = {int(e): recordings[int(e)][name] for e in np.unique(episode)}
        values[name] = np.concatenate([columns[int(e)][frame[episode == e]] for e in np.unique(episode)])
    return Encoded(np.concatenate(codes), values, episode, frame)


@dataclass(frozen=True)
class Split:
    """Rows to learn from and rows to be judged on, (n,) each."""

    train: np.ndarray
    test: np.ndarray


def split_episodes(episode: ArrayLike, fraction: float = 0.3, seed: int = 0) -> Split:
    """Rows split by their episode (N,), about `fraction` of the episodes being for the test: rows of one resemble each other.

    Raises DataError where there is one episode only.
    """
    numbers = np.asarray(episode).reshape(-1)
    found = np.unique(numbers)
    if len(found) < 2:
        raise DataError("rows of a single episode cannot be split into episodes to learn from and to be judged on.")
    count = min(max(round(fraction * len(found)), 1), len(found) - 1)
    held = np.isin(numbers, np.random.default_rng(seed).permutation(found)[:count])
    return Split(np.flatnonzero(~held), np.flatnonzero(held))


def few_of_each(labels: ArrayLike, rows: np.ndarray, shots: int, seed: int = 0) -> np.ndarray:
    """`shots` rows of each class among `rows`, drawn; raises DataError naming a class that has fewer."""
    classes = np.asarray(labels).reshape(-1)[rows]
    rng, chosen = np.random.default_rng(seed), []
    for which in np.unique(classes):
        there = rows[classes == which]
        if len(there) < shots:
            raise DataError(f"{shots} examples of each class are asked for and class {which} has {len(there)}.")
        chosen.append(rng.choice(there, shots, replace=False))
    return np.sort(np.concatenate(chosen))


@dataclass(frozen=True)
class Score:
    """How well a probe reads its target.

    Attributes:
        value: R^2 (mean over the target's coordinates, each against its own variance in the test) or accuracy.
        answers: what it said of the rows of the test.
    """

    value: float
    answers: np.ndarray


def probe(
    features: ArrayLike,
    target: ArrayLike,
    split: Split,
    kind: Kind = "ridge",
    *,
    shots: int | None = None,
    seed: int = 0,
    steps: int = 1000,
    hidden: Sequence[int] = (256,),
    rate: float = 1e-3,
    l2: float = 1e-4,
) -> Score:
    """Learn to read a target from features and be judged on other episodes.

    Args:
        features: (N, d), or tokens (N, L, d) for `attentive`.
        target: floating-point (N,) or (N, m): numbers, judged by R^2. Integers (N,): classes, judged by accuracy.
        split: rows to learn from and to be judged on.
        kind: for numbers `ridge` (its penalty chosen by leave-one-out on the training rows); for classes `logistic` (to
            convergence, penalty `l2`); for both `linear` (a linear layer for a fixed number of steps of AdamW), `mlp`, and
            `attentive` (one learned query that looks at the tokens, then a linear layer). Features are standardised by the
            training rows.
        shots: learn from so many rows of each class.
        seed, steps, hidden, rate, l2: of the probes that are trained.

    Raises DataError where kind and target do not fit, or features are not finite.
    """
    from sklearn.linear_model import LogisticRegression, RidgeCV  # brings pandas, and takes half as long to import as torch
    from sklearn.preprocessing import StandardScaler

    x, y = np.asarray(features, np.float64), np.asarray(target)
    classes = y.dtype.kind in "iub"
    if (kind == "ridge" and classes) or (kind == "logistic" and not classes):
        raise DataError(f"a {kind} probe reads {'numbers' if kind == 'ridge' else 'classes'}; the target holds {y.dtype}.")
    if len(x) != len(y) or not np.isfinite(x).all():
        raise DataError(f"a probe needs one finite feature row for each target; got {x.shape} for {y.shape}.")
    rows = few_of_each(y, split.train, shots, seed) if shots is not None else split.train
    scale = StandardScaler().fit(x[rows].reshape(-1, x.shape[-1]))
    x = scale.transform(x.reshape(-1, x.shape[-1])).reshape(x.shape)
    y = y.reshape(-1) if classes else y.reshape(len(y), -1).astype(np.float64)
    if kind == "ridge":
        answers = RidgeCV(RIDGES).fit(x[rows], y[rows]).predict(x[split.test]).reshape(len(split.test), -1)
    elif kind == "logistic":
        model = LogisticRegression(C=1 / (l2 * len(rows)), max_iter=1000).fit(x[rows], y[rows])
        answers = model.predict(x[split.test])
    else:
        answers = _trained(x, y, rows, split.test, kind, seed, steps, hidden, rate, l2)
    truth = y[split.test]
    return Score(float((answers == truth).mean()) if classes else r_squared(answers, truth), answers)


def r_squared(answers: np.ndarray, truth: np.ndarray) -> float:
    """Mean over coordinates of 1 - squared error / variance; a coordinate that does not vary in the truth is left out."""
    spread = ((truth - truth.mean(0)) ** 2).sum(0)
    varies = spread > 1e-12 * len(truth)
    if not varies.any():
        raise DataError("the target does not vary in the test; there is nothing to read.")
    return float((1 - ((answers - truth) ** 2).sum(0)[varies] / spread[varies]).mean())


class Attentive(nn.Module):
    """A learned query looks at tokens (B, L, d), and a linear layer reads what it saw."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(width) * 0.02)
        self.key, self.out = nn.Linear(width, width), nn.Linear(width, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        looked = (self.key(tokens) @ self.query / tokens.shape[-1] ** 0.5).softmax(1)
        out: Tensor = self.out((looked[..., None] * tokens).sum(1))
        return out


def _trained(
    x: np.ndarray,
    y: np.ndarray,
    rows: np.ndarray,
    test: np.ndarray,
    kind: Kind,
    seed: int,
    steps: int,
    hidden: Sequence[int],
    rate: float,
    l2: float,
) -> np.ndarray:
    classes = y.ndim == 1
    names, centre, scale = np.unique(y), 0.0, 1.0
    outputs = len(names) if classes else y.shape[1]
    if classes:
        goal = torch.from_numpy(np.searchsorted(names, y))
    else:
        centre, scale = y[rows].mean(0), np.maximum(y[rows].std(0), 1e-8)
        goal = torch.from_numpy((y - centre) / scale).float()
    seen, size = torch.from_numpy(x).float(), min(256, len(rows))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net: nn.Module
        if kind == "attentive":
            net = Attentive(x.shape[-1], outputs)
        else:
            net = MLP((x.shape[-1], *(hidden if kind == "mlp" else ()), outputs))

    def batch(step: int) -> dict[str, Tensor]:
        drawn = torch.from_numpy(np.random.default_rng((seed, step)).choice(rows, size))
        return {"seen": seen[drawn], "goal": goal[drawn]}

    def loss(net: nn.Module, drawn: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        said = net(drawn["seen"])
        return {"probe": F.cross_entropy(said, drawn["goal"]) if classes else F.mse_loss(said, drawn["goal"])}

    optimiser = Optimiser(rate=schedule("cosine", rate, 0.0, steps), weight_decay=l2)
    train(net, batch, (Stage(steps, loss, (optimiser,)),), Run(progress=False), seed=seed)
    with torch.no_grad():
        said = net(seen[torch.from_numpy(test)]).numpy()
    return np.asarray(names[said.argmax(1)] if classes else said * scale + centre)
