"""Are video and actions in step? The lag between them, per episode and before anything is learned, and how to mend it.

An action shows in the change that it causes. Small inverse models, cheap enough to be fitted at every lag, are asked which lag
lets them recover the actions best: the *lag* is k where `action[t + k]` explains the change from `observation[t]` to
`observation[t + 1]`. Lag 0 is the convention in which an action leads to the next row; lag 1 that in which it led to its own
row, or actions that were written one row late. At a negative lag actions were written early, or the world answers that late:
no recording tells the one from the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories import ActionSpace, Episode, Recordings
from retrodict.trajectories.alignment.lags import (
    BLOCK,
    MARGIN,
    Probes,
    Shifts,
    better,
    gained,
    significant,
    spreads,
    standardised,
    varied,
)
from retrodict.trajectories.alignment.motion import watched
from retrodict.trajectories.features import ACTION, LABEL, VALID

LAGS = tuple(range(-3, 4))
#: Chance of moving a set of recordings that is in step.
FALSE_ALARM = 0.01
#: Small models that explain less of the actions than this, with every episode at its lag, have not found what they do.
EXPLAINED = 0.05
FEWEST_STEPS = 64
MOST_STEPS = 40_000
#: Episodes are judged this often; the second time the models have learned from episodes that are in step.
ROUNDS = 2


@dataclass(frozen=True)
class EpisodeLag:
    """What was found for one episode.

    Attributes:
        episode: its name.
        lag: the lag at which its actions fit best, or None where it is too short or its actions do not show.
        scores: share of the actions' variance explained, by lag.
    """

    episode: str
    lag: int | None
    scores: Mapping[int, float]


@dataclass(frozen=True)
class Alignment:
    """The lags of recordings.

    Attributes:
        lag: the lag of the recordings as a whole, or None where actions do not show in what was watched.
        expected: the lag that their action space states: 0, or 1 where it says that an action led to its own row.
        explained: share of the actions' variance that small models explain, cross-fitted, with every episode at its lag.
        scores: the same by lag, with all episodes at one.
        episodes: what was found per episode that carries actions, by its place in the recordings.
        watched: the features that actions were held against.
    """

    lag: int | None
    expected: int
    explained: float
    scores: Mapping[int, float]
    episodes: Mapping[int, EpisodeLag] = field(default_factory=dict)
    watched: tuple[str, ...] = ()

    @property
    def out_of_step(self) -> dict[int, EpisodeLag]:
        """The episodes whose lag is not the expected one."""
        return {i: found for i, found in self.episodes.items() if found.lag is not None and found.lag != self.expected}

    @property
    def in_step(self) -> bool | None:
        """Whether every episode is as the action space says; None where it cannot be told."""
        return None if self.lag is None else not self.out_of_step

    def __str__(self) -> str:
        names = ", ".join(self.watched)
        if self.lag is None:
            said = f"whether actions are in step with {names} cannot be told"
            return f"{said}: small models explain {max(self.explained, 0):.0%} of them at best, {EXPLAINED:.0%} would do."
        if not self.out_of_step:
            return f"actions are in step with {names} in all {len(self.episodes)} episodes ({self.explained:.0%} explained)."
        return self._told(self.out_of_step, self.expected)

    @property
    def impossible(self) -> str | None:
        """One sentence where no world explains a lag: effects that come before their actions, or when they do not elsewhere."""
        answers = self.expected if self.lag is None else min(self.lag, self.expected)
        off = {i: found for i, found in self.episodes.items() if found.lag is not None and found.lag != answers}
        return self._told(off, answers) if off else None

    def _told(self, off: Mapping[int, EpisodeLag], expected: int) -> str:
        """One sentence on episodes whose lag is not the expected one."""
        lags = sorted({found.lag - expected for found in off.values() if found.lag is not None})
        said = " or ".join(f"{abs(k)} row(s) {'late' if k > 0 else 'early'}" for k in lags)
        if len(off) == len(self.episodes):
            also = ", or the convention is that an action led to its own row" if lags == [1] and not expected else ""
            also += ", or they only react to what is seen" if lags[0] > 0 else ""
            also += ", or what they do shows that much later" if lags[-1] < 0 else ""
            return f"in all {len(off)} episodes the actions are {said}{also}; `align` can mend it."
        shown = ", ".join(found.episode for found in list(off.values())[:5]) + (", ..." if len(off) > 5 else "")
        return f"in {len(off)} of {len(self.episodes)} episodes the actions are {said} ({shown}); `align` can mend it."

    def to_json(self) -> dict[str, Any]:
        return {
            "lag": self.lag,
            "expected": self.expected,
            "in_step": self.in_step,
            "explained": self.explained,
            "scores": {str(k): v for k, v in self.scores.items()},
            "watched": list(self.watched),
            "episodes": [
                {"position": i, "episode": e.episode, "lag": e.lag, "scores": {str(k): v for k, v in e.scores.items()}}
                for i, e in self.episodes.items()
            ],
        }


def align(recordings: Recordings, lags: Sequence[int] = LAGS, *, most_steps: int | None = None, seed: int = 0) -> Alignment:
    """Find the lag between actions and what they should show in, for the recordings and for each episode that carries actions.

    Small inverse models, cross-fitted by episode, are fitted at every lag; the lag of the whole leaves the expected one only
    where another explains significantly more. Episodes are then judged one by one, with models of the other episodes at that
    lag, and leave it under the same rule, corrected for their number.

    Args:
        recordings: at least one episode with actions; others are passed over.
        lags: candidates; 0 and 1 are always among them.
        most_steps: steps looked at in an episode, from its start; by default as many as make some 40,000 in all. Memory grows by
            about 1 kB for each.
        seed: seed of the random features and folds.

    Raises DataError when no episode has actions and something to hold them against, or all are too short.
    """
    lags = sorted({0, 1, *lags})
    expected = 1 if recordings.actions is not None and recordings.actions.leads is False else 0
    names = watched(recordings)
    shortest = 2 * (max(-lags[0], lags[-1]) + 1) + BLOCK
    given = {
        i: episode
        for i, episode in enumerate(recordings)
        if episode.length >= shortest and all(name in episode for name in (ACTION, *names))
    }
    if sum(episode.length for episode in given.values()) < FEWEST_STEPS:
        raise DataError(
            f"no lag can be found: it takes {FEWEST_STEPS} steps or more in episodes that have {ACTION!r} and {', '.join(names)} "
            f"and are at least {shortest} steps long."
        )
    most = most_steps or min(2000, max(100, MOST_STEPS // len(given)))
    space = recordings.actions or ActionSpace.unknown(recordings.features[ACTION])
    shifts = {i: Shifts.of(recordings, i, names, lags, space, max(most, shortest)) for i in given}
    given = {i: episode for i, episode in given.items() if len(shifts[i]) >= BLOCK}
    data = [shifts[i] for i in given]
    if sum(map(len, data)) < 2 * BLOCK:
        raise DataError(f"no lag can be found: of too many steps {ACTION!r} or what it should show in is missing (valid.*).")
    groups = [[i] for i in range(len(data))]
    if len(data) == 1:
        data, groups = list(data[0].halves()), [[0, 1]]
    data = standardised(data)
    probes = Probes(data, seed)
    total = [sum(float(varied(data[i].targets[expected]).sum()) for i in members) for members in groups]

    whole, visible = _at_every_lag(probes, data, lags, sum(total), FALSE_ALARM / len(lags))
    scores = {k: float(whole[k].sum()) / sum(total) for k in lags}
    if not visible or max(scores.values()) <= 0:
        return Alignment(None, expected, max(0.0, *scores.values()), scores, {}, names)
    lag = better(whole, sum(total), expected, FALSE_ALARM / len(lags))

    own = dict.fromkeys(range(len(groups)), lag)
    for _ in range(ROUNDS):
        lag_of = {i: own[g] for g, members in enumerate(groups) for i in members}
        predicted = list(probes.predict([d.targets[lag_of[i]] for i, d in enumerate(data)]))
        gains = [
            {k: np.concatenate([gained(predicted[i], data[i].targets[k]) for i in members]) for k in lags} for members in groups
        ]
        level, spread = FALSE_ALARM / len(lags) / len(groups), spreads(gains, lag)
        own = {g: better(gains[g], total[g], lag, level, spread) for g in range(len(groups))}
    explained = sum(float(gains[g][own[g]].sum()) for g in own) / sum(total)
    if explained < EXPLAINED:
        return Alignment(None, expected, explained, scores, {}, names)
    by_episode = {
        position: EpisodeLag(str(episode), own[g], {k: float(gains[g][k].sum()) / total[g] for k in lags})
        for g, (position, episode) in enumerate(given.items())
    }
    return Alignment(lag, expected, explained, scores, by_episode, names)


def _at_every_lag(
    probes: Probes, data: Sequence[Shifts], lags: Sequence[int], total: float, level: float
) -> tuple[dict[int, np.ndarray], bool]:
    """Lag -> what models fitted and asked at that lag explain, and whether any lag shows in what was watched at all."""
    width = data[0].targets[lags[0]].shape[1]
    predicted = probes.predict([np.concatenate([d.targets[k] for k in lags], 1) for d in data])
    gains: dict[int, list[np.ndarray]] = {k: [] for k in lags}
    products: dict[int, list[np.ndarray]] = {k: [] for k in lags}
    for answers, d in zip(predicted, data, strict=True):
        for number, k in enumerate(lags):
            columns = slice(number * width, (number + 1) * width)
            at_lag = [answer[:, columns] for answer in answers]
            gains[k].append(gained(at_lag, d.targets[k]))
            # Agreement alone: an episode at a lag of its own adds nothing to it, but would make a good model look bad.
            products[k].append(gained(at_lag, d.targets[k]) - gained(at_lag, np.zeros_like(d.targets[k])))
    joined = [np.concatenate(products[k]) for k in lags]
    visible = any(product.sum() > MARGIN * total and significant(product, level) for product in joined)
    return {k: np.concatenate(gains[k]) for k in lags}, visible


def mend(recordings: Recordings, alignment: Alignment) -> Recordings:
    """The same recordings with every action moved to the row whose change it leads to, and the ends without one dropped.

    Nothing is copied: episodes that were out of step become views that are some rows shorter. `actions.leads` is then True,
    and what was done stands in `meta["alignment"]` and in the `alignment/lag` of each episode.

    Raises DataError when the lag could not be told.
    """
    if alignment.lag is None:
        raise DataError(str(alignment))
    lags = {i: alignment.lag if e.lag is None else e.lag for i, e in alignment.episodes.items()}
    episodes = tuple(
        _moved(episode, lags.get(i, alignment.lag)) if ACTION in episode else episode for i, episode in enumerate(recordings)
    )
    record = {"lag": alignment.lag, "moved": {str(i): k for i, k in lags.items() if k}, "watched": list(alignment.watched)}
    actions = recordings.actions and replace(recordings.actions, leads=True)
    return replace(recordings, episodes=episodes, actions=actions, meta={**recordings.meta, "alignment": record})


def _moved(episode: Episode, lag: int) -> Episode:
    if not lag:
        return episode
    if abs(lag) >= episode.length:
        raise DataError(f"{episode} has {episode.length} steps, too few to move its actions by {abs(lag)}.")

    def moves(name: str) -> int:
        """What was done moves, what is said of it, and which of that is there."""
        about = name.removeprefix(VALID)
        return lag if about == ACTION or about.startswith(f"{LABEL}{ACTION}.") else 0

    first = min(0, lag)
    slices = {name: replace(where, start=where.start + moves(name) - first) for name, where in episode.slices.items()}
    return replace(episode, slices=slices, length=episode.length - abs(lag), meta={**episode.meta, "alignment/lag": lag})
