"""Keep only labels of which a stated share, and no more, is expected to be wrong: conformal risk control of the kept labels.

**The promise.** Among the labels kept in recordings like those calibrated on, the expected share of wrong ones is at most E (over
draws of held-out and target recordings; where nothing can be promised nothing is kept, and that counts as no error).

**The rule.** Let units i = 1..n (held-out episodes, or segments of them) carry W_i(s) wrong labels surer than s, at most B each
(B: steps of the longest unit), and let D(s) be the mean number of labels surer than s per unit, over held-out *and* target
recordings (it needs no truth). Keep what is surer than the smallest s with

    (B + W_1(s) + ... + W_n(s)) / (n + 1)  <=  E * D(s).

The error rate among kept labels is not monotone in s, so the usual recipe (control a monotone loss) does not apply to it. But
W is, and D is known; B stands for the target unit, whose errors nobody knows, as if all of it were wrong.

**Why it holds.** Fix a target unit j, exchangeable with the n; the left side is symmetric in the n + 1 units once B is
replaced by W_j, and D is symmetric as it stands. At the chosen s, D >= (B + sum W_i) / (E (n + 1)), hence

    W_j / D  <=  E (n + 1) W_j / (B + sum W_i)  <=  E (n + 1) W_j / (W_j + sum W_i),        since W_j <= B.

1. For an s fixed beforehand the right side has expectation E, by exchangeability: each of the n + 1 shares of the sum is 1/(n
   + 1) on average.
2. For units of one step the chosen s may be used too: where W_j(s) = 1, B = W_j at every laxer threshold, so j's own truth
   does not move s, and the shares are again taken at one common s.
3. For longer units, leaving out one may move s by a little, and the shares are then taken at slightly different s. A chain of
   worst cases can raise the expectation to E log(1 + sum W_i / B) at most, which is below E while sum W_i <= 1.7 B. Beyond
   that (much data) s barely moves, and the simulations in `tests/labelling/test_conformal.py` measure what is left.

**Units.** Steps of an episode err together, so they are no units. Episodes are, and the argument above is theirs. But a whole
episode of errors is a heavy B, so with few episodes they are cut into segments twice as long as errors stay correlated, never
more segments per episode than there are episodes. Segments of one episode may still resemble each other; expanding E[1 / (B +
sum W)] around the mean shows that B = sum W_e^2 / sum W_e (W_e wrong labels in episode e: the clump that the average wrong
label stands in) makes up for it to second order, so B is that or the longest segment, whichever is larger. The promise then
also assumes that the held-out episodes stand for all, and the result says which unit it was.

The idea of adding one worst unit is that of conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster, 2022);
point 2 is that of selection by conformal p-values (Jin and Candes, 2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from retrodict.errors import DataError

#: A correlation below this counts as none when segments are cut.
NEGLIGIBLE = 0.1
#: Segments are never shorter than this many steps.
SHORTEST = 10
#: Episodes are the units where that keeps at least this share of what segments would keep.
WORTH = 0.9


class CannotPromise(DataError):
    """The asked error bound cannot be promised with this much calibration data; the message says what would do."""


@dataclass(frozen=True)
class HeldOut:
    """Labels inferred for held-out episodes, and whether they were right; one array (T,) per episode, in the order of time.

    Attributes:
        score: the model's own confidence per step. It must not have been fitted on these episodes.
        wrong: whether the label is wrong.
    """

    score: Sequence[np.ndarray]
    wrong: Sequence[np.ndarray]

    def __post_init__(self) -> None:
        lengths = [(len(s), len(w)) for s, w in zip(self.score, self.wrong, strict=True)]
        if not lengths or any(s != w or not s for s, w in lengths):
            raise DataError(f"calibration needs a score and a truth for every step of every episode, got {lengths[:5]}.")

    @property
    def candidates(self) -> np.ndarray:
        """Thresholds worth trying, ascending: the smallest set of wrong labels changes only at the scores of wrong ones."""
        scores, wrong = np.concatenate(self.score), np.concatenate(self.wrong).astype(bool)
        return np.concatenate([[-np.inf], np.unique(scores[wrong])])


@dataclass
class Tally:
    """How many labels of a set of episodes are surer than each threshold, without keeping the labels.

    Attributes:
        thresholds: ascending (k,).
        counts: steps by how many thresholds they exceed (k + 1,).
        lengths: scored steps of each episode.
    """

    thresholds: np.ndarray
    counts: np.ndarray = field(init=False)
    lengths: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = np.zeros(len(self.thresholds) + 1, np.int64)

    def add(self, score: np.ndarray) -> None:
        """Count one episode's scores (T,)."""
        if len(score):
            self.counts += np.bincount(np.searchsorted(self.thresholds, score, side="left"), minlength=len(self.counts))
            self.lengths.append(len(score))

    @property
    def surer(self) -> np.ndarray:
        """Number of labels strictly surer than each threshold (k,)."""
        return np.asarray(self.counts[::-1].cumsum()[::-1][1:])


