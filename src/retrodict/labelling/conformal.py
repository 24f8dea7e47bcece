"""Keep only labels of which a stated share, and no more, is expected to be wrong: conformal risk control over episodes.

**The promise.** Of an episode to be labelled that is exchangeable with the n held-out ones (drawn as they were), the expected
share of wrong labels among its kept ones is at most E. An episode of which nothing is kept counts as no error, and every episode
counts the same, however long it is. The expectation is over the draw of the held-out episodes and of the new one together: a
single labelling can come out worse, on average over many they do not.

**The rule.** Let L_i(s) be the largest share of wrong labels among those of episode i surer than t, over all t >= s. Keep what
is surer than the smallest s with

    (L_1(s) + ... + L_n(s) + 1) / (n + 1)  <=  E,        that is  n/(n + 1) mean L(s) + 1/(n + 1)  <=  E.

**Why it holds.** The share of wrong labels itself may fall or rise with s; L, its largest value from there on, only falls, and
is at most 1. So this is conformal risk control as in Angelopoulos, Bates, Fisch, Lei and Schuster (2022), theorem 1, with B = 1:
let s' be the smallest s with mean L over all n + 1 episodes at most E. As the loss of the new episode is at most 1, the s chosen
is no smaller than s', so its loss at s is at most that at s'; and s' does not change when the n + 1 episodes change places, so
the expected loss of each at s' is that of their mean, at most E. The share of wrong labels is at most L(s), at s and at any
stricter threshold.

That last is used: where labels are kept in few episodes, a promise that counts the others as no error says little, and the few
may be right by luck. So s is made stricter, or the promise refused, until also of all K labels kept in the held-out episodes
together at most a share E is wrong, in the form (W + 1) / (K + 1) <= E; and it is refused where they are less than one in twenty.
This much is seen and not promised.

**The unit** is the episode. Steps of an episode err together, and parts of one too, so more of them make no more units: nothing
is assumed of how errors depend on each other within an episode. The price is that E takes at least 1/E - 1 held-out episodes, be
the model never wrong (`fewest`). Episodes that were cut into pieces are one unit, and those that taught or chose the model none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrodict.errors import DataError

#: A threshold keeps at least this share of the held-out labels: a handful of surest ones may be right by luck.
WORTHWHILE = 0.05


class CannotPromise(DataError):
    """The asked error bound cannot be promised with this much calibration data; the message says what would do."""


@dataclass(frozen=True)
class HeldOut:
    """Labels inferred for held-out episodes, and whether they were right; one array (T,) per episode.

    Attributes:
        score: the model's own confidence per step. These episodes must neither have taught the model nor chosen its weights.
        wrong: whether the label is wrong.
    """

    score: Sequence[np.ndarray]
    wrong: Sequence[np.ndarray]

    def __post_init__(self) -> None:
        lengths = [(len(s), len(w)) for s, w in zip(self.score, self.wrong, strict=True)]
        if not lengths or any(s != w or not s for s, w in lengths):
            raise DataError(f"calibration needs a score and a truth for every step of every episode, got {lengths[:5]}.")

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class Promise:
    """A threshold and what keeping the labels above it promises.

    Attributes:
        max_error: largest expected share of wrong labels among the kept ones of an episode.
        threshold: labels with a raw confidence strictly above it are kept.
        episodes: how many held-out episodes the promise rests on.
        kept: share of the held-out labels that the threshold keeps.
        seen_error: share of wrong labels among those, all together.
    """

    max_error: float
    threshold: float
    episodes: int
    kept: float
    seen_error: float

    def __str__(self) -> str:
        return (
            f"in an episode like the {self.episodes} held-out ones, at most {self.max_error:.3g} of the kept labels are expected "
            "to be wrong"
        )


def control(held_out: HeldOut, max_error: float) -> Promise:
    """The laxest threshold that keeps the promise of this module for `max_error`, a share between 0 and 1.

    Raises CannotPromise, in one sentence, when no threshold will do: with how many labelled episodes one would, and which error
    could be promised now.
    """
    check_share(max_error)
    n = len(held_out)
    levels = _Levels(held_out)
    # Rounded, as 10 * 0.1 - 1 must not be less than nothing at all.
    risky = levels.risk > round((n + 1) * max_error - 1, 9) / n
    holds = np.flatnonzero(~risky & (levels.seen <= round(max_error, 9)) & levels.worthwhile)
    if not len(holds):
        raise CannotPromise(levels.what_would_do(max_error))
    last = holds[-1]
    return Promise(
        max_error=max_error,
        threshold=float(levels.scores[last + 1]) if last + 1 < len(levels.scores) else -math.inf,
        episodes=n,
        kept=float(levels.kept[last] / levels.kept[-1]),
        seen_error=float(levels.wrong[last] / levels.kept[last]),
    )


def fewest(max_error: float) -> int:
    """Held-out episodes that it takes to promise an error at all, with a model that is never wrong: n with 1/(n + 1) <= E."""
    check_share(max_error)
    return math.ceil(round(1 / max_error - 1, 9))


def check_share(max_error: float) -> None:
    """Raises DataError unless this is a share between 0 and 1."""
    if not 0 < max_error < 1:
        raise DataError(f"max_error is a share between 0 and 1, got {max_error}.")


class _Levels:
    """What keeping all labels at least as sure as each score would mean.

    Attributes:
        scores: all that were given, falling (k,).
        risk: mean over episodes of the largest share of wrong labels at this score or a higher one (k,).
        kept, wrong: labels that are kept, and that are wrong among them, over all episodes (k,).
        seen: (wrong + 1) / (kept + 1).
        worthwhile: whether enough is kept (k,).
    """

    def __init__(self, held_out: HeldOut) -> None:
        self.episodes = len(held_out)
        columns = []
        for score, wrong in zip(held_out.score, held_out.wrong, strict=True):
            order = np.argsort(-score, kind="stable")
            last = np.flatnonzero(np.diff(score[order], append=-math.inf))  # equal scores are kept or withheld together
            kept, bad = last + 1, np.cumsum(np.asarray(wrong, float)[order])[last]
            rises = [np.diff(each, prepend=0.0) for each in (np.maximum.accumulate(bad / kept), kept, bad)]
            columns.append([score[order][last], *rises])
        values, *rises = (np.concatenate(column) for column in zip(*columns, strict=True))
        ascending, place = np.unique(-values, return_inverse=True)
        self.scores = -ascending
        risk, self.kept, self.wrong = (np.cumsum(np.bincount(place, each)) for each in rises)
        self.risk = risk / self.episodes
        self.seen = (self.wrong + 1) / (self.kept + 1)
        self.worthwhile = self.kept >= WORTHWHILE * self.kept[-1]

    def what_would_do(self, max_error: float) -> str:
        """Why nothing can be promised, with how many episodes it could, and what can be promised now."""
        n = self.episodes
        said = f"max_error={max_error:g} cannot be promised with {n} held-out labelled episode(s)"
        at = int(np.argmax(self.worthwhile))
        risk, seen = float(self.risk[at]), float(self.seen[at])
        best = math.ceil(max((n * risk + 1) / (n + 1), seen) * 100 - 1e-9) / 100
        now = f"max_error={best:.2f} can be promised now" if best < 1 else "nothing can be promised yet"
        if max(risk, seen) >= max_error:
            return f"{said}: even the surest labels are wrong about that often, so the model needs more to learn from; {now}."
        # (n r + 1) / (n + 1) <= E  <=>  n >= (1 - E) / (E - r)
        needed = max(math.ceil((1 - max_error) / (max_error - risk)), n + 1)
        least = fewest(max_error)
        return f"{said}: it takes {least} with a model that is never wrong, and about {needed} with this one; {now}."
