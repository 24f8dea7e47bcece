"""Numbers that change over training: learning rates, loss weights, momenta, roll-out lengths.

A schedule is a pure function of the step, so that a resumed run needs to remember nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

from retrodict.errors import DataError

Scalar = float | Callable[[int], float]
"""A number, or what it is at a step."""

Kind = Literal["constant", "linear", "cosine", "exponential", "step"]


def _geometric(start: float, end: float, share: float) -> float:
    return float(start * (end / start) ** share)


CURVES: dict[str, Callable[[float, float, float], float]] = {
    "constant": lambda start, end, share: start,
    "linear": lambda start, end, share: start + (end - start) * share,
    "cosine": lambda start, end, share: start + (end - start) * (1 - math.cos(math.pi * share)) / 2,
    "exponential": _geometric,
    "step": _geometric,
}


def schedule(
    kind: Kind, start: float, end: float = 0.0, steps: int = 1, warmup: int = 0, *, every: int = 1
) -> Callable[[int], float]:
    """The value at each step, from `start` to `end`, which is reached at `steps` and kept from there on.

    Args:
        kind: `constant`; `linear`; `cosine` (half a period); `exponential` (one factor per step); `step` (one factor every
            `every` steps, constant between).
        start, end: values at both ends; of one sign and not zero for `exponential` and `step`.
        steps: the step at which `end` is reached, warm-up included.
        warmup: steps in which the value first climbs in equal strides from start / warmup to start.
        every: length of a stair of `step`.

    Raises DataError when the kind is unknown or the numbers contradict each other.
    """
    if kind not in CURVES:
        raise DataError(f"no schedule is called {kind!r}; there are {', '.join(CURVES)}.")
    if not 0 <= warmup <= steps or every < 1:
        raise DataError(
            f"a schedule needs 0 <= warmup <= steps and every >= 1, got warmup={warmup}, steps={steps}, every={every}."
        )
    if kind in ("exponential", "step") and start * end <= 0:
        raise DataError(f"a schedule of kind {kind!r} goes between two numbers of one sign, got {start} and {end}.")
    return partial(_value, kind, start, end, steps, warmup, every if kind == "step" else 1)


def _value(kind: str, start: float, end: float, steps: int, warmup: int, every: int, step: int) -> float:
    if step < warmup:
        return start * (step + 1) / warmup
    past = min(step, steps) - warmup
    return CURVES[kind](start, end, (past - past % every) / max(steps - warmup, 1))


def at(value: Scalar, step: int) -> float:
    """What a number or a schedule is at a step."""
    return value(step) if callable(value) else value