@dataclass(frozen=True)
class Promise:
    """A threshold and what keeping the labels above it promises.

    Attributes:
        max_error: largest expected share of wrong labels among the kept.
        threshold: labels with a raw confidence strictly above it are kept.
        unit: what was taken as exchangeable: `episode`, or `segment of N steps`.
        units, episodes: how many of them the promise rests on.
        kept: share of labels kept, over the recordings to be labelled where their confidences were given.
        seen_error: share of wrong labels among the kept ones of the held-out episodes.
    """

    max_error: float
    threshold: float
    unit: str
    units: int
    episodes: int
    kept: float
    seen_error: float

    def __str__(self) -> str:
        text = (
            f"at most {self.max_error:.3g} of the kept labels are expected to be wrong (unit: {self.unit}, {self.units} of them"
        )
        if self.unit != "episode":
            text += f", from {self.episodes} held-out episodes, taken to stand for all"
        return text + ")"


def control(held_out: HeldOut, max_error: float, target: Tally | None = None) -> Promise:
    """The laxest threshold that keeps the promise of this module.

    Args:
        held_out: labelled episodes that the model did not learn from.
        max_error: E, between 0 and 1.
        target: counts of the recordings to be labelled, at `held_out.candidates`; without it the held-out episodes stand for
        them.

    Raises CannotPromise, in one sentence, when no threshold will do: with how many labelled episodes one would, and which error
    could be promised now.
    """
    if not 0 < max_error < 1:
        raise DataError(f"max_error is a share between 0 and 1, got {max_error}.")
    episodes = len(held_out.score)
    own = Tally(held_out.candidates)
    for score in held_out.score:
        own.add(score)
    whole, parts = Cut(held_out, own, target, None), Cut(held_out, own, target, segment_length(held_out.wrong))
    cut = whole if whole.share_kept(max_error) >= WORTH * parts.share_kept(max_error) > 0 else parts
    at = cut.first(max_error)
    if at is None:
        raise CannotPromise(_what_would_do((whole, parts), max_error, episodes))
    emitted = own if target is None else target
    return Promise(
        max_error=max_error,
        threshold=float(own.thresholds[at]),
        unit="episode" if cut.length is None else f"segment of {cut.length} steps",
        units=cut.units,
        episodes=episodes,
        kept=int(emitted.surer[at]) / max(sum(emitted.lengths), 1),
        seen_error=float(cut.wrong[at]) / max(int(own.surer[at]), 1),
    )


