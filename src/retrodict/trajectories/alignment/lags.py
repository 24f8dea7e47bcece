"""Small inverse models, cheap enough to be fitted at every lag between actions and what they should show in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from retrodict.errors import DataError
from retrodict.trajectories import ActionSpace, Box, Discrete, Recordings
from retrodict.trajectories.alignment.motion import changes
from retrodict.trajectories.features import ACTION

#: Rows whose errors are summed before they count as one observation: neighbours err together.
BLOCK = 16
#: A lag must explain this much more of the actions (in R²) than the one it replaces.
MARGIN = 0.02
FOLDS = 3
HIDDEN = 128
PENALTIES = (0.01, 0.1, 1.0)


@dataclass(frozen=True)
class Shifts:
    """One episode, or a part of one: what changed at its inner steps and the step before (n, d), and actions by lag (n, k)."""

    change: np.ndarray
    earlier: np.ndarray
    targets: Mapping[int, np.ndarray]

    @classmethod
    def of(
        cls, recordings: Recordings, position: int, names: tuple[str, ...], lags: Sequence[int], space: ActionSpace, most: int
    ) -> Shifts:
        """The first `most` steps of an episode without those of which something is missing (`valid.*`); the same steps for every
        lag, so that lags can be compared step by step.
        """
        episode = recordings[position]
        stop = min(episode.length, most)
        change = changes(recordings, position, names, 0, stop)
        rows = np.arange(max(1, -lags[0]), stop - 1 - max(0, lags[-1]))
        flat, acted = episode.read(ACTION, np.arange(stop)).reshape(stop, -1), episode.there(ACTION)[:stop]
        if (bad := acted & ~np.isfinite(flat).all(1)).any():
            raise DataError(f"{episode}: {ACTION!r} is not finite at step {int(bad.argmax())}.")
        seen = np.all([episode.there(name)[:stop] for name in names], axis=0)
        rows = rows[seen[rows - 1] & seen[rows] & seen[rows + 1] & np.all([acted[rows + k] for k in lags], axis=0)]
        target = _columns(flat, space)
        return cls(change[rows], change[rows - 1], {k: target[rows + k] for k in lags})

    def __len__(self) -> int:
        return len(self.change)

    def halves(self) -> tuple[Shifts, Shifts]:
        """The only episode there is, cut in two, so that it can be cross-fitted."""
        half = len(self) // 2
        first, second = (
            Shifts(self.change[part], self.earlier[part], {k: t[part] for k, t in self.targets.items()})
            for part in (slice(0, half), slice(half, None))
        )
        return first, second


def standardised(data: Sequence[Shifts]) -> list[Shifts]:
    """The same with every action column at mean 0 and spread 1; columns that never change are gone.

    Raises DataError when none changes.
    """
    every = np.concatenate([t for d in data for t in d.targets.values()])
    mean, scale = every.mean(0), every.std(0)
    varies = scale > 1e-9
    if not varies.any():
        raise DataError("the actions never change, so no lag can be found.")
    return [
        Shifts(d.change, d.earlier, {k: ((t - mean) / np.where(varies, scale, 1))[:, varies] for k, t in d.targets.items()})
        for d in data
    ]


class Probes:
    """Cross-fitted ridge regressions on random features of the change, two to a fold.

    One sees the change from t to t + 1 alone. The other also sees the change before, without which an action that sets a force,
    and so shows as a change of speed, could not be told from its neighbours. Their errors are averaged: where one cannot tell
    two lags apart, the other decides.
    """

    def __init__(self, data: Sequence[Shifts], seed: int) -> None:
        self.data = data
        rng = np.random.default_rng(seed)
        self.fold = rng.permutation(len(data)) % min(FOLDS, len(data))
        self.lifts = [_Lift([self._seen(d, view) for d in data], rng) for view in (0, 1)]
        self._bases = [[_basis(self._moments(view, fold)) for fold in range(self.fold.max() + 1)] for view in (0, 1)]

    def predict(self, targets: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """For targets (n_i, m) of every episode, the predictions of both models, fitted on the episodes of other folds."""
        answers: list[list[np.ndarray]] = [[] for _ in self.data]
        for view in (0, 1):
            products = [self._lifted(view, i).T @ t for i, t in enumerate(targets)]
            for fold, basis in enumerate(self._bases[view]):
                others = [i for i in range(len(self.data)) if self.fold[i] != fold]
                square = np.sum([(targets[i] ** 2).sum(0) for i in others], 0)
                rows = sum(len(targets[i]) for i in others)
                weights = _ridge(basis, np.sum([products[i] for i in others], 0), square, rows)
                for i in np.flatnonzero(self.fold == fold).tolist():
                    answers[i].append(self._lifted(view, i) @ weights)
        yield from answers

    def _seen(self, data: Shifts, view: int) -> np.ndarray:
        return data.change if view == 0 else np.concatenate([data.change, data.earlier], 1)

    def _lifted(self, view: int, i: int) -> np.ndarray:
        return self.lifts[view](self._seen(self.data[i], view))

    def _moments(self, view: int, fold: int) -> np.ndarray:
        """Sum of outer products over the episodes of all other folds, on which the models of this one are fitted."""
        total: np.ndarray = np.zeros((self.lifts[view].width,) * 2)
        for i in range(len(self.data)):
            if self.fold[i] != fold:
                x = self._lifted(view, i)
                total += x.T @ x
        return total


class _Lift:
    """Standardised features with random rectified combinations beside them, so that a linear fit can bend."""

    def __init__(self, inputs: Sequence[np.ndarray], rng: np.random.Generator) -> None:
        together = np.concatenate(inputs)
        self.mean, self.scale = together.mean(0), together.std(0)
        self.varies = self.scale > 1e-7
        inner = int(self.varies.sum())
        self.weights = rng.normal(size=(inner, HIDDEN)) * math.sqrt(2 / max(inner, 1))
        self.shift = rng.normal(size=HIDDEN) * 0.5
        self.width = inner + HIDDEN + 1

    def __call__(self, x: np.ndarray) -> np.ndarray:
        z = np.clip((x[:, self.varies] - self.mean[self.varies]) / self.scale[self.varies], -5, 5)
        return np.concatenate([z, np.maximum(z @ self.weights + self.shift, 0), np.ones((len(z), 1))], 1)


def gained(predicted: Sequence[np.ndarray], target: np.ndarray) -> np.ndarray:
    """How much of the target (n, m) predictions explain, summed over blocks of rows (blocks,).

    That is `target² - (target - predicted)²`, mean over models and columns, written without the square of the target, which says
    nothing of the prediction and would only be noise where lags are compared.
    """
    return _blocks(np.mean([np.mean(2 * p * target - p**2, 1) for p in predicted], 0))


def varied(target: np.ndarray) -> np.ndarray:
    """The variance that there is to explain, summed over the same blocks (blocks,)."""
    return _blocks(np.mean(target**2, 1))


def significant(gain: np.ndarray, level: float, spread: float | None = None) -> bool:
    """Whether gains (blocks,) are above 0 on average by chance less than `level`.

    By a one-sided t-test, or where the spread of a block is known from elsewhere (and is no smaller here) by the normal one:
    few blocks say little of their own spread.
    """
    if spread is None:
        return len(gain) >= 3 and gain.std() > 0 and bool(stats.ttest_1samp(gain, 0, alternative="greater").pvalue < level)
    wide = max(spread, float(gain.std()))
    return wide > 0 and bool(stats.norm.sf(float(gain.mean()) * math.sqrt(len(gain)) / wide) < level)


def better(
    gains: Mapping[int, np.ndarray], total: float, lag: int, level: float, spread: Mapping[int, float] | None = None
) -> int:
    """The lag that explains most, where it beats `lag` by a margin and by chance less than `level`; else `lag`."""
    best = max(gains, key=lambda k: float(gains[k].sum()))
    more = gains[best] - gains[lag]
    return best if more.sum() > MARGIN * total and significant(more, level, spread[best] if spread else None) else lag


def spreads(gains: Sequence[Mapping[int, np.ndarray]], lag: int) -> dict[int, float]:
    """By how much the advantage of each lag over `lag` differs between the blocks of one episode, pooled over episodes."""
    more = {k: [g[k] - g[lag] for g in gains] for k in gains[0]}
    return {k: math.sqrt(float(np.mean(np.concatenate([(m - m.mean()) ** 2 for m in each])))) for k, each in more.items()}


def _columns(flat: np.ndarray, space: ActionSpace) -> np.ndarray:
    """Actions as numbers to regress on: choices as one column each, quantised values as bins, the others as they are."""
    pieces = []
    for part, where in zip(space.parts.values(), space.slices.values(), strict=True):
        values = flat[:, where].astype(float)
        if isinstance(part, Discrete):
            values = (np.rint(values) == np.arange(part.n)).astype(float)
        elif isinstance(part, Box) and part.quantiser is not None:
            values = part.quantiser.encode(values).astype(float)
        pieces.append(values)
    return np.concatenate(pieces, 1)


def _basis(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(moments)
    return np.maximum(values, 0), vectors


def _ridge(basis: tuple[np.ndarray, np.ndarray], product: np.ndarray, square: np.ndarray, rows: int) -> np.ndarray:
    """Weights (d, m), each column with the penalty of three that generalised cross-validation likes best."""
    values, vectors = basis
    projected = vectors.T @ product
    fits, criteria = [], []
    for penalty in PENALTIES:
        shrunk = projected / (values + penalty * rows)[:, None]
        residual = square - 2 * (projected * shrunk).sum(0) + (values[:, None] * shrunk**2).sum(0)
        freedom = float((values / (values + penalty * rows)).sum())
        fits.append(shrunk)
        criteria.append(residual / max(1 - freedom / rows, 1e-3) ** 2)
    chosen = np.argmin(criteria, 0)
    return np.asarray(vectors @ np.stack(fits)[chosen, :, np.arange(len(chosen))].T)


def _blocks(rows: np.ndarray) -> np.ndarray:
    return np.array([piece.sum() for piece in np.array_split(rows, max(1, len(rows) // BLOCK))])
