"""How well actions were recovered, by kind of action, with what a constant answer would score always beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from retrodict.errors import DataError
from retrodict.trajectories import ActionSpace, Box, Discrete
from retrodict.trajectories.actions import Part, range_met

#: The flat encoding of actions is float32: a value counts as on the tolerance that is off by a few of its last digits.
ROUNDED = 4 * float(np.finfo(np.float32).eps)
SEARCHED, TRIED = 20_000, 200


@dataclass(frozen=True)
class Rightness:
    """What it takes for an action to count as right.

    A button or a choice must be the same; a quantised value must fall into the same bin as the truth; any other continuous value
    must lie within `tolerance` times its range of the truth. An action is right when all of it is.

    Attributes:
        space: what the numbers of an action mean.
        ranges: range of every number of the flat action (width,); only those of continuous, unquantised parts are used.
        tolerance: largest error that still counts as right, as a share of the range.
    """

    space: ActionSpace
    ranges: np.ndarray
    tolerance: float = 0.05

    @classmethod
    def of(cls, space: ActionSpace, actions: np.ndarray, tolerance: float = 0.05) -> Rightness:
        """Ranges are those the space declares, and where it declares none those met in `actions` (n, width), see `range_met`."""
        ranges = range_met(actions) if len(actions) else np.ones(space.width)
        for part, where in zip(space.parts.values(), space.slices.values(), strict=True):
            if isinstance(part, Box) and part.span is not None:
                ranges[where] = part.span
        return cls(space, ranges, tolerance)

    def entries(self, pred: np.ndarray, true: np.ndarray) -> np.ndarray:
        """For every number of the flat actions (n, width) whether it is right, bool (n, width)."""
        out = np.empty(pred.shape, bool)
        for part, where in zip(self.space.parts.values(), self.space.slices.values(), strict=True):
            out[:, where] = _right(part, pred[:, where], true[:, where], self.tolerance * self.ranges[where])
        return out

    def parts(self, pred: np.ndarray, true: np.ndarray) -> dict[str, np.ndarray]:
        """Part name -> whether the whole part is right, bool (n,)."""
        entries = self.entries(pred, true)
        return {name: np.asarray(entries[:, where].all(1)) for name, where in self.space.slices.items()}

    def joint(self, pred: np.ndarray, true: np.ndarray) -> np.ndarray:
        """Whether the whole action is right, bool (n,)."""
        return np.asarray(self.entries(pred, true).all(1))

    def majority(self, true: np.ndarray, numbers: Sequence[int]) -> float:
        """Share of actions (n, width) of which the best constant answer gets all of these numbers right.

        Exact for one number; for several the best that is found among `SEARCHED` of the actions, from the commonest cell or from
        the best of `TRIED` of them, by mending one number after the other.
        """
        parts = [part for part in self.space.parts.values() for _ in range(part.width)]
        reach = self.tolerance * self.ranges
        if len(numbers) == 1:
            (i,) = numbers
            return float(_right(parts[i], _commonest(parts[i], true[:, i], reach[i]), true[:, i], reach[i]).mean())
        searched = true[:: -(-len(true) // SEARCHED)]
        cells = np.stack([_cells(parts[i], searched[:, i], reach[i]) for i in numbers], 1)
        _, of, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
        cell = searched[of.ravel() == counts.argmax()]
        tried = searched[:: -(-len(searched) // TRIED)]
        starts: list[dict[int, float]] = [{i: _commonest(parts[i], cell[:, i], reach[i]) for i in numbers}]
        starts += [{i: float(row[i]) for i in numbers} for row in tried]

        def hits(answer: Mapping[int, float], actions: np.ndarray, *but: int) -> np.ndarray:
            kept = [_right(parts[i], answer[i], actions[:, i], reach[i]) for i in numbers if i not in but]
            return np.asarray(np.all(kept, 0))

        answer, best = max(starts, key=lambda start: int(hits(start, searched).sum())), 0
        while (now := int(hits(answer, searched).sum())) > best:
            best = now
            for i in numbers:
                answer[i] = _commonest(parts[i], searched[hits(answer, searched, i), i], reach[i])
        return float(hits(answer, true).mean())

    def __str__(self) -> str:
        kinds = {
            "every button and choice is the same": any(not isinstance(part, Box) for part in self.space.parts.values()),
            "every quantised value falls into the true bin": any(
                isinstance(part, Box) and part.quantiser is not None for part in self.space.parts.values()
            ),
            f"every continuous value lies within {self.tolerance:.3g} of its range": any(
                isinstance(part, Box) and part.quantiser is None for part in self.space.parts.values()
            ),
        }
        return " and ".join(sentence for sentence, met in kinds.items() if met)


def action_scores(
    pred: ArrayLike, true: ArrayLike, space: ActionSpace, where: ArrayLike | None = None, tolerance: float = 0.05
) -> dict[str, Any]:
    """Scores of inferred actions against true ones, by kind of action.

    Args:
        pred, true: flat actions (..., width); leading dimensions are steps.
        space: what the numbers mean.
        where: bool (...), the steps to score (those with a visible effect, say); all where None. Their share is reported.
        tolerance: share of its range by which an unquantised continuous value may be off and still count as right.

    Returns a JSON-able dict:
        `steps` scored, `share` of all steps, `joint` {accuracy, majority}, and `parts`, part name ->
        * buttons: {kind, accuracy (mean over buttons), majority (likewise), joint, joint_majority,
          names: {button: {accuracy, majority, precision, recall, f1, pressed}}}; recall is None for a button never pressed;
        * choice: {kind, accuracy, majority, names: {choice: {recall, share}}};
        * continuous: {kind, r2 (mean over names), mae, accuracy, majority, joint, joint_majority, names: {name: {r2, mae, mse,
          variance, sign, accuracy, majority}}}; `accuracy` is of bins where quantised and within tolerance otherwise, `sign`
          the share with the right sign among values off zero; r2 is None where the truth is constant.
        `majority` is what the best constant answer would score on the same steps; for several numbers the best that was found.

    Raises DataError when shapes differ, a value is not finite, or no step is left.
    """
    p, t = np.asarray(pred, np.float64), np.asarray(true, np.float64)
    if p.shape != t.shape or not p.ndim or p.shape[-1] != space.width:
        raise DataError(f"inferred and true actions of width {space.width} are needed, got {list(p.shape)} and {list(t.shape)}.")
    p, t = p.reshape(-1, space.width), t.reshape(-1, space.width)
    steps = len(t)
    if where is not None:
        chosen = np.asarray(where, bool).ravel()
        if len(chosen) != steps:
            raise DataError(f"`where` names {len(chosen)} steps, the actions have {steps}.")
        p, t = p[chosen], t[chosen]
    if not len(t):
        raise DataError(f"no step to score is left of {steps}.")
    if not (np.isfinite(p).all() and np.isfinite(t).all()):
        raise DataError("an action to score is not finite; mend or leave out the step first.")
    rule = Rightness.of(space, t, tolerance)
    entries = rule.entries(p, t)
    every = range(space.width)
    scores: dict[str, Any] = {
        "steps": len(t),
        "share": len(t) / steps,
        "joint": {"accuracy": float(entries.all(1).mean()), "majority": rule.majority(t, every)},
        "parts": {},
    }
    for name, part in space.parts.items():
        at = space.slices[name]
        right, truth = entries[:, at], np.rint(t[:, at])
        if isinstance(part, Discrete):
            scores["parts"][name] = {
                "kind": part.kind,
                "accuracy": float(right.mean()),
                "majority": rule.majority(t, every[at]),
                "names": {
                    choice: {"recall": _mean(right[truth[:, 0] == i]), "share": float((truth[:, 0] == i).mean())}
                    for i, choice in enumerate(part.names)
                },
            }
            continue
        each = _values if isinstance(part, Box) else _button
        names = {
            entry: {
                **each(p[:, at][:, i], t[:, at][:, i]),
                "accuracy": float(right[:, i].mean()),
                "majority": rule.majority(t, every[at][i : i + 1]),
            }
            for i, entry in enumerate(part.names)
        }
        whole = {"joint": float(right.all(1).mean()), "joint_majority": rule.majority(t, every[at])}
        averaged = ("r2", "mae", "accuracy", "majority") if isinstance(part, Box) else ("accuracy", "majority")
        scores["parts"][name] = {"kind": part.kind, **_averages(names, averaged), **whole, "names": names}
    return scores


def _values(pred: np.ndarray, true: np.ndarray) -> dict[str, float | None]:
    mse, variance = float(np.mean((pred - true) ** 2)), float(np.var(true))
    moving = true != 0
    return {
        "r2": 1 - mse / variance if variance > 0 else None,
        "mae": float(np.mean(np.abs(pred - true))),
        "mse": mse,
        "variance": variance,
        "sign": _mean(np.sign(pred[moving]) == np.sign(true[moving])),
    }


def _button(pred: np.ndarray, true: np.ndarray) -> dict[str, float | None]:
    p, t = np.rint(pred) == 1, np.rint(true) == 1
    both = int((p & t).sum())
    return {
        "pressed": float(t.mean()),
        "precision": _mean(t[p]),
        "recall": _mean(p[t]),
        "f1": 2 * both / int(p.sum() + t.sum()) if p.any() or t.any() else None,
    }


def _right(part: Part, pred: np.ndarray | float, true: np.ndarray, reach: np.ndarray | float) -> np.ndarray:
    """Whether values are right, bool of the shape of `true`; continuous ones may be off by `reach`."""
    if not isinstance(part, Box):
        return np.asarray(np.rint(pred) == np.rint(true))
    if part.quantiser is not None:
        return np.asarray(part.quantiser.encode(np.asarray(pred)) == part.quantiser.encode(true))
    return np.asarray(np.abs(pred - true) <= reach * (1 + 1e-6) + ROUNDED * np.abs(true))


def _cells(part: Part, true: np.ndarray, reach: float) -> np.ndarray:
    """Classes (n,) of which all members have one answer that is right for them."""
    if not isinstance(part, Box):
        return np.asarray(np.rint(true))
    if part.quantiser is not None:
        return np.asarray(part.quantiser.encode(true))
    return np.asarray(np.floor((true - np.median(true)) / max(2 * reach, np.finfo(float).tiny) + 0.5))


def _commonest(part: Part, true: np.ndarray, reach: float) -> float:
    """The answer that is right for most of these values (n,)."""
    ordered = np.sort(true)
    if isinstance(part, Box) and part.quantiser is None:
        # It lies in the middle of the stretch, twice the tolerance wide, that holds most of them.
        ends = np.searchsorted(ordered, ordered + 2 * reach * (1 + 1e-6) + ROUNDED * np.abs(ordered), side="right") - 1
        first = int((ends - np.arange(len(ordered))).argmax())
        return float((ordered[first] + ordered[ends[first]]) / 2)
    _, where, counts = np.unique(_cells(part, ordered, reach), return_index=True, return_counts=True)
    return float(ordered[where[counts.argmax()]])


def _averages(names: Mapping[str, Mapping[str, float | None]], keys: tuple[str, ...]) -> dict[str, float | None]:
    return {key: _mean(np.array([entry[key] for entry in names.values() if entry[key] is not None], float)) for key in keys}


def _mean(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None