class Cut:
    """Held-out and target recordings cut into units of `length` steps (None: episodes), and the bound at every threshold.

    Attributes:
        units: units of the held-out episodes.
        wrong: wrong labels of the held-out episodes surer than each threshold (k,).
        added: B at each threshold (k,).
        kept: D at each threshold (k,).
        bound: the smallest error that each threshold can promise (k,).
    """

    def __init__(self, held_out: HeldOut, own: Tally, target: Tally | None, length: int | None) -> None:
        self.length = length
        theirs = target.lengths if target is not None else []
        self.units = sum(pieces(n, length) for n in own.lengths)
        total = self.units + sum(pieces(n, length) for n in theirs)
        surer = own.surer + (target.surer if target is not None else 0)
        per_episode = (
            above(np.sort(s[w.astype(bool)]), own.thresholds) for s, w in zip(held_out.score, held_out.wrong, strict=True)
        )
        self.wrong, squares = np.zeros(len(surer)), np.zeros(len(surer))
        for counts in per_episode:
            self.wrong += counts
            squares += counts.astype(float) ** 2
        longest = max(math.ceil(n / pieces(n, length)) for n in [*own.lengths, *theirs])
        clump = squares / np.maximum(self.wrong, 1)
        self.added = np.full(len(surer), float(longest)) if length is None else np.maximum(longest, clump)
        self.kept = surer / total
        self.bound = np.where(surer > 0, (self.added + self.wrong) / (self.units + 1) / np.maximum(self.kept, 1e-12), np.inf)

    def first(self, max_error: float) -> int | None:
        """Place of the laxest threshold that can promise `max_error`."""
        holds = np.flatnonzero(self.bound <= max_error)
        return int(holds[0]) if len(holds) else None

    def share_kept(self, max_error: float) -> float:
        """Labels kept for that promise, as a share of those kept without one."""
        at = self.first(max_error)
        return 0.0 if at is None else float(self.kept[at] / self.kept[0])

    def episodes_needed(self, max_error: float, episodes: int) -> int | None:
        """How many episodes like these would make the promise, or None where no number would."""
        room = max_error * self.kept - self.wrong / self.units
        # A handful of surest labels proves nothing, however right they are.
        enough = (room > 0.1 * max_error * self.kept) & (self.kept >= 0.05 * self.kept[0])
        if not enough.any():
            return None
        # (B + n w) / (n + 1) <= E d  <=>  n >= (B - E d) / (E d - w), at the threshold that asks least.
        units = float(((self.added - max_error * self.kept)[enough] / room[enough]).min())
        return math.ceil(units * episodes / self.units)


def segment_length(wrong: Sequence[np.ndarray]) -> int:
    """Steps of a segment: twice as long as errors stay correlated, and no episode makes more segments than there are episodes."""
    mean = float(np.mean([len(w) for w in wrong]))
    return max(2 * correlation_length(wrong), math.ceil(mean / len(wrong)), SHORTEST)


def correlation_length(wrong: Sequence[np.ndarray]) -> int:
    """Steps after which errors of one episode tell (almost) nothing of each other, at least 1.

    The autocorrelation is taken around the overall error rate and pooled over episodes; the length is the first lag at which
    it falls below `NEGLIGIBLE` or twice its standard error; the longest episode's where it never does.
    """
    mean = float(np.concatenate(wrong).mean())
    centred = [np.asarray(w, float) - mean for w in wrong]
    variance = float(np.mean(np.concatenate(centred) ** 2))
    longest = max(map(len, centred))
    if variance == 0:
        return 1
    for lag in range(1, longest):
        products = np.concatenate([w[lag:] * w[:-lag] for w in centred if len(w) > lag])
        if products.mean() / variance < max(NEGLIGIBLE, 2 / math.sqrt(len(products))):
            return lag
    return longest


def pieces(steps: int, length: int | None) -> int:
    """Into how many units of about `length` steps an episode is cut; one where the episode is the unit."""
    return 1 if length is None else max(1, round(steps / length))


def above(ordered: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many of the ascending values lie strictly above each threshold."""
    return np.asarray(len(ordered) - np.searchsorted(ordered, thresholds, side="right"))


def _what_would_do(cuts: Sequence[Cut], max_error: float, episodes: int) -> str:
    said = f"max_error={max_error:g} cannot be promised with {episodes} held-out labelled episode(s)"
    best = math.ceil(min(float(cut.bound.min()) for cut in cuts) * 100) / 100
    now = f"max_error={best:.2f} can be promised now" if best < 1 else "nothing can be promised yet"
    needed = [n for cut in cuts if (n := cut.episodes_needed(max_error, episodes)) is not None]
    if not needed:
        return f"{said}: even the surest labels are wrong about that often, so the model needs more to learn from; {now}."
    return f"{said}; about {max(min(needed), episodes + 1)} would do, and {now}."
